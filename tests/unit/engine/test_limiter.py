"""The limiter in virtual time: the window follows the server's answers, and no place is ever lost."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_operator.engine.limiter import Limiter
from tests.support.virtual_time import run_in_virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


async def held_at_once(limiter: Limiter, askers: int) -> int:
    """How many of ``askers`` the limiter lets in while nobody leaves."""
    inside = 0
    leave = asyncio.Event()

    async def ask() -> None:
        nonlocal inside
        async with limiter.slot():
            inside += 1
            await leave.wait()

    tasks = [asyncio.create_task(ask()) for _ in range(askers)]
    await asyncio.sleep(60)
    found = inside
    leave.set()
    await asyncio.gather(*tasks)
    return found


@pytest.mark.looptime
async def test_no_more_than_the_window_are_let_in() -> None:
    assert await held_at_once(Limiter(most=8, start=4), 20) == 4


@pytest.mark.looptime
async def test_a_window_full_of_good_answers_opens_it_by_one_up_to_its_most() -> None:
    limiter = Limiter(most=6, start=4)
    for _ in range(5):
        async with limiter.slot():
            pass
    assert int(limiter.window) == 5
    for _ in range(100):
        async with limiter.slot():
            pass
    assert await held_at_once(limiter, 20) == 6


@pytest.mark.looptime
async def test_those_in_line_use_a_window_that_has_grown() -> None:
    limiter = Limiter(most=8, start=2)
    inside = most = 0

    async def ask() -> None:
        nonlocal inside, most
        async with limiter.slot():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(1)
            inside -= 1

    await asyncio.gather(*(ask() for _ in range(100)))
    assert most == 8


@pytest.mark.looptime
async def test_whoever_is_cancelled_when_its_turn_has_come_passes_it_on() -> None:
    limiter, leave = Limiter(most=1, start=1), asyncio.Event()
    inside: list[str] = []

    async def ask(name: str) -> None:
        async with limiter.slot():
            inside.append(name)
            await leave.wait()
        second.cancel()  # it has just been called and has not run yet

    first, second, third = (asyncio.create_task(ask(name)) for name in ("first", "second", "third"))
    await asyncio.sleep(1)
    leave.set()
    async with asyncio.timeout(10):
        await asyncio.gather(first, third)
    assert inside == ["first", "third"]


@pytest.mark.looptime
async def test_a_refusal_halves_the_window_and_pauses_everybody() -> None:
    limiter = Limiter(most=8, start=8)
    with suppress(ConnectionError):
        async with limiter.slot():
            limiter.refused(3.0)
            raise ConnectionError
    assert limiter.window == 4
    started = now()
    async with limiter.slot():
        assert now() - started == pytest.approx(3.0, abs=0.01)


@pytest.mark.looptime
async def test_refusals_of_what_was_under_way_together_count_once() -> None:
    limiter = Limiter(most=8, start=8)
    for _ in range(8):
        limiter.refused(1.0)
    assert limiter.window == 4
    await asyncio.sleep(1.5)
    for _ in range(20):
        limiter.refused(1.0)
        await asyncio.sleep(1.5)
    assert limiter.window == 1
    assert await held_at_once(limiter, 3) == 1, "never less than one"


asker = st.tuples(
    st.integers(0, 30),  # arrives, tenths of seconds
    st.integers(0, 20),  # stays
    st.none() | st.integers(0, 50),  # is cancelled
    st.sampled_from(["well", "well", "fails", "refused"]),
)


@settings(max_examples=40, deadline=None)
@given(askers=st.lists(asker, max_size=14), start=st.integers(1, 3))
def test_whoever_is_cancelled_or_fails_no_place_is_lost(
    askers: list[tuple[int, int, int | None, str]], start: int
) -> None:
    async def scenario() -> None:
        limiter = Limiter(most=4, start=start)
        inside = 0

        async def ask(arrives: int, stays: int, outcome: str) -> None:
            nonlocal inside
            await asyncio.sleep(arrives / 10)
            async with limiter.slot():
                inside += 1
                assert inside <= limiter.most
                try:
                    await asyncio.sleep(stays / 10)
                finally:
                    inside -= 1
                if outcome == "refused":
                    limiter.refused(0.5)
                if outcome != "well":
                    raise ConnectionError

        async def cancel(task: asyncio.Task[None], at: int) -> None:
            await asyncio.sleep(at / 10)
            task.cancel()

        tasks = [asyncio.create_task(ask(arrives, stays, outcome)) for arrives, stays, _, outcome in askers]
        killers = [
            asyncio.create_task(cancel(task, at))
            for task, (_, _, at, _) in zip(tasks, askers, strict=True)
            if at is not None
        ]
        for task in [*tasks, *killers]:
            with suppress(asyncio.CancelledError, ConnectionError):
                async with asyncio.timeout(100):
                    await task
        window = int(limiter.window)
        assert await held_at_once(limiter, 10) == window, "as many as ever"

    run_in_virtual_time(scenario())
