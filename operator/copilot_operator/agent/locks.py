"""Who speaks in a session that several tenants share: one at a time. Pure; times in seconds of the loop's.

A lock is held by a tenant (``holder``), over one or several leases: a gateway that passes on what the tenant says has
one, which it renews. Whoever holds a lock keeps it, lease or not, until the session is idle: a turn outlives the
gateway that began it. So a lock falls vacant first (no lease is left), and is free once a look that began later found
the session idle.
"""

from dataclasses import dataclass, field
from typing import Final

TTL_S: Final = 6.0  # of a lease that is not renewed
WAITS_S: Final = 5.0  # who does not ask again does not wait any more
MOST_WAITING: Final = 32  # for one session
NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Held:
    """Why a lock was not given. ``holder`` "": a turn of which it is not known whose it is; or it is about to be free
    for one of the ``ahead`` that came first. ``full``: as many wait as may. ``settling``: nothing is known so far.
    """

    holder: str = ""
    held_s: float = 0.0
    ahead: int = 0
    full: bool = False
    settling: bool = False


@dataclass(slots=True)
class _Lock:
    """``leases``: until when, by token. ``vacant_at``: when the last one of them ended."""

    holder: str
    since: float
    vacant_at: float
    leases: dict[str, float] = field(default_factory=dict)


class Locks:
    """Of all sessions of one server. ``born_at``: leases that were given before are not known, so for ``ttl_s`` none
    is given, and those that are renewed are taken for good."""

    def __init__(self, born_at: float, ttl_s: float = TTL_S) -> None:
        self.ttl_s = ttl_s
        self._settled_at = born_at + ttl_s
        self._locks: dict[str, _Lock] = {}
        self._waiting: dict[str, dict[str, float]] = {}  # by session and token: when it asked last

    def waiting(self, now: float) -> int:
        """How many wait."""
        return sum(now - at < WAITS_S for queue in self._waiting.values() for at in queue.values())

    def leases(self, id: str, now: float) -> frozenset[str]:
        """Tokens that are good for a session."""
        lock = self._lock(id, now)
        return frozenset(lock.leases) if lock else frozenset()

    def ends_at(self, id: str, token: str) -> float:
        """Until when a lease is good that is not renewed; it was given."""
        return self._locks[id].leases[token]

    def must_look(self, id: str, now: float) -> bool:
        """Whether it must be known if the session is idle before anybody may get its lock."""
        return now >= self._settled_at and not self.leases(id, now)

    def ask(
        self, id: str, token: str, holder: str, now: float, *, waits: bool, busy: bool = False, idle_at: float = NEVER
    ) -> Held | None:
        """Ask for a lease; None: ``token`` is one from now on, for ``ttl_s``. May be repeated.

        ``waits``: who does not get one waits, in order of arrival, as long as it asks again. What a look found, if one
        was made for this: the session is ``busy``, or not, and that look began at ``idle_at``.
        """
        if now < self._settled_at:
            return Held(settling=True)
        lock = self._lock(id, now)
        if busy and lock is None:  # it began past us, or before us
            lock = self._locks[id] = _Lock("", now, now)
        if lock and lock.holder == holder and (lock.leases or busy):
            self._give(id, token, lock, now)  # its own turn, which it may add to
            return None
        queue = self._queue(id, now)
        if waits and (token in queue or len(queue) < MOST_WAITING):
            queue[token] = now
        ahead = list(queue).index(token) if token in queue else len(queue)
        is_free = idle_at > NEVER and (lock is None or (not lock.leases and lock.vacant_at <= idle_at))
        if is_free:
            self._locks.pop(id, None)
            if ahead == 0:
                self._give(id, token, _Lock(holder, now, now), now)
                return None
            lock = None
        full = waits and token not in queue
        return Held(lock.holder if lock else "", now - lock.since if lock else 0.0, ahead, full)

    def renew(self, id: str, token: str, holder: str, now: float) -> bool:
        """Keep a lease; False: it is lost, and somebody else may have the lock."""
        lock = self._lock(id, now)
        if now < self._settled_at and (lock is None or not lock.holder):
            lock = _Lock(holder, lock.since if lock else now, now)
        if lock is None or lock.holder != holder:
            return False
        self._give(id, token, lock, now)
        return True

    def release(self, id: str, token: str, now: float) -> bool:
        """Give a lease back, or wait no more; False: there is none of that name."""
        waited = self._queue(id, now).pop(token, None) is not None
        lock = self._lock(id, now)
        if lock is None or token not in lock.leases:
            return waited
        del lock.leases[token]
        lock.vacant_at = now
        return True

    def tend(self, id: str, holder: str, now: float) -> Held | None:
        """Whether somebody may end or answer for the turn; None: he may, for it is his own, or whose it is has gone."""
        if now < self._settled_at:
            return Held(settling=True)
        lock = self._lock(id, now)
        if lock is None or not lock.leases or lock.holder == holder:
            return None
        return Held(lock.holder, now - lock.since)

    def _give(self, id: str, token: str, lock: _Lock, now: float) -> None:
        lock.leases[token] = now + self.ttl_s
        self._locks[id] = lock
        self._queue(id, now).pop(token, None)

    def _lock(self, id: str, now: float) -> _Lock | None:
        lock = self._locks.get(id)
        if lock is not None:
            ended = {token: until for token, until in lock.leases.items() if until <= now}
            for token in ended:
                del lock.leases[token]
            lock.vacant_at = max([lock.vacant_at, *ended.values()])
        return lock

    def _queue(self, id: str, now: float) -> dict[str, float]:
        queue = {token: at for token, at in self._waiting.get(id, {}).items() if now - at < WAITS_S}
        self._waiting[id] = queue
        return queue
