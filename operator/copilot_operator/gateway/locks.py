"""Asks the agent beside a server who may speak in a shared session: it decides for all gateways together.

One request at a time carries all that ask, and comes back when one of them may speak. A lease is good for some seconds
by this gateway's own clock, from before it was asked for or renewed: the agent's own count of it ends later.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from copilot_operator.gateway.agent_client import ERRORS, AgentClient

log = logging.getLogger(__name__)

ANSWER_S: Final = 5.0  # beyond what an agent may keep its answer back (2 s)
AGAIN_S: Final = 0.25  # after a failure, or if the agent does not know yet
MOST_AT_ONCE: Final = 12  # the head of a request has 8 KiB


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody else speaks: ``holder``, "" if that is not known. ``full``: and as many wait as may."""

    holder: str
    held_s: float
    full: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """Of a session on one server. ``id`` is the server's own."""

    id: str
    token: str
    holder: str


Told = Callable[[float | Busy], bool]
"""Until when the lease is good; or who speaks, and whether to ask on."""


@dataclass(slots=True)
class _Ask:
    lease: Lease
    waits: bool
    told: Told


class Locks:
    """Of one server."""

    def __init__(self, agent: AgentClient) -> None:
        self._agent = agent
        self._loop = asyncio.get_running_loop()
        self._asks: dict[str, _Ask] = {}
        self._newer = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()

    def ask(self, lease: Lease, told: Told, *, waits: bool) -> None:
        """Ask until there is an answer. ``waits``: in the queue, if somebody else speaks."""
        self._asks[lease.token] = _Ask(lease, waits, told)
        self._newer.set()
        if self._asking is None or self._asking.done():
            self._asking = self._loop.create_task(self._ask_until_done())

    def release(self, lease: Lease) -> None:
        """Give it back, or ask no more. What does not reach the agent ends by itself."""
        self._asks.pop(lease.token, None)
        self._start(self._tell_released(lease))

    async def renew(self, lease: Lease) -> float | None:
        """Until when it is good now; None: it is lost. Raises httpx.HTTPError and the like if that is not known."""
        asked_at = self._loop.time()
        found = await self._get(f"/locks/renew?leases={lease.id}:{lease.token}:{lease.holder}")
        return asked_at + float(found["ttlSeconds"]) if lease.token in found["renewed"] else None

    async def tend(self, id: str, holder: str) -> Busy | None:
        """Whether ``holder`` may end or answer for what the session does; None: yes. Busy also if nobody knows."""
        try:
            return _busy((await self._get(f"/locks/tend?id={id}&holder={holder}"))["tend"])
        except ERRORS as error:
            log.warning("an agent does not say whose turn it is: %r", error)
            return Busy("", 0.0, False)

    def end(self) -> None:
        """The server has left."""
        if self._asking is not None:
            self._asking.cancel()
        for errand in self._errands:
            errand.cancel()

    def _start(self, work: Any) -> None:
        errand = self._loop.create_task(work)
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def _get(self, page: str) -> Any:
        """Raises httpx.HTTPError, ValueError."""
        return await self._agent.get(page, timeout_s=ANSWER_S)

    async def _tell_released(self, lease: Lease) -> None:
        try:
            await self._get(f"/locks/release?leases={lease.id}:{lease.token}")
        except ERRORS as error:
            log.warning("an agent does not take a lease back: %r", error)

    async def _ask_until_done(self) -> None:
        while self._asks:
            self._newer.clear()
            asking = asyncio.ensure_future(self._ask())
            newer = asyncio.ensure_future(self._newer.wait())
            try:
                await asyncio.wait({asking, newer}, return_when=asyncio.FIRST_COMPLETED)
            finally:  # what it may have been given meanwhile it is given again
                newer.cancel()
                asking.cancel()
            if asking.done() and not asking.cancelled() and not asking.result():
                await asyncio.sleep(AGAIN_S)

    async def _ask(self) -> bool:
        """False: not to be asked again at once."""
        asks = list(self._asks.values())[:MOST_AT_ONCE]
        asked_at = self._loop.time()
        query = ",".join(f"{a.lease.id}:{a.lease.token}:{a.lease.holder}:{'w' if a.waits else 'n'}" for a in asks)
        try:
            found = (await self._get(f"/locks?asks={query}"))["asks"]
            for ask in asks:
                self._tell(ask, found[ask.lease.token], asked_at)
        except ERRORS as error:
            log.warning("an agent does not say who may speak: %r", error)
            return False
        left = [ask for ask in asks if ask.lease.token in self._asks]
        for ask in left:  # behind those that were not asked for: all come to their turn
            self._asks[ask.lease.token] = self._asks.pop(ask.lease.token)
        return all(ask.waits for ask in left) and not any(found[ask.lease.token].get("settling") for ask in left)

    def _tell(self, ask: _Ask, said: Any, asked_at: float) -> None:
        token = ask.lease.token
        if self._asks.get(token) is not ask or said.get("settling"):
            return
        busy = _busy(said)
        answer = asked_at + float(said["ttlSeconds"]) if busy is None else busy
        if not ask.told(answer) or busy is None:
            self._asks.pop(token, None)


def _busy(said: Any) -> Busy | None:
    return None if said["granted"] else Busy(str(said["holder"]), float(said["heldSeconds"]), bool(said["full"]))
