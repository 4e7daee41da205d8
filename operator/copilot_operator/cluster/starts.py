"""How many servers are being woken at once, in memory: what their cycles told, and who is next (``domain/starts.py``).

Servers that start for the first time, or again after a drain, do not count, and do not wait: nobody has been promised
an answer within a minute. An operator that starts anew has forgotten who was starting, and lets as many more.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from copilot_operator.domain.starts import Pool, Server, Waiting, next_starts

SLOW_S: Final = 60.0  # who takes longer (an image to pull, no node) holds up nobody behind it


@dataclass
class Starts:
    """At most ``most`` at once. ``wake(namespace, server)`` has one that may start now look again; ``after`` calls a
    function in so many seconds; ``clock`` gives monotonic seconds."""

    most: int
    wake: Callable[[Server], None]
    after: Callable[[float, Callable[[], None]], object]
    clock: Callable[[], float]
    _starting: dict[Server, tuple[Pool, float]] = field(default_factory=dict)  # since when
    _waiting: dict[Server, Waiting] = field(default_factory=dict)
    _places: dict[Server, int] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=count)

    def ask(self, server: Server, pool: Pool) -> int | None:
        """None if a server may be started; else how many waited before it when it came."""
        if server not in self._starting and server not in self._waiting:
            self._places[server] = len(self._waiting)
            self._waiting[server] = Waiting(server, pool, next(self._numbers))
            self._admit(but=server)
        return None if server in self._starting else self._places[server]

    def is_done(self, server: Server) -> None:
        """Its cycle found that it serves, or need not start any more."""
        waited = self._waiting.pop(server, None)
        if self._starting.pop(server, None) or waited:
            self._admit()

    def counts(self) -> dict[str, int]:
        """Servers by what they do: Starting, Waiting."""
        return {"Starting": len(self._under_way()), "Waiting": len(self._waiting)}

    def _under_way(self) -> list[Pool]:
        """Of those that are not slow."""
        since = self.clock() - SLOW_S
        return [pool for pool, began in self._starting.values() if began > since]

    def _note(self, server: Server, pool: Pool) -> None:
        self._starting[server] = (pool, self.clock())
        self.after(SLOW_S + 0.1, self._admit)

    def _admit(self, but: Server | None = None) -> None:
        for server in next_starts(self._waiting.values(), self._under_way(), self.most):
            self._note(server, self._waiting.pop(server).pool)
            if server != but:
                self.wake(server)
