"""The front door: one connection of a client. Bytes to requests, answers to bytes, and every bound on them.

It answers as a CLI would whatever a CLI would answer before anybody is authenticated; the rest is the house's.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, cast

from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.house import Admitted, Bounds, House, Rejected, TurnedAway
from copilot_operator.gateway.outbox import Outbox, current_round
from copilot_operator.rpc.errors import AUTHENTICATION_FAILED, AUTHENTICATION_REQUIRED

INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
_CONNECT_FIELDS: Final = ("enableGitHubTelemetryForwarding", "clientInfo", "supportedTaskKinds")


class ClientConnection(asyncio.Protocol):
    """One client. ``peer`` is the address it came from, without port."""

    __slots__ = (
        "_arrived",
        "_bounds",
        "_frame_timer",
        "_frame_until",
        "_handshake_timer",
        "_held",
        "_house",
        "_loop",
        "_round",
        "_splitter",
        "_stops",
        "_transport",
        "_unread_timer",
        "_unsent",
        "authenticated",
        "peer",
        "why_closed",
    )

    def __init__(self, house: House, bounds: Bounds) -> None:
        self.authenticated = self._arrived = False
        self.peer = ""
        self.why_closed = ""  # by us; "" if the client went by itself
        self._house, self._bounds = house, bounds
        self._loop = asyncio.get_running_loop()
        self._splitter = wire.Splitter(max_body_bytes=bounds.body_before)
        self._round = current_round()
        self._unsent: Outbox | None = None
        self._transport: asyncio.Transport | None = None
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._frame_timer: asyncio.TimerHandle | None = None
        self._frame_until = 0.0
        self._held: list[bytes] | None = None  # messages behind a wrong token, until that is answered
        self._unread_timer: asyncio.TimerHandle | None = None
        self._stops: set[str] = set()  # reasons not to read

    # What the house does

    def send(self, body: bytes) -> None:
        """Write one message; after the end of the connection it goes nowhere."""
        if self._unsent is not None:
            self._unsent.add(body)

    def refuse(self, id: bytes, code: int, message: str, data: Any = None) -> None:
        """Answer with an error."""
        self.send(wire.error_reply(id, code, message, data))

    def listen(self, does: bool) -> None:
        """Read requests; or not, because the server they go to does not read."""
        self._stop("server", not does)

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def close(self, why: str) -> None:
        """End the connection once what was written has been sent, which ``Bounds.unread_s`` bounds."""
        if self._transport is not None and self._unsent is not None and not self._transport.is_closing():
            self.why_closed = why
            self._unsent.flush()
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._watch_unread()

    def abort(self, why: str) -> None:
        """End the connection now."""
        if self._transport is not None:
            self.why_closed = self.why_closed or why
            self._transport.abort()

    def arrives(self, peer: str) -> bool:
        """Have it counted, who comes with TLS from the beginning of its handshake; False: there is no room.

        ``connection_lost`` must follow in either case.
        """
        self.peer, self._arrived = peer, True
        return self._house.came(self)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._transport, self._unsent = transport, Outbox(self._round, transport)
        transport.set_write_buffer_limits(high=self._bounds.unread)
        address = transport.get_extra_info("peername")
        if not self._arrived and not self.arrives(str(address[0]) if isinstance(address, tuple) else ""):
            self.abort("no room")
            return
        self._handshake_timer = self._loop.call_later(self._bounds.handshake_s, self.abort, "no handshake")

    def data_received(self, data: bytes) -> None:
        continued = self._splitter.in_frame
        try:
            bodies = self._splitter.feed(data)
        except wire.BadFrame as error:
            self.send(error.reply)
            self.close("no frame")
            return
        with self._round:
            self._receive(bodies)
        if self._splitter.in_frame:
            self._watch_frame(began=bool(bodies) or not continued)

    def pause_writing(self) -> None:
        self._watch_unread()
        self._stop("unread", True)  # its next request would only add to what it does not read
        self._house.reads(self, False)

    def resume_writing(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        self._stop("unread", False)
        self._house.reads(self, True)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._handshake_timer, self._frame_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._transport = self._unsent = None
        self._house.gone(self)

    # Messages

    def _receive(self, bodies: list[bytes]) -> None:
        for n, body in enumerate(bodies):
            if self._held is not None:
                self._held += bodies[n:]
                return
            try:
                self._received(body)
            except Exception as error:  # a fault of ours must not cost the connection
                self._loop.call_exception_handler({"message": "a client's message failed", "exception": error})
                self.send(wire.error_reply(_id_of(body), INTERNAL_ERROR, "The gateway failed to handle this message"))

    def _received(self, body: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        try:
            head = wire.head(body)
        except wire.BadMessage as error:
            self.send(error.reply)
            return
        if head.method == "connect" and head.id is not None:
            self._connect(head.id, head.params)
        elif not self.authenticated:
            if head.method is not None and head.id is not None:
                self.refuse(head.id, AUTHENTICATION_REQUIRED, "AUTHENTICATION_REQUIRED")
        elif head.id is None:
            if head.method is not None:
                self._house.notified(self, head.method, body)
        elif head.method is None:
            self._house.replied(self, head.id, body)
        else:
            self._house.requested(self, head.id, head.method, head.params)

    def _connect(self, id: bytes, params: Any) -> None:
        token = params.get("token") if isinstance(params, dict) else None
        reception = self._house.connect(self, token if isinstance(token, str) else "")
        match reception:
            case Rejected(after_s):
                self._reject(id, after_s)
            case TurnedAway(code, message):
                self.refuse(id, code, message)
                self.close("turned away")
            case Admitted(result):
                self._admit(id, params, result)

    def _admit(self, id: bytes, params: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        unknown = next((name for name in params if name != "token" and name not in _CONNECT_FIELDS), None)
        if unknown is not None:
            expected = ", ".join(f"`{name}`" for name in _CONNECT_FIELDS)
            text = f"Invalid connect request: unknown field `{unknown}`, expected one of {expected}"
            self.refuse(id, INVALID_PARAMS, text)
            return
        self.authenticated = True
        self._splitter.max_body_bytes = self._bounds.body
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None
        self.send(wire.good_reply(id, result))

    def _reject(self, id: bytes, after_s: float) -> None:
        if after_s <= 0:
            self.refuse(id, AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED")
        elif self._transport is not None:
            self._held = []
            self._stop("rejected", True)
            self._loop.call_later(after_s, self._rejected, id)

    def _rejected(self, id: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            held, self._held = self._held or [], None
            self.refuse(id, AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED")
            self._stop("rejected", False)
            self._receive(held)

    def _stop(self, reason: str, stops: bool) -> None:
        """Stop reading for one more reason, or for one less."""
        before = bool(self._stops)
        self._stops.add(reason) if stops else self._stops.discard(reason)
        if self._transport is not None and not self._transport.is_closing() and bool(self._stops) != before:
            self._transport.pause_reading() if self._stops else self._transport.resume_reading()

    # Time

    def _watch_frame(self, *, began: bool) -> None:
        """One timer a connection: a busy client ends most reads within a frame."""
        if began or self._frame_timer is None:
            self._frame_until = self._loop.time() + self._bounds.frame_s
        if self._frame_timer is None:
            self._frame_timer = self._loop.call_at(self._frame_until, self._frame_is_due)

    def _frame_is_due(self) -> None:
        self._frame_timer = None
        if not self._splitter.in_frame:
            return
        if self._loop.time() >= self._frame_until:
            self.abort("half a frame")
        else:
            self._frame_timer = self._loop.call_at(self._frame_until, self._frame_is_due)

    def _watch_unread(self) -> None:
        if self._unread_timer is None:
            self._unread_timer = self._loop.call_later(self._bounds.unread_s, self.abort, "does not read")


def _id_of(body: bytes) -> bytes | None:
    try:
        return wire.head(body).id
    except wire.BadMessage:
        return None
