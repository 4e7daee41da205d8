"""Does a tenant go together with its pool? Wrong combinations that neither object shows alone."""

from copilot_operator.api.resources import ResourceOverrides, overlay
from copilot_operator.api.tenant import TenantSpec
from copilot_operator.domain.snapshot import Finding, TenantSnapshot


def own_resources(spec: TenantSpec) -> ResourceOverrides | None:
    """What the tenant says of its server's resources."""
    return spec.server.resources if spec.server else None


def _asks_for_a_server(spec: TenantSpec) -> Finding | None:
    """What is of no use where servers and volumes are the pool's."""
    if spec.server is not None:
        return Finding("InvalidSpec", "spec.server: leave it out, the servers of a Shared pool are set up in the pool")
    if spec.deletion_policy == "Retain":
        message = "spec.deletionPolicy: leave it out, volumes of a Shared pool go or stay with the pool"
        return Finding("InvalidSpec", message)
    return None


def misfit(snapshot: TenantSnapshot) -> Finding | None:
    """What is wrong with the two together; None as long as one of them could not be read."""
    if snapshot.spec is None or snapshot.pool is None:
        return None
    if snapshot.spec.auth and snapshot.spec.auth.provider and not snapshot.pool.spec.gateway.enabled:
        message = "spec.auth.provider: leave it out, the pool has no gateway that could put the key into sessions"
        return Finding("InvalidSpec", message)
    if not snapshot.has_server:
        return _asks_for_a_server(snapshot.spec)
    try:
        overlay(snapshot.pool.spec.server.resources, own_resources(snapshot.spec))
    except ValueError as error:
        return Finding("InvalidSpec", f"spec.server.resources: {error}")
    return None
