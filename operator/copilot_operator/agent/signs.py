"""For how long sessions at work have given no sign of life. Pure; times are seconds of one clock.

A sign is an event that was stored (told by ``session.lifecycle``) or a moved cursor of the session's event log: pieces
of an answer and of a tool's output move it, and are told to the session's owners only. Silence is counted from when it
could have been broken for us to see: not before a session was found at work and its cursor read once.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

_QUIET_S: Final = 2.0  # a cursor is asked for after as long without another sign


@dataclass(slots=True)
class _Sign:
    at: float
    cursor: str | None = None


class Signs:
    """The last sign of life of each session at work."""

    def __init__(self) -> None:
        self._last: dict[str, _Sign] = {}

    def at_work(self, ids: Collection[str], now: float) -> None:
        """Take in which sessions work; the others are forgotten."""
        self._last = {id: self._last.get(id) or _Sign(now) for id in ids}

    def heard(self, id: str, now: float) -> None:
        """Something was told of a session."""
        if id in self._last:
            self._last[id].at = now

    def quiet(self, now: float) -> list[str]:
        """Sessions whose cursor would tell more; the longest silent first."""
        quiet = [id for id, sign in self._last.items() if now - sign.at >= _QUIET_S]
        return sorted(quiet, key=lambda id: self._last[id].at)

    def read(self, id: str, cursor: str | None, now: float) -> None:
        """Take in a cursor. None: it could not be read; then nothing is known, and silence must not be claimed."""
        sign = self._last.get(id)
        if sign is not None and (cursor is None or cursor != sign.cursor):
            sign.at, sign.cursor = now, cursor

    def longest_silence_s(self, now: float) -> float | None:
        """The longest time that any of them has been silent; None: none works."""
        return max((now - sign.at for sign in self._last.values()), default=None)
