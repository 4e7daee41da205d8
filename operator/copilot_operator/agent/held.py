"""Which ephemeral sessions are over. Pure; times in seconds of the loop's.

Gateways say every few seconds which of them their clients have open, and at once which nobody has open any more. One of
which nothing was said (its gateway has died, or we have just begun) is held for a while from when it was seen first:
its client may be about to come back, or its gateway about to say so.
"""

from collections.abc import Collection, Iterable
from typing import Final

HELD_S: Final = 45.0  # gateways say it every 10 s

_SEEN: Final = ""  # who holds a session that was just seen first


class Held:
    """Ephemeral sessions that are stored, by who holds them and until when."""

    def __init__(self, held_s: float = HELD_S) -> None:
        self._held_s = held_s
        self._until: dict[str, dict[str, float]] = {}
        self._left: set[str] = set()  # of which a gateway said so, and none since that it has them open

    def __len__(self) -> int:
        return len(self._until)

    def stored(self, ids: Collection[str], now: float) -> None:
        """All that are stored."""
        self._until = {id: self._until.get(id, {_SEEN: now + self._held_s}) for id in ids}
        self._left.intersection_update(ids)

    def opened(self, gateway: str, ids: Iterable[str], now: float) -> None:
        """Clients of a gateway have these open."""
        for id in ids:
            self._until.setdefault(id, {_SEEN: now + self._held_s})[gateway] = now + self._held_s
            self._left.discard(id)

    def left(self, gateway: str, ids: Iterable[str]) -> None:
        """No client of that gateway has these open any more."""
        for id in ids:
            holders = self._until.setdefault(id, {})
            for each in (gateway, _SEEN):
                holders.pop(each, None)
            self._left.add(id)

    def over(self, now: float) -> list[str]:
        """Those that nobody holds."""
        return [id for id in self._until if self._is_over(id, now)]

    def left_by_all(self, id: str, now: float) -> bool:
        """Whether nobody holds it because its clients went, not because nothing was heard of them."""
        return id in self._left and self._is_over(id, now)

    def _is_over(self, id: str, now: float) -> bool:
        return all(until <= now for until in self._until.get(id, {}).values())
