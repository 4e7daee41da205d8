"""One look at all sessions of a server: asks, and leaves the judging to ``rpc.busy``."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from copilot_operator.rpc import busy
from copilot_operator.rpc.busy import Answer, Evidence, Standing, Work
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import ConnectionLost, ServerError

_ASKERS: Final = 16  # questions under way at once; more gains nothing, one server answers in turn
_ANSWER_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Found:
    """Where one session stands, and what keeps it busy if it is."""

    standing: Standing
    work: Work | None


async def survey(connection: Connection, ids: Iterable[str], *, timeout_s: float) -> dict[str, Found]:
    """Where each session stands, by id. Those not answered for in time are Uncounted.

    Raises ConnectionLost when the connection ends, for then nothing at all is known.
    """
    found: dict[str, Found] = {}
    asker = _Asker(connection, timeout_s)

    async def work(left: Iterator[str]) -> None:
        for id in left:
            evidence = await asker.evidence(id)
            found[id] = Found(busy.standing(evidence), busy.work(evidence))

    left = iter(list(ids))
    async with asyncio.TaskGroup() as askers:
        for _ in range(_ASKERS):
            askers.create_task(work(left))
    if connection.closed:
        raise ConnectionLost("survey: the connection was closed")
    return found


async def standing_of(connection: Connection, id: str, *, timeout_s: float) -> Standing:
    """Where one session stands."""
    return busy.standing(await _Asker(connection, timeout_s).evidence(id))


class _Asker:
    """Asks about sessions until the time is up; then nothing more is asked."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._clock = asyncio.get_running_loop().time
        self._ends_at = self._clock() + timeout_s

    async def evidence(self, id: str) -> Evidence:
        """Ask no more than the judgement needs: most sessions are settled by the first answer."""
        first = Evidence(activity=await self._ask("session.metadata.activity", id))
        if busy.says_not_loaded(first.activity) or isinstance(first.activity, ServerError):
            return first
        second = first
        if not busy.works(first):
            second = Evidence(
                activity=first.activity,
                tasks=await self._ask("session.tasks.list", id),
                queue=await self._ask("session.queue.pendingItems", id),
            )
            if not busy.works(second):
                return second
        return Evidence(
            activity=second.activity,
            tasks=second.tasks,
            queue=second.queue,
            permissions=await self._ask("session.permissions.pendingRequests", id),
            tools=await self._ask("session.tools.listPendingRequests", id),
        )

    async def _ask(self, method: str, id: str) -> Answer:
        timeout_s = min(_ANSWER_TIMEOUT_S, self._ends_at - self._clock())
        if timeout_s <= 0:
            return None
        try:
            answer: Any = await self._connection.call(method, {"sessionId": id}, timeout_s=timeout_s)
        except ServerError as error:
            return error
        return answer if isinstance(answer, dict) else None
