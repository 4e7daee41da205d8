"""A connection to a server, opened when it is first needed: what is to go over it waits, in order and bounded."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from copilot_operator.gateway.upstream import Answered, UpstreamConnection, result_of
from copilot_operator.rpc.errors import ServerError, ServerSilent

OPEN_S: Final = 5.0
MAX_WAITING: Final = 256  # requests, while it is being opened


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens, and the token that it wants."""

    host: str
    port: int
    token: str | None = field(default=None, repr=False)
    pod: str = ""  # its UID, if that matters


class Side(Protocol):
    """Whose link it is. None of these may block or raise."""

    def opened(self, link: "Link") -> None:
        """It is authenticated; what waited has been sent."""

    def event(self, link: "Link", body: bytes) -> None:
        """A session.event."""

    def told(self, link: "Link", method: str, body: bytes) -> None:
        """Another notification."""

    def asked(self, link: "Link", id: bytes, method: str, body: bytes) -> None:
        """A request of the server."""

    def reads(self, link: "Link", does: bool) -> None:
        """The server has stopped reading what it is sent, or reads again."""

    def lost(self, link: "Link", why: str) -> None:
        """It could not be opened, or has ended. Told before what was outstanding is answered with None."""


class Link:
    """``number``: of the client connection it was opened for; ``server``: the name of the server."""

    def __init__(self, side: Side, number: int, server: str, address: Address) -> None:
        self.number, self.server = number, server
        self.blocked_by: set[int] = set()  # clients that do not read what comes over it
        self.holds = 0  # requests that are about to be sent over it, and it alone
        self._side, self._address = side, address
        self._loop = asyncio.get_running_loop()
        self._upstream: UpstreamConnection | None = None
        self._waiting: list[tuple[str, Mapping[str, Any], Answered]] = []
        self._lost = False
        self._opening = self._loop.create_task(self._open(), name=f"link-{number}-{server}")

    def __repr__(self) -> str:
        return f"Link({self.number}, {self.server!r})"

    @property
    def is_open(self) -> bool:
        return self._upstream is not None and not self._lost

    @property
    def outstanding(self) -> int:
        """Requests without an answer so far, and those that are about to be sent."""
        return self.holds + len(self._waiting) + (self._upstream.outstanding if self._upstream else 0)

    def request(self, method: str, params: Mapping[str, Any], answered: Answered) -> None:
        """Send a request, as soon as can be. ``answered`` is called once, later: with None if the link was lost."""
        if self._upstream is not None:
            self._upstream.request(method, params, answered)
        elif self._lost or len(self._waiting) >= MAX_WAITING:
            self._loop.call_soon(answered, None, 0)
        else:
            self._waiting.append((method, params, answered))

    async def call(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout_s: float,
        heard: Callable[[bool], None] = lambda answered: None,
    ) -> Any:
        """The result of a request of our own. Raises ServerError; it may have been acted on all the same.

        ``heard`` is told, also later than that, whether it was answered.
        """
        done: asyncio.Future[bytes | None] = self._loop.create_future()

        def answered(body: bytes | None, _: int) -> None:
            heard(body is not None)
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
        """Write one message: an answer to the server, which has asked over this link."""
        if self._upstream is not None:
            self._upstream.send(body)

    def block(self, client: int, blocked: bool) -> None:
        """Read no more as long as a client does not read what this brings."""
        was = bool(self.blocked_by)
        self.blocked_by.add(client) if blocked else self.blocked_by.discard(client)
        if self._upstream is not None and bool(self.blocked_by) != was:
            self._upstream.pause(bool(self.blocked_by))

    def close(self, why: str) -> None:
        """End it; ``Side.lost`` follows."""
        if self._upstream is not None:
            self._upstream.close(why)
        elif not self._lost:
            self._opening.cancel()
            self._loop.call_soon(self._end, why)  # a task that has not begun yet hears of no cancellation

    # What the upstream calls

    def event(self, upstream: UpstreamConnection, body: bytes) -> None:
        self._side.event(self, body)

    def told(self, upstream: UpstreamConnection, method: str, body: bytes) -> None:
        self._side.told(self, method, body)

    def asked(self, upstream: UpstreamConnection, id: bytes, method: str, body: bytes) -> None:
        self._side.asked(self, id, method, body)

    def reads(self, upstream: UpstreamConnection, does: bool) -> None:
        self._side.reads(self, does)

    def lost(self, upstream: UpstreamConnection, why: str) -> None:
        self._end(why)

    async def _open(self) -> None:
        address = self._address
        try:
            upstream = await UpstreamConnection.open(address.host, address.port, address.token, self, timeout_s=OPEN_S)
        except ServerError as error:
            self._end(str(error))
            return
        except asyncio.CancelledError:
            self._end("given up")
            raise
        self._upstream = upstream
        if self.blocked_by:
            upstream.pause(True)
        waiting, self._waiting = self._waiting, []
        for method, params, answered in waiting:
            upstream.request(method, params, answered)
        self._side.opened(self)

    def _end(self, why: str) -> None:
        if self._lost:
            return
        self._lost = True
        self._side.lost(self, why)
        waiting, self._waiting = self._waiting, []
        for _, _, answered in waiting:
            answered(None, 0)
