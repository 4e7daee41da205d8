"""One connection to a CLI server: calls out, notifications in. Carries bytes; framing and messages are neighbours.

It reads whatever comes, always: a CLI server buffers without bound for a client that does not. A reverse request
nobody here serves is refused at once, because the server would wait for its answer for ever.
"""

import asyncio
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from copilot_operator.rpc import messages
from copilot_operator.rpc.errors import (
    METHOD_NOT_FOUND,
    ConnectionLost,
    ProtocolError,
    RpcError,
    ServerRefused,
    ServerSilent,
    error_reply,
)
from copilot_operator.rpc.framing import MAX_BODY_BYTES, FrameReader, frame

NotificationHandler = Callable[[str, Any], None]  # method, params; must not block

CLOSE_TIMEOUT_S: Final = 1.0  # for what is still to be written; then the connection is cut


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says of itself in the answer to ``connect``; None where it predates that method."""

    version: str | None
    protocol_version: int | None


class Connection(asyncio.Protocol):
    """A connection on which calls run side by side; answers may come in any order.

    Make one with ``open``. ``ignored`` names notifications that are dropped before their JSON is read: a keeper
    is sent every event of its sessions, a large conversation in full among them.
    """

    def __init__(
        self,
        *,
        on_notification: NotificationHandler | None = None,
        ignored: Collection[str] = (),
        max_body_bytes: int = MAX_BODY_BYTES,
        skip_oversized: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader(max_body_bytes=max_body_bytes, skip_oversized=skip_oversized)
        self._on_notification = on_notification
        # The exact opening of a frame as the CLI writes it. If a later CLI orders its keys differently, the
        # notification is parsed and dropped a little later, at a higher price.
        self._ignored_openings = tuple(b'{"jsonrpc":"2.0","method":"%b",' % method.encode() for method in ignored)
        self._ignored = frozenset(ignored)
        self._pending: dict[messages.Id, tuple[str, asyncio.Future[Any]]] = {}
        self._last_id = 0
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._end: asyncio.Future[None] = self._loop.create_future()
        self._broken: ProtocolError | None = None

    @staticmethod
    async def open(
        host: str,
        port: int,
        *,
        timeout_s: float,
        on_notification: NotificationHandler | None = None,
        ignored: Collection[str] = (),
        max_body_bytes: int = MAX_BODY_BYTES,
        skip_oversized: bool = False,
    ) -> "Connection":
        """Open a TCP connection. Raises ServerRefused, or ServerSilent when nothing answers at all."""

        def make() -> Connection:
            return Connection(
                on_notification=on_notification,
                ignored=ignored,
                max_body_bytes=max_body_bytes,
                skip_oversized=skip_oversized,
            )

        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(make, host, port)
        except TimeoutError as error:
            raise ServerSilent(f"a TCP connection to {host}:{port}", timeout_s) from error
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)  # not for names
            raise ServerRefused(host, port, reason) from error
        return connection

    # What callers do

    async def connect(self, token: str | None, *, timeout_s: float) -> ServerInfo:
        """Authenticate; to be awaited before any other call, which a server may else refuse.

        Raises AuthenticationFailed for a wrong token. Servers older than the method need no authentication.
        """
        try:
            answer = await self.call("connect", {} if token is None else {"token": token}, timeout_s=timeout_s)
        except RpcError as error:
            if error.code == METHOD_NOT_FOUND:
                return ServerInfo(None, None)
            raise
        if not isinstance(answer, dict):
            raise ProtocolError(f"expected an object in answer to connect, found {type(answer).__name__}")
        version, protocol = answer.get("version"), answer.get("protocolVersion")
        return ServerInfo(
            version if isinstance(version, str) else None, protocol if isinstance(protocol, int) else None
        )

    async def call(self, method: str, params: Any = None, *, timeout_s: float) -> Any:
        """Send a request and return its result.

        Raises RpcError, ServerSilent, ConnectionLost or ProtocolError. Cancelling it, or its time running out,
        forgets the answer; the server may have acted on the request all the same.
        """
        if self.closed:
            raise self._lost(method)
        self._last_id += 1
        id, answer = self._last_id, self._loop.create_future()
        self._pending[id] = (method, answer)
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(messages.request(id, method, params))
                return await answer
        except TimeoutError as error:
            raise ServerSilent(method, timeout_s) from error
        finally:
            self._pending.pop(id, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # retrieved, also when the answer came together with a cancellation

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, or is about to."""
        return self._transport is None or self._transport.is_closing()

    @property
    def skipped(self) -> int:
        """Frames that were too large and were dropped."""
        return self._frames.skipped

    async def wait_closed(self) -> None:
        """Return when the connection has ended, whoever ended it."""
        await asyncio.shield(self._end)

    async def close(self) -> None:
        """End the connection: orderly within CLOSE_TIMEOUT_S, else abruptly. May be called again."""
        if self._transport is None:
            return
        self._transport.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.wait_closed()
        except TimeoutError:
            self.abort()
            await self.wait_closed()

    def abort(self) -> None:
        """End the connection now, without waiting for anything."""
        if self._transport is not None:
            self._transport.abort()

    async def _send(self, body: bytes) -> None:
        await self._writable.wait()  # the transport's high-water mark bounds what a deaf server makes us keep
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(body))

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        try:
            while (body := self._frames.take()) is not None:
                if not body.startswith(self._ignored_openings):
                    self._dispatch(messages.parse(body))
        except ProtocolError as error:
            self._broken = error
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        for method, answer in self._pending.values():
            if not answer.done():
                answer.set_exception(self._lost(method, exc))
        if not self._end.done():
            self._end.set_result(None)

    def _dispatch(self, message: messages.Message) -> None:
        match message:
            case messages.Reply(id, value):
                self._answered(id, lambda method, answer: answer.set_result(value))
            case messages.ErrorReply(None, code, text, _):
                raise ProtocolError(f"the server could not read a request: {text} ({code})")
            case messages.ErrorReply(str() | int() as id, code, text, data):
                self._answered(id, lambda method, answer: answer.set_exception(error_reply(method, code, text, data)))
            case messages.Notification(method, params):
                self._notify(method, params)
            case messages.Request(id, method, _):
                self._refuse(id, method)

    def _answered(self, id: messages.Id, settle: Callable[[str, asyncio.Future[Any]], None]) -> None:
        method, answer = self._pending.get(id, ("", None))  # unknown: its caller has given up
        if answer is not None and not answer.done():
            settle(method, answer)

    def _notify(self, method: str, params: Any) -> None:
        if self._on_notification is None or method in self._ignored:
            return
        try:
            self._on_notification(method, params)
        except Exception as error:  # a fault of ours must not cost the connection, which may own sessions
            self._loop.call_exception_handler({"message": f"handling {method} failed", "exception": error})

    def _refuse(self, id: messages.Id, method: str) -> None:
        if self._transport is not None and self._writable.is_set():  # a peer that does not read needs no answer
            refusal = messages.failure(id, METHOD_NOT_FOUND, f"Method not found: {method}")
            self._transport.write(frame(refusal))

    def _lost(self, method: str, cause: Exception | None = None) -> ProtocolError | ConnectionLost:
        if self._broken is not None:
            return ProtocolError(f"{method}: {self._broken}")
        reason = str(cause) if cause else "the connection was closed"
        return ConnectionLost(f"{method}: {reason}")
