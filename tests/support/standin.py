"""A stand-in for CLI servers: thousands in one process, told apart by the address a client connected to.

As a program (``python3 -m tests.support.standin --host 0.0.0.0 --port 4321``) it serves simulated pods, with
``--agent-port`` their agents too. In tests it misbehaves on demand. What it does is held to the real CLI by
``tests/contract``.
"""

import argparse
import asyncio
import inspect
import json
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Any, Final

from copilot_operator.rpc import messages
from copilot_operator.rpc.errors import AUTHENTICATION_FAILED, AUTHENTICATION_REQUIRED, METHOD_NOT_FOUND, ProtocolError
from copilot_operator.rpc.framing import FrameReader, frame
from tests.support.standin_sessions import Refusal, Sessions, timestamp

VERSION: Final = "1.0.102"
_BACKLOG: Final = 4096  # an operator that starts pings everybody at once


class Fault(StrEnum):
    """Ways in which a server can be ill."""

    NONE = "none"
    HANG = "hang"  # takes connections, answers nothing
    REFUSE = "refuse"  # drops connections at once
    GARBAGE = "garbage"  # answers something that is not the protocol
    SLOW = "slow"  # answers after ``delay_s``


Method = Callable[[Hashable, dict[str, Any]], Any | Awaitable[Any]]


class Server:
    """One simulated CLI server."""

    def __init__(self, token: str | None) -> None:
        self.token = token  # None: any is taken, and none is needed
        self.fault, self.delay_s = Fault.NONE, 0.0
        self.connections: set[_Connection] = set()
        self.pings = 0
        self.sessions = Sessions(self._tell)
        sessions = self.sessions
        self.methods: dict[str, Method] = {
            "ping": self._ping,
            "status.get": lambda *_: {"version": VERSION, "protocolVersion": 3},
            "auth.getStatus": lambda *_: {"isAuthenticated": False, "statusMessage": "Not authenticated"},
            "session.create": sessions.create,
            "session.resume": sessions.resume,
            "session.send": sessions.send,
            "session.abort": sessions.abort,
            "session.detach": sessions.detach,
            "session.destroy": sessions.destroy,
            "session.delete": sessions.delete,
            "session.list": sessions.list,
            "session.getMessages": sessions.messages,
            "session.metadata.activity": sessions.activity,
            "session.tasks.list": sessions.tasks,
            "session.queue.pendingItems": sessions.pending_items,
            "session.permissions.pendingRequests": sessions.pending_permissions,
            "session.permissions.setApproveAll": sessions.approve_all,
            "session.permissions.handlePendingPermissionRequest": sessions.answer_permission,
            "session.tools.listPendingRequests": sessions.pending_tools,
            "sessions.close": sessions.close,
            "sessions.readPersistedEvents": sessions.persisted,
            "standin.fault": self._set_fault,  # ours: for who can reach it by its address only
        }

    def end(self) -> None:
        """As if the process were killed: turns are dropped, connections end."""
        self.sessions.end()
        for connection in list(self.connections):
            connection.end()

    def _ping(self, _: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        self.pings += 1
        said = f"pong: {params['message']}" if "message" in params else "pong"
        return {"message": said, "timestamp": timestamp(), "protocolVersion": 3}

    def _set_fault(self, _: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        self.fault, self.delay_s = Fault(params.get("fault", "none")), float(params.get("delay_s", 0))
        return {}

    def _tell(self, to: set[Hashable] | None, method: str, params: Any) -> None:
        body: bytes | None = None
        for connection in self.connections:
            if (to is None or connection in to) and connection.authenticated:
                body = body or frame(messages.notification(method, params))
                connection.write(body)


class StandIn:
    """Listens, and keeps a server for each local address that is talked to."""

    def __init__(self, *, token: str | None = None) -> None:
        self.servers: defaultdict[str, Server] = defaultdict(lambda: Server(token))
        self.host, self.port = "", 0
        self._listener: asyncio.Server | None = None
        self._agents: asyncio.Server | None = None

    @property
    def server(self) -> Server:
        """The server at the address that is listened on."""
        return self.servers[self.host]

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; ``port`` then holds the port that was chosen for 0."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Connection(self.servers), host, port, backlog=_BACKLOG)
        self.host, self.port = host, self._listener.sockets[0].getsockname()[1]

    async def start_agents(self, host: str, port: int) -> None:
        """Answer for the agents of these servers as well."""
        self._agents = await asyncio.start_server(self._agent, host, port, backlog=_BACKLOG)

    async def stop(self) -> None:
        """End all servers, and listen no more. Their sessions stay, for a start after that."""
        for listener in (self._listener, self._agents):
            if listener is not None:
                listener.close()
        for server in self.servers.values():
            server.end()

    async def _agent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = self.servers[writer.get_extra_info("sockname")[0]]
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(5):
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].split(b"?")[0].decode()
                status, body = _agent_page(server, path)
                head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        writer.close()


def _agent_page(server: Server, path: str) -> tuple[int, bytes]:
    well = server.fault in (Fault.NONE, Fault.SLOW)
    loaded, stored = server.sessions.loaded, server.sessions.stored
    match path:
        case "/agentz":
            return 200, b"ok\n"
        case "/livez" | "/readyz":
            return (200, b"ok\n") if well else (503, b"Silent\n")
        case "/drain":
            server.sessions.end()
            return 200, b"{}\n"
        case "/state":
            busy = sum(session.work is not None or bool(session.shells) for session in loaded)
            waiting = sum(bool(session.permissions) for session in loaded)
            state = {
                "agentVersion": "standin",
                "cli": {
                    "answering": well,
                    "latencySeconds": 0.001 if well else None,
                    "version": VERSION if well else None,
                    "failure": None if well else "Silent",
                },
                "sessions": {
                    "loaded": len(loaded),
                    "busy": busy,
                    "waiting": waiting,
                    "uncounted": 0,
                    "stored": len(stored),
                    "secondsSinceActivity": None,
                },
                "memoryBytes": 0,
                "processes": 1,
                "disk": {"capacityBytes": 10 << 30, "usedBytes": 1 << 30, "freeBytes": 9 << 30},
                "draining": None,
            }
            return 200, json.dumps(state).encode() + b"\n"
        case _:
            return 404, b"no such page\n"


class _Connection(asyncio.Protocol):
    """One client of one server."""

    def __init__(self, servers: defaultdict[str, Server]) -> None:
        self.authenticated = False
        self._servers = servers
        self._frames = FrameReader()
        self._calls: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server = self._servers[transport.get_extra_info("sockname")[0]]
        if self._server.fault is Fault.REFUSE:
            transport.abort()
            return
        self.authenticated = self._server.token is None
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._server.sessions.owner_left(self)
        for call in self._calls:
            call.cancel()

    def data_received(self, data: bytes) -> None:
        if self._server.fault is Fault.GARBAGE:
            self.write(b"220 mail.example.com ESMTP\r\n")
            return
        self._frames.feed(data)
        try:
            while (body := self._frames.take()) is not None:
                self._received(body)
        except ProtocolError as error:
            self.write(frame(messages.failure(None, -32700, str(error))))
            self._transport.close()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def end(self) -> None:
        """Cut it."""
        self._transport.abort()

    def _received(self, body: bytes) -> None:
        try:
            message = messages.parse(body)
        except ProtocolError as error:
            self.write(frame(messages.failure(None, -32700, str(error))))
            return
        if not isinstance(message, messages.Request):
            return
        if self._server.fault is Fault.HANG and not message.method.startswith("standin."):
            return
        call = asyncio.create_task(self._serve(message))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _serve(self, request: messages.Request) -> None:
        if self._server.fault is Fault.SLOW:
            await asyncio.sleep(self._server.delay_s)
        try:
            answer = messages.result(request.id, await self._result(request))
        except Refusal as refusal:
            answer = messages.failure(request.id, refusal.code, refusal.message)
        self.write(frame(answer))

    async def _result(self, request: messages.Request) -> Any:
        params = request.params if isinstance(request.params, dict) else {}
        if request.method == "connect":
            return self._authenticate(params)
        if not self.authenticated:
            raise Refusal(AUTHENTICATION_REQUIRED, "AUTHENTICATION_REQUIRED")
        method = self._server.methods.get(request.method)
        if method is None:
            raise Refusal(METHOD_NOT_FOUND, f"Unhandled method {request.method}")
        result = method(self, params)
        return await result if inspect.isawaitable(result) else result

    def _authenticate(self, params: dict[str, Any]) -> dict[str, Any]:
        if self._server.token not in (None, params.get("token")):
            raise Refusal(AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED")
        self.authenticated = True
        return {"ok": True, "protocolVersion": 3, "version": VERSION, "taskKinds": ["agent", "shell"]}


@asynccontextmanager
async def standin(*, token: str | None = None, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[StandIn]:
    """A stand-in that listens; ended at the end."""
    stand_in = StandIn(token=token)
    await stand_in.start(host, port)
    try:
        yield stand_in
    finally:
        await stand_in.stop()


async def _serve(host: str, port: int, token: str | None, agent_port: int | None) -> None:
    stopped = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stopped.set)
    async with standin(token=token, host=host, port=port) as stand_in:
        if agent_port is not None:
            await stand_in.start_agents(host, agent_port)
        print(f"CLI server listening on port {stand_in.port}", flush=True)
        await stopped.wait()


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="Stand-in for Copilot CLI servers, one per address it is reached by.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4321, help="0: any free port")
    parser.add_argument("--token", default=None, help="the only connection token taken (default: any)")
    parser.add_argument("--agent-port", type=int, default=None, help="answer for the servers' agents on this port too")
    given = parser.parse_args(argv)
    asyncio.run(_serve(given.host, given.port, given.token, given.agent_port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
