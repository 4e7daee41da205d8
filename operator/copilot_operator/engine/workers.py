"""Workers: take a key, reconcile it, answer a failure with backoff. One bad key never delays another."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic

from copilot_operator.engine.queue import K, WorkQueue

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backoff:
    """Seconds to wait before the next try: doubling from ``first_s`` to at most ``most_s``, ±20 % jitter."""

    first_s: float = 0.5
    most_s: float = 20.0

    def delay_s(self, failures: int, jitter: float) -> float:
        """``failures`` >= 1 so far; ``jitter`` in [0, 1)."""
        return float(min(self.most_s, self.first_s * 2 ** min(failures - 1, 30)) * (0.8 + 0.4 * jitter))


@dataclass
class Workers(Generic[K]):
    """``count`` tasks that run ``reconcile`` over the queue.

    ``reconcile(key)`` returns the seconds after which to look again, or None. Whatever it raises is logged, counted
    and tried again; ``deadline_s`` bounds one run, so that a hung call cannot hold a worker for ever.
    """

    queue: WorkQueue[K]
    reconcile: Callable[[K], Awaitable[float | None]]
    count: int = 24
    backoff: Backoff = field(default_factory=Backoff)
    deadline_s: float = 120.0
    on_result: Callable[[K, float, BaseException | None], None] = lambda key, seconds, error: None
    failures: dict[K, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Work until cancelled; a cancelled worker leaves its key half done, which the next start repairs."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.count):
                group.create_task(self._work(), name=f"worker-{number}")

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            key = await self.queue.get()
            started = clock()
            error: BaseException | None = None
            try:
                async with asyncio.timeout(self.deadline_s):
                    again_s = await self.reconcile(key)
            except (Exception, asyncio.CancelledError) as raised:
                if isinstance(raised, asyncio.CancelledError) and _being_cancelled():
                    raise
                error = raised  # a cancellation that is not ours comes from something it waited for: a failure
                again_s = self._failed(key, raised)
            else:
                self.failures.pop(key, None)
            finally:
                self.queue.done(key)
            if again_s is not None:
                self.queue.add_after(key, again_s)
            self.on_result(key, clock() - started, error)

    def _failed(self, key: K, error: BaseException) -> float:
        self.failures[key] = count = self.failures.get(key, 0) + 1
        delay_s = max(self.backoff.delay_s(count, random.random()), getattr(error, "retry_after_s", None) or 0.0)
        facts = {"key": str(key), "failures": count, "again_s": round(delay_s, 1)}
        facts["error"] = f"{type(error).__name__}: {error}"
        log.warning(
            "reconciling failed, will be tried again", extra=facts, exc_info=not getattr(error, "expected", False)
        )
        return delay_s


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
