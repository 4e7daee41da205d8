"""Orders to agents that outlast one request: drain, serve again, restart in place.

Each server has one task, for the last order it was given; one that hangs holds up nobody. The agent itself does the
work, and goes on with a drain when nobody listens: here is only followed where it stands, by one long-poll at a time.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from copilot_operator.domain.snapshot import DrainPhase, DrainReading
from copilot_operator.servers import Key
from copilot_operator.servers.agents import AgentAddress, AgentClient, AgentError, OnTimeout, Progress

log = logging.getLogger(__name__)

WAIT_S: Final = 5.0  # how long an agent may keep its answer back while nothing changes
RETRY_S: Final = 1.0  # after a failure, and between two requests if nothing new was heard
NEXT_S: Final = 0.1  # after something new: bounds what a restless agent costs
AGAIN_S: Final = 2.0  # after Done: a client may begin again until the server has stopped
RETRY_RESTART_S: Final = 5.0
CANCEL_FOR_S: Final = 300.0
AFTER_FAULT_S: Final = 30.0
MOST_AT_ONCE: Final = 1000  # long-polls; if more servers are drained at a time they take turns


Heard = Callable[[], Awaitable[None]]
"""Returns when all who could lead something new to a server know that they must not, or will not say so."""


@dataclass(frozen=True)
class _Order:
    """What the agent of pod ``pod_uid`` is told. ``deadline`` None: no drain was ordered of it."""

    pod_uid: str
    at: AgentAddress
    deadline: datetime | None = None
    on_timeout: OnTimeout = "Abort"


@dataclass(eq=False)
class _Work:
    """``name`` says what is being done; there is a reading as long as the drain is not called off."""

    name: str
    order: _Order
    reading: DrainReading | None
    heard: Heard | None = None  # before the agent is told
    task: asyncio.Task[None] | None = field(default=None, repr=False)


def _nothing(_: Key) -> None:
    pass


class Drains:
    """``changed(key)`` is called when a reading has changed, and when a cancel or a restart has come to its end.

    Before that ``renewed(key)`` is called if the server serves again: what was known of its state is of the past.
    ``clock`` tells the time in which deadlines are given.
    """

    def __init__(
        self,
        client: AgentClient,
        changed: Callable[[Key], None],
        renewed: Callable[[Key], None] = _nothing,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._changed, self._renewed, self._clock = client, changed, renewed, clock
        self._works: dict[Key, _Work] = {}
        self._room = asyncio.Semaphore(MOST_AT_ONCE)

    # What is ordered: the last order counts, and the same one again changes nothing

    def order(
        self,
        key: Key,
        pod_uid: str,
        at: AgentAddress,
        deadline: datetime,
        on_timeout: OnTimeout,
        heard: Heard | None = None,
    ) -> None:
        """Have the server drained; another ``deadline`` (aware), ``on_timeout`` or pod is passed on to its agent.

        ``heard`` is awaited first: a turn that is led there between the agent's last look and the end would be lost.
        """
        self._begin(key, "drain", _Order(pod_uid, at, deadline, on_timeout), self._drain, heard)

    def cancel(self, key: Key, pod_uid: str = "", at: AgentAddress | None = None) -> None:
        """Have the server serve again; its agent is told until it has, for 5 minutes.

        ``pod_uid`` and ``at`` are needed for a drain that was not ordered here, but before a restart of the operator.
        """
        before = self._works.get(key)
        if at is None and before:
            pod_uid, at = before.order.pod_uid, before.order.at
        if at:
            self._begin(key, "cancel", _Order(pod_uid, at), self._cancel)

    def restart(self, key: Key, pod_uid: str, at: AgentAddress) -> None:
        """Have the CLI process end in place, and the drain with it. If something is loaded again the drain goes on."""
        before = self._works.get(key)
        drained = before.order if before and before.order.pod_uid == pod_uid else None
        order = replace(drained, at=at) if drained else _Order(pod_uid, at)
        self._begin(key, "restart", order, self._restart)

    def forget(self, key: Key) -> None:
        """The pod is gone, or nothing is to be said to it any more."""
        if (work := self._works.pop(key, None)) and work.task:
            work.task.cancel()

    # What is known

    def reading(self, namespace: str, server: str) -> DrainReading | None:
        """Where the drain stands; None: none is ordered, or it was called off."""
        work = self._works.get((namespace, server))
        return work.reading if work else None

    def counts(self) -> dict[str, int]:
        """Drains by phase; those whose agent can't be asked are Unanswered."""
        readings = [work.reading for work in self._works.values() if work.reading]
        return dict(Counter("Unanswered" if r.unanswered or not r.phase else r.phase.value for r in readings))

    async def run(self) -> None:
        """Until cancelled; from then on nothing is followed any more, and the agents go on by themselves."""
        try:
            await asyncio.Event().wait()
        finally:
            for key in list(self._works):
                self.forget(key)

    # What is done about it

    def _begin(
        self,
        key: Key,
        name: str,
        order: _Order,
        do: Callable[[Key, _Work], Awaitable[None]],
        heard: Heard | None = None,
    ) -> None:
        before = self._works.get(key)
        if before and (before.name, before.order) == (name, order):
            return
        self.forget(key)
        work = self._works[key] = _Work(name, order, None, heard)
        if name != "cancel":
            known = before.reading if before and before.order.pod_uid == order.pod_uid else None
            work.reading = known or (DrainReading(order.pod_uid) if order.deadline else None)
        work.task = asyncio.create_task(self._run(key, work, do), name=f"{name}-{key[1]}")

    async def _run(self, key: Key, work: _Work, do: Callable[[Key, _Work], Awaitable[None]]) -> None:
        while self._works.get(key) is work:
            try:
                await do(key, work)
            except Exception:  # a fault of ours must not leave a server drained for ever
                log.exception("an order to an agent failed", extra={"key": str(key), "order": work.name})
                await asyncio.sleep(AFTER_FAULT_S)

    async def _drain(self, key: Key, work: _Work) -> None:
        order, clock = work.order, asyncio.get_running_loop().time
        assert order.deadline
        assert work.reading
        if work.heard:
            await work.heard()
            work.heard = None
        wait_s = 0.0  # at first, and after a failure, it is told where the drain stands, not what has changed
        while True:
            began_at, before = clock(), work.reading
            try:
                async with self._room:
                    left_s = (order.deadline - self._clock()).total_seconds()
                    progress = await self._client.drain(order.at, left_s, order.on_timeout, wait_s)
                work.reading, wait_s = _reading(order.pod_uid, progress), WAIT_S
            except AgentError as error:
                work.reading, wait_s = replace(before, unanswered=str(error)), 0.0
            if news := work.reading != before:
                self._changed(key)
            if work.reading.unanswered:
                await asyncio.sleep(RETRY_S)
            elif work.reading.phase == DrainPhase.DONE:
                await asyncio.sleep(AGAIN_S)
            else:
                await asyncio.sleep(NEXT_S if news else max(0.0, began_at + RETRY_S - clock()))

    async def _cancel(self, key: Key, work: _Work) -> None:
        clock = asyncio.get_running_loop().time
        ends_at = clock() + CANCEL_FOR_S
        while clock() < ends_at:
            try:
                if await self._client.cancel(work.order.at):
                    self._ended(key, renewed=True)
                    return
            except AgentError as error:
                reason = str(error)
            else:
                reason = "its sessions are being closed"
            await asyncio.sleep(RETRY_S)
        log.warning("a drain could not be cancelled", extra={"key": str(key), "reason": reason})
        self._ended(key, renewed=False)

    async def _restart(self, key: Key, work: _Work) -> None:
        while True:
            try:
                if await self._client.restart(work.order.at):
                    self._ended(key, renewed=True)
                    return
                break
            except AgentError as error:
                self._unanswered(key, work, error)
                await asyncio.sleep(RETRY_RESTART_S)
        if work.order.deadline is None:
            self._ended(key, renewed=False)
        else:
            work.name = "drain"
            await self._drain(key, work)

    def _unanswered(self, key: Key, work: _Work, error: AgentError) -> None:
        before = work.reading
        if before and before.unanswered != str(error):
            work.reading = replace(before, unanswered=str(error))
            self._changed(key)

    def _ended(self, key: Key, *, renewed: bool) -> None:
        self._works.pop(key, None)
        if renewed:
            self._renewed(key)
        self._changed(key)


def _reading(pod_uid: str, progress: Progress) -> DrainReading:
    return DrainReading(
        pod_uid, progress.phase, progress.busy, progress.waiting, progress.work, progress.cut, progress.gave_up
    )
