"""The queue against a model: nothing is lost, nothing is handed out twice at a time, appointments are kept."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from copilot_operator.engine.queue import WorkQueue

keys = st.sampled_from("abcd")


class AnyInterleaving(RuleBasedStateMachine):
    """The model is two sets and a dict: what must be worked on, what is being worked on, what is due when."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue: WorkQueue[str] = WorkQueue(clock=lambda: self.now)
        self.asked: list[str] = []  # in order
        self.busy: set[str] = set()
        self.due: dict[str, float] = {}

    @rule(key=keys)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self._ask(key)

    @rule(key=keys, delay_s=st.sampled_from([-1.0, 0.0, 1.0, 2.0, 5.0]))
    def add_after(self, key: str, delay_s: float) -> None:
        self.queue.add_after(key, delay_s)
        if delay_s <= 0:
            self._ask(key)
        elif key not in self.asked:
            self.due[key] = min(self.due.get(key, self.now + delay_s), self.now + delay_s)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        for key in sorted((key for key, due in self.due.items() if due <= self.now), key=lambda key: self.due[key]):
            self._ask(key)
        ready = [key for key in self.asked if key not in self.busy]
        taken = self.queue.take()
        assert taken not in self.busy, "a key is worked on once at a time"
        assert (taken is None) == (not ready), f"{ready} wait"
        if taken is not None:
            assert taken in ready
            self.asked.remove(taken)
            self.busy.add(taken)

    @rule(key=keys)
    def done(self, key: str) -> None:
        if key in self.busy:
            self.busy.discard(key)
            self.queue.done(key)

    @invariant()
    def the_length_is_what_waits_for_a_worker(self) -> None:
        assert len(self.queue) == len([key for key in self.asked if key not in self.busy])

    def teardown(self) -> None:
        """Whatever was asked for comes, once, when everything is done and all appointments are past."""
        for key in self.busy:
            self.queue.done(key)
        self.now += 10.0
        rest = []
        while (taken := self.queue.take()) is not None:
            rest.append(taken)
        assert sorted(rest) == sorted({*self.asked, *self.due})

    def _ask(self, key: str) -> None:
        self.due.pop(key, None)
        if key not in self.asked:
            self.asked.append(key)


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_keys_come_in_the_order_in_which_they_were_asked_for() -> None:
    queue: WorkQueue[str] = WorkQueue(clock=lambda: 0.0)
    for key in "cabca":
        queue.add(key)
    assert [queue.take() for _ in range(4)] == ["c", "a", "b", None]


def test_a_key_that_is_added_while_busy_is_worked_on_again() -> None:
    queue: WorkQueue[str] = WorkQueue(clock=lambda: 0.0)
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    assert queue.take() is None
    queue.done("a")
    assert queue.take() == "a"


@pytest.mark.looptime
async def test_a_waiter_gets_an_appointment_when_it_is_due_and_not_before() -> None:
    queue: WorkQueue[str] = WorkQueue()
    clock = asyncio.get_running_loop().time
    started = clock()
    queue.add_after("late", 600)
    waiter = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    queue.add_after("soon", 30)
    assert await waiter == "soon"
    assert clock() - started == pytest.approx(31, abs=0.01)
    assert await queue.get() == "late"
    assert clock() - started == pytest.approx(600, abs=0.01)


@pytest.mark.looptime
async def test_of_two_appointments_the_earlier_stands_and_now_beats_both() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 10)
    queue.add_after("a", 60)
    queue.add_after("b", 10)
    queue.add("b")
    assert await queue.get() == "b"
    assert await queue.get() == "a"
    queue.done("a")
    queue.done("b")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(120):
            await queue.get()


@pytest.mark.looptime
async def test_a_cancelled_waiter_takes_nothing_along() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiters = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add("a")
    waiters[0].cancel()
    waiters[1].cancel()
    assert await waiters[2] == "a"


@pytest.mark.looptime
async def test_every_waiter_gets_a_key_when_several_come_at_once() -> None:
    queue: WorkQueue[int] = WorkQueue()
    waiters = [asyncio.create_task(queue.get()) for _ in range(5)]
    await asyncio.sleep(0)
    for key in range(5):
        queue.add(key)
    assert sorted(await asyncio.gather(*waiters)) == [0, 1, 2, 3, 4]
