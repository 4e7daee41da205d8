"""A week of a Shared pool whose operator and gateways are killed at random, on top of what a day has.

Time goes in steps of ten seconds; the operator decides in each in which anything happens, else once a minute. What only
gateways know, that a session waits, is not told while the one is away that holds it; its client comes back at another
one.
"""

import math
from dataclasses import dataclass
from random import Random
from typing import Final

from copilot_operator.domain.seats import Seat
from tests.elastic.day import Day, Rate, Server, Session

DAY_S: Final = 86_400
WEEK_S: Final = 7 * DAY_S
STEP_S: Final = 10
AWAY_S: Final = (10, 30)  # from a kill to an operator that decides, and to a gateway that serves
UNTOLD_S: Final = 10  # so long an operator that is back has been told nothing by servers
QUIET_S: Final = 60  # while nothing happens the operator is asked so often
HOUR_S: Final = 3600


def random_week(seed: int, most: float) -> Rate:
    """``most``: sessions a minute at noon of a busy day. Each day has its own height and hour, and sudden crowds; two
    days of the week have neither."""
    random = Random(seed)
    days = [(random.uniform(0.3, 1.0) * most * (day < 5), random.uniform(9.5, 14.5)) for day in range(7)]
    crowds = {random.randrange(5 * DAY_S) // 300 for _ in range(8)}  # five minutes each

    def rate(second: int) -> float:
        height, noon = days[second // DAY_S % 7]
        found = height * math.exp(-((((second % DAY_S) / HOUR_S - noon) / 2.2) ** 2))
        return (found if found > 0.02 else 0.0) + (2 * most if second // 300 in crowds else 0.0)

    return rate


@dataclass
class Gateway:
    back_at: int = 0  # away until then


@dataclass
class Wait:
    """``excused``: so much of it the operator was away or blind, or no gateway was there."""

    seconds: int
    excused: int
    served: bool


class Week(Day):
    """``operator_kills``, ``gateway_kills``: how often an hour, on average, each of them is killed."""

    operator_kills = 1.0
    gateway_kills = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gateways = [Gateway(), Gateway()]
        self.at: dict[Session, Gateway | None] = {}  # who holds a session's request; None: its client finds nobody
        self.all_waits: list[Wait] = []
        self.excused, self._excused_at = 0, dict[Session, int]()
        self.killed = 0
        self._decided_at = -QUIET_S

    def run(self, seconds: int, start: int = 0) -> None:
        for self.now in range(start, start + seconds, STEP_S):
            self._step()

    def _step(self) -> None:
        stirs = self._happens() | self._kill()
        for _ in range(self._poisson(self.rate(self.now) * STEP_S / 60)):
            self._ask(Session(1 + int(self.random.expovariate(1 / 5))))
        if self.now < self.sees_at or not self._there:
            self.excused += STEP_S
        if self.held:
            stirs = True
            self._gateways()
        self._drains()
        if self.now >= self.back_at and (stirs or self.now - self._decided_at >= QUIET_S):
            self._decided_at = self.now
            self._operator()

    def _restart(self) -> None:
        super()._restart()
        self.back_at = self.now + self.random.choice(AWAY_S)
        self.sees_at = self.back_at + UNTOLD_S

    def _kill(self) -> bool:
        """Whether anybody is away, or was a moment ago."""
        if self.random.random() < self.operator_kills * STEP_S / HOUR_S:
            self.killed += 1
            self._restart()
        for gateway in self.gateways:
            if self.random.random() < self.gateway_kills * STEP_S / HOUR_S:
                self.killed += 1
                gateway.back_at = self.now + self.random.choice(AWAY_S)
        return self.now <= max(self.sees_at, *(gateway.back_at for gateway in self.gateways)) + STEP_S

    @property
    def _there(self) -> list[Gateway]:
        return [gateway for gateway in self.gateways if gateway.back_at <= self.now]

    def _ask(self, session: Session) -> None:
        super()._ask(session)
        if not session.loaded:
            self.at[session], self._excused_at[session] = None, self.excused

    def _gateways(self) -> None:
        there = self._there
        for session in self.held:
            if self.at[session] not in there:
                self.at[session] = self.random.choice(there) if there else None
        since = {session: session.waits_since or 0 for session in self.held}
        lost = self.lost
        super()._gateways()
        for session in since.keys() - self.held.keys():
            excused = self.excused - self._excused_at.pop(session)
            self.all_waits.append(Wait(self.now - since[session], excused, served=session.loaded))
            del self.at[session]
        assert self.lost - lost == sum(not session.loaded for session in since.keys() - self.held.keys())

    def _place(self, session: Session) -> int | None:
        """Who holds nothing asks for nothing."""
        return super()._place(session) if self.at[session] else None

    @property
    def _homeless(self) -> int:
        return sum(session.home is None and self.at[session] in self._there for session in self.held)

    def _seat(self, name: str, server: Server) -> Seat:
        if server.ready_at is None and server.wanted_until <= self.now and not self.held:
            return Seat(name)  # most of a week most of them are so
        return super()._seat(name, server)


def unexcused(waits: list[Wait]) -> int:
    """The longest wait, without the time in which nobody was there who could have ended it."""
    return max((wait.seconds - wait.excused for wait in waits), default=0)
