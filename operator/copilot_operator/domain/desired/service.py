"""The Service that a tenant's applications connect to. Without a gateway it selects the server itself."""

from typing import Final

from copilot_operator.domain.desired.common import child, selector, stamped
from copilot_operator.domain.kinds import GROUP, SERVICE
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import TenantSnapshot

CLI_PORT: Final = 4321
AGENT_PORT: Final = 4322
CORDONED_LABEL: Final = f"{GROUP}/cordoned"  # no pod has it


def service(snapshot: TenantSnapshot, *, cordoned: bool = False) -> Manifest:
    """``cordoned``: nothing new is led to the server. Open connections stay."""
    port = {"name": "copilot", "port": CLI_PORT, "targetPort": CLI_PORT, "protocol": "TCP"}
    selected = selector(snapshot) | ({CORDONED_LABEL: "true"} if cordoned else {})
    spec = {"type": "ClusterIP", "selector": selected, "ports": [port]}
    return stamped(child(SERVICE, snapshot) | {"spec": spec})


def host(snapshot: TenantSnapshot) -> str:
    """DNS name of the Service inside the cluster, without the cluster's own domain, which we can't know."""
    return f"{snapshot.server}.{snapshot.namespace}.svc"
