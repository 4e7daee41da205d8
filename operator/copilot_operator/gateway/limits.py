"""How much a tenant may ask for, and how fast a source may guess tokens. Pure: times are arguments (monotonic, s)."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Final


class TokenBucket:
    """At most ``rate`` a second in the long run and ``burst`` at once; full at first."""

    __slots__ = ("_at", "_left", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"expected a rate above 0 and a burst of at least 1, found {rate:g} and {burst:g}")
        self.rate, self.burst = rate, burst
        self._left, self._at = burst, now

    def take(self, now: float) -> float:
        """Take one: 0.0 if there was one, else the seconds until there is (and nothing is taken)."""
        if now > self._at:
            self._left = min(self.burst, self._left + (now - self._at) * self.rate)
            self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self.rate


class Admission:
    """Connections of tenants."""

    def __init__(self) -> None:
        self._connections: Counter[str] = Counter()

    def connects(self, tenant: str, most: int) -> bool:
        """Count a connection of ``tenant`` in; False (and not counted) if it has ``most`` already."""
        if self._connections[tenant] >= most:
            return False
        self._connections[tenant] += 1
        return True

    def leaves(self, tenant: str) -> None:
        """A connection that was counted in has ended."""
        self._connections[tenant] -= 1
        if self._connections[tenant] <= 0:
            del self._connections[tenant]


HELD_OF_TENANT: Final = 1000  # requests
HELD_IN_ALL: Final = 10_000
COUNTED_EVERY_S: Final = 0.5


class Held:
    """Requests that wait for a server, at most so many of a tenant and in all; beyond that they are refused at once.

    ``count`` tells how many each tenant has. It looks at all sessions, so it is asked now and then; what has come since
    counts, too, whatever became of it.
    """

    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        self._count = count
        self._known: Counter[str] = Counter()
        self._total, self._counted_at = 0, float("-inf")

    def refusal(self, tenant: str, now: float) -> str:
        """Count one more of ``tenant`` in, "", or why there is no room for it."""
        if now - self._counted_at >= COUNTED_EVERY_S:
            self._known, self._counted_at = Counter(self._count()), now
            self._total = self._known.total()
        if self._known[tenant] >= HELD_OF_TENANT:
            return f"{HELD_OF_TENANT} requests of this tenant already wait for a server; try again in a few seconds"
        if self._total >= HELD_IN_ALL:
            return f"{HELD_IN_ALL} requests already wait for servers at this gateway; try again in a few seconds"
        self._known[tenant] += 1
        self._total += 1
        return ""


FREE_FAILURES: Final = 3  # a client that was given a new token tries the old one a few times
FIRST_WAIT_S: Final = 0.25
MOST_WAIT_S: Final = 8.0  # below the time a connection has for its handshake
FORGIVEN_AFTER_S: Final = 60.0
MOST_SOURCES: Final = 10_000


@dataclass(slots=True)
class _Failures:
    count: int
    last_at: float


class FailedAuthentication:
    """Sources (addresses) whose tokens are wrong wait longer with each one, up to 8 s; a minute without forgives.

    Bounded: of more than ``MOST_SOURCES`` the one that failed longest ago is forgotten.
    """

    def __init__(self) -> None:
        self.total = 0
        self._by_source: OrderedDict[Hashable, _Failures] = OrderedDict()  # the oldest failure first

    def wait_s(self, source: Hashable, now: float) -> float:
        """How long the answer to this source's ``connect`` is to be kept back, a good one as well as a bad one."""
        known = self._by_source.get(source)
        if known is None or known.count <= FREE_FAILURES or now - known.last_at >= FORGIVEN_AFTER_S:
            return 0.0
        return float(min(FIRST_WAIT_S * 2 ** min(known.count - FREE_FAILURES - 1, 16), MOST_WAIT_S))

    def failed(self, source: Hashable, now: float) -> None:
        """A token of this source was wrong."""
        self.total += 1
        known = self._by_source.pop(source, None)
        if known is None or now - known.last_at >= FORGIVEN_AFTER_S:
            known = _Failures(0, now)
        known.count, known.last_at = known.count + 1, now
        self._by_source[source] = known
        if len(self._by_source) > MOST_SOURCES:
            self._by_source.popitem(last=False)
