"""The API server as a test or the demo asks it: raw objects, one blocking request a call, each with a deadline."""

import asyncio
import http.client
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode, urlsplit

from copilot_operator.cluster.client import APPLY, JSON, MERGE, Access, load_access
from copilot_operator.domain.kinds import DEPLOYMENT, EVENT, POOL, SECRET, SERVICE, TENANT, Kind
from tests.cluster.api import kubectl

Object: TypeAlias = dict[str, Any]

NAMESPACE: Final = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
CONFIG_MAP: Final = Kind("", "v1", "configmaps", "ConfigMap")
AUTOSCALER: Final = Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
BUILT_IN: Final = {
    kind.kind: kind for kind in (NAMESPACE, CONFIG_MAP, SECRET, SERVICE, DEPLOYMENT, POOL, TENANT, AUTOSCALER)
}

TIMEOUT_S: Final = 30.0
MANAGER: Final = "tests"


class KubeError(Exception):
    """The API server said no. ``status`` is the HTTP status."""

    def __init__(self, what: str, status: int, message: str) -> None:
        super().__init__(f"{what}: {status}: {message}")
        self.status, self.message = status, message


@dataclass(frozen=True)
class Kube:
    """An administrator's view of a cluster."""

    kubeconfig: Path
    access: Access
    authorization: str | None

    @classmethod
    def of(cls, kubeconfig: Path) -> "Kube":
        """Not to be called from a running event loop."""

        async def load() -> tuple[Access, str | None]:
            access = await load_access(str(kubeconfig))
            return access, await access.configuration.get_api_key_with_prefix("BearerToken")

        return cls(kubeconfig, *asyncio.run(load()))

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        return self.request("GET", kind.path(namespace, name))

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """None if there is none."""
        try:
            return self.get(kind, namespace, name)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: Kind, namespace: str = "", selector: str = "") -> Sequence[Object]:
        query = {"labelSelector": selector} if selector else {}
        items: list[Object] = self.request("GET", kind.path(namespace), query)["items"]
        return items

    def create(self, manifest: Object) -> Object:
        kind = BUILT_IN[manifest["kind"]]
        return self.request("POST", kind.path(manifest["metadata"].get("namespace", "")), body=manifest)

    def apply(self, manifest: Object) -> Object:
        """Server-side apply, as a person with kubectl does it."""
        metadata, kind = manifest["metadata"], BUILT_IN[manifest["kind"]]
        path = kind.path(metadata.get("namespace", ""), metadata["name"])
        return self.request("PATCH", path, {"fieldManager": MANAGER, "force": "true"}, manifest, APPLY)

    def merge(self, kind: Kind, namespace: str, name: str, change: Object) -> Object:
        """JSON merge patch."""
        return self.request("PATCH", kind.path(namespace, name), {"fieldManager": MANAGER}, change, MERGE)

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Ask for the deletion; one that is gone already is fine."""
        try:
            self.request("DELETE", kind.path(namespace, name), {"propagationPolicy": "Background"})
        except KubeError as error:
            if error.status != 404:
                raise

    def history(self, kind: Kind, namespace: str, since: str) -> Sequence[tuple[str, Object]]:
        """What happened to the objects of a kind after the resourceVersion ``since``: (ADDED or MODIFIED, object)."""
        query = {"watch": "true", "resourceVersion": since, "timeoutSeconds": "1"}
        lines = self._send("GET", kind.path(namespace), query, None, JSON).splitlines()
        found = [json.loads(line) for line in lines if line.strip()]
        return [(line["type"], line["object"]) for line in found]

    def events(self, namespace: str, name: str) -> Sequence[Object]:
        """Events of ours about one tenant or pool, oldest first."""
        found = [
            event
            for event in self.list(EVENT, namespace)
            if event["involvedObject"]["name"] == name and event.get("reportingComponent") == "copilot-operator"
        ]
        return sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))

    def token_of(self, namespace: str, account: str, *, seconds: int = 7200) -> str:
        """A token of a ServiceAccount (authentication.k8s.io/v1 TokenRequest)."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return str(self.request("POST", path, body=body)["status"]["token"])

    def kubectl(self, *words: str, stdin: str = "", timeout_s: float = 120.0) -> str:
        """Run kubectl and return what it printed; raises KubeError with what it complained of."""
        command = [kubectl(), f"--kubeconfig={self.kubeconfig}", f"--request-timeout={timeout_s:g}s", *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode != 0:
            raise KubeError(f"kubectl {' '.join(words[:4])}", done.returncode, done.stderr.strip()[-2000:])
        return done.stdout

    def text(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """What is no JSON, such as logs; raises KubeError."""
        return self._send("GET", path, query or {}, None, JSON).decode(errors="replace")

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content: str = JSON,
    ) -> Object:
        """One request; raises KubeError for an answer of 400 and above."""
        answer: Object = json.loads(self._send(method, path, query or {}, body, content))
        return answer

    def _send(self, method: str, path: str, query: Mapping[str, str], body: Object | None, content: str) -> bytes:
        server = urlsplit(self.access.configuration.host)
        connection: http.client.HTTPConnection
        if server.scheme == "https":
            context = self.access.ssl_context
            connection = http.client.HTTPSConnection(server.netloc, context=context, timeout=TIMEOUT_S)
        else:
            connection = http.client.HTTPConnection(server.netloc, timeout=TIMEOUT_S)
        headers = {"Accept": JSON, "Content-Type": content}
        if self.authorization:
            headers["Authorization"] = self.authorization
        try:
            where = f"{server.path}{path}" + (f"?{urlencode(query)}" if query else "")
            connection.request(method, where, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise KubeError(f"{method} {path}", answer.status, _message(text))
        return text


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500].decode(errors="replace")


def conditions(obj: Object) -> dict[str, Object]:
    """Conditions of an object's status by type."""
    return {condition["type"]: condition for condition in (obj.get("status") or {}).get("conditions") or ()}


def ready_reason(obj: Object | None) -> str:
    """Reason of the condition Ready, "" without one."""
    return str(conditions(obj or {}).get("Ready", {}).get("reason", ""))


def is_ready(obj: Object | None) -> bool:
    return conditions(obj or {}).get("Ready", {}).get("status") == "True"


def write_kubeconfig(path: Path, like: Path, token: str) -> Path:
    """A kubeconfig for the cluster that ``like`` names, with a token as the only credential."""
    import yaml

    given = yaml.safe_load(like.read_text())
    current = next(c["context"] for c in given["contexts"] if c["name"] == given["current-context"])
    cluster = next(c["cluster"] for c in given["clusters"] if c["name"] == current["cluster"])
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": {"token": token}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    os.chmod(path, 0o600)
    return path


def pods_of(kube: Kube, namespace: str, tenant_label: str = "") -> Iterator[Object]:
    """Pods of servers, also those that are ending."""
    from copilot_operator.domain.kinds import POD

    selector = "app.kubernetes.io/name=copilot" + (
        f",copilot-operator.io/tenant={tenant_label}" if tenant_label else ""
    )
    yield from kube.list(POD, namespace, selector)
