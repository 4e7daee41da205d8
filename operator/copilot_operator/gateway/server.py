"""One server as the gateway sees it: its utility link, and which sessions it stores.

The utility link asks what no client's link should be asked over, and hears of every session (the CLI broadcasts to
all). It is always open, or about to be: a server that cannot be reached takes nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from copilot_operator.gateway.enquiries import standing_of
from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.keeper import CALL_S, Keeper
from copilot_operator.gateway.link import Address, Link
from copilot_operator.rpc.busy import Standing
from copilot_operator.rpc.errors import METHOD_NOT_FOUND, ProtocolError, ServerError

log = logging.getLogger(__name__)

UTILITY: Final = 0  # as the number of a link: no client has it
LIST_S: Final = 20.0
MOST_LOOKED_AT: Final = 200  # sessions, of those that a server stores
_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 2.0

Told = Callable[["Server", str, bytes], None]


class Server:
    """``serving``: the operator says that it may take sessions. ``on_lifecycle``: a broadcast, method and body.

    ``owned``: whether a client of this gateway has a session of a server open (its name, and the server's id).
    ``keeps``: whether there are other gateways, whose turns are to be kept.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        serving: bool,
        on_lifecycle: Told,
        owned: Callable[[str, str], bool] = lambda server, id: False,
        *,
        keeps: bool = False,
    ) -> None:
        self.name, self.address, self.serving = name, address, serving
        self.stored: set[str] = set()  # its own ids of sessions that are on its disk, once ``listed``
        self.listed = False
        self._on_lifecycle = on_lifecycle
        self._retry_s = _FIRST_RETRY_S
        self._retry: asyncio.TimerHandle | None = None
        self._listing: asyncio.Task[None] | None = None
        self._ended = False
        self.keeper = Keeper(self._ask_for, self._works, lambda id: owned(name, id), on=keeps)
        self.utility = self._link()

    @property
    def reachable(self) -> bool:
        return self.utility.is_open

    def end(self) -> None:
        """Ask it no more."""
        self._ended = True
        for each in (self._retry, self._listing):
            if each is not None:
                each.cancel()
        self.keeper.end()
        self.utility.close("the server has left the pool")

    async def _ask_for(self, method: str, params: dict[str, Any]) -> Any:
        return await self.utility.call(method, params, timeout_s=CALL_S)

    async def _works(self, id: str) -> bool:
        return (await standing_of(self.utility, id, CALL_S)) in (Standing.BUSY, Standing.WAITING)

    async def call(self, method: str, params: dict[str, Any], *, timeout_s: float = LIST_S) -> Any:
        """The result of a request over the utility link. Raises ServerError."""
        return await self.utility.call(method, params, timeout_s=timeout_s)

    # What the utility link calls

    def opened(self, link: Link) -> None:
        self._retry_s = _FIRST_RETRY_S
        self._listing = asyncio.get_running_loop().create_task(self._list(), name=f"list-{self.name}")

    def event(self, link: Link, body: bytes) -> None:
        """Of a session that is kept for another gateway's client."""
        self.keeper.event(body)

    def told(self, link: Link, method: str, body: bytes) -> None:
        if method == "session.lifecycle":
            self._remember(body)
            self._on_lifecycle(self, method, body)

    def asked(self, link: Link, id: bytes, method: str, body: bytes) -> None:
        link.send(wire.error_reply(id, METHOD_NOT_FOUND, f"Method not found: {method}"))

    def reads(self, link: Link, does: bool) -> None:
        """What is asked here is little."""

    def lost(self, link: Link, why: str) -> None:
        self.keeper.lost()
        if self._ended:
            return
        level = logging.WARNING if self._retry_s == _FIRST_RETRY_S else logging.DEBUG
        log.log(level, "server %s cannot be asked: %s", self.name, why)
        self._retry = asyncio.get_running_loop().call_later(self._retry_s, self._again)
        self._retry_s = min(_LAST_RETRY_S, self._retry_s * 2)

    def _again(self) -> None:
        self.utility = self._link()

    def _link(self) -> Link:
        return Link(self, UTILITY, self.name, self.address)

    async def _list(self) -> None:
        try:
            answer = await self.call("session.list", {})
        except ServerError as error:
            log.warning("cannot list its sessions: %s", error, extra={"server": self.name})
            return
        sessions = answer.get("sessions") if isinstance(answer, dict) else None
        found = [each for each in sessions or () if isinstance(each, dict) and isinstance(each.get("sessionId"), str)]
        found.sort(key=lambda each: str(each.get("modifiedTime", "")), reverse=True)
        known = [str(each["sessionId"]) for each in found]
        self.stored.update(known)
        self.listed = True
        for id in known[:MOST_LOOKED_AT]:
            self.keeper.heard_of(id)  # a turn that began before this was there is heard of no more until its end

    def _remember(self, body: bytes) -> None:
        try:
            params = wire.params(body)
        except ProtocolError:
            return
        if isinstance(params, dict) and isinstance(id := params.get("sessionId"), str):
            match params.get("type"):
                case "session.deleted":
                    self.stored.discard(id)
                case "session.updated":  # at each event that goes to disk
                    self.stored.add(id)
                    self.keeper.heard_of(id)
