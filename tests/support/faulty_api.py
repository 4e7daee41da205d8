"""A reverse proxy before the real API server that misbehaves when told to, and takes note of every request.

Plain HTTP towards the client, whose bearer token is passed on: what it may do is decided by the real server.
"""

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

import aiohttp
from aiohttp import web

from copilot_operator.cluster.client import Access

WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
PASSED_ON: Final = ("Authorization", "Accept", "Content-Type", "User-Agent")
EXPIRED: Final = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}


@dataclass(frozen=True)
class Request:
    """One request as it came in; ``at`` is the loop's time, ``faulty`` that a fault answered it."""

    at: float
    method: str
    path: str
    watch: bool
    faulty: bool

    @property
    def resource(self) -> str:
        """Plural, with the subresource: ``copilottenants/status``."""
        parts = self.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        if parts[:1] == ["namespaces"] and len(parts) > 2:
            parts = parts[2:]
        return "/".join([parts[0], *parts[2:]]) if parts else self.path


@dataclass
class Fault:
    """What happens to requests it applies to, ``times`` of them (None: to all, until it is taken away).

    ``status`` answers with it; 0 hangs until the fault is taken away; -1 breaks the connection.
    """

    status: int
    method: str = ""  # "" is any
    path: str = ""  # a regular expression that is searched for
    watch: bool | None = None  # None is both
    times: int | None = None
    every: int = 1  # only each so-many-th request
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False  # the server does what is asked, only the answer is lost
    seen: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, method: str, path: str, watch: bool) -> bool:
        """Whether this request is to suffer; counts it."""
        if self.over.is_set() or (self.method and method != self.method) or self.watch not in (None, watch):
            return False
        if not re.search(self.path, path):
            return False
        self.seen += 1
        if self.seen % self.every:
            return False
        if self.times is not None:
            self.times -= 1
            if self.times <= 0:
                self.over.set()
        return True


class _Watch:
    """One open watch: lines pass until it is muted or ended."""

    def __init__(self, request: web.Request) -> None:
        self.request, self.path = request, request.path
        self.muted = False
        self.last_words: bytes | None = None
        self.end = asyncio.Event()


class FaultyApi:
    """``async with FaultyApi(access) as api``: ``api.url`` is the server to name in a kubeconfig."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self._watches: set[_Watch] = set()
        self._port = 0

    async def __aenter__(self) -> "FaultyApi":
        connector = aiohttp.TCPConnector(limit=0, ssl=self._access.ssl_context or False)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._upstream = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        application = web.Application(client_max_size=16 * 1024**2)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fault in self.faults:
            fault.over.set()
        self.cut()
        await self._runner.cleanup()
        await self._upstream.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def kubeconfig(self, path: Path, token: str) -> Path:
        """Write one whose only credential is ``token``."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": self.url}}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def inject(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def heal(self, *faults: Fault) -> None:
        """Take these faults away, or all; what hangs goes on."""
        for fault in faults or tuple(self.faults):
            fault.over.set()
            self.faults.remove(fault)

    @contextlib.contextmanager
    def suffering(self, *faults: Fault) -> Iterator[None]:
        for fault in faults:
            self.inject(fault)
        try:
            yield
        finally:
            self.heal(*faults)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """The API server is gone: every connection breaks, open watches too."""
        with self.suffering(Fault(-1)):
            self.cut()
            yield

    def cut(self, path: str = "") -> int:
        """Break the open watches that ``path`` is found in; returns how many."""
        return self._end(path, None)

    def expire(self, path: str = "") -> int:
        """Tell the open watches that ``path`` is found in that their resourceVersion is too old (410), and end them."""
        line = json.dumps({"type": "ERROR", "object": EXPIRED | {"message": "too old resource version"}})
        return self._end(path, line.encode() + b"\n")

    def mute(self, path: str = "") -> int:
        """Nothing more comes over the open watches that ``path`` is found in, and nothing tells the client so."""
        found = [watch for watch in self._watches if re.search(path, watch.path)]
        for watch in found:
            watch.muted = True
        return len(found)

    def open_watches(self, path: str = "") -> int:
        return sum(bool(re.search(path, watch.path)) for watch in self._watches)

    def writes(self, since: float = 0.0, *, leases: bool = False) -> Counter[tuple[str, str]]:
        """Writes that reached the server, by method and path. The Lease's only if asked for."""
        return Counter(
            (r.method, r.path)
            for r in self.requests
            if r.method in WRITES and not r.faulty and r.at >= since and (leases or r.resource != "leases")
        )

    def since(self, at: float, wanted: Callable[[Request], bool] = lambda request: True) -> list[Request]:
        return [request for request in self.requests if request.at >= at and wanted(request)]

    def _end(self, path: str, last_words: bytes | None) -> int:
        found = [watch for watch in self._watches if re.search(path, watch.path)]
        for watch in found:
            watch.last_words = last_words
            watch.end.set()
        return len(found)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") in ("true", "1")
        fault = next((f for f in self.faults if f.takes(request.method, request.path, watch)), None)
        lost_later = fault is not None and fault.after
        at = asyncio.get_running_loop().time()
        self.requests.append(Request(at, request.method, request.path, watch, fault is not None and not lost_later))
        if fault and not lost_later and (answer := await self._fail(request, fault)):
            return answer
        headers = {"Accept-Encoding": "identity"}
        headers |= {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        address = self._access.configuration.host + request.raw_path
        body = await request.read()
        try:
            async with self._upstream.request(request.method, address, data=body or None, headers=headers) as upstream:
                if watch and upstream.status == 200:
                    return await self._relay(request, upstream)
                content = await upstream.read()
        except aiohttp.ClientError:
            return self._break(request)
        if fault and lost_later and (answer := await self._fail(request, fault)):
            return answer
        passed = {name: upstream.headers[name] for name in ("Content-Type", "Retry-After") if name in upstream.headers}
        return web.Response(status=upstream.status, body=content, headers=passed)

    async def _fail(self, request: web.Request, fault: Fault) -> web.StreamResponse | None:
        """None: it hung, and goes on now."""
        if fault.status == -1:
            return self._break(request)
        if fault.status == 0:
            await fault.over.wait()
            return None
        message = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": fault.status,
            "message": "injected",
        }
        return web.json_response(message, status=fault.status, headers=fault.headers)

    def _break(self, request: web.Request) -> web.StreamResponse:
        if request.transport:
            request.transport.abort()
        return web.Response(status=502)

    async def _relay(self, request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        watch = _Watch(request)
        self._watches.add(watch)
        relaying = asyncio.create_task(self._lines(watch, upstream, answer))
        ending = asyncio.create_task(watch.end.wait())
        try:
            await asyncio.wait({relaying, ending}, return_when=asyncio.FIRST_COMPLETED)
            if watch.end.is_set():
                if watch.last_words is None:
                    return self._break(request)
                await answer.write(watch.last_words)
            elif relaying.exception():
                return self._break(request)
            await answer.write_eof()
        except OSError:
            pass  # the client left first
        finally:
            self._watches.discard(watch)
            for task in (relaying, ending):
                task.cancel()
            await asyncio.gather(relaying, ending, return_exceptions=True)
        return answer

    async def _lines(self, watch: _Watch, upstream: aiohttp.ClientResponse, answer: web.StreamResponse) -> None:
        async for line in _whole_lines(upstream):
            if not watch.muted:
                await answer.write(line)
        if watch.muted:
            await watch.end.wait()


async def _whole_lines(upstream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole, so that a watch never ends within an event."""
    rest = b""
    async for chunk in upstream.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield b"\n".join(lines) + b"\n"
