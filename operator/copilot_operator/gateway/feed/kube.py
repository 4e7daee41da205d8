"""The API server, as far as a gateway needs it: list and watch, for as long as it takes. Reads only."""

import asyncio
import json
import logging
import os
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

log = logging.getLogger(__name__)

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONNECT_S: Final = 5.0
LIST_S: Final = 30.0
ASK_S: Final = 5.0
WATCH_S: Final = 240  # after which the API server ends a watch
SILENCE_S: Final = 120.0  # bookmarks come about every minute: a watch that tells nothing for longer is dead
FIRST_BACKOFF_S: Final = 0.2
LAST_BACKOFF_S: Final = 10.0
PAGE: Final = 500


class Watcher(Protocol):
    """Who is told what there is of one kind. Objects as the API server sends them."""

    def listed(self, objects: list[dict[str, Any]]) -> None:
        """All there are; what was known before and is not among them is gone."""

    def changed(self, obj: dict[str, Any]) -> None:
        """New, or another version."""

    def gone(self, obj: dict[str, Any]) -> None:
        """Deleted, or selected no more."""


@dataclass(frozen=True)
class Access:
    """Where the API server is, and who we are: files of the pod's service account, whose token changes every hour."""

    url: str
    token_file: Path
    ca_file: Path
    namespace: str

    @staticmethod
    def of_pod(env: Mapping[str, str] = os.environ, account: Path = ACCOUNT) -> "Access":
        """Raises OSError or KeyError outside of a pod."""
        host, port = env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"]
        host = f"[{host}]" if ":" in host else host
        namespace = (account / "namespace").read_text().strip()
        return Access(f"https://{host}:{port}", account / "token", account / "ca.crt", namespace)


class _Outdated(Exception):
    """The version that a watch was to begin from is not kept any more (410)."""


class KubeReader:
    """Lists and watches in the namespace of the pod."""

    def __init__(self, access: Access, client: httpx.AsyncClient, silence_s: float = SILENCE_S) -> None:
        self._access, self._client, self._silence_s = access, client, silence_s

    @staticmethod
    @asynccontextmanager
    async def open(access: Access, silence_s: float = SILENCE_S) -> "AsyncIterator[KubeReader]":
        secure = access.url.startswith("https:")
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(access.ca_file)) if secure else False
        timeout = httpx.Timeout(LIST_S, connect=CONNECT_S)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=4)
        async with httpx.AsyncClient(
            base_url=access.url, verify=verify, timeout=timeout, limits=limits, trust_env=False
        ) as client:
            yield KubeReader(access, client, silence_s)

    async def pod(self, name: str) -> dict[str, Any] | None:
        """A pod as it is stored now, no cache in between; None: there is none. Raises OSError or ValueError: nobody
        says."""
        try:
            async with asyncio.timeout(ASK_S):
                answer = await self._client.get(f"{self._path('pods')}/{name}", headers=self._headers())
        except httpx.HTTPError as error:
            raise OSError(_said(error)) from error
        if answer.status_code == HTTPStatus.NOT_FOUND and answer.json().get("reason") == "NotFound":
            return None
        _check(answer.status_code, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    async def follow(self, resource: str, selector: Mapping[str, str], watcher: Watcher) -> None:
        """Tell ``watcher`` of ``resource`` (``secrets``, ``pods``) until cancelled. ``selector`` is a query."""
        backoff_s, version = FIRST_BACKOFF_S, ""
        while True:
            try:
                if not version:
                    version = await self._list(resource, selector, watcher)
                version = await self._watch(resource, selector, version, watcher)
                backoff_s = FIRST_BACKOFF_S
            except Exception as error:  # whatever it is, who follows must not stop to
                version = "" if isinstance(error, _Outdated) else version
                log.warning("cannot follow %s: %s", resource, _said(error), extra={"selector": str(dict(selector))})
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))
                backoff_s = min(LAST_BACKOFF_S, backoff_s * 2)

    async def _list(self, resource: str, selector: Mapping[str, str], watcher: Watcher) -> str:
        found: list[dict[str, Any]] = []
        query = {**selector, "limit": str(PAGE)}
        while True:
            async with asyncio.timeout(LIST_S):
                answer = await self._client.get(self._path(resource), params=query, headers=self._headers())
            _check(answer.status_code, answer.text)
            page = answer.json()
            found += page.get("items") or ()
            if not (again := page["metadata"].get("continue")):
                watcher.listed(found)
                return str(page["metadata"]["resourceVersion"])
            query["continue"] = again

    async def _watch(self, resource: str, selector: Mapping[str, str], version: str, watcher: Watcher) -> str:
        """The version up to which all was told when the watch ended."""
        query = {
            **selector, "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }  # fmt: skip
        timeout = httpx.Timeout(self._silence_s, connect=CONNECT_S)
        async with self._client.stream(
            "GET", self._path(resource), params=query, headers=self._headers(), timeout=timeout
        ) as answer:
            if answer.status_code != HTTPStatus.OK:
                await answer.aread()
                _check(answer.status_code, answer.text)
            async for line in answer.aiter_lines():
                if not line.strip():
                    continue
                event = json.loads(line)
                obj = event["object"]
                match event["type"]:
                    case "ADDED" | "MODIFIED":
                        watcher.changed(obj)
                    case "DELETED":
                        watcher.gone(obj)
                    case "ERROR":
                        _check(int(obj.get("code", 500)), str(obj.get("message", "")))
                version = obj["metadata"]["resourceVersion"]
        return version

    def _path(self, resource: str) -> str:
        return f"/api/v1/namespaces/{self._access.namespace}/{resource}"

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._access.token_file.read_text().strip()}", "Accept": "application/json"}


def _check(status: int, text: str) -> None:
    if status == HTTPStatus.GONE:
        raise _Outdated
    if status != HTTPStatus.OK:
        raise ValueError(f"the API server answers {status}: {text[:300]}")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
