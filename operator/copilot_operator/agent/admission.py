"""Lets gateways load sessions, at most so many at a time: one place for each server, however many gateways there are.

Who closes an idle session to make room is a gateway that owns it: it alone knows of a message that is on its way. It
is asked by an event that only owners hear (rpc/owners.py). One that nobody closes goes when it is old.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from copilot_operator.agent.log import log
from copilot_operator.agent.observer import Observer, Sessions
from copilot_operator.agent.slots import Bounds, Slots
from copilot_operator.agent.survey import has_running_task, standing_of
from copilot_operator.rpc import owners
from copilot_operator.rpc.busy import Standing
from copilot_operator.rpc.errors import RpcError

LOOK_EVERY_S: Final = 0.05
CALL_S: Final = 2.0
LOOKED_AT: Final = 8  # sessions in one round
TELL_EVERY_S: Final = 0.5
GOES_WITHIN_S: Final = 3.0  # or its owners had a reason not to close it
UNOWNED_S: Final = 60.0  # without a sign, idle, and its owners were told
BUSY_FOR_S: Final = 0.5  # one that is busy is not asked about again for so long
ALL_BUSY_FOR_S: Final = 5.0  # all were found busy within that: no idle one is left


@dataclass
class Admission:
    """``evicted`` counts sessions that went for others, ``refused`` those that were one too many."""

    observer: Observer
    slots: Slots = field(default_factory=Slots)
    evicted: int = 0
    refused: int = 0
    _told_at: dict[str, float] = field(default_factory=dict)  # when its owners were asked to close a session
    _busy_at: dict[str, float] = field(default_factory=dict)  # when it was found so
    _waits: set[str] = field(default_factory=set)  # of those: for a person or a client's tool
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def met_new_cli(self) -> None:
        """Nothing is loaded there."""
        self.slots = Slots()
        self._told_at, self._busy_at, self._waits = {}, {}, set()

    def heard(self, id: str) -> None:
        """Something happened to a session."""
        self.slots.used(id, _now())

    def found(self, sessions: Sessions) -> None:
        """What a survey found loaded, also past this."""
        self.slots.loaded(sessions.standings, _now())

    async def admit(
        self,
        wanted: Mapping[str, int | None],
        bounds: Bounds,
        *,
        evict: bool,
        wait_s: float,
        waiting_s: float = math.inf,
    ) -> dict[str, str]:
        """By id what it lacks, "" if it may be loaded; ``wanted`` has the most that its tenant may have. Returns once
        one may, at the latest after ``wait_s``; without ``evict`` at once. ``waiting_s``: after how long without a sign
        one that waits for a person or a client's tool goes if no idle one is left. Raises ServerError."""
        ends_at = _now() + wait_s
        while not (granted := self.slots.ask(wanted, bounds, _now(), self._going)):
            async with self._looking:  # in turn: what one makes free another must not count on
                await self._make_room(wanted, bounds, evict=evict, waiting_s=waiting_s)
            if not evict or _now() >= ends_at:
                granted = self.slots.ask(wanted, bounds, _now(), self._going)
                break
            await asyncio.sleep(LOOK_EVERY_S)
        if not evict:
            self.refused += len(wanted.keys() - granted)
        return {id: "" if id in granted else self.slots.lacks(id, bounds) or "server" for id in wanted}

    def attach(self, id: str) -> bool:
        """Whether a gateway may attach to a session that it knows to be loaded."""
        return id not in self._going and self.slots.attach(id, _now())

    @property
    def _going(self) -> set[str]:
        """What may be unloaded at any moment, for its owners were told a moment ago."""
        return {id for id, at in self._told_at.items() if _now() - at < GOES_WITHIN_S}

    async def _make_room(self, ids: Iterable[str], bounds: Bounds, *, evict: bool, waiting_s: float) -> None:
        """Find out who is not loaded any more; if that is not enough have idle ones closed, one for each who waits."""
        going = [other for other in list(self._told_at) if self._may_go(other, await self._look(other), waiting_s)]
        for other in going:
            await self._close(other)
        for id in ids:
            if not self.slots.lacks(id, bounds):
                continue
            if (helping := next((each for each in going if self.slots.helps(id, each, bounds)), None)) is not None:
                going.remove(helping)
                continue
            candidates = self.slots.candidates(id, bounds, _now(), self._told_at)
            looks = [other for other in candidates if not self._was_busy(other, BUSY_FOR_S)]
            if await self._one_goes(id, looks, bounds, evict=evict) or not evict:
                continue
            if all(self._was_busy(other, ALL_BUSY_FOR_S) for other in candidates):
                await self._close_waiting(candidates, waiting_s)

    async def _one_goes(self, id: str, candidates: Iterable[str], bounds: Bounds, *, evict: bool) -> bool:
        """Whether there is room for ``id`` now, or one was told to make it.

        Thousands may be taken for loaded that are not, for a survey had no time to ask: all of them go here.
        """
        looked_at = 0
        for other in candidates:
            standing = await self._look(other)
            if not standing.is_loaded:
                if not self.slots.lacks(id, bounds):
                    return True
            elif standing is Standing.IDLE and evict:
                await self._close(other)
                return True
            elif (looked_at := looked_at + 1) == LOOKED_AT:
                break
        return False

    async def _close_waiting(self, candidates: Iterable[str], waiting_s: float) -> None:
        """Have the first closed that has waited for long enough: its turn goes on once it has what it waits for."""
        for other in candidates:
            if other not in self._waits or not self._may_go(other, await self._look(other), waiting_s):
                continue
            if not await has_running_task(self.observer.connection, other, timeout_s=CALL_S):
                await self._close(other)
                return

    def _may_go(self, id: str, standing: Standing, waiting_s: float) -> bool:
        """Whether a session may be unloaded for another."""
        if standing is not Standing.WAITING:
            return standing is Standing.IDLE
        waits = id in self.slots and self.slots.unused_s(id, _now()) >= waiting_s
        if not waits:
            self._told_at.pop(id, None)
        return waits

    def _was_busy(self, id: str, within_s: float) -> bool:
        return _now() - self._busy_at.get(id, -math.inf) < within_s

    async def _look(self, id: str) -> Standing:
        standing = await standing_of(self.observer.connection, id, timeout_s=CALL_S)
        if not standing.is_loaded:
            return standing if self._gone(id) else Standing.UNCOUNTED
        self.slots.loaded([id], _now())
        self._waits.discard(id)
        self._busy_at.pop(id, None)
        if standing is Standing.WAITING:
            self._waits.add(id)
        elif standing.is_busy:
            self._told_at.pop(id, None)
        if standing.is_busy:
            self._busy_at[id] = _now()
        return standing

    async def _close(self, id: str) -> None:
        """Have an idle session closed, or one that waits; told again now and then: its owners may have been busy."""
        connection, now = self.observer.connection, _now()
        told_at = self._told_at.get(id)
        if told_at is not None and now - told_at < TELL_EVERY_S:
            return
        self._told_at[id] = now
        with suppress(RpcError):  # it went by itself
            if told_at is not None and self.slots.unused_s(id, now) > UNOWNED_S:
                log("a session that nobody owns is closed for another")
                await connection.call("sessions.close", {"sessionId": id}, timeout_s=CALL_S)
            else:
                message = owners.WAITS if id in self._waits else ""
                await connection.call("session.log", owners.said(id, owners.EVICT, message), timeout_s=CALL_S)

    def _gone(self, id: str) -> bool:
        """It is not loaded; False: not yet, perhaps."""
        if not self.slots.unloaded(id, _now()):
            return False
        if self._told_at.pop(id, None) is not None:
            self.evicted += 1
        self._busy_at.pop(id, None)
        self._waits.discard(id)
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()
