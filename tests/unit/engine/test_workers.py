"""Workers in virtual time: one bad key delays nobody, failures back off, a run has a deadline."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from copilot_operator.engine.queue import WorkQueue
from copilot_operator.engine.workers import Backoff, Workers

pytestmark = pytest.mark.looptime
Reconcile = Callable[[str], Awaitable[float | None]]


@asynccontextmanager
async def at_work(reconcile: Reconcile, *, count: int = 2, deadline_s: float = 10.0) -> AsyncIterator[Workers[str]]:
    workers: Workers[str] = Workers(WorkQueue(), reconcile, count=count, deadline_s=deadline_s)
    task = asyncio.create_task(workers.run())
    try:
        yield workers
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_hanging_key_holds_one_worker_until_its_deadline_and_delays_no_other_key() -> None:
    started: dict[str, float] = {}

    async def reconcile(key: str) -> None:
        started.setdefault(key, now())
        if key == "hangs":
            await asyncio.Event().wait()
        await asyncio.sleep(1)

    async with at_work(reconcile) as workers:
        for key in ("hangs", "a", "b", "c"):
            workers.queue.add(key)
        await asyncio.sleep(9.5)
        assert {key: round(at) for key, at in started.items()} == {"hangs": 0, "a": 0, "b": 1, "c": 2}
        assert workers.failures == {}
        await asyncio.sleep(1)
        assert workers.failures == {"hangs": 1}


async def test_a_failing_key_backs_off_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[float] = []
    served = 0

    async def reconcile(key: str) -> float | None:
        nonlocal served
        if key == "bad":
            tries.append(now())
            raise ValueError("no")
        served += 1
        return 1.0

    with caplog.at_level(logging.CRITICAL):
        async with at_work(reconcile, count=1) as workers:
            workers.queue.add("bad")
            workers.queue.add("good")
            await asyncio.sleep(100.5)
    assert served == 101
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    expected = [0.5, 1, 2, 4, 8, 16, 20, 20, 20]
    assert [0.8 <= pause / most <= 1.2 for pause, most in zip(pauses, expected, strict=False)] == [True] * len(pauses)
    assert len(tries) in (9, 10)


async def test_success_forgets_earlier_failures() -> None:
    outcomes = [ValueError("1"), ValueError("2"), None, ValueError("3")]
    seen: list[int] = []

    async def reconcile(key: str) -> float | None:
        seen.append(workers.failures.get(key, 0))
        if outcome := outcomes[min(len(seen), 4) - 1]:
            raise outcome
        return 1.0

    async with at_work(reconcile) as workers:
        workers.queue.add("a")
        await asyncio.sleep(10)
    assert seen[:4] == [0, 1, 2, 0]


async def test_the_server_may_ask_for_a_longer_pause() -> None:
    class Overloaded(Exception):
        retry_after_s = 30.0

    tries: list[float] = []

    async def reconcile(key: str) -> None:
        tries.append(now())
        raise Overloaded

    async with at_work(reconcile) as workers:
        workers.queue.add("a")
        await asyncio.sleep(29)
        assert len(tries) == 1
        await asyncio.sleep(2)
        assert len(tries) == 2


async def test_a_key_that_is_added_while_it_is_worked_on_is_worked_on_again_but_not_beside_itself() -> None:
    running = most = runs = 0

    async def reconcile(key: str) -> None:
        nonlocal running, most, runs
        running, runs = running + 1, runs + 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    async with at_work(reconcile, count=4) as workers:
        workers.queue.add("a")
        await asyncio.sleep(0.5)
        workers.queue.add("a")
        workers.queue.add("a")
        await asyncio.sleep(5)
    assert (most, runs) == (1, 2)


async def test_a_cancellation_that_is_not_the_workers_own_is_a_failure_like_any_other() -> None:
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        seen.append(key)
        if key == "cancelled":
            shared = asyncio.create_task(asyncio.sleep(99))
            shared.cancel()
            await shared

    async with at_work(reconcile, count=1) as workers:
        workers.queue.add("cancelled")
        workers.queue.add("a")
        await asyncio.sleep(0.1)
        assert seen == ["cancelled", "a"]
        assert workers.failures == {"cancelled": 1}


async def test_cancelled_workers_end_at_once_and_give_their_keys_back() -> None:
    async def reconcile(key: str) -> None:
        await asyncio.sleep(5)

    started = now()
    async with at_work(reconcile) as workers:
        workers.queue.add("a")
        await asyncio.sleep(1)
    assert now() - started < 1.5
    workers.queue.add("a")
    assert workers.queue.take() == "a"


async def test_every_run_is_told_with_its_time_and_its_error() -> None:
    told: list[tuple[str, float, str]] = []

    async def reconcile(key: str) -> None:
        await asyncio.sleep(2)
        if key == "bad":
            raise ValueError("no")

    async with at_work(reconcile) as workers:
        workers.on_result = lambda key, seconds, error: told.append((key, round(seconds), type(error).__name__))
        workers.queue.add("bad")
        workers.queue.add("good")
        await asyncio.sleep(2.1)
    assert sorted(told) == [("bad", 2, "ValueError"), ("good", 2, "NoneType")]


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.5), (2, 1.0), (6, 16.0), (7, 20.0), (10_000, 20.0)])
def test_backoff_doubles_up_to_its_most(failures: int, seconds: float) -> None:
    backoff = Backoff()
    assert backoff.delay_s(failures, 0.5) == pytest.approx(seconds)
    assert backoff.delay_s(failures, 0.0) == pytest.approx(seconds * 0.8)
