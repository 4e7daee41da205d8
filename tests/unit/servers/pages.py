"""Agents' pages on real sockets, answered as a test wants it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Handler = Callable[[str, dict[str, str]], Awaitable[bytes | None]]  # host, query; None: hang up without a word


@dataclass
class Pages:
    """One listener for all of 127.0.0.0/8; a host is told apart by the address that a client connected to."""

    handlers: dict[str, Handler]
    port: int = 0
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # host, path, query
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            target = urlsplit(head.split(b" ")[1].decode())
            host, query = writer.get_extra_info("sockname")[0], dict(parse_qsl(target.query))
            self.asked.append((host, target.path, query))
            handler = self.handlers.get(target.path)
            answer = await handler(host, query) if handler else http(404, "no such page\n")
            if answer:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]


def http(status: int, body: str, *fields: str) -> bytes:
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body.encode())}", "Connection: close", *fields]
    return "\r\n".join([*head, "", body]).encode()


def ok(document: Any) -> bytes:
    return http(200, json.dumps(document) + "\n")


@asynccontextmanager
async def pages(**handlers: Handler) -> AsyncIterator[Pages]:
    """Named after their paths; ``drain_cancel`` serves /drain/cancel."""
    served = Pages({f"/{name.replace('_', '/')}": handler for name, handler in handlers.items()})
    server = await asyncio.start_server(served.serve, "0.0.0.0", 0, backlog=1000)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
