"""One look at all sessions of a server: asks, and leaves the judging to ``rpc.busy``."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from copilot_operator.agent.store import names
from copilot_operator.rpc import busy
from copilot_operator.rpc.busy import Answer, Evidence, Standing, Work
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import ConnectionLost, ProtocolError, ServerError
from copilot_operator.rpc.ids import is_id

_ASKERS: Final = 16  # questions under way at once; more gains nothing, one server answers in turn
_ANSWER_TIMEOUT_S: Final = 2.0
_LIST_TIMEOUT_S: Final = 20.0  # 1,000 stored sessions take half a second; this is for a busy machine


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


async def stored_sessions(connection: Connection) -> list[dict[str, Any]]:
    """What the CLI lists: of each a ``sessionId`` and what else it says. Raises ServerError."""
    answer = await connection.call("session.list", {}, timeout_s=_LIST_TIMEOUT_S)
    sessions = answer.get("sessions") if isinstance(answer, dict) else None
    if not isinstance(sessions, list):
        raise ProtocolError("session.list answered without sessions")
    return [each for each in sessions if isinstance(each, dict) and isinstance(each.get("sessionId"), str)]


async def stored_ids(connection: Connection, directory: Path) -> set[str]:
    """Ids of all that is stored in ``directory``. Raises ServerError and OSError."""
    try:
        return await asyncio.to_thread(names, directory)  # a slow volume must not hold up probes
    except PermissionError:  # made by a CLI that was not started by our script
        return {each["sessionId"] for each in await stored_sessions(connection) if is_id(each["sessionId"])}


async def standing_of(connection: Connection, id: str, *, timeout_s: float) -> Standing:
    """Where one session stands."""
    return busy.standing(await _Asker(connection, timeout_s).evidence(id))


async def has_running_task(connection: Connection, id: str, *, timeout_s: float) -> bool:
    """Whether a background shell or agent of a session may run, whatever else it does."""
    answer = await _Asker(connection, timeout_s).ask("session.tasks.list", id)
    tasks = answer.get("tasks") if isinstance(answer, dict) else None
    return not isinstance(tasks, list) or any(map(busy.task_runs, tasks))


class _Asker:
    """Asks about sessions until the time is up; then nothing more is asked."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._clock = asyncio.get_running_loop().time
        self._ends_at = self._clock() + timeout_s

    async def evidence(self, id: str) -> Evidence:
        """Ask no more than the judgement needs: most sessions are settled by the first answer."""
        first = Evidence(activity=await self.ask("session.metadata.activity", id))
        if busy.says_not_loaded(first.activity) or isinstance(first.activity, ServerError):
            return first
        second = first
        if not busy.works(first):
            second = Evidence(
                activity=first.activity,
                tasks=await self.ask("session.tasks.list", id),
                queue=await self.ask("session.queue.pendingItems", id),
            )
            if not busy.works(second):
                return second
        return Evidence(
            activity=second.activity,
            tasks=second.tasks,
            queue=second.queue,
            permissions=await self.ask("session.permissions.pendingRequests", id),
            tools=await self.ask("session.tools.listPendingRequests", id),
        )

    async def ask(self, method: str, id: str) -> Answer:
        timeout_s = min(_ANSWER_TIMEOUT_S, self._ends_at - self._clock())
        if timeout_s <= 0:
            return None
        try:
            answer: Any = await self._connection.call(method, {"sessionId": id}, timeout_s=timeout_s)
        except ServerError as error:
            return error
        return answer if isinstance(answer, dict) else None
