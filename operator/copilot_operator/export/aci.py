"""Azure Container Instances: a tenant's server as a container group. Pure.

What is secret, and what only Azure's side knows, is a parameter of the template: nobody writes it into a file.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from copilot_operator.api.outside import CA_VARIABLE
from copilot_operator.api.quantity import quantity_value
from copilot_operator.domain.desired.deployment import TOKEN_ENV
from copilot_operator.domain.desired.service import AGENT_PORT, CLI_PORT
from copilot_operator.domain.manifest import Manifest
from copilot_operator.export.manifests import standalone
from copilot_operator.export.servers import ExportError, Server

API_VERSION: Final = "2023-05-01"
TYPE: Final = "Microsoft.ContainerInstance/containerGroups"
TEMPLATE_SCHEMA: Final = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
START_S: Final = 60  # there is no startup probe; so long the others wait
GIGABYTE: Final = 10**9
LONGEST_NAME: Final = 63
VOLUME_NAMES: Final = ("data", "logs", "tmp")
CPU_OF_AGENT, MEMORY_OF_AGENT_GB = 0.1, 0.1
CPU_WITHOUT_LIMIT, MEMORY_GB = 1.0, 1.5  # Azure's own defaults

NOTES: Final = (
    "Azure mounts a file share only into containers that run as root: build an image FROM yours with USER 0",
    "nothing drains a server that Azure stops: running turns are lost",
    "tenants that connect directly trust the network: the group has a private address, in the subnet that you name",
    "a file share must keep locks and give back what was written: take the premium tier, and try a restart",
)


@dataclass(frozen=True)
class Parameter:
    """A value that is asked for when the template is deployed."""

    name: str
    text: str
    secret: bool = False
    default: str | None = None
    least: int = 1  # characters

    def declared(self) -> dict[str, Any]:
        kind = {"type": "securestring" if self.secret else "string", "metadata": {"description": self.text}}
        return kind | ({"minLength": self.least} if self.default is None else {"defaultValue": self.default})

    @property
    def variable(self) -> str:
        """Its name in a shell."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", self.name).upper()


LOCATION: Final = Parameter("location", "Region of the container group.", default="[resourceGroup().location]")
SUBNET: Final = Parameter("subnetId", "Resource id of a subnet that is delegated to Azure Container Instances.")
ACCOUNT: Final = Parameter("storageAccountName", "Storage account with a file share for each server.")
ACCOUNT_KEY: Final = Parameter("storageAccountKey", "Key of the storage account.", secret=True)


@dataclass
class Values:
    """How parameters are written: as references of a template, or as ``${VARIABLES}`` for envsubst."""

    as_template: bool
    asked: dict[str, Parameter] = field(default_factory=dict)

    def __call__(self, parameter: Parameter) -> str:
        self.asked[parameter.name] = parameter
        return f"[parameters('{parameter.name}')]" if self.as_template else f"${{{parameter.variable}}}"


def template(servers: Sequence[Server]) -> Manifest:
    """An ARM template with a container group for each server (``az deployment group create --template-file``)."""
    values = Values(as_template=True)
    groups = [group(each, values) for each in servers]
    return {
        "$schema": TEMPLATE_SCHEMA,
        "contentVersion": "1.0.0.0",
        "parameters": {name: values.asked[name].declared() for name in sorted(values.asked)},
        "resources": groups,
    }


def document(servers: Sequence[Server]) -> tuple[Manifest, list[Parameter]]:
    """One container group (``az container create --file``) and its parameters. Raises ExportError."""
    if len(servers) != 1:
        raise ExportError(
            f"there are {len(servers)} tenants, and az container create takes one container group a file: "
            "name one with --tenant, or write --format arm"
        )
    values = Values(as_template=False)
    made = group(servers[0], values)
    return made, list(values.asked.values())


def group(server: Server, values: Values) -> Manifest:
    """The container group. Raises ExportError."""
    snapshot = server.snapshot
    assert snapshot.pool
    if ref := snapshot.pool.spec.server.ca_bundle_config_map_ref:
        raise ExportError(
            f"spec.server.caBundleConfigMapRef: ConfigMap {ref.name} is not there in Azure: leave it out, put the file "
            f"into the image, and write its path as {CA_VARIABLE} into spec.server.env"
        )
    pod = standalone(snapshot)["spec"]["template"]["spec"]
    (agent,), (cli,) = pod["initContainers"], pod["containers"]
    data, logs, tmp = VOLUME_NAMES
    share = {
        "shareName": snapshot.server,
        "storageAccountName": values(ACCOUNT),
        "storageAccountKey": values(ACCOUNT_KEY),
    }
    return {
        "type": TYPE,
        "apiVersion": API_VERSION,
        "name": snapshot.server,
        "location": values(LOCATION),
        "tags": {"tenant": snapshot.name, "pool": snapshot.pool_name},
        "properties": {
            "osType": "Linux",
            "sku": "Standard",
            "restartPolicy": "Always",
            "containers": [
                _container(
                    cli,
                    snapshot.name,
                    values,
                    resources=_resources(cli["resources"]),
                    volumeMounts=[{"name": name, "mountPath": f"/{name}"} for name in (data, logs, tmp)],
                    livenessProbe=_probe("/livez", period_s=10, failures=6),
                    readinessProbe=_probe("/readyz", period_s=5, failures=2),
                ),
                _container(
                    agent,
                    snapshot.name,
                    values,
                    resources={"requests": {"cpu": CPU_OF_AGENT, "memoryInGB": MEMORY_OF_AGENT_GB}},
                    livenessProbe=_probe("/agentz", period_s=30, failures=3),
                ),
            ],
            "ipAddress": {"type": "Private", "ports": [{"port": CLI_PORT, "protocol": "TCP"}]},
            "subnetIds": [{"id": values(SUBNET)}],
            "volumes": [
                {"name": data, "azureFile": share},
                {"name": logs, "emptyDir": {}},
                {"name": tmp, "emptyDir": {}},
            ],
        },
    }


def instructions(servers: Sequence[Server], parameters: Sequence[Parameter], file: str) -> list[str]:
    """How to deploy it, and what is lost: lines for people. No ``parameters``: it is a template."""
    lines = []
    if parameters:
        lines += ["Set these variables, the secret ones by a program, and put them in where it is read:", ""]
        lines += [f"  {each.variable}: {each.text}" for each in parameters]
        names = " ".join(f"${each.variable}" for each in parameters)
        lines += ["", f"envsubst '{names}' < {file} > /dev/shm/group.yaml", "az container create -g GROUP \\"]
        lines += ["  --file /dev/shm/group.yaml; rm /dev/shm/group.yaml"]
    else:
        lines += [f"az deployment group create -g GROUP --template-file {file} asks for its parameters."]
    lines += ["A connection token: openssl rand -hex 32. Applications need it, and the group's address."]
    shares = ", ".join(each.snapshot.server for each in servers)
    lines += [f"File shares: {shares}.", ""]
    notes = dict.fromkeys((*NOTES, *(note for each in servers for note in each.notes)))
    return lines + [f"Note: {note}." for note in notes]


def _container(container: Manifest, tenant: str, values: Values, **more: Any) -> Manifest:
    if any("configMapKeyRef" in (each.get("valueFrom") or {}) for each in container["env"]):
        names = [each["name"] for each in container["env"] if "configMapKeyRef" in (each.get("valueFrom") or {})]
        raise ExportError(f"spec.server.env: {', '.join(names)}: a ConfigMap is not there in Azure, write its value")
    command = container.get("command", ["copilot-operator"])
    return {
        "name": container["name"],
        "properties": {
            "image": container["image"],
            "command": [*command, *container["args"]],
            "environmentVariables": [_variable(each, tenant, values) for each in container["env"]],
            "ports": [{"port": each["containerPort"], "protocol": "TCP"} for each in container["ports"]],
            **more,
        },
    }


def _variable(variable: Manifest, tenant: str, values: Values) -> Manifest:
    name = variable["name"]
    if "valueFrom" not in variable:
        return {"name": name, "value": _literal(variable["value"], values)}
    reference = variable["valueFrom"]["secretKeyRef"]
    if name == TOKEN_ENV:
        text, least = f"Token that applications of {tenant} connect with.", 32
    else:
        text, least = f"{name} of {tenant}: key {reference['key']} of the Secret {reference['name']}.", 1
    return {"name": name, "secureValue": values(Parameter(_identifier(name, tenant), text, secret=True, least=least))}


def _literal(value: str, values: Values) -> str:
    """A template takes what begins with a bracket as an expression."""
    return f"[{value}" if values.as_template and value.startswith("[") else value


def _identifier(*words: str) -> str:
    """``COPILOT_CONNECTION_TOKEN`` of ``alice``: copilotConnectionTokenAlice."""
    parts = [part for word in words for part in re.split(r"[^A-Za-z0-9]+", word.lower()) if part]
    return parts[0] + "".join(part.capitalize() for part in parts[1:])


def _resources(resources: Manifest) -> Manifest:
    """A container gets what it requests, and no more: what the pool's limits allow, or else what it requests."""
    found = dict(_amounts(resources.get("requests") or {})) | dict(_amounts(resources.get("limits") or {}))
    if "cpu" not in (resources.get("limits") or {}):
        found["cpu"] = max(CPU_WITHOUT_LIMIT, found.get("cpu", 0.0))
    return {"requests": {"cpu": found["cpu"], "memoryInGB": found.get("memoryInGB", MEMORY_GB)}}


def _amounts(quantities: dict[str, str]) -> Iterator[tuple[str, float]]:
    if "cpu" in quantities:
        yield "cpu", max(0.1, math.ceil(float(quantity_value(quantities["cpu"])) * 10) / 10)
    if "memory" in quantities:
        yield "memoryInGB", max(0.1, math.ceil(float(quantity_value(quantities["memory"])) / GIGABYTE * 10) / 10)


def _probe(path: str, *, period_s: int, failures: int) -> Manifest:
    """The containers of a group share their network, so the agent answers for the CLI, as in a pod."""
    return {
        "httpGet": {"path": path, "port": AGENT_PORT, "scheme": "http"},
        "initialDelaySeconds": START_S,
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def as_json(made: Manifest) -> str:
    return json.dumps(made, indent=2) + "\n"
