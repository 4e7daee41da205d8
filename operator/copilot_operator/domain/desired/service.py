"""The Service that a tenant's applications connect to. Without a gateway it selects the server itself."""

from typing import Final

from copilot_operator.domain.desired.common import child, selector, stamped
from copilot_operator.domain.kinds import SERVICE
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import TenantSnapshot

CLI_PORT: Final = 4321
AGENT_PORT: Final = 4322


def service(snapshot: TenantSnapshot) -> Manifest:
    port = {"name": "copilot", "port": CLI_PORT, "targetPort": CLI_PORT, "protocol": "TCP"}
    spec = {"type": "ClusterIP", "selector": selector(snapshot), "ports": [port]}
    return stamped(child(SERVICE, snapshot) | {"spec": spec})


def host(snapshot: TenantSnapshot) -> str:
    """DNS name of the Service inside the cluster, without the cluster's own domain, which we can't know."""
    return f"{snapshot.server}.{snapshot.namespace}.svc"
