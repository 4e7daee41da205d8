"""A keyed, coalescing work queue: what is asked for many times is worked on once, and never twice at a time.

The shape is that of client-go's workqueue: ``waiting`` holds the order, ``dirty`` what must be worked on, ``busy``
what is being worked on. A key added while busy is worked on again afterwards, so no change is missed.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
AT_ONCE_S = 0.001  # what is due this soon is due: a shorter wait is below what clocks and timers can tell apart


class WorkQueue(Generic[K]):
    """Keys to work on, now or at a time. ``clock`` gives seconds, monotonic (the event loop's by default)."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._waiting: deque[K] = deque()
        self._dirty: set[K] = set()
        self._busy: set[K] = set()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()

    def add(self, key: K) -> None:
        """Ask for ``key`` to be worked on as soon as a worker is free; an appointment for later is dropped."""
        self._due.pop(key, None)
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._busy:
            self._waiting.append(key)
            self._changed.set()

    def add_after(self, key: K, delay_s: float) -> None:
        """Ask for ``key`` in ``delay_s`` seconds; of two appointments the earlier one stands."""
        if delay_s <= 0:
            self.add(key)
            return
        due = self._clock() + delay_s
        if key in self._dirty or self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._changed.set()

    def done(self, key: K) -> None:
        """Give ``key`` back after work; if it was added meanwhile it waits for its turn again."""
        self._busy.discard(key)
        if key in self._dirty:
            self._waiting.append(key)
            self._changed.set()

    def take(self) -> K | None:
        """The next key to work on, marked busy; None if nothing is due."""
        self._promote()
        if not self._waiting:
            return None
        key = self._waiting.popleft()
        self._dirty.discard(key)
        self._busy.add(key)
        return key

    async def get(self) -> K:
        """Wait for the next key. Cancelling a waiter loses nothing: a key is taken without an await."""
        while True:
            if (key := self.take()) is not None:
                return key
            self._changed.clear()
            delay = self._heap[0][0] - self._clock() if self._heap else None
            try:
                async with asyncio.timeout(delay):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _promote(self) -> None:
        """Move what has become due into the line; entries whose appointment changed are stale and skipped."""
        now = self._clock() + AT_ONCE_S
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                self.add(key)

    def __len__(self) -> int:
        """Keys that wait for a worker now (not the appointments)."""
        return len(self._waiting)
