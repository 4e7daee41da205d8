"""A day of a Shared pool: people come and go, servers start and stop, and the operator decides every few seconds.

Its decisions are the real ones (``domain/scaling.py``, ``domain/seats.py``), and what it may remember is what the real
one remembers: the pool's status. Everything else is made up: a clock, servers that take a while to start, sessions that
work and rest. The same seed gives the same day.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from random import Random
from typing import Final

from copilot_operator.api.autoscaling import AutoscalingSpec
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.scaling import Decision, Window, decide, load_of, scale_of
from copilot_operator.domain.seats import Seat, running_as_needed, seats_of

MIDNIGHT: Final = datetime(2026, 3, 2, tzinfo=UTC)
CYCLE_S: Final = 5  # the operator decides this often
START_S: Final = 8  # from a decision to a server that serves
WANTED_S: Final = 300  # a server that was started for what it stores stays for so long
HELD_S: Final = 50  # a gateway holds a request for so long
DOWN_S: Final = 10  # an operator is away for so long when it starts again
BLIND_S: Final = 5  # and then for so long knows of no server what it does

Rate = Callable[[int], float]
"""New sessions a minute, by the second of the day."""


def office_day(most: float) -> Rate:
    """Nobody at night, two humps by day, the second of them lower."""

    def rate(second: int) -> float:
        hour = second / 3600
        humps = math.exp(-(((hour - 10.5) / 1.6) ** 2)) + 0.8 * math.exp(-(((hour - 15) / 1.8) ** 2))
        return most * humps if humps > 0.02 else 0.0

    return rate


def by_the_minute(arrivals: Sequence[float]) -> Rate:
    """A day that was recorded: new sessions in each minute."""
    return lambda second: arrivals[second // 60 % len(arrivals)]


@dataclass(eq=False)
class Session:
    """``home``: the seat that stores it; ``waits_since``: requests of it are held."""

    turns: int
    home: int | None = None
    loaded: bool = False
    busy: bool = False
    waits_since: int | None = None
    rested_at: int = 0


@dataclass
class Server:
    ready_at: int | None = None  # None: it does not run
    leaves: bool = False
    sessions: set[Session] = field(default_factory=set)
    wanted_until: int = -1

    def serves(self, now: int) -> bool:
        return self.ready_at is not None and self.ready_at <= now

    @property
    def busy(self) -> int:
        return sum(session.busy for session in self.sessions)


@dataclass(frozen=True)
class Sample:
    """What was to be seen at one moment, after the operator decided; ``short``: half of what is to be free was not."""

    second: int
    decided: int
    running: int
    loaded: int
    held: int
    short: bool


@dataclass
class Day:
    """``restarts``: how often a minute, on average, the operator starts anew."""

    spec: AutoscalingSpec
    slots: int
    rate: Rate
    seed: int = 1
    restarts: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)  # seconds for which sessions without a home were held
    lost: int = 0
    stopped_busy: int = 0  # servers that were told to stop while a session was busy

    def __post_init__(self) -> None:
        self.random, self.now, self._numbers = Random(self.seed), 0, count()
        self.servers: dict[int, Server] = {}
        self.status: Manifest = {}
        self.window: Window | None = None
        self.back_at, self.sees_at = 0, 0
        self.held: dict[Session, None] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []

    def run(self, seconds: int, start: int = 0) -> None:
        self.now = start
        for self.now in range(start, start + seconds):
            self._happens()
            for _ in range(self._poisson(self.rate(self.now) / 60)):
                self._ask(Session(1 + int(self.random.expovariate(1 / 5))))
            self._gateways()
            self._drains()
            if self.random.random() < self.restarts / 60:
                self._restart()
            if self.now % CYCLE_S == 0 and self.now >= self.back_at:
                self._operator()

    def _happens(self) -> bool:
        """Whether anything was due."""
        due = bool(self._events) and self._events[0][0] <= self.now
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()
        return due

    def _restart(self) -> None:
        """The operator forgets whatever no object holds."""
        self.back_at, self.sees_at = self.now + DOWN_S, self.now + DOWN_S + BLIND_S
        self.window = None
        for server in self.servers.values():
            server.wanted_until = -1

    # People

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + max(1, round(seconds)), next(self._numbers), what))

    def _ask(self, session: Session) -> None:
        """A message is sent."""
        if session.loaded:
            self._works(session)
        else:
            session.waits_since = self.now
            self.held[session] = None

    def _works(self, session: Session) -> None:
        session.busy = True
        self._later(self.random.uniform(10, 90), lambda: self._rests(session))

    def _rests(self, session: Session) -> None:
        session.busy, session.rested_at = False, self.now
        session.turns -= 1
        if session.turns > 0:
            self._later(self.random.expovariate(1 / 120), lambda: self._ask(session))
        else:
            self._later(self.random.choice((1, 1800)), lambda: self._unload(session))  # closed, or left alone

    def _unload(self, session: Session) -> None:
        if session.home is not None:
            self.servers[session.home].sessions.discard(session)
        session.loaded = False

    # Gateways and servers

    def _gateways(self) -> None:
        """Held sessions go where they are stored, others to the server with the fewest that has room."""
        for session in list(self.held):
            if (seat := self._place(session)) is not None:
                del self.held[session]
                assert session.waits_since is not None
                if session.home is None:
                    self.waits.append(self.now - session.waits_since)
                session.home, session.loaded, session.waits_since = seat, True, None
                self.servers[seat].sessions.add(session)
                self._works(session)
            elif session.waits_since is not None and self.now - session.waits_since > HELD_S:
                del self.held[session]
                self.lost += 1

    def _place(self, session: Session) -> int | None:
        if session.home is not None:
            server = self.servers[session.home]
            if not server.serves(self.now) or server.leaves:
                if self.now >= self.back_at:
                    server.wanted_until = self.now + WANTED_S
                return None
            return session.home if self._has_room(server) else None
        able = [(len(server.sessions), seat) for seat, server in self.servers.items()
                if server.serves(self.now) and not server.leaves and len(server.sessions) < self.slots]  # fmt: skip
        return min(able)[1] if able else None

    def _has_room(self, server: Server) -> bool:
        """An idle session goes for one that comes back."""
        if len(server.sessions) >= self.slots:
            idle = [session for session in server.sessions if not session.busy]
            if not idle:
                return False
            self._unload(min(idle, key=lambda session: session.rested_at))
        return True

    def _drains(self) -> None:
        for server in self.servers.values():
            if server.leaves and not server.busy:
                for session in list(server.sessions):
                    self._unload(session)
                server.ready_at, server.leaves = None, False

    # The operator

    def _operator(self) -> None:
        decision = self._decide()
        self.status = {"autoscaling": decision.scale.document}
        seats = self._seats(decision.scale.replicas)
        chosen = running_as_needed(seats, decision.scale.replicas)
        for seat in seats:
            self._move(seat, runs=seat.name in chosen)
        loaded = sum(len(server.sessions) for server in self.servers.values())
        held, queued = self._homeless, sum(seat.queued for seat in seats)
        room = decision.before * self.slots - loaded - held - queued
        share = self.spec.free_sessions.removesuffix("%")
        free = int(share) * (decision.before * self.slots / 100 if share != self.spec.free_sessions else 1)
        up = sum(server.ready_at is not None for server in self.servers.values())
        short = held > 0 or room < 0 or room * 2 < free or decision.before < self.spec.min_replicas
        self.samples.append(Sample(self.now, decision.scale.replicas, up, loaded, len(self.held), short))

    @property
    def _homeless(self) -> int:
        """Held sessions that no server takes; others wait for the one that stores them."""
        return sum(session.home is None for session in self.held)

    def _decide(self) -> Decision:
        moment = MIDNIGHT + timedelta(seconds=self.now)
        seats = self._seats(0)
        last = scale_of(self.status, sum(seat.up for seat in seats), self.spec)
        decision = decide(self.spec, self.slots, last, load_of(seats, self._homeless), self.window, moment)
        self.window = decision.window
        return decision

    def _seats(self, replicas: int) -> list[Seat]:
        """As the operator knows them."""
        names = seats_of("saas", replicas, [f"saas/{seat}" for seat in self.servers])
        return [self._seat(name, self.servers.get(int(name.removeprefix("saas/")), Server())) for name in names]

    def _seat(self, name: str, server: Server) -> Seat:
        serves = server.serves(self.now)
        known = not serves or self.now >= self.sees_at
        told = server if serves and known else Server()
        return Seat(
            name,
            up=server.ready_at is not None and not server.leaves,
            leaves=server.leaves,
            known=known,
            busy=told.busy,
            loaded=len(told.sessions),
            queued=sum(self.servers[each.home] is told for each in self.held if each.home is not None),
            demanded=server.wanted_until > self.now,
            ready=serves,
        )

    def _move(self, seat: Seat, *, runs: bool) -> None:
        server = self.servers.setdefault(int(seat.name.removeprefix("saas/")), Server()) if runs or seat.up else None
        if server is None:
            return
        if runs and server.ready_at is None:
            server.ready_at = self.now + START_S
        elif not runs and seat.up:
            self.stopped_busy += server.busy > 0
        server.leaves = not runs and server.ready_at is not None

    def _poisson(self, mean: float) -> int:
        """How many come in a second."""
        limit, product, found = math.exp(-mean), self.random.random(), 0
        while product > limit:
            product *= self.random.random()
            found += 1
        return found


def turns(samples: Sequence[Sample]) -> list[Sample]:
    """The samples at which the number changed its direction."""
    found, direction = list[Sample](), 0
    for before, after in pairwise(samples):
        change = (after.decided > before.decided) - (after.decided < before.decided)
        if change and change == -direction:
            found.append(after)
        direction = change or direction
    return found
