"""The drain: nothing stops before the turns that run have ended, or the deadline has come.

    Quiescing   a keeper is attached to every busy session, so that a client which hangs up does not kill its turn;
                wait until none is busy
    Flushing    past the deadline: abort what still runs, so that its client hears an end instead of silence.
                Then close every loaded session: history written, locks released
    Done        until the CLI is another process, or has something loaded again when it is looked at

A CLI that does not answer has nothing to wait for: after a few tries the drain ends.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from copilot_operator.agent.deadline import Deadline
from copilot_operator.agent.keeper import Keeper, side_by_side
from copilot_operator.agent.log import log
from copilot_operator.agent.look import LOOK_EVERY_S, Look
from copilot_operator.agent.observer import Observer, Sessions
from copilot_operator.agent.survey import standing_of
from copilot_operator.rpc.busy import Standing
from copilot_operator.rpc.errors import ServerError

_FULL_LOOK_EVERY_S: Final = 5.0
_LOOK_AGAIN_TIMEOUT_S: Final = 4.0
_CALL_TIMEOUT_S: Final = 5.0
_CLOSE_TIMEOUT_S: Final = 20.0  # writing out a long session takes 0.3 s on an idle machine
_ABORT_WAIT_S: Final = 5.0
_ABORT_LOOK_EVERY_S: Final = 0.05


class Phase(StrEnum):
    """Where a drain stands."""

    QUIESCING = "Quiescing"
    FLUSHING = "Flushing"
    DONE = "Done"


@dataclass(slots=True)
class Progress:
    """What a drain has done so far; for ``/state`` and ``/drain``."""

    phase: Phase = Phase.QUIESCING
    sessions: Sessions | None = None  # as last seen; None: not counted yet
    kept: set[str] = field(default_factory=set)  # attached to by the keeper
    closed: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)  # busy when their time was up
    gave_up: str = ""  # why, when the CLI did not answer


class Drain:
    """The drain of one CLI process."""

    def __init__(self, observer: Observer, look: Look, keeper: Keeper, deadline: Deadline) -> None:
        self.progress = Progress()
        self.deadline, self.keeper = deadline, keeper
        self.generation = look.generation
        self._observer, self._look = observer, look
        self._clock = asyncio.get_running_loop().time
        self.started_at = self._clock()
        self._full_look_at = float("-inf")
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Drain. Raises nothing but CancelledError: who waits has to be answered."""
        left_s = self.deadline.left_s(self._clock())
        log("drain begins", deadlineSeconds=left_s and round(left_s, 1), onTimeout=self.deadline.on_timeout)
        try:
            await self._quiesce_and_flush()
        except ServerError as error:
            self.progress.gave_up = str(error)
        # Not when cancelled: a drain that is called off must not end the turns it has kept.
        await self.keeper.close()
        self._enter(Phase.DONE)
        log(
            "drain is done",
            seconds=round(self._clock() - self.started_at, 2),
            closed=len(self.progress.closed),
            cut=len(self.progress.cut),
            gaveUp=self.progress.gave_up,
        )

    async def look_again(self) -> bool:
        """Whether a drain that is done has to go on, because clients with an open connection have begun again.

        It is Quiescing again then, and ``run`` has to be awaited again. What cannot be counted in time is busy; but a
        CLI that did not answer before, and does not even answer ping now, has nothing to wait for.
        Raises nothing but CancelledError.
        """
        if self.progress.gave_up and not await self._look.answers_ping():
            return False
        try:
            async with asyncio.timeout(_LOOK_AGAIN_TIMEOUT_S):
                if (await self._seen()).count.loaded == 0:
                    self.progress.gave_up = ""
                    return False
        except TimeoutError:
            pass
        except ServerError as error:
            self.progress.gave_up = str(error)
            return False
        self.progress.gave_up = ""
        self._enter(Phase.QUIESCING)
        return True

    async def told_more_than(self, told: object, *, wait_s: float) -> object:
        """What there is to tell: now if it differs from ``told`` or the drain is done, else when it does.

        After ``wait_s`` in any case. The answer is opaque, and compares with ``==``.
        """
        ends_at = self._clock() + wait_s
        while self._news == told and self.progress.phase is not Phase.DONE and (left := ends_at - self._clock()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()
        return self._news

    @property
    def _news(self) -> object:
        count = None if self.progress.sessions is None else self.progress.sessions.count
        return self.progress.phase, count and (count.busy, count.waiting)

    async def _quiesce_and_flush(self) -> None:
        while True:
            # A session loaded unheard would lose its turn, so ask about all; but not all the time, for thousands at
            # rest cost the CLI more than its turns.
            full = self._clock() >= self._full_look_at + _FULL_LOOK_EVERY_S
            sessions = await self._seen(full=full)
            if self._clock() >= self.deadline.abort_at:
                await self._flush(sessions if full else await self._seen())
                return
            await self._keep(sessions)
            if sessions.count.busy == 0:
                await self._close(sessions if full else await self._seen(), only_idle=True)
                if (await self._seen()).count.loaded == 0:
                    return
            await asyncio.sleep(min(LOOK_EVERY_S, max(0.0, self.deadline.abort_at - self._clock())))

    async def _seen(self, *, full: bool = True) -> Sessions:
        sessions = await self._look.at_all(full=full, patient_until=self.deadline.abort_at)
        if full:
            self._full_look_at = self._clock()
        self.progress.sessions = sessions
        self._notify()
        return sessions

    def _enter(self, phase: Phase) -> None:
        self.progress.phase = phase
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _keep(self, sessions: Sessions) -> None:
        busy = {id for id, standing in sessions.standings.items() if standing.is_busy}
        await self.keeper.keep(busy)
        self.progress.kept |= busy & self.keeper.kept

    async def _flush(self, sessions: Sessions) -> None:
        self._enter(Phase.FLUSHING)
        running = [id for id, standing in sessions.standings.items() if standing in (Standing.BUSY, Standing.UNCOUNTED)]
        self.progress.cut.update(running)
        # A session that waits for a person is closed as it is: what it waits for is there again when it is resumed.
        await side_by_side(self._abort, running)
        await self._close(sessions, only_idle=False)
        await self._seen()

    async def _abort(self, id: str) -> None:
        connection = self._observer.connection
        try:
            await connection.call("session.abort", {"sessionId": id}, timeout_s=_CALL_TIMEOUT_S)
            ends_at, idle_looks = self._clock() + _ABORT_WAIT_S, 0
            while self._clock() < ends_at:
                busy = (await standing_of(connection, id, timeout_s=_CALL_TIMEOUT_S)).is_busy
                idle_looks = 0 if busy else idle_looks + 1
                if idle_looks == 2:  # its client hears of the end a moment after that, and of nothing once it is closed
                    return
                await asyncio.sleep(_ABORT_LOOK_EVERY_S)
        except ServerError as error:
            log("session could not be aborted", session=id, message=str(error))

    async def _close(self, sessions: Sessions, *, only_idle: bool) -> None:
        async def close_one(id: str) -> None:
            connection = self._observer.connection
            # Asked again right before: a client may have sent something since the survey.
            if only_idle and (await standing_of(connection, id, timeout_s=_CALL_TIMEOUT_S)).is_busy:
                return
            try:
                await connection.call("sessions.close", {"sessionId": id}, timeout_s=_CLOSE_TIMEOUT_S)
                self.progress.closed.add(id)
            except ServerError as error:
                log("session could not be closed", session=id, message=str(error))

        await side_by_side(close_one, list(sessions.standings))
