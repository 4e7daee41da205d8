"""Connections, rates and guessed tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.gateway import limits
from copilot_operator.gateway.limits import (
    FORGIVEN_AFTER_S,
    FREE_FAILURES,
    MOST_SOURCES,
    MOST_WAIT_S,
    Admission,
    FailedAuthentication,
    Held,
    TokenBucket,
)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=2, burst=3, now=100)
    assert [bucket.take(100) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(100) == 0.5, "the next comes half a second later"
    assert bucket.take(100.25) == 0.25
    assert bucket.take(100.5) == 0
    assert bucket.take(100.5) == 0.5
    assert [bucket.take(1000) for _ in range(4)] == [0, 0, 0, 0.5], "never more than the burst"


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1, now=100)
    assert bucket.take(100) == 0
    assert bucket.take(50) == 1
    assert bucket.take(100.5) == 0.5


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0.5)])
def test_a_bucket_that_never_gives_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="expected a rate above 0"):
        TokenBucket(rate, burst, 0)


@given(st.lists(st.floats(0, 3), max_size=200), st.integers(1, 20), st.integers(1, 10))
def test_never_more_than_burst_plus_rate_times_time(pauses: list[float], rate: int, burst: int) -> None:
    bucket, now, given_out = TokenBucket(rate, burst, 0), 0.0, 0
    for pause in pauses:
        now += pause
        given_out += bucket.take(now) == 0
        assert given_out <= burst + rate * now + 1e-6


def test_connections_are_counted_per_tenant() -> None:
    admission = Admission()
    assert [admission.connects("a", 2) for _ in range(3)] == [True, True, False]
    assert admission.connects("b", 2)
    admission.leaves("a")
    assert [admission.connects("a", 2) for _ in range(2)] == [True, False]


def test_tenants_without_connections_are_forgotten() -> None:
    admission = Admission()
    for number in range(100):
        admission.connects(f"t{number}", 1)
        admission.leaves(f"t{number}")
    assert not admission._connections


def test_wrong_tokens_wait_longer_each_time_and_are_forgiven() -> None:
    failures, waits = FailedAuthentication(), []
    for _ in range(12):
        failures.failed("10.0.0.1", now=0)
        waits.append(failures.wait_s("10.0.0.1", now=0))
    assert waits == [0] * FREE_FAILURES + [0.25, 0.5, 1, 2, 4, 8, 8, 8, 8]
    assert failures.wait_s("10.0.0.2", now=0) == 0, "others do not wait"
    assert failures.wait_s("10.0.0.1", now=FORGIVEN_AFTER_S - 1) == MOST_WAIT_S
    assert failures.wait_s("10.0.0.1", now=FORGIVEN_AFTER_S) == 0
    failures.failed("10.0.0.1", now=FORGIVEN_AFTER_S)
    assert failures.wait_s("10.0.0.1", now=FORGIVEN_AFTER_S) == 0, "it begins anew"
    assert failures.total == 13


def test_sources_are_bounded_and_the_oldest_is_forgotten() -> None:
    failures = FailedAuthentication()
    for _ in range(FREE_FAILURES + 1):
        failures.failed("old", now=0)
    for _ in range(FREE_FAILURES + 1):
        failures.failed("new", now=1)
    for number in range(MOST_SOURCES - 1):
        failures.failed(number, now=2)
    assert failures.wait_s("old", now=2) == 0
    assert failures.wait_s("new", now=2) > 0


def test_requests_that_wait_are_bounded_for_each_tenant_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HELD_OF_TENANT", 3)
    monkeypatch.setattr(limits, "HELD_IN_ALL", 5)
    counted = {"a": 1}
    held = Held(lambda: counted)
    assert [held.refusal("a", 0.0) for _ in range(2)] == ["", ""]
    assert held.refusal("a", 0.1).startswith("3 requests of this tenant already wait for a server")
    assert [held.refusal("b", 0.1) for _ in range(2)] == ["", ""]
    assert held.refusal("b", 0.2).startswith("5 requests already wait for servers at this gateway")
    assert held.refusal("c", 0.2), "nobody's"
    assert held.refusal("a", 0.5) == "", "those that came are served"
