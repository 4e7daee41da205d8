"""What leads a server out of a company's network: variables, and the file with the authorities that it trusts.

Each variable is there in capitals and not: the CLI reads either, of its tools some the one and some the other.
"""

from typing import Final

from copilot_operator.api.outside import CA_VARIABLE, ProxySpec
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import TenantSnapshot

VOLUME: Final = "ca-bundle"
DIRECTORY: Final = "/etc/copilot-operator/ca"
FILE: Final = "ca.crt"
ALWAYS_DIRECT: Final = ("localhost", "127.0.0.1", "::1", ".svc")  # what talks inside of the pod, and Services


def outside_env(snapshot: TenantSnapshot) -> list[Manifest]:
    assert snapshot.pool
    server = snapshot.pool.spec.server
    values = proxy_variables(server.proxy, snapshot.settings.cluster_domain) if server.proxy else {}
    if server.ca_bundle_config_map_ref:
        values[CA_VARIABLE] = f"{DIRECTORY}/{FILE}"
    return [{"name": name, "value": value} for name, value in values.items()]


def proxy_variables(proxy: ProxySpec, cluster_domain: str) -> dict[str, str]:
    """By name. ``noProxy`` comes first, and what is asked directly anyway after it, each once."""
    direct = dict.fromkeys((*proxy.no_proxy, *ALWAYS_DIRECT, f".{cluster_domain}"))
    values = {"HTTP_PROXY": proxy.http_proxy, "HTTPS_PROXY": proxy.https_proxy, "NO_PROXY": ",".join(direct)}
    given = {name: value for name, value in values.items() if value is not None}
    return {spelled: value for name, value in given.items() for spelled in (name, name.lower())}


def outside_volumes(snapshot: TenantSnapshot) -> list[Manifest]:
    assert snapshot.pool
    if (ref := snapshot.pool.spec.server.ca_bundle_config_map_ref) is None:
        return []
    return [{"name": VOLUME, "configMap": {"name": ref.name, "items": [{"key": ref.key, "path": FILE}]}}]


def outside_mounts(snapshot: TenantSnapshot) -> list[Manifest]:
    """The file alone: one of a directory would change under a running server, with a bundle that may be broken."""
    return [
        {"name": each["name"], "mountPath": f"{DIRECTORY}/{FILE}", "subPath": FILE, "readOnly": True}
        for each in outside_volumes(snapshot)
    ]
