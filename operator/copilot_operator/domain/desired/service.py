"""The Service that a tenant's applications connect to: another name of the gateway's, or, without one, the server's.

With thousands of tenants, Services that select the gateway would each have an EndpointSlice rewritten whenever one of
its pods comes, goes or is not ready for a moment. A name has none.
"""

from typing import Final

from copilot_operator.domain.desired.common import child, selector, stamped
from copilot_operator.domain.kinds import SERVICE
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import CORDONED_LABEL, gateway_of
from copilot_operator.domain.snapshot import TenantSnapshot

CLI_PORT: Final = 4321
AGENT_PORT: Final = 4322
TLS_PORT: Final = 4443  # of gateways that have a certificate
METRICS_PORT: Final = 4323  # of the agent: nothing but metrics


def service(snapshot: TenantSnapshot, *, cordoned: bool = False) -> Manifest:
    """``cordoned``, without a gateway: nothing new is led to the server; no pod without a gateway has that label. Open
    connections stay."""
    assert snapshot.pool
    if snapshot.pool.spec.gateway.enabled:
        name = f"{gateway_of(snapshot.pool_name)}.{snapshot.namespace}.svc.{snapshot.settings.cluster_domain}"
        return stamped(child(SERVICE, snapshot) | {"spec": {"type": "ExternalName", "externalName": name}})
    port = {"name": "copilot", "port": CLI_PORT, "targetPort": CLI_PORT, "protocol": "TCP"}
    selected = selector(snapshot) | ({CORDONED_LABEL: "true"} if cordoned else {})
    spec = {"type": "ClusterIP", "selector": selected, "ports": [port]}
    return stamped(child(SERVICE, snapshot) | {"spec": spec})


def host(snapshot: TenantSnapshot) -> str:
    """DNS name of the Service inside the cluster, without the cluster's own domain, which we can't know."""
    return f"{snapshot.server}.{snapshot.namespace}.svc"
