"""A server that is no bottleneck: it takes the gateway's handshake and answers each request with as much as it got.

``python -m tests.scale.gateway_echo`` prints its port. A request whose text is ``EVENTS=<n>`` is answered after n
events of ``MESSAGE_BYTES`` each, as a turn of the CLI would push them.
"""

import asyncio
import json
import re
import socket
import sys
from typing import Any, Final, cast

import uvloop

MESSAGE_BYTES: Final = 1000  # a body, header not counted
BATCH: Final = 64  # events in one write, about what a busy CLI leaves in the socket between two reads

_ID: Final = re.compile(rb'"id":("[^"]*"|\d+)')
_SESSION: Final = re.compile(rb'"sessionId":"([^"]*)"')
_EVENTS: Final = re.compile(rb"EVENTS=(\d+)")
_METHOD: Final = re.compile(rb'"method":"([^"]*)"')
_HELLO: Final = {"ok": True, "protocolVersion": 3, "version": "1.0.102", "taskKinds": []}


def frame(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def padded(head: bytes, tail: bytes) -> bytes:
    """A frame whose body is MESSAGE_BYTES long."""
    return frame(head + b"x" * (MESSAGE_BYTES - len(head) - len(tail)) + tail)


def event(session: bytes) -> bytes:
    """A frame as the CLI writes one for a chunk of an answer."""
    head = (
        b'{"jsonrpc":"2.0","method":"session.event","params":{"sessionId":"%b","event":'
        b'{"type":"assistant.message_delta","data":{"messageId":"m","deltaContent":"' % session
    )
    tail = b'"},"id":"e","timestamp":"2026-01-01T00:00:00.000Z","parentId":null,"ephemeral":true}}}'
    return padded(head, tail)


class Echo(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._buffer = b""
        self._writable = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has a class of its own
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        data, at, out = self._buffer + data, 0, []
        while (head := data.find(b"\r\n\r\n", at)) >= 0:
            length = int(data[at + 16 : head])  # after "Content-Length: "
            if len(data) < head + 4 + length:
                break
            at = head + 4 + length
            if answer := self._answer(data[head + 4 : at]):
                out.append(answer)
        self._buffer = data[at:]
        if out:
            self._transport.write(b"".join(out))

    def _answer(self, body: bytes) -> bytes | None:
        method, id, session = _METHOD.search(body), _ID.search(body), _SESSION.search(body)
        if not (method and id):
            return None
        if method[1] == b"connect":
            return self._result(id[1], _HELLO)
        if not session:
            return self._result(id[1], {"message": "pong", "protocolVersion": 3, "sessions": []})
        if method[1] in (b"session.create", b"session.resume"):
            return self._result(id[1], {"sessionId": session[1].decode()})
        if events := _EVENTS.search(body):
            self._task = asyncio.ensure_future(self._push(id[1], session[1], int(events[1])))
            return None
        return padded(b'{"jsonrpc":"2.0","id":%b,"result":{"content":"' % id[1], b'"}}')

    def _result(self, id: bytes, result: dict[str, Any]) -> bytes:
        return frame(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id, json.dumps(result).encode()))

    async def _push(self, id: bytes, session: bytes, count: int) -> None:
        one = event(session)
        while count > 0 and not self._transport.is_closing():
            await self._writable.wait()
            self._transport.write(one * min(BATCH, count))
            count -= BATCH
            await asyncio.sleep(0)
        self._transport.write(padded(b'{"jsonrpc":"2.0","id":%b,"result":{"content":"' % id, b'"}}'))


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=4096)
    listener: socket.socket = server.sockets[0]
    print(listener.getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until whoever started it ends, however it ends


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(serve())
