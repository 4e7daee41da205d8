"""One stand-in server: a process that answers, falls ill on demand, ends, and is started again on its volume."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Hashable
from enum import StrEnum
from typing import Any, Final, cast

from copilot_operator.rpc import messages
from copilot_operator.rpc.errors import AUTHENTICATION_FAILED, AUTHENTICATION_REQUIRED, METHOD_NOT_FOUND, ProtocolError
from copilot_operator.rpc.framing import FrameReader, frame
from tests.support.standin_sessions import Refusal, Sessions, Volume, timestamp

VERSION: Final = "1.0.102"
MIB: Final = 1 << 20
FRESH_BYTES: Final = 240 * MIB
FRESH_PROCESSES: Final = 2


class Fault(StrEnum):
    """Ways in which a server can be ill."""

    NONE = "none"
    HANG = "hang"  # takes connections, answers nothing
    REFUSE = "refuse"  # drops connections at once
    GARBAGE = "garbage"  # answers something that is not the protocol
    HALF = "half"  # answers half a frame, and no more
    SLOW = "slow"  # answers after ``delay_s``
    SLOWER = "slower"  # takes ``delay_s`` longer for each answer
    DIES = "dies"  # as if killed, ``delay_s`` after the next turn has begun
    SAYS_IDLE = "says-idle"  # of sessions that work
    SAYS_BUSY = "says-busy"  # of every loaded session, for ever
    LEAK = "leak"  # each answer leaves ``leak_bytes`` and a process behind


Method = Callable[[Hashable, dict[str, Any]], Any | Awaitable[Any]]

_LIES: Final[dict[Fault, dict[str, Any]]] = {
    Fault.SAYS_IDLE: {
        "session.metadata.activity": {"abortable": False, "hasActiveWork": False},
        "session.tasks.list": {"tasks": []},
        "session.queue.pendingItems": {"items": [], "steeringMessages": [], "inFlightSteeringCount": 0},
    },
    Fault.SAYS_BUSY: {"session.metadata.activity": {"abortable": True, "hasActiveWork": True}},
}


class Server:
    """A simulated CLI server, which runs from the start. ``on_exit`` is called when its process ends by itself."""

    def __init__(self, token: str | None, volume: Volume | None = None) -> None:
        self.token = token  # None: any is taken, and none is needed
        self.volume: Volume = {} if volume is None else volume
        self.on_exit: Callable[[], None] = lambda: None
        self.connections: set[Connection] = set()
        self.pings = self.starts = 0
        self.ended_at: dict[int, float] = {}  # by the number of the start
        self.runs = False
        self.start()

    def start(self) -> None:
        """As a fresh process, well again, on the same volume."""
        assert not self.runs, "it runs already"
        self.fault, self.delay_s, self.leak_bytes = Fault.NONE, 0.0, MIB
        self.memory_bytes, self.processes = FRESH_BYTES, FRESH_PROCESSES
        self.slowness_s = 0.0  # how far SLOWER has come
        self.sessions = Sessions(self._tell, self.volume, self._turn_begins)
        self.methods = self._methods()
        self.runs, self.starts = True, self.starts + 1

    def end(self, *, killed: bool = False) -> None:
        """SIGTERM, or SIGKILL: turns are dropped, connections end."""
        self.runs, self.ended_at[self.starts] = False, asyncio.get_running_loop().time()
        self.sessions.end(killed=killed)
        for connection in list(self.connections):
            connection.end(abruptly=killed)

    def exit(self, *, killed: bool = False) -> None:
        """End by itself, if it runs."""
        if self.runs:
            self.end(killed=killed)
            self.on_exit()

    async def answer(self, connection: "Connection", request: messages.Request) -> bytes:
        """The frame that answers a request, or what this server sends instead."""
        await asyncio.sleep(self._delay_s())
        if self.fault is Fault.LEAK:
            self.memory_bytes, self.processes = self.memory_bytes + self.leak_bytes, self.processes + 1
        try:
            answer = messages.result(request.id, await self._result(connection, request))
        except Refusal as refusal:
            answer = messages.failure(request.id, refusal.code, refusal.message)
        whole = frame(answer)
        return whole[: len(whole) // 2] if self.fault is Fault.HALF else whole

    def answers(self, method: str) -> bool:
        """Whether it answers at all; what tests ask of the stand-in itself is always answered."""
        return self.fault is not Fault.HANG or method.startswith("standin.")

    def _delay_s(self) -> float:
        if self.fault is Fault.SLOWER:
            self.slowness_s += self.delay_s
            return self.slowness_s
        return self.delay_s if self.fault is Fault.SLOW else 0.0

    async def _result(self, connection: "Connection", request: messages.Request) -> Any:
        params = request.params if isinstance(request.params, dict) else {}
        if request.method == "connect":
            return self._authenticate(connection, params)
        if not connection.authenticated:
            raise Refusal(AUTHENTICATION_REQUIRED, "AUTHENTICATION_REQUIRED")
        method = self.methods.get(request.method)
        if method is None:
            raise Refusal(METHOD_NOT_FOUND, f"Unhandled method {request.method}")
        result = method(connection, params)
        truth = await result if inspect.isawaitable(result) else result
        return _LIES.get(self.fault, {}).get(request.method, truth)

    def _authenticate(self, connection: "Connection", params: dict[str, Any]) -> dict[str, Any]:
        if self.token not in (None, params.get("token")):
            raise Refusal(AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED")
        connection.authenticated = True
        return {"ok": True, "protocolVersion": 3, "version": VERSION, "taskKinds": ["agent", "shell"]}

    def _methods(self) -> dict[str, Method]:
        sessions = self.sessions
        return {
            "ping": self._ping,
            "status.get": lambda *_: {"version": VERSION, "protocolVersion": 3},
            "auth.getStatus": lambda *_: {"isAuthenticated": False, "statusMessage": "Not authenticated"},
            "runtime.shutdown": self._shut_down,
            "session.create": sessions.create,
            "session.resume": sessions.resume,
            "session.send": sessions.send,
            "session.abort": sessions.abort,
            "session.detach": sessions.detach,
            "session.destroy": sessions.destroy,
            "session.delete": sessions.delete,
            "session.list": sessions.list,
            "session.getMetadata": sessions.metadata,
            "session.getMessages": sessions.messages,
            "session.log": sessions.log,
            "session.metadata.activity": sessions.activity,
            "session.eventLog.tail": sessions.tail,
            "session.tasks.list": sessions.tasks,
            "session.queue.pendingItems": sessions.pending_items,
            "session.permissions.pendingRequests": sessions.pending_permissions,
            "session.permissions.setApproveAll": sessions.approve_all,
            "session.permissions.handlePendingPermissionRequest": sessions.answer_permission,
            "session.tools.listPendingRequests": sessions.pending_tools,
            "session.metadata.updateClientMetadata": sessions.update_client_metadata,
            "sessions.bulkDelete": sessions.bulk_delete,
            "sessions.checkInUse": lambda *_: {"inUse": []},
            "sessions.close": sessions.close,
            "sessions.getClientMetadata": sessions.client_metadata,
            "sessions.getSizes": sessions.sizes,
            "sessions.readPersistedEvents": sessions.persisted,
            "standin.fault": self._set_fault,  # ours: for who can reach it by its address only
        }

    def _ping(self, _: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        self.pings += 1
        said = f"pong: {params['message']}" if "message" in params else "pong"
        return {"message": said, "timestamp": timestamp(), "protocolVersion": 3}

    def _shut_down(self, *_: Any) -> None:
        asyncio.get_running_loop().call_soon(self.exit)  # once the answer is written

    def _set_fault(self, _: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        self.fault, self.delay_s = Fault(params.get("fault", "none")), float(params.get("delay_s", 0))
        self.leak_bytes = int(params.get("leak_bytes", MIB))
        return {}

    def _turn_begins(self) -> None:
        if self.fault is Fault.DIES:
            asyncio.get_running_loop().call_later(self.delay_s, self._die, self.starts)

    def _die(self, start: int) -> None:
        if self.starts == start:  # else another process runs by now
            self.exit(killed=True)

    def _tell(self, to: set[Hashable] | None, method: str, params: Any) -> None:
        body: bytes | None = None
        for connection in self.connections:
            if (to is None or connection in to) and connection.authenticated:
                body = body or frame(messages.notification(method, params))
                connection.write(body)


class Connection(asyncio.Protocol):
    """One client. ``server_at`` finds the server by the local address; None: nobody is there."""

    def __init__(self, server_at: Callable[[str], Server | None]) -> None:
        self.authenticated = False
        self._server_at = server_at
        self._server: Server | None = None
        self._frames = FrameReader()
        self._calls: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        transport = self._transport
        server = self._server_at(transport.get_extra_info("sockname")[0])
        if server is None or not server.runs or server.fault is Fault.REFUSE:
            transport.abort()
            return
        self._server = server
        self.authenticated = server.token is None
        server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        for call in self._calls:
            call.cancel()
        if self._server is not None:
            self._server.connections.discard(self)
            self._server.sessions.owner_left(self)

    def data_received(self, data: bytes) -> None:
        if self._server is None:
            return
        if self._server.fault is Fault.GARBAGE:
            self.write(b"220 mail.example.com ESMTP\r\n")
            return
        self._frames.feed(data)
        try:
            while (body := self._frames.take()) is not None:
                self._received(self._server, body)
        except ProtocolError as error:
            self.write(frame(messages.failure(None, -32700, str(error))))
            self._transport.close()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def end(self, *, abruptly: bool) -> None:
        """As the kernel does it for a process that ends."""
        if abruptly:
            self._transport.abort()
        else:
            self._transport.close()

    def _received(self, server: Server, body: bytes) -> None:
        try:
            message = messages.parse(body)
        except ProtocolError as error:
            self.write(frame(messages.failure(None, -32700, str(error))))
            return
        if not isinstance(message, messages.Request) or not server.answers(message.method):
            return
        call = asyncio.create_task(self._serve(server, message))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _serve(self, server: Server, request: messages.Request) -> None:
        self.write(await server.answer(self, request))
