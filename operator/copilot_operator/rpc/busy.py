"""Who is busy: the decision over what a CLI server says of one session. Pure; asking is the caller's.

No single call tells. ``session.metadata.activity`` misses background shells (their end starts another turn by
itself), and queued messages run after the present turn. What could not be counted is busy: a session that is
stopped because nobody could ask would lose its turn.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

from copilot_operator.rpc.errors import RpcError, ServerError

Answer: TypeAlias = dict[str, Any] | ServerError | None  # None: not asked

_NOT_LOADED_TEXT: Final = "Session not found"  # "... failed with message: Session not found for sessionId: x"


class Standing(StrEnum):
    """Where one session stands."""

    NOT_LOADED = "NotLoaded"
    IDLE = "Idle"
    BUSY = "Busy"
    WAITING = "Waiting"  # busy, and only a person or a client's tool can get it on
    UNCOUNTED = "Uncounted"  # the server did not say

    @property
    def is_loaded(self) -> bool:
        return self is not Standing.NOT_LOADED

    @property
    def is_busy(self) -> bool:
        return self in (Standing.BUSY, Standing.WAITING, Standing.UNCOUNTED)


class Work(StrEnum):
    """What keeps a session busy. One at a time: of several the one that comes first here after ``WAITING``."""

    TURN = "turn"  # runs, its tools included
    TASK = "task"  # a background shell or agent, whose end starts a turn
    QUEUED = "queued"  # a message for the next turn
    WAITING = "waiting"  # for a person or a client's tool, whatever else it does
    UNKNOWN = "unknown"  # the server did not say


@dataclass(frozen=True, slots=True)
class Evidence:
    """The answers about one session, by the method that gave them."""

    activity: Answer  # session.metadata.activity
    tasks: Answer = None  # session.tasks.list
    queue: Answer = None  # session.queue.pendingItems
    permissions: Answer = None  # session.permissions.pendingRequests
    tools: Answer = None  # session.tools.listPendingRequests


@dataclass(frozen=True, slots=True)
class Count:
    """How many sessions stand where. ``busy`` contains ``waiting`` and ``uncounted``, ``loaded`` contains ``busy``."""

    loaded: int
    busy: int
    waiting: int
    uncounted: int


def says_not_loaded(answer: Answer) -> bool:
    """Whether the server said that it has not loaded the session. It has no code of its own for that."""
    return isinstance(answer, RpcError) and _NOT_LOADED_TEXT in answer.message


def standing(evidence: Evidence) -> Standing:
    """Where a session stands, the first that applies."""
    if any(map(says_not_loaded, (evidence.activity, evidence.tasks, evidence.queue))):
        return Standing.NOT_LOADED  # it may go between one question and the next
    working = works(evidence)
    if working is None:
        return Standing.UNCOUNTED
    if not working:
        return Standing.IDLE
    return Standing.WAITING if waits(evidence) else Standing.BUSY


def work(evidence: Evidence) -> Work | None:
    """What keeps a session busy; None exactly when it is not."""
    match standing(evidence):
        case Standing.WAITING:
            return Work.WAITING
        case Standing.UNCOUNTED:
            return Work.UNKNOWN
        case Standing.BUSY if _flag(evidence.activity, "hasActiveWork"):
            return Work.TURN
        case Standing.BUSY:
            return Work.TASK if _has_running_task(evidence) else Work.QUEUED
        case _:
            return None


def works(evidence: Evidence) -> bool | None:
    """Whether a turn runs, will run, or will be started by a task that runs; None: it cannot be said."""
    active = _flag(evidence.activity, "hasActiveWork")
    if active:
        return True
    if _has_running_task(evidence):
        return True
    tasks, queued = _items(evidence.tasks, "tasks"), _items(evidence.queue, "items")
    if queued or _items(evidence.queue, "steeringMessages"):
        return True
    return None if active is None or tasks is None or queued is None else False


def waits(evidence: Evidence) -> bool:
    """Whether anything waits for a person or for a tool of the client."""
    return bool(_items(evidence.permissions, "items") or _items(evidence.tools, "items"))


def task_runs(task: Any) -> bool:
    """Whether an item of ``session.tasks.list`` still runs; one that does not say so might."""
    return not isinstance(task, dict) or task.get("status", "running") == "running"


def _has_running_task(evidence: Evidence) -> bool:
    return any(map(task_runs, _items(evidence.tasks, "tasks") or ()))


def count(standings: Iterable[Standing]) -> Count:
    """Add up a server's sessions."""
    loaded = [each for each in standings if each.is_loaded]
    return Count(
        loaded=len(loaded),
        busy=sum(each.is_busy for each in loaded),
        waiting=loaded.count(Standing.WAITING),
        uncounted=loaded.count(Standing.UNCOUNTED),
    )


def _flag(answer: Answer, name: str) -> bool | None:
    value = answer.get(name) if isinstance(answer, dict) else None
    return value if isinstance(value, bool) else None


def _items(answer: Answer, name: str) -> list[Any] | None:
    value = answer.get(name) if isinstance(answer, dict) else None
    return value if isinstance(value, list) else None
