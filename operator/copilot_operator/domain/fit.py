"""Does a tenant go together with its pool? Wrong combinations that neither object shows alone."""

from copilot_operator.api.resources import ResourceOverrides, overlay
from copilot_operator.api.tenant import TenantSpec
from copilot_operator.domain.snapshot import Finding, TenantSnapshot


def own_resources(spec: TenantSpec) -> ResourceOverrides | None:
    """What the tenant says of its server's resources."""
    return spec.server.resources if spec.server else None


def misfit(snapshot: TenantSnapshot) -> Finding | None:
    """What is wrong with the two together; None as long as one of them could not be read."""
    if snapshot.spec is None or snapshot.pool is None:
        return None
    try:
        overlay(snapshot.pool.spec.server.resources, own_resources(snapshot.spec))
    except ValueError as error:
        return Finding("InvalidSpec", f"spec.server.resources: {error}")
    return None
