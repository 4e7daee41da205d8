"""Which sessions of a server may be loaded at a time, and which goes for another. Pure; times in seconds of the loop's.

A session has a slot from before it is loaded until it is known to be unloaded, so there are never more of them loaded
than slots. Who is asked here must be asked before anything that may load one.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

LOADED_WITHIN_S: Final = 10.0  # from its permission; the CLI tells of a session before it knows it itself
ATTACHED_WITHIN_S: Final = 2.0  # from the permission to attach to a loaded session, which would load one that is not
RESTS_S: Final = 0.3  # after a sign of it: until then its client may be about to use it
WAITS_S: Final = 5.0  # who does not ask again does not wait any more


@dataclass(frozen=True, slots=True)
class Bounds:
    """``most`` sessions loaded. Those whose ids begin with the same ``code_length`` characters are of one tenant."""

    most: int
    code_length: int = 0

    def tenant(self, id: str) -> str:
        return id[: self.code_length]


@dataclass(slots=True)
class _Slot:
    """``loading_until``: not found loaded so far, and may be on its way; None: it was."""

    used_at: float
    loading_until: float | None = None
    stirred: bool = False  # something was heard of it
    stays_until: float = 0.0  # somebody attaches to it


class Slots:
    """The sessions that are, or may be, loaded; and those that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}
        self._waiting: dict[str, float] = {}  # when they asked last
        self._of_tenant: dict[str, int | None] = {}  # by id of who waits: the most that its tenant may have

    def __contains__(self, id: str) -> bool:
        return id in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    def waiting(self, now: float) -> int:
        """How many wait to be loaded."""
        return sum(now - at < WAITS_S for at in self._waiting.values())

    def used(self, id: str, now: float) -> None:
        """Something happened to a session."""
        if slot := self._slots.get(id):
            slot.used_at, slot.stirred = now, True

    def loaded(self, ids: Iterable[str], now: float) -> None:
        """These were found loaded, whoever did it."""
        for id in ids:
            self._slots.setdefault(id, _Slot(used_at=now)).loading_until = None

    def unloaded(self, id: str, now: float) -> bool:
        """It was found not loaded; False: it may be on its way, and keeps its slot."""
        slot = self._slots.get(id)
        if slot is not None and slot.loading_until is not None and now < slot.loading_until:
            return False
        self._slots.pop(id, None)
        return True

    def unused_s(self, id: str, now: float) -> float:
        """For how long nothing was heard of a session that has a slot."""
        return now - self._slots[id].used_at

    def attach(self, id: str, now: float) -> bool:
        """Whether somebody may attach to a session, which is loaded then and stays so for long enough."""
        if slot := self._slots.get(id):
            slot.stays_until = now + ATTACHED_WITHIN_S
        return slot is not None

    def ask(
        self, wanted: Mapping[str, int | None], bounds: Bounds, now: float, going: Collection[str] = ()
    ) -> list[str]:
        """Take in who wants to load what, with the most that its tenant may have; return those who may.

        Whoever came first gets what is free; one that does not ask just now keeps it for a while. ``going``: about to
        be unloaded, so not to be counted on.
        """
        self._waiting = {id: at for id, at in self._waiting.items() if now - at < WAITS_S} | dict.fromkeys(wanted, now)
        self._of_tenant = {id: most for id, most in self._of_tenant.items() if id in self._waiting} | dict(wanted)
        for id in list(self._waiting):
            if not self.lacks(id, bounds):
                self._slots[id] = _Slot(used_at=now, loading_until=now + LOADED_WITHIN_S)
                del self._waiting[id]
        return [id for id in wanted if id in self._slots and id not in going]

    def lacks(self, id: str, bounds: Bounds) -> str:
        """Of what there is too little for a session that was asked for: "tenant", "server"; "": it may be loaded."""
        if id in self._slots:
            return ""
        tenant, most = bounds.tenant(id), self._of_tenant.get(id)
        if most is not None and sum(bounds.tenant(other) == tenant for other in self._slots) >= most:
            return "tenant"
        return "server" if len(self._slots) >= bounds.most else ""

    def helps(self, id: str, other: str, bounds: Bounds) -> bool:
        """Whether ``id`` is nearer to being loaded when ``other`` has gone."""
        return self.lacks(id, bounds) == "server" or bounds.tenant(other) == bounds.tenant(id)

    def candidates(self, id: str, bounds: Bounds, now: float, besides: Collection[str] = ()) -> list[str]:
        """Who may go for ``id``, if idle: the least recently used first, of the tenant that has most loaded.

        Of its own tenant alone, if that is what it lacks. ``besides``: those that are not to be looked at.
        """
        free = [other for other, slot in self._slots.items() if other not in besides and _rests(slot, now)]
        free = [other for other in free if self.helps(id, other, bounds)]
        loaded = Counter(map(bounds.tenant, self._slots))
        return sorted(free, key=lambda other: (-loaded[bounds.tenant(other)], self._slots[other].used_at, other))


def _rests(slot: _Slot, now: float) -> bool:
    loading = slot.loading_until is not None and not slot.stirred and now < slot.loading_until
    return not loading and now >= slot.stays_until and now - slot.used_at >= RESTS_S
