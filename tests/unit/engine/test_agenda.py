"""The agenda: each key at its time, never two visits of one at a time, and a hung visit delays nobody."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_operator.engine import agenda as module
from copilot_operator.engine.agenda import Agenda


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def running(
    visit: Callable[[str], Awaitable[float | None]], most_at_once: int = 10
) -> AsyncIterator[Agenda[str]]:
    agenda: Agenda[str] = Agenda(visit, most_at_once)
    task = asyncio.create_task(agenda.run())
    try:
        yield agenda
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Visits:
    """Remembers when who was visited. Times are multiples of a quarter of a second, which floats hold exactly."""

    def __init__(self, again_s: float | None = None, takes_s: float = 0.0) -> None:
        self.again_s, self.takes_s = again_s, takes_s
        self.made: list[tuple[float, str]] = []
        self.under_way: list[str] = []
        self.most = 0

    async def __call__(self, key: str) -> float | None:
        assert key not in self.under_way, "two visits of one key at a time"
        self.made.append((now(), key))
        self.under_way.append(key)
        self.most = max(self.most, len(self.under_way))
        await asyncio.sleep(self.takes_s)
        self.under_way.remove(key)
        return self.again_s


@pytest.mark.looptime
async def test_a_key_is_visited_when_it_is_due_and_again_when_its_visit_says_so() -> None:
    visits = Visits(again_s=5.0, takes_s=0.25)
    async with running(visits) as agenda:
        agenda.put("a", 2.0)
        await asyncio.sleep(13)
    assert visits.made == [(2.0, "a"), (7.25, "a"), (12.5, "a")]


@pytest.mark.looptime
async def test_a_visit_that_says_never_is_the_last() -> None:
    visits = Visits()
    async with running(visits) as agenda:
        agenda.put("a")
        await asyncio.sleep(60)
        assert len(agenda) == 0
    assert visits.made == [(0.0, "a")]


@pytest.mark.looptime
async def test_of_two_appointments_the_earlier_one_stands() -> None:
    visits = Visits()
    async with running(visits) as agenda:
        agenda.put("a", 20.0)
        agenda.put("a", 5.0)
        agenda.put("a", 10.0)
        await asyncio.sleep(60)
    assert visits.made == [(5.0, "a")]


@pytest.mark.looptime
async def test_who_is_put_down_while_being_visited_is_visited_when_that_visit_says() -> None:
    visits = Visits(again_s=10.0, takes_s=2.0)
    async with running(visits) as agenda:
        agenda.put("a")
        await asyncio.sleep(1)
        agenda.put("a")
        await asyncio.sleep(20)
    assert visits.made == [(0.0, "a"), (12.0, "a")]


@pytest.mark.looptime
@pytest.mark.parametrize("moment", [1.0, 5.5])
async def test_who_is_dropped_before_or_during_a_visit_is_visited_no_more_and_leaves_its_place(moment: float) -> None:
    visits = Visits(again_s=1.0, takes_s=1.0)
    async with running(visits, most_at_once=1) as agenda:
        agenda.put("a", 5.0)
        await asyncio.sleep(moment)
        agenda.drop("a")
        await asyncio.sleep(60)
        assert len(visits.made) == (moment > 5)
        visits.again_s = None
        agenda.put("b")
        await asyncio.sleep(1)
    assert visits.made[-1] == (60 + moment, "b")


@pytest.mark.looptime
async def test_no_more_visits_than_there_are_places_and_who_waits_longest_is_next() -> None:
    visits = Visits(takes_s=1.0)
    async with running(visits, most_at_once=3) as agenda:
        for number in range(9):
            agenda.put(str(number))
        await asyncio.sleep(60)
    assert visits.most == 3
    assert visits.made == [(number // 3, str(number)) for number in range(9)]


@pytest.mark.looptime
async def test_hung_visits_delay_nobody_as_long_as_there_is_a_place() -> None:
    made: list[float] = []

    async def visit(key: str) -> float | None:
        if key != "a":
            await asyncio.Event().wait()
        made.append(now())
        return 1.0

    async with running(visit, most_at_once=10) as agenda:
        for number in range(9):
            agenda.put(str(number))
        agenda.put("a", 0.5)
        await asyncio.sleep(10)
    assert made == [0.5 + number for number in range(10)]


@pytest.mark.looptime
async def test_a_visit_that_fails_is_made_again_later_and_holds_no_place() -> None:
    made: list[float] = []

    async def visit(key: str) -> float | None:
        made.append(now())
        raise RuntimeError("a fault of ours")

    async with running(visit, most_at_once=1) as agenda:
        agenda.put("a")
        await asyncio.sleep(2.5 * module.AFTER_FAULT_S)
    assert made == [0.0, module.AFTER_FAULT_S, 2 * module.AFTER_FAULT_S]


@pytest.mark.looptime
async def test_visits_end_with_the_run_and_are_due_in_the_next() -> None:
    visits = Visits(takes_s=5.0)
    agenda: Agenda[str] = Agenda(visits, 1)
    for _ in range(2):
        task = asyncio.create_task(agenda.run())
        agenda.put("a")
        await asyncio.sleep(1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.sleep(1)
        visits.under_way.clear()
    assert visits.made == [(0.0, "a"), (2.0, "a")]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "drop", "wait"]), st.sampled_from("abc"), st.integers(0, 12)), max_size=40
    ),
    st.integers(1, 3),
)
def test_whatever_is_put_down_and_dropped_keys_are_never_lost_nor_visited_twice_at_a_time(
    orders: list[tuple[str, str, int]], most_at_once: int
) -> None:
    """After the last order every key that was not dropped is visited at its interval."""

    async def scenario() -> None:
        visits = Visits(again_s=2.0, takes_s=0.5)
        on_agenda: set[str] = set()

        async def visit(entry: str) -> float | None:
            return await visits(entry)

        async with running(visit, most_at_once) as agenda:
            for order, key, quarters in orders:
                if order == "put":
                    agenda.put(key, quarters / 4)
                    on_agenda.add(key)
                elif order == "drop" and key not in visits.under_way:  # as the pinger does: a new entry is a new key
                    agenda.drop(key)
                    on_agenda.discard(key)
                else:
                    await asyncio.sleep(quarters / 4)
            settled = now() + 6
            await asyncio.sleep(30)
            for key in "abc":
                seen = [moment for moment, visited in visits.made if visited == key and moment >= settled]
                assert (6 <= len(seen) <= 10) if key in on_agenda else not seen

    loop = looptime.new_event_loop()
    loop.setup_looptime()
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()
