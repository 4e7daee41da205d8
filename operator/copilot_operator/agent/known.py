"""Which sessions a server may have loaded. Pure.

No call lists the loaded ones. ``session.list`` shows what is stored, and misses a session until its first turn;
``session.lifecycle`` tells what happens while we listen, but not what was unloaded, nor what is stored (``updated``
comes before anything is written). Together they give all ids to ask about. Asking about thousands that rest on disk
would cost the server more than its work, so those are asked about rarely.
"""

from collections.abc import Collection, Iterable
from itertools import islice


class KnownSessions:
    """Ids of the sessions of one CLI process."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._stored: set[str] = set()  # as last listed
        # Found not loaded, and nothing heard of them since. Ordered: first those asked about longest ago.
        self._resting: dict[str, None] = {}
        self._heard_since: set[str] = set()  # the server was last asked
        self.stale = True  # whether a new listing would show something else

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._ids)

    @property
    def stirring(self) -> frozenset[str]:
        """Ids that may be loaded, by what was heard. A quiet attach can load one that rests here, unheard."""
        return frozenset(self._ids - self._resting.keys())

    def resting(self, limit: int) -> list[str]:
        """Some of those that rest: asked about in turn, all are seen again in a while."""
        return list(islice(self._resting, limit))

    @property
    def stored(self) -> int:
        return len(self._stored)

    def ask(self) -> None:
        """Say that the server is being asked: what is heard from now on is newer than its answer."""
        self._heard_since.clear()

    def listed(self, ids: Iterable[str]) -> None:
        """Take in a ``session.list``: all that was stored when it was asked for.

        One that is neither stored nor loaded is gone for good: it was created, and closed before its first turn.
        """
        self._stored = (set(ids) - self._heard_since) | (self._stored & self._heard_since)
        self._ids = self._stored | (self._ids - self._resting.keys()) | (self._ids & self._heard_since)
        self._resting = {id: None for id in self._resting if id in self._ids}
        self.stale = not self._heard_since <= self._stored

    def surveyed(self, loaded: Collection[str], not_loaded: Iterable[str]) -> None:
        """Take in what a survey found."""
        for id in loaded:
            self._resting.pop(id, None)
        for id in not_loaded:
            self._resting.pop(id, None)
            if id in self._ids and id not in self._heard_since:
                self._resting[id] = None

    def heard(self, kind: str, id: str) -> None:
        """Take in a ``session.lifecycle``; most come twice."""
        if kind == "session.deleted":
            self._ids.discard(id)
            self._stored.discard(id)
        else:
            self._ids.add(id)
            self.stale = self.stale or id not in self._stored
        self._resting.pop(id, None)
        self._heard_since.add(id)
