"""Where a tenant's endpoint leads: which pods take its connections, and which Secret holds its token. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from copilot_operator.domain.manifest import Manifest, labels_of
from copilot_operator.domain.naming import (
    CORDONED_LABEL,
    GATEWAY_NAME,
    NAME_LABEL,
    POOL_LABEL,
    SERVER_NAME,
    TENANT_LABEL,
    slug,
)
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.reasons import condition
from copilot_operator.plugin.waits import is_ready


@dataclass(frozen=True)
class Endpoint:
    """``labels`` select the pods that are led to, ``what`` says what they are; ``notice``: why it may not answer.
    ``tenant``: "" if it is nobody's. ``preferred``: the pod to lead to while it is ready."""

    tenant: str
    namespace: str
    secret: str
    port: int
    labels: str
    what: str
    notice: str = ""
    preferred: str = ""


def endpoint_of(tenant: Manifest, pool: Manifest | None) -> Endpoint:
    """Raises PluginError for a tenant that has none yet."""
    metadata, spec, status = tenant["metadata"], tenant.get("spec") or {}, tenant.get("status") or {}
    name, pool_name = metadata["name"], (spec.get("poolRef") or {}).get("name", "")
    ready = condition(tenant, "Ready")
    why = f"{ready['reason']}: {ready.get('message', '')}" if ready else "the operator has told nothing of it yet"
    found = status.get("endpoint")
    if not found:
        raise PluginError(f"tenant {name} has no endpoint yet ({why}); see: kubectl copilot explain {name}")
    if pool is None:
        raise PluginError(f"tenant {name} names the pool {pool_name}, which is not there ({why})")
    if has_gateway(pool):
        labels, what = f"{NAME_LABEL}={GATEWAY_NAME},{POOL_LABEL}={slug(pool_name)}", f"a gateway of pool {pool_name}"
    else:
        labels, what = server_labels(name), f"the server of tenant {name}"
    notice = "" if ready.get("status") == "True" else why
    return Endpoint(name, metadata["namespace"], found["secretName"], found["port"], labels, what, notice)


def has_gateway(pool: Manifest) -> bool:
    return bool(((pool.get("spec") or {}).get("gateway") or {}).get("enabled", True))


def is_shared(pool: Manifest) -> bool:
    return (pool.get("spec") or {}).get("isolation") == "Shared"


def server_labels(tenant: str) -> str:
    """Selects the pods of a Dedicated tenant's server."""
    return f"{NAME_LABEL}={SERVER_NAME},{TENANT_LABEL}={slug(tenant)}"


def pool_labels(pool: str) -> str:
    """Selects the pods of all servers of a pool."""
    return f"{NAME_LABEL}={SERVER_NAME},{POOL_LABEL}={slug(pool)}"


def pod_to_lead_to(endpoint: Endpoint, pods: Iterable[Manifest]) -> str:
    """The preferred, else the youngest, that is ready and not being drained; raises PluginError if there is none."""
    found = [pod for pod in pods if is_ready(pod) and labels_of(pod).get(CORDONED_LABEL) != "true"]
    if not found:
        why = f" ({endpoint.notice})" if endpoint.notice else ""
        command = f"explain {endpoint.tenant} -n {endpoint.namespace}" if endpoint.tenant else "doctor"
        raise PluginError(
            f"{endpoint.what} can't be connected to: no pod of it is ready{why}; see: kubectl copilot {command}"
        )

    def rank(pod: Manifest) -> tuple[bool, str, str]:
        metadata = pod["metadata"]
        return metadata["name"] == endpoint.preferred, metadata.get("creationTimestamp", ""), metadata["name"]

    return str(max(found, key=rank)["metadata"]["name"])
