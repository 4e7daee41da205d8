"""Servers are woken so many at a time, and pools take turns."""

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.cluster.starts import SLOW_S, Starts
from copilot_operator.domain.starts import Waiting, next_starts

BIG, SMALL = ("apps", "big"), ("apps", "small")


class Storm:
    """A clock, and servers that take a while from their permission until they serve."""

    def __init__(self, most: int, takes_s: Callable[[str], float] = lambda _: 4.0) -> None:
        self.now, self.most_at_once = 0.0, 0
        self.numbers = count()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.served_at: dict[str, float] = {}
        self.takes_s = takes_s
        self.starts = Starts(most, self.wake, self.after, lambda: self.now)

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.numbers), what))

    def wanted(self, server: str, pool: tuple[str, str]) -> int | None:
        place = self.starts.ask(("apps", server), pool)
        if place is None:
            self.wake(("apps", server))
        return place

    def wake(self, server: Any) -> None:
        self.most_at_once = max(self.most_at_once, self.starts.counts()["Starting"])
        self.after(self.takes_s(server[1]), lambda: self.serves(server))

    def serves(self, server: Any) -> None:
        self.served_at[server[1]] = self.now
        self.starts.is_done(server)

    def pass_time(self, until: float = 1e9) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            what()


def test_a_storm_of_500_wakes_does_not_stampede_and_keeps_nobody_else_waiting() -> None:
    storm = Storm(50)
    places = [storm.wanted(f"big-{number}", BIG) for number in range(500)]
    assert places == [None] * 50 + list(range(450))
    storm.pass_time(2.0)
    storm.now = 2.0
    assert storm.wanted("small-0", SMALL) == 450, "so many came before it"
    storm.pass_time()
    assert storm.most_at_once == 50
    assert storm.served_at["small-0"] == 8.0, "its pool's turn was the next one"
    assert max(storm.served_at.values()) == 44.0
    assert len(storm.served_at) == 501
    assert storm.starts.counts() == {"Starting": 0, "Waiting": 0}


def test_who_is_slow_holds_up_nobody() -> None:
    storm = Storm(2, lambda server: 1000.0 if server.startswith("broken") else 4.0)
    for name in ("broken-0", "broken-1", "well"):
        storm.wanted(name, BIG)
    storm.pass_time()
    assert SLOW_S < storm.served_at["well"] < SLOW_S + 5


def test_who_is_wanted_no_more_waits_no_more() -> None:
    storm = Storm(1)
    assert [storm.wanted(name, BIG) for name in ("first", "a", "b", "b")] == [None, 0, 1, 1]
    storm.starts.is_done(("apps", "a"))
    storm.pass_time(9.0)
    assert list(storm.served_at) == ["first", "b"]
    assert storm.wanted("a", BIG) is None


def test_who_is_deleted_at_the_moment_of_its_wake_gives_its_place_to_the_next() -> None:
    storm = Storm(1)
    assert [storm.wanted(name, BIG) for name in ("gone", "next")] == [None, 0]
    storm.now = 1.0
    storm.starts.is_done(("apps", "gone"))
    assert storm.starts.counts() == {"Starting": 1, "Waiting": 0}
    assert storm.wanted("next", BIG) is None


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 999)), unique_by=lambda pair: pair[1], max_size=40),
    st.lists(st.sampled_from("abc"), max_size=10),
    st.integers(1, 20),
)
def test_pools_take_turns_and_within_one_who_came_first_is_first(
    pairs: list[tuple[str, int]], starting: list[str], most: int
) -> None:
    waiting = [Waiting(("apps", str(number)), ("apps", pool), number) for pool, number in pairs]
    Random(1).shuffle(waiting)
    found = next_starts(waiting, [("apps", pool) for pool in starting], most)
    assert len(found) == max(0, min(len(waiting), most - len(starting)))
    taken = {
        pool: [number for each, number in pairs if each == pool and ("apps", str(number)) in found] for pool in "abc"
    }
    left = {
        pool: [number for each, number in pairs if each == pool and ("apps", str(number)) not in found]
        for pool in "abc"
    }
    for pool in "abc":
        assert max(taken[pool], default=-1) < min(left[pool], default=1000)
        for other in "abc":
            total = len(taken[pool]) + starting.count(pool)
            if left[other] and taken[pool]:
                assert total <= len(taken[other]) + starting.count(other) + 1, "it got more, and the other waits"
