"""An agenda: many keys, each visited at its time. One time heap for all, so that thousands cost no timers.

A key has one appointment at a time, or is being visited, or is not on the agenda. A visit that hangs takes one of
``most_at_once`` places and delays nobody, as long as there are more places than hung visits.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Generic

from copilot_operator.engine.queue import AT_ONCE_S, K

log = logging.getLogger(__name__)
AFTER_FAULT_S: Final = 30.0


class Agenda(Generic[K]):
    """``visit(key)`` returns the seconds after which to visit again, or None: never. It brings its own deadline."""

    def __init__(self, visit: Callable[[K], Awaitable[float | None]], most_at_once: int) -> None:
        self._visit = visit
        self._due: dict[K, float | None] = {}  # None: is being visited
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._news = asyncio.Event()
        self._room = asyncio.Semaphore(most_at_once)
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, key: K, delay_s: float = 0.0) -> None:
        """Visit ``key`` in ``delay_s`` seconds. Of two appointments the earlier one stands; a visit that is under way
        says itself when the next one is."""
        due = asyncio.get_running_loop().time() + delay_s
        before = self._due.get(key, float("inf"))
        if before is None or before <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._news.set()

    def drop(self, key: K) -> None:
        """Visit ``key`` no more; a visit under way ends by itself."""
        self._due.pop(key, None)

    def __len__(self) -> int:
        return len(self._due)

    async def run(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                while self._heap and self._heap[0][0] <= clock() + AT_ONCE_S:
                    await self._room.acquire()
                    self._begin(*heapq.heappop(self._heap))
                self._news.clear()
                delay = self._heap[0][0] - clock() if self._heap else None
                try:
                    async with asyncio.timeout(delay):
                        await self._news.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._tasks:
                task.cancel()

    def _begin(self, due: float, _: int, key: K) -> None:
        if self._due.get(key) != due:  # dropped, or brought forward
            self._room.release()
            return
        self._due[key] = None
        task = asyncio.create_task(self._run(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, key: K) -> None:
        again_s: float | None = 0.0  # for one that is cancelled together with ``run``
        try:
            again_s = await self._visit(key)
        except Exception:
            log.exception("a visit failed", extra={"key": str(key)})
            again_s = AFTER_FAULT_S
        finally:
            self._room.release()
            if self._due.get(key, 0.0) is None:  # else it was dropped meanwhile
                del self._due[key]
                if again_s is not None:
                    self.put(key, again_s)
