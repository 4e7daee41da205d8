"""Until when turns may run: who has a say, in any order."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.agent.deadline import Deadline, OnTimeout

times = st.floats(0, 1000)
orders = st.tuples(times, st.sampled_from(OnTimeout))


@given(st.lists(times | orders, max_size=8))
def test_the_earliest_bound_and_the_last_order_count(said: list[float | tuple[float, OnTimeout]]) -> None:
    deadline = Deadline()
    for each in said:
        if isinstance(each, tuple):
            deadline.order(*each)
        else:
            deadline.bind(each)
    bound_at = min((each for each in said if not isinstance(each, tuple)), default=inf)
    ordered = [each for each in said if isinstance(each, tuple)]
    at, on_timeout = ordered[-1] if ordered else (inf, OnTimeout.ABORT)
    assert deadline.abort_at == min(bound_at, at if on_timeout is OnTimeout.ABORT else inf)
    assert deadline.is_bound == (bound_at < inf)


def test_an_order_to_wait_shows_its_deadline_and_never_aborts() -> None:
    deadline = Deadline()
    deadline.order(100.0, OnTimeout.WAIT)
    assert (deadline.abort_at, deadline.on_timeout) == (inf, OnTimeout.WAIT)
    assert [deadline.left_s(now) for now in (40.0, 100.0, 150.0)] == [60.0, 0.0, 0.0]


def test_who_ends_the_pod_makes_a_wait_an_abort_at_its_own_time() -> None:
    deadline = Deadline()
    deadline.order(100.0, OnTimeout.WAIT)
    deadline.bind(500.0)
    deadline.order(900.0, OnTimeout.WAIT)  # asked again: no longer the operator's to grant
    assert (deadline.abort_at, deadline.on_timeout, deadline.left_s(200.0)) == (500.0, OnTimeout.ABORT, 300.0)


def test_without_a_deadline_nothing_is_left_to_tell() -> None:
    assert Deadline().left_s(1.0) is None
