"""How much slower a CLI answers than after its start. Pure."""

from collections import deque
from collections.abc import Collection
from typing import Final

_PINGS: Final = 20  # in each of the two medians

# A healthy CLI answers in 0.3 ms, and in 14 ms when its machine is at work. Below this a ratio would tell of the
# machine, not of the CLI.
_FLOOR_S: Final = 0.005


class Latencies:
    """The first and the latest pings of one CLI process."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._latest: deque[float] = deque(maxlen=_PINGS)

    def add(self, latency_s: float) -> None:
        """Take in a ping that was answered."""
        if len(self._first) < _PINGS:
            self._first.append(latency_s)
        else:
            self._latest.append(latency_s)

    @property
    def factor(self) -> float | None:
        """Median of the latest over that of the first; None: not enough of both yet."""
        if len(self._latest) < _PINGS:
            return None
        return max(median(self._latest), _FLOOR_S) / max(median(self._first), _FLOOR_S)


def median(values: Collection[float]) -> float:
    """The upper median. (The standard library's brings modules along that cost the agent memory.)"""
    return sorted(values)[len(values) // 2]
