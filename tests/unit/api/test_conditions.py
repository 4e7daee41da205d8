"""A condition's time is that of its last change of status, and of nothing else."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.api.conditions import Condition, ConditionStatus, merge_conditions, timestamp

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
EARLIER = "2026-02-01T00:00:00Z"


def a_condition(type_: str = "Ready", status: ConditionStatus = "True", since: str | None = None) -> Condition:
    return Condition(type=type_, status=status, reason="AsExpected", message="", last_transition_time=since)


def test_time_stays_while_the_status_stays_whatever_becomes_of_the_reason() -> None:
    new = Condition(type="Ready", status="True", reason="Other", message="other", observed_generation=7)
    assert merge_conditions([a_condition(since=EARLIER)], [new], NOW) == (
        new.model_copy(update={"last_transition_time": EARLIER}),
    )


def test_time_moves_with_the_status() -> None:
    merged = merge_conditions([a_condition(status="False", since=EARLIER)], [a_condition()], NOW)
    assert merged == (a_condition(since="2026-03-01T12:00:00Z"),)


def test_a_new_type_begins_now_and_a_type_that_is_not_computed_any_more_goes() -> None:
    merged = merge_conditions([a_condition("Old", since=EARLIER)], [a_condition("New")], NOW)
    assert merged == (a_condition("New", since="2026-03-01T12:00:00Z"),)


def test_a_stored_condition_without_time_gets_one() -> None:
    assert merge_conditions([a_condition()], [a_condition()], NOW)[0].last_transition_time == timestamp(NOW)


def test_times_are_utc() -> None:
    assert timestamp(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-03-01T12:00:00Z"


def test_on_the_wire() -> None:
    condition = a_condition(since=EARLIER).model_copy(update={"observed_generation": 3})
    written = {
        "type": "Ready",
        "status": "True",
        "reason": "AsExpected",
        "message": "",
        "observedGeneration": 3,
        "lastTransitionTime": EARLIER,
    }
    assert condition.to_api() == written
    assert Condition.model_validate(written) == condition


@given(st.lists(st.sampled_from(["True", "False", "Unknown"]), min_size=1, max_size=8))
def test_merging_again_changes_nothing(statuses: list[ConditionStatus]) -> None:
    stored: tuple[Condition, ...] = ()
    for hours, status in enumerate(statuses):
        stored = merge_conditions(stored, [a_condition(status=status)], NOW + timedelta(hours=hours))
        assert merge_conditions(stored, [a_condition(status=status)], NOW + timedelta(days=9)) == stored
