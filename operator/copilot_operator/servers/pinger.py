"""Health pings: one time heap for all servers, so that thousands cost no timers and a hung one delays nobody."""

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from copilot_operator.domain.health import Watched, after_answer, after_failure, next_ping_s
from copilot_operator.domain.snapshot import Reading
from copilot_operator.engine.queue import AT_ONCE_S
from copilot_operator.rpc.ping import ping

Key = tuple[str, str]  # namespace, server
MOST_AT_ONCE = 500  # 500 hung servers with a timeout of 3 s still let 166 others a second through


@dataclass(frozen=True)
class Target:
    """Where to ping one pod and how often; seconds."""

    pod_uid: str
    host: str
    port: int
    token: str = field(repr=False)
    interval_s: float
    timeout_s: float
    threshold: int


@dataclass
class _Entry:
    target: Target
    watched: Watched = field(default_factory=Watched)


class Pinger:
    """``changed`` is called when the verdict on a server changes; ``measured`` with every latency (None: failed)."""

    def __init__(self, changed: Callable[[Key], None], measured: Callable[[float | None], None]) -> None:
        self._changed, self._measured = changed, measured
        self._entries: dict[Key, _Entry] = {}
        self._heap: list[tuple[float, int, Key, _Entry]] = []
        self._order = itertools.count()
        self._news = asyncio.Event()
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def reading(self, namespace: str, server: str) -> Reading:
        entry = self._entries.get((namespace, server))
        return entry.watched.reading if entry else Reading()

    def watch(self, key: Key, target: Target | None) -> None:
        """Ping ``target`` from now on, at once if it is new; None: no longer. A new pod begins with a clean record."""
        entry = self._entries.get(key)
        if target is None:
            self._entries.pop(key, None)
        elif entry is None or entry.target.pod_uid != target.pod_uid:
            self._entries[key] = entry = _Entry(target)
            self._schedule(key, entry, 0.0)
        else:
            entry.target = target

    def counts(self) -> dict[str, int]:
        """Servers by verdict."""
        found: dict[str, int] = {}
        for entry in self._entries.values():
            verdict = entry.watched.reading.health.value
            found[verdict] = found.get(verdict, 0) + 1
        return found

    async def run(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                while self._heap and self._heap[0][0] <= clock() + AT_ONCE_S:
                    await self._room.acquire()
                    _, _, key, entry = heapq.heappop(self._heap)
                    self._start(key, entry)
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

    def _start(self, key: Key, entry: _Entry) -> None:
        if self._entries.get(key) is not entry:  # of a pod that is gone; an entry has one appointment at a time
            self._room.release()
            return
        task = asyncio.create_task(self._ping(key, entry), name=f"ping-{key[1]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ping(self, key: Key, entry: _Entry) -> None:
        target, before = entry.target, entry.watched
        try:
            reading = await ping(target.host, target.port, target.token, target.timeout_s)
        finally:
            self._room.release()
        self._measured(reading.latency_s if reading.ok else None)
        if self._entries.get(key) is not entry:
            return  # the pod went away meanwhile
        good = after_answer(before) if reading.ok else after_failure(before, target.threshold, reading.message)
        entry.watched = good
        self._schedule(
            key, entry, next_ping_s(good, target.interval_s, target.threshold) * (0.9 + 0.2 * random.random())
        )
        if good.reading != before.reading:
            self._changed(key)

    def _schedule(self, key: Key, entry: _Entry, delay_s: float) -> None:
        due = asyncio.get_running_loop().time() + delay_s
        heapq.heappush(self._heap, (due, next(self._order), key, entry))
        self._news.set()
