"""The gateway's HTTP port for kubelet, Prometheus and people: /livez, /readyz, /metrics.

Plain text over the standard library; one request a connection, so that nothing is kept for anybody.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str]  # why not; "" if all is well

_MAX_HEAD_BYTES: Final = 16 * 1024
_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    text: str
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"


def pages(*, live: Check, ready: Check, registry: CollectorRegistry) -> Mapping[str, Callable[[], Page]]:
    """What is served, by path."""

    def probe(check: Check) -> Page:
        why_not = check()
        return Page(f"{why_not or 'ok'}\n", HTTPStatus.SERVICE_UNAVAILABLE if why_not else HTTPStatus.OK)

    return {
        "/livez": lambda: probe(live),
        "/readyz": lambda: probe(ready),
        "/metrics": lambda: Page(generate_latest(registry).decode(), content_type=CONTENT_TYPE_LATEST),
    }


async def serve(host: str, port: int, served: Mapping[str, Callable[[], Page]]) -> asyncio.Server:
    """Start to serve. Raises OSError if the port is taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(response(served, head))
                await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, host, port, limit=_MAX_HEAD_BYTES)


def response(served: Mapping[str, Callable[[], Page]], head: bytes) -> bytes:
    """The bytes that answer a request, of which ``head`` is all up to the empty line."""
    method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
    page = served.get(rest.partition(" ")[0].partition("?")[0])
    if method not in ("GET", "HEAD"):
        answer = Page("only GET\n", HTTPStatus.METHOD_NOT_ALLOWED)
    elif page is None:
        answer = Page(f"there are {', '.join(served)}\n", HTTPStatus.NOT_FOUND)
    else:
        answer = page()
    body = answer.text.encode()
    lines = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else body)
