"""As much of an HTTP/1.1 server as probes, a hook and a scraper need: GET, one answer per connection, bounded.

Written by hand because the standard library's would double the agent's memory.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from copilot_operator.agent.log import log

MAX_HEAD_BYTES: Final = 8 * 1024
MAX_CONNECTIONS: Final = 64  # kubelet, the operator and a scraper need three
_READ_TIMEOUT_S: Final = 5.0
_WRITE_TIMEOUT_S: Final = 5.0

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int
    body: str
    content_type: str = "text/plain; charset=utf-8"

    def encoded(self) -> bytes:
        body = self.body.encode()
        allow = "Allow: GET\r\n" if self.status == 405 else ""
        head = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(body)}\r\n{allow}Connection: close\r\n\r\n"
        )
        return head.encode("ascii") + body


class BadRequest(Exception):
    """A request that cannot be served; ``status`` says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


Handler = Callable[[Mapping[str, str]], Awaitable[Response]]  # the query's parameters


def parse_head(head: bytes) -> tuple[str, dict[str, str]]:
    """Path and query of a request's head. Raises BadRequest.

    Query values are taken as they stand: ours are numbers and need no decoding.
    """
    try:
        method, target, version = head.partition(b"\r\n")[0].decode("ascii").split(" ")
    except ValueError as error:
        raise BadRequest(400, "not an HTTP request") from error
    if not version.startswith("HTTP/1."):
        raise BadRequest(400, "not HTTP/1")
    if method != "GET":
        raise BadRequest(405, "only GET is served")
    path, _, query = target.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return path, {name: value for name, _, value in pairs}


class WebServer:
    """Serves ``routes``, path to handler. A handler brings deadlines of its own for what it waits for."""

    def __init__(self, routes: Mapping[str, Handler]) -> None:
        self._routes = dict(routes)
        self._serving = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (which the system chooses for 0). Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD_BYTES)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def stop(self) -> None:
        """Listen no more. Requests under way are not waited for."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._serving >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._serving += 1
        try:
            writer.write((await self._answer(reader)).encoded())
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client went away, or we end; nobody is left to tell
        finally:
            self._serving -= 1
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> Response:
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            path, query = parse_head(head)
            handler = self._routes.get(path)
            return Response(404, "no such page\n") if handler is None else await handler(query)
        except BadRequest as error:
            return Response(error.status, f"{error}\n")
        except TimeoutError:
            return Response(408, "the request did not come in time\n")
        except asyncio.LimitOverrunError:
            return Response(431, f"the head of a request may have {MAX_HEAD_BYTES} bytes\n")
        except asyncio.IncompleteReadError:
            return Response(400, "the request ended early\n")
        except Exception as error:  # a fault in one page must not take the probes down
            log("page failed", error=repr(error))
            return Response(500, "internal error, see the agent's log\n")
