"""Health pings: every watched server at its interval, so that thousands cost little and a hung one delays nobody."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from copilot_operator.domain.health import Watched, after_answer, after_failure, next_ping_s
from copilot_operator.domain.snapshot import Reading
from copilot_operator.engine.agenda import Agenda
from copilot_operator.rpc.ping import ping
from copilot_operator.servers import Key

# 500 servers that fall silent together take half of the places. Known silent ones take theirs for 3 of every 8 s: up to
# 2,600 of those, too, let all others through at once.
MOST_AT_ONCE = 1000


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


@dataclass(eq=False)
class _Entry:
    key: Key
    target: Target
    watched: Watched = field(default_factory=Watched)


class Pinger:
    """``changed`` is called when the verdict on a server changes; ``measured`` with every latency (None: failed)."""

    def __init__(self, changed: Callable[[Key], None], measured: Callable[[float | None], None]) -> None:
        self._changed, self._measured = changed, measured
        self._entries: dict[Key, _Entry] = {}
        self._agenda: Agenda[_Entry] = Agenda(self._ping, MOST_AT_ONCE)

    def reading(self, namespace: str, server: str) -> Reading:
        entry = self._entries.get((namespace, server))
        return entry.watched.reading if entry else Reading()

    def watch(self, key: Key, target: Target | None) -> None:
        """Ping ``target`` from now on, at once if it is new; None: no longer. A new pod begins with a clean record."""
        entry = self._entries.get(key)
        if entry and target and entry.target.pod_uid == target.pod_uid:
            entry.target = target
            return
        if entry:
            self._agenda.drop(self._entries.pop(key))
        if target:
            self._entries[key] = entry = _Entry(key, target)
            self._agenda.put(entry)

    def counts(self) -> dict[str, int]:
        """Servers by verdict."""
        found: dict[str, int] = {}
        for entry in self._entries.values():
            verdict = entry.watched.reading.health.value
            found[verdict] = found.get(verdict, 0) + 1
        return found

    async def run(self) -> None:
        """Until cancelled."""
        await self._agenda.run()

    async def _ping(self, entry: _Entry) -> float | None:
        """Ping one server, and say in how many seconds again."""
        target, before = entry.target, entry.watched
        reading = await ping(target.host, target.port, target.token, target.timeout_s)
        self._measured(reading.latency_s if reading.ok else None)
        if self._entries.get(entry.key) is not entry:
            return None  # the pod went away meanwhile
        good = after_answer(before) if reading.ok else after_failure(before, target.threshold, reading.message)
        entry.watched = good
        if good.reading != before.reading:
            self._changed(entry.key)
        return next_ping_s(good, target.interval_s, target.threshold) * (0.9 + 0.2 * random.random())
