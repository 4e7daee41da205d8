"""The API server over raw JSON: one method per verb we use, each with a deadline.

Raw because a typed model costs seven times ``json.loads`` and refuses odd answers. The Kubernetes client loads the
configuration (kubeconfig, exec plugins, service account) and keeps its token fresh; requests go over aiohttp.
"""

import asyncio
import copy
import json
import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration

from copilot_operator.cluster.errors import Unavailable, from_answer
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest
from copilot_operator.engine.limiter import Limiter

FIELD_MANAGER: Final = "copilot-operator"
STATUS_MANAGER: Final = "copilot-operator-status"
DRAIN_MANAGER: Final = "copilot-operator-drain"  # of what is remembered at a Deployment, apart from what it shall be
PAGE: Final = 100  # objects a page of a list: parsed, a page of Deployments takes 6 MB of memory
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
JSON: Final = "application/json"


@dataclass(frozen=True)
class Access:
    """Where the API server is and how to be let in, as loaded; ``configuration`` refreshes its own token."""

    configuration: Configuration
    ssl_context: ssl.SSLContext | None


class AccessError(Exception):
    """There is no usable configuration of the API server; the message says what was tried."""


async def load_access(kubeconfig: str | None = None) -> Access:
    """In a pod the service account, else ``kubeconfig``, $KUBECONFIG or ~/.kube/config. Raises AccessError."""
    configuration = Configuration()
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            kube_config.load_incluster_config(client_configuration=configuration)
        else:
            await kube_config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    except kube_config.ConfigException as error:
        raise AccessError(str(error)) from error
    context = None
    if configuration.host.startswith("https"):
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # clusters' own CAs often lack what strict mode asks for
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
        if not configuration.verify_ssl:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return Access(configuration, context)


class KubeApi:
    """Raises a :mod:`~copilot_operator.cluster.errors` type for every answer of 400 and above."""

    def __init__(self, access: Access, *, limiter: Limiter | None = None, timeout_s: float = 15.0) -> None:
        self.access = access
        self._limiter = limiter or Limiter()
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self.requests: Counter[tuple[str, str]] = Counter()  # by verb and resource, for metrics and benchmarks

    async def __aenter__(self) -> "KubeApi":
        connector = aiohttp.TCPConnector(limit=64, ssl=self.access.ssl_context or False)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    def apart(self) -> "KubeApi":
        """The same connections with a limiter of its own: for the few requests that must not stand in line."""
        twin = copy.copy(self)
        twin._limiter = Limiter()
        return twin

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        """Raises Absent."""
        return await self._call("get", kind.plural, "GET", kind.path(namespace, name))

    async def version(self) -> str:
        """The API server's, as ``v1.36.3``; "" if it does not say."""
        return str((await self._call("get", "version", "GET", "/version")).get("gitVersion", ""))

    async def schemas(self, group: str, version: str) -> Manifest:
        """What the API server publishes of a group's kinds (OpenAPI v3): anybody with an account may read it.
        Raises Absent."""
        path = f"/openapi/v3/apis/{group}/{version}"
        found: Manifest = (await self._call("get", "openapi", "GET", path))["components"]["schemas"]
        return found

    async def list_pages(
        self, kind: Kind, *, namespace: str = "", selector: str = "", fields: str = ""
    ) -> AsyncIterator[Manifest]:
        """All objects, page by page, at the server's newest state; raises Expired when a page took too long."""
        query = {"limit": str(PAGE)}
        if selector:
            query["labelSelector"] = selector
        if fields:
            query["fieldSelector"] = fields
        while True:
            page = await self._call("list", kind.plural, "GET", kind.path(namespace), query, timeout_s=60.0)
            for item in page.get("items") or []:
                yield item
            if not (token := page.get("metadata", {}).get("continue")):
                return
            query["continue"] = token

    async def apply(
        self, kind: Kind, manifest: Manifest, *, subresource: str = "", manager: str = FIELD_MANAGER
    ) -> Manifest:
        """Server-side apply, taking over what others own; returns the object as stored."""
        metadata = manifest["metadata"]
        manager = STATUS_MANAGER if subresource == "status" else manager
        path = kind.path(metadata["namespace"], metadata["name"], subresource)
        query = {"fieldManager": manager, "force": "true"}
        resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
        return await self._call("patch", resource, "PATCH", path, query, manifest, content_type=APPLY)

    async def merge(self, kind: Kind, namespace: str, name: str, change: Manifest) -> Manifest:
        """JSON merge patch; a ``resourceVersion`` in it makes it conditional (Conflict)."""
        path, query = kind.path(namespace, name), {"fieldManager": FIELD_MANAGER}
        return await self._call("patch", kind.plural, "PATCH", path, query, change, content_type=MERGE)

    async def create(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        """Raises Conflict if it is there already."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("create", kind.plural, "POST", kind.path(namespace), query, manifest)

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        """PUT; the manifest's resourceVersion makes it conditional (Conflict)."""
        metadata = manifest["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"])
        return await self._call("update", kind.plural, "PUT", path, {"fieldManager": FIELD_MANAGER}, manifest)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str, grace_s: int | None = None) -> None:
        """Delete this very object: ``uid`` keeps a namesake that came meanwhile. Raises Absent, Conflict.

        ``grace_s`` None: the object's own grace period.
        """
        options: Manifest = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        await self._call("delete", kind.plural, "DELETE", kind.path(namespace, name), {}, options)

    async def _call(
        self,
        verb: str,
        resource: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        *,
        content_type: str = JSON,
        timeout_s: float | None = None,
    ) -> Manifest:
        assert self._session is not None, "use KubeApi as a context manager"
        what = f"{verb} {path}"
        headers = {"Accept": JSON}
        if authorization := await self.access.configuration.get_api_key_with_prefix("BearerToken"):
            headers["Authorization"] = authorization
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body, separators=(",", ":")).encode(), content_type
        async with self._limiter.slot():
            self.requests[verb, resource] += 1
            try:
                async with (
                    asyncio.timeout(timeout_s or self._timeout_s),
                    self._session.request(
                        method, self.access.configuration.host + path, params=query, data=data, headers=headers
                    ) as answer,
                ):
                    content = await answer.read()
            except TimeoutError as error:
                raise Unavailable(what, 0, "", f"no answer within {timeout_s or self._timeout_s:g} s") from error
            except aiohttp.ClientError as error:
                raise Unavailable(what, 0, "", f"no connection: {error}") from error
            if answer.status >= 400:
                failure = from_answer(what, answer.status, content, answer.headers.get("Retry-After"))
                if answer.status == 429:
                    self._limiter.refused(failure.retry_after_s or 1.0)
                raise failure
        try:
            result: dict[str, Any] = json.loads(content)
        except ValueError as error:
            raise Unavailable(what, 0, "", f"an answer that is no JSON: {error}") from error
        return result
