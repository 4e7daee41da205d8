"""The drain: nothing stops before the turns that run have ended, or the deadline has come.

    Quiescing   a keeper is attached to every busy session, so that a client which hangs up does not kill its turn;
                wait until none is busy
    Flushing    past the deadline: abort what still runs, so that its client hears an end instead of silence.
                Then close every loaded session: history written, locks released
    Done        until the CLI is another process

A CLI that does not answer has nothing to wait for: after a few tries the drain ends.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from copilot_operator.agent.log import log
from copilot_operator.agent.observer import Observer, Sessions
from copilot_operator.agent.survey import standing_of
from copilot_operator.rpc.busy import Standing
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import ConnectionLost, ServerError, ServerSilent
from copilot_operator.rpc.framing import KIB

_LOOK_EVERY_S: Final = 0.5
_SURVEY_TIMEOUT_S: Final = 10.0  # 1,000 stored sessions take half a second on an idle machine
_SURVEY_USUALLY_S: Final = 0.7
_CALL_TIMEOUT_S: Final = 5.0
_CLOSE_TIMEOUT_S: Final = 20.0  # writing out a long session takes 0.3 s on an idle machine
_ABORT_WAIT_S: Final = 5.0
_TRIES: Final = 3  # unanswered surveys in a row, then the CLI is taken for dead
_TRIES_IF_PINGED: Final = 10  # ... of one that answers ping
_AT_ONCE: Final = 8

# An answer to session.resume has under 2 KiB. Events, which a keeper is sent without wanting them, have up to many MiB;
# those are not even put together.
_KEEPER_MAX_BODY_BYTES: Final = 256 * KIB

AnswersPing = Callable[[], Awaitable[bool]]


class PingUnanswered(ServerSilent):
    """The CLI does not even answer ping."""


class Phase(StrEnum):
    """Where a drain stands."""

    QUIESCING = "Quiescing"
    FLUSHING = "Flushing"
    DONE = "Done"


@dataclass(slots=True)
class Progress:
    """What a drain has done so far; for ``/state``."""

    phase: Phase = Phase.QUIESCING
    busy: int | None = None  # None: not counted yet
    kept: set[str] = field(default_factory=set)  # attached to by the keeper
    closed: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)  # busy when their time was up
    gave_up: str = ""  # why, when the CLI did not answer


class Drain:
    """One drain of one CLI process. ``run`` may be awaited once; ``hasten`` may bring its deadline forward."""

    def __init__(self, observer: Observer, answers_ping: AnswersPing, keeper: "Keeper", *, deadline_s: float) -> None:
        self.progress = Progress()
        self.generation = observer.generation
        self._observer, self._answers_ping, self._keeper = observer, answers_ping, keeper
        self._clock = asyncio.get_running_loop().time
        self.started_at = self._clock()
        self.deadline_at = self.started_at + deadline_s

    def hasten(self, deadline_s: float) -> None:
        """Another caller has less time: the earliest deadline counts, for then someone stops the CLI anyway."""
        self.deadline_at = min(self.deadline_at, self._clock() + deadline_s)

    async def run(self) -> Progress:
        """Drain, and return what was done. Raises nothing but CancelledError: who waits has to be answered."""
        log("drain begins", deadlineSeconds=round(self.deadline_at - self._clock(), 1))
        try:
            await self._quiesce_and_flush()
        except ServerError as error:
            self.progress.gave_up = str(error)
        finally:
            await self._keeper.close()
            self.progress.phase = Phase.DONE
        log(
            "drain is done",
            seconds=round(self._clock() - self.started_at, 2),
            closed=len(self.progress.closed),
            cut=len(self.progress.cut),
            gaveUp=self.progress.gave_up,
        )
        return self.progress

    async def _quiesce_and_flush(self) -> None:
        while True:
            sessions = await self._look()
            await self._keep(id for id, standing in sessions.standings.items() if standing.is_busy)
            if self._clock() >= self.deadline_at:
                await self._flush(sessions)
                return
            if sessions.count.busy == 0:
                await self._close(sessions, only_idle=True)
                if (await self._look()).count.loaded == 0:
                    return
            await asyncio.sleep(min(_LOOK_EVERY_S, max(0.0, self.deadline_at - self._clock())))

    async def _look(self) -> Sessions:
        """A full survey: a session loaded unheard would lose its turn. Raises ServerError when the CLI is silent."""
        tried = 0
        while True:
            try:
                sessions = await self._survey()
                if self._observer.generation == self.generation and not everyone_is_silent(sessions):
                    self.progress.busy = sessions.count.busy
                    return sessions
                silence: ServerError = ServerSilent("any question about its sessions", _SURVEY_TIMEOUT_S)
            except ServerError as error:
                silence = error
            if self._observer.generation != self.generation:
                raise ConnectionLost("the CLI was restarted while it was drained")
            tried += 1
            # One that still answers ping may only be busy beyond measure, or its agent new: it gets more patience.
            alive = not isinstance(silence, PingUnanswered) and await self._answers_ping()
            if tried >= (_TRIES_IF_PINGED if alive else _TRIES):
                raise silence
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _survey(self) -> Sessions:
        """As long as it takes, but no longer than the CLI answers ping while it is waited for."""
        surveying = asyncio.create_task(self._observer.sessions(max_age_s=0, timeout_s=_SURVEY_TIMEOUT_S, full=True))
        try:
            await asyncio.wait([surveying], timeout=_SURVEY_USUALLY_S)
            if not surveying.done() and not await self._answers_ping():
                raise PingUnanswered("ping during a survey of the sessions", _SURVEY_USUALLY_S)
            return await surveying
        finally:
            surveying.cancel()

    async def _keep(self, ids: Iterable[str]) -> None:
        await side_by_side(self._keep_one, [id for id in ids if id not in self.progress.kept])

    async def _keep_one(self, id: str) -> None:
        try:
            await self._keeper.attach(id)
            self.progress.kept.add(id)
        except ServerError as error:  # tried again at the next look; the turn runs on as long as its client stays
            log("keeper could not attach", session=id, message=str(error))

    async def _flush(self, sessions: Sessions) -> None:
        self.progress.phase = Phase.FLUSHING
        running = [id for id, standing in sessions.standings.items() if standing in (Standing.BUSY, Standing.UNCOUNTED)]
        self.progress.cut.update(running)
        # A session that waits for a person is closed as it is: what it waits for is there again when it is resumed.
        await side_by_side(self._abort, running)
        await self._close(sessions, only_idle=False)

    async def _abort(self, id: str) -> None:
        connection = self._observer.connection
        try:
            await connection.call("session.abort", {"sessionId": id}, timeout_s=_CALL_TIMEOUT_S)
            ends_at = self._clock() + _ABORT_WAIT_S
            while self._clock() < ends_at:
                if not (await standing_of(connection, id, timeout_s=_CALL_TIMEOUT_S)).is_busy:
                    return
                await asyncio.sleep(_LOOK_EVERY_S / 10)
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


class Keeper:
    """A connection that co-owns sessions while they are drained, opened when there is something to keep.

    What it is sent is dropped unread, however large.
    """

    def __init__(self, host: str, port: int, token: str | None) -> None:
        self._host, self._port, self._token = host, port, token
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()

    async def attach(self, id: str) -> None:
        """Become another owner of a loaded session; its client sees nothing of it."""
        connection = await self._connected()
        quietly = {"sessionId": id, "disableResume": True}
        await connection.call("session.resume", quietly, timeout_s=_CALL_TIMEOUT_S)

    async def close(self) -> None:
        """Let go of everything. A session nobody else owns is closed by the server then."""
        if self._connection is not None:
            await self._connection.close()

    async def _connected(self) -> Connection:
        async with self._opening:
            if self._connection is None or self._connection.closed:
                connection = await Connection.open(
                    self._host,
                    self._port,
                    timeout_s=_CALL_TIMEOUT_S,
                    ignored=("session.event", "session.lifecycle", "host.event"),
                    max_body_bytes=_KEEPER_MAX_BODY_BYTES,
                    skip_oversized=True,
                )
                try:
                    await connection.connect(self._token, timeout_s=_CALL_TIMEOUT_S)
                except BaseException:
                    connection.abort()
                    raise
                self._connection = connection
            return self._connection


def everyone_is_silent(sessions: Sessions) -> bool:
    """Whether there are sessions and the server spoke of none: it hangs."""
    return 0 < sessions.count.uncounted == len(sessions.standings)


async def side_by_side(step: Callable[[str], Awaitable[None]], ids: Iterable[str]) -> None:
    """Do a step for each id, a few at a time. The first step that fails ends the others, and is what is raised."""
    left = iter(list(ids))

    async def work() -> None:
        for id in left:
            await step(id)

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(_AT_ONCE):
                workers.create_task(work())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
