"""What an application knows of its tenant: the connection Secret, and nothing else."""

import base64
from dataclasses import dataclass, field

from copilot_operator.domain.kinds import SECRET, SERVICE, TENANT
from tests.support.kube import Kube


@dataclass(frozen=True)
class ConnectionData:
    """The values of a connection Secret."""

    host: str
    port: int
    url: str
    token: str = field(repr=False)
    address: str = ""  # host:port without DNS, for clients outside of pods

    @classmethod
    def of(cls, kube: Kube, namespace: str, tenant: str) -> "ConnectionData":
        """Of a tenant that has an endpoint."""
        endpoint = kube.get(TENANT, namespace, tenant)["status"]["endpoint"]
        data = kube.get(SECRET, namespace, endpoint["secretName"])["data"]
        values = {key: base64.b64decode(value).decode() for key, value in data.items()}
        service = kube.get(SERVICE, namespace, values["host"].split(".")[0])
        if other := service["spec"].get("externalName"):  # the gateway's
            service = kube.get(SERVICE, namespace, other.split(".")[0])
        address = f"{service['spec']['clusterIP']}:{values['port']}"
        return cls(values["host"], int(values["port"]), values["cliUrl"], values["token"], address)
