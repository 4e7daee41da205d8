"""The gateway's HTTP port. For everybody: /livez, /readyz, /metrics. For who has the pool's admin key (``Authorization:
Bearer``): /demand, which servers are wanted, /tenants, what each tenant does, and /servers, where each stands.

Over the standard library; one request a connection, so that nothing is kept for anybody.
"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str]  # why not; "" if all is well
JSON: Final = "application/json"
MOST_WAIT_S: Final = 25.0

_MAX_HEAD_BYTES: Final = 16 * 1024
_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its path without the query, that, and what stands in ``Authorization``."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    authorization: str = field(default="", repr=False)

    @staticmethod
    def read(head: bytes) -> "Asked":
        """``head`` is all up to the empty line."""
        first, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        path, _, query = rest.partition(" ")[0].partition("?")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Asked(method, path, dict(parse_qsl(query)), headers.get("authorization", ""))


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    text: str
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[Asked], Awaitable[Page]]]


def public(*, live: Check, ready: Check, registry: CollectorRegistry) -> Pages:
    """What everybody may see, by path."""

    async def probe(check: Check) -> Page:
        why_not = check()
        return Page(f"{why_not or 'ok'}\n", HTTPStatus.SERVICE_UNAVAILABLE if why_not else HTTPStatus.OK)

    async def metrics(asked: Asked) -> Page:
        return Page(generate_latest(registry).decode(), content_type=CONTENT_TYPE_LATEST)

    return {"/livez": lambda _: probe(live), "/readyz": lambda _: probe(ready), "/metrics": metrics}


def private(key: Callable[[], str | None], told: Mapping[str, Callable[[Asked], Awaitable[Any]]]) -> Pages:
    """What only holders of ``key`` may see: each gives what is to be told, as JSON. Without a key nobody is one."""

    def guarded(tell: Callable[[Asked], Awaitable[Any]]) -> Callable[[Asked], Awaitable[Page]]:
        async def page(asked: Asked) -> Page:
            expected = key()
            if not expected or not hmac.compare_digest(asked.authorization.encode(), f"Bearer {expected}".encode()):
                return Page("not without the pool's admin key\n", HTTPStatus.UNAUTHORIZED)
            return Page(json.dumps(await tell(asked)), content_type=JSON)

        return page

    return {path: guarded(tell) for path, tell in told.items()}


def seconds(asked: Asked, name: str, most: float = MOST_WAIT_S) -> float:
    """A number of the query, from 0 to ``most``; 0 if it is none."""
    try:
        return min(most, max(0.0, float(asked.query.get(name, "0"))))
    except ValueError:
        return 0.0


async def serve(host: str, port: int, served: Pages) -> asyncio.Server:
    """Start to serve. Raises OSError if the port is taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(MOST_WAIT_S + _TIMEOUT_S):
                writer.write(await response(served, head))
                await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, host, port, limit=_MAX_HEAD_BYTES)


async def response(served: Pages, head: bytes) -> bytes:
    """The bytes that answer a request, of which ``head`` is all up to the empty line."""
    asked = Asked.read(head)
    page = served.get(asked.path)
    if asked.method not in ("GET", "HEAD"):
        answer = Page("only GET\n", HTTPStatus.METHOD_NOT_ALLOWED)
    elif page is None:
        answer = Page(f"there are {', '.join(served)}\n", HTTPStatus.NOT_FOUND)
    else:
        answer = await page(asked)
    body = answer.text.encode()
    lines = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if asked.method == "HEAD" else body)
