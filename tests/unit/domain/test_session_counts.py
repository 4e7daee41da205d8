"""How many sessions a tenant has, and how seldom its status says so."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.api.conditions import timestamp
from copilot_operator.api.tenant import TenantStatus
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.session_counts import counts_of, told_counts
from copilot_operator.domain.snapshot import ServerState, SessionCounts
from tests.support.snapshots import NOW

counts = st.none() | st.builds(SessionCounts, *[st.integers(0, 3)] * 3)


def ready_since(minutes: float) -> Manifest:
    at = timestamp(NOW - timedelta(minutes=minutes))
    return {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}]}


def test_they_are_told_once_it_has_been_ready_for_a_while() -> None:
    found = told_counts(SessionCounts(1, 2, 3), ready_since(5), NOW)
    assert found == {"sessions": {"active": 1, "loaded": 2, "stored": 3, "time": timestamp(NOW)}}
    TenantStatus.model_validate(found)
    assert told_counts(SessionCounts(1, 2, 3), ready_since(4.9), NOW) == {}
    assert told_counts(SessionCounts(1, 2, 3), {}, NOW) == {}, "its first status is one write"
    assert told_counts(SessionCounts(0, 0, 0), ready_since(60), NOW) == {}, "nor does who has none cost any"


def test_what_was_told_stays_while_nobody_can_be_asked() -> None:
    old = ready_since(60) | told_counts(SessionCounts(1, 2, 3), ready_since(60), NOW)
    assert told_counts(None, old, NOW + timedelta(hours=1)) == {"sessions": old["sessions"]}


@given(st.lists(st.tuples(counts, st.integers(1, 400)), max_size=30))
def test_no_two_writes_are_within_five_minutes(course: list[tuple[SessionCounts | None, int]]) -> None:
    status, now, writes = ready_since(60), NOW, []
    for each, seconds in course:
        now += timedelta(seconds=seconds)
        told = told_counts(each, status, now)
        if told.get("sessions") != status.get("sessions"):
            writes.append(now)
            assert each is not None
            assert (told["sessions"]["active"], told["sessions"]["stored"]) == (each.active, each.stored)
        status = status | told
    assert all(later - before >= timedelta(minutes=5) for before, later in pairwise(writes))


def test_what_is_not_known_is_not_none() -> None:
    known: dict[str, Any] = {"busy": 1, "loaded": 2, "stored": 3}
    assert counts_of(ServerState("pod", NOW, True, **known)) == SessionCounts(1, 2, 3)
    for name in known:
        assert counts_of(ServerState("pod", NOW, True, **(known | {name: None}))) is None
    assert counts_of(None) is None
