"""One connection to a CLI server: requests out under numbers of its own, whatever comes in handed to its listener.

Carries bytes and knows whose answer is whose; which session goes where is the hub's.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.outbox import Outbox, current_round
from copilot_operator.rpc.errors import (
    ConnectionLost,
    ProtocolError,
    ServerRefused,
    ServerSilent,
    error_reply,
)
from copilot_operator.rpc.framing import MIB

MAX_BODY_BYTES: Final = 64 * MIB  # the messages of a loaded session hold their system messages once per turn
UNSENT_BYTES: Final = 1 * MIB
_EVENT: Final = b'{"jsonrpc":"2.0","method":"session.event",'  # as a CLI writes it; its key order is checked elsewhere

# The body of the reply (None: the connection ended without one), and where its id ends as ``wire.good_id_end`` says.
Answered = Callable[[bytes | None, int], None]


class Listener(Protocol):
    """Who hears what a server says. None of these may block or raise."""

    def event(self, upstream: "UpstreamConnection", body: bytes) -> None:
        """A session.event: nearly all that a server says."""

    def told(self, upstream: "UpstreamConnection", method: str, body: bytes) -> None:
        """Another notification."""

    def asked(self, upstream: "UpstreamConnection", id: bytes, method: str, body: bytes) -> None:
        """A request of the server, which waits for its answer for ever."""

    def reads(self, upstream: "UpstreamConnection", does: bool) -> None:
        """The server has stopped reading what it is sent, or reads again."""

    def lost(self, upstream: "UpstreamConnection", why: str) -> None:
        """The connection has ended, whoever ended it. Told before what is outstanding is answered with None."""


class UpstreamConnection(asyncio.Protocol):
    """Make one with ``open``: it is authenticated then."""

    def __init__(self, listener: Listener) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._splitter = wire.Splitter(max_body_bytes=MAX_BODY_BYTES)
        self._round = current_round()
        self._unsent: Outbox | None = None
        self._transport: asyncio.Transport | None = None
        self._pending: dict[bytes, Answered] = {}
        self._last_id = 0
        self._opened = False
        self._why = ""

    @staticmethod
    async def open(
        host: str, port: int, token: str | None, listener: Listener, *, timeout_s: float
    ) -> "UpstreamConnection":
        """Connect and authenticate within ``timeout_s``. Raises ServerError; an ill connection is closed then."""

        try:
            async with asyncio.timeout(timeout_s):
                _, upstream = await asyncio.get_running_loop().create_connection(
                    lambda: UpstreamConnection(listener), host, port
                )
        except TimeoutError as error:
            raise ServerSilent(f"a TCP connection to {host}:{port}", timeout_s) from error
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise ServerRefused(host, port, reason) from error
        try:
            await upstream.call("connect", {} if token is None else {"token": token}, timeout_s=timeout_s)
        except BaseException:
            upstream.abort("not authenticated")
            raise
        upstream._opened = True
        if upstream.closed:  # it ended behind its answer: its listener has not heard of it
            raise ConnectionLost(f"connect: {upstream._why}")
        return upstream

    # What the hub does

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    @property
    def outstanding(self) -> int:
        """Requests without an answer so far."""
        return len(self._pending)

    def request(self, method: str, params: Mapping[str, Any], answered: Answered) -> None:
        """Send a request. ``answered`` is called once, whatever happens, but not before this returns."""
        if self._transport is None or self._unsent is None or self._transport.is_closing():
            self._loop.call_soon(answered, None, 0)
            return
        self._last_id += 1
        self._pending[b"%d" % self._last_id] = answered
        self._unsent.add(wire.request(self._last_id, method, params))

    async def call(self, method: str, params: Mapping[str, Any], *, timeout_s: float) -> Any:
        """The result of a request of our own. Raises ServerError; it may have been acted on all the same."""
        done: asyncio.Future[bytes | None] = self._loop.create_future()

        def answered(body: bytes | None, _: int) -> None:
            if not done.done():
                done.set_result(body)

        self.request(method, params, answered)
        try:
            async with asyncio.timeout(timeout_s):
                body = await done
        except TimeoutError as error:
            raise ServerSilent(method, timeout_s) from error
        return result_of(method, body)

    def send(self, body: bytes) -> None:
        """Write one message; after the end of the connection it goes nowhere."""
        if self._unsent is not None:
            self._unsent.add(body)

    def pause(self, paused: bool) -> None:
        """Read no more, because nobody reads what this brings; or go on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading() if paused else self._transport.resume_reading()

    def close(self, why: str) -> None:
        """End the connection; what was written is sent first."""
        self._why = self._why or why
        if self._transport is not None and self._unsent is not None:
            self._unsent.flush()
            self._transport.close()

    def abort(self, why: str) -> None:
        """End the connection now."""
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        transport.set_write_buffer_limits(high=UNSENT_BYTES)
        self._transport, self._unsent = transport, Outbox(self._round, transport)

    def pause_writing(self) -> None:
        self._listener.reads(self, False)

    def resume_writing(self) -> None:
        self._listener.reads(self, True)

    def data_received(self, data: bytes) -> None:
        try:
            bodies = self._splitter.feed(data)
            with self._round:
                for body in bodies:
                    try:
                        self._received(body)
                    except ProtocolError:
                        raise
                    except Exception as error:  # a fault of ours must not cost the sessions of this connection
                        fault = {"message": "a server's message failed", "exception": error}
                        self._loop.call_exception_handler(fault)
        except ProtocolError as error:
            self.abort(f"the server does not speak the protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._unsent = None
        self._why = self._why or (str(exc) if exc else "the server closed the connection")
        if self._opened:
            self._listener.lost(self, self._why)
        pending, self._pending = self._pending, {}
        for answered in pending.values():
            answered(None, 0)

    def _received(self, body: bytes) -> None:
        if self._opened and body.startswith(_EVENT):
            self._listener.event(self, body)
            return
        id_end = wire.good_id_end(body)
        if id_end and (answered := self._pending.pop(body[wire.ID_BEGIN : id_end], None)):
            answered(body, id_end)
            return
        head = wire.head(body)
        if head.method is None:
            if head.id is None:
                raise ProtocolError("the server could not read a request")
            answered = self._pending.pop(head.id, None)
            if answered is not None:
                answered(body, 0)
        elif not self._opened:
            return  # broadcasts that overtake the end of ``open``; a server asks nothing before
        elif head.method == "session.event":  # of a CLI that orders its keys differently
            self._listener.event(self, body)
        elif head.id is None:
            self._listener.told(self, head.method, body)
        else:
            self._listener.asked(self, head.id, head.method, body)


def result_of(method: str, body: bytes | None) -> Any:
    """The result in a reply. Raises RpcError for an error reply, ConnectionLost without a reply."""
    if body is None:
        raise ConnectionLost(f"{method}: the connection ended without an answer")
    if wire.head(body).is_error:
        code, message, data = wire.error(body)
        raise error_reply(method, code, message, data)
    return wire.result(body)
