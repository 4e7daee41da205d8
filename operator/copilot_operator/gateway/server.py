"""One server as the gateway sees it: its utility link, and which sessions it stores.

The utility link asks what no client's link should be asked over, and hears of every session (the CLI broadcasts to
all). It is always open, or about to be: a server that cannot be reached takes nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from copilot_operator.gateway.agent_client import AgentClient
from copilot_operator.gateway.enquiries import standing_of
from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.keeper import CALL_S, Keeper
from copilot_operator.gateway.link import Address, Link
from copilot_operator.gateway.loads import Attachment
from copilot_operator.gateway.locks import Locks
from copilot_operator.gateway.openings import Openings
from copilot_operator.gateway.permits import Holders, Permits
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
    ``on_listed``: what it stores is known. ``starting``: nobody knows when it will answer, and whoever needs it waits.

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
        agent_port: int = 4322,
        holders: Holders | None = None,
        on_listed: Callable[[str], None] = lambda server: None,
    ) -> None:
        self.name, self.address, self.serving = name, address, serving
        self.starting = False
        self.stored: set[str] = set()  # its own ids of sessions that are on its disk, once ``listed``
        self.listed = False
        self.listing: list[dict[str, Any]] = []  # as it answered ``session.list`` last
        self._on_lifecycle, self._on_listed = on_lifecycle, on_listed
        self._retry_s = _FIRST_RETRY_S
        self._retry: asyncio.TimerHandle | None = None
        self._listing: asyncio.Task[None] | None = None
        self._ended = False
        host = f"[{address.host}]" if ":" in address.host else address.host
        self._agent = AgentClient(f"http://{host}:{agent_port}")
        self.permits = Permits(self._agent, None, holders)
        self.locks, self.openings = Locks(self._agent), Openings(self._agent)
        self.keeper = Keeper(self._ask_for, self._works, self._may_attach, lambda id: owned(name, id), on=keeps)
        self.utility = self._link()

    @property
    def reachable(self) -> bool:
        return self.utility.is_open

    @property
    def caught_up(self) -> bool:
        """Whether the turns that ran when this came are kept."""
        return self._listing is not None and self._listing.done() and not self.keeper.attaches

    def end(self) -> None:
        """Ask it no more."""
        self._ended = True
        for each in (self._retry, self._listing):
            if each is not None:
                each.cancel()
        self.keeper.end()
        last_words = self.permits.end()
        self.locks.end()
        self.openings.end()
        self._agent.end(last_words)
        self.utility.close("the server has left the pool")

    async def _ask_for(self, method: str, params: dict[str, Any]) -> Any:
        return await self.utility.call(method, params, timeout_s=CALL_S)

    async def _may_attach(self, id: str) -> Attachment | None:
        link = self.utility
        permit = await self.permits.may_attach(id)
        return None if permit is None else Attachment(link, permit, id, ephemeral=id in self.keeper.ephemeral)

    async def _works(self, id: str) -> bool:
        return (await standing_of(self.utility, id, CALL_S)).is_busy

    def opens(self, id: str) -> None:
        """A client of this gateway is about to create, resume or attach to a session."""
        if id in self.keeper.ephemeral:
            self.openings.opens(id)

    async def release(self, id: str) -> bool:
        """Have a session given up for another server; False: not yet, ask again."""
        if await self.permits.release(id):
            return True
        self.keeper.leave(id)  # one that keeps it may not have heard that its client left, or have come after it
        return False

    async def call(self, method: str, params: dict[str, Any], *, timeout_s: float = LIST_S) -> Any:
        """The result of a request over the utility link. Raises ServerError."""
        return await self.utility.call(method, params, timeout_s=timeout_s)

    # What the utility link calls

    def opened(self, link: Link) -> None:
        self._retry_s = _FIRST_RETRY_S
        self.list()

    def list(self) -> None:
        """Have it listed what it stores; also before it stops, for who asks when it has."""
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
        level = logging.WARNING if self._retry_s == _FIRST_RETRY_S and not self.starting else logging.DEBUG
        log.log(level, "server %s cannot be asked: %s", self.name, why)
        self._retry = asyncio.get_running_loop().call_later(self._retry_s, self._again)
        self._retry_s = _FIRST_RETRY_S if self.starting else min(_LAST_RETRY_S, self._retry_s * 2)

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
        self.listing = found
        known = [str(each["sessionId"]) for each in found]
        self.stored.update(known)
        self.listed = True
        self._on_listed(self.name)
        for id in known[:MOST_LOOKED_AT]:
            self.keeper.updated(id)  # a turn that began before this was there is heard of no more until its end

    def _remember(self, body: bytes) -> None:
        try:
            params = wire.params(body)
        except ProtocolError:
            return
        if isinstance(params, dict) and isinstance(id := params.get("sessionId"), str):
            match params.get("type"):
                case "session.created":
                    self.keeper.created(id)
                case "session.deleted":
                    self.stored.discard(id)
                case "session.updated":  # at each event that goes to disk
                    self.stored.add(id)
                    self.keeper.updated(id)
