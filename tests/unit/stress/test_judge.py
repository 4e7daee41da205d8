"""The judge of the stress test: it excuses nothing that the promise covers."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.stress.judge import SLACK_S, Outcome, Stop, Turn, Verdict, summary, verdict

moments = st.floats(0, 200)
turns = st.builds(
    Turn,
    session=st.just("s"),
    mark=st.just("m"),
    lasts_s=st.floats(0.1, 60),
    sent_at=moments,
    aborted_at=st.none() | moments,
    answered=st.booleans(),
)
stops = st.builds(
    Stop,
    asked_at=moments,
    deadline_at=st.none() | moments,
    cordoned_at=st.none() | moments,
    gone_at=st.none() | moments,
)


@given(turns, stops)
def test_a_turn_without_its_answer_is_excused_only_by_the_cordon_or_the_deadline(turn: Turn, stop: Stop) -> None:
    found = verdict(turn, stop)
    assert (found is Verdict.KEPT) == turn.answered
    if found is Verdict.CUT_AFTER_CORDON:
        assert stop.cordoned_at is not None
        assert turn.sent_at > stop.cordoned_at
    if found is Verdict.ABORTED_AT_DEADLINE:
        assert stop.deadline_at is not None
        assert turn.sent_at + turn.lasts_s >= stop.deadline_at - SLACK_S
        for cut_at in (turn.aborted_at, stop.gone_at):
            assert cut_at is None or cut_at >= stop.deadline_at - SLACK_S


def turn_of(lasts_s: float, *, aborted_at: float | None = None, sent_at: float = 0.0) -> Turn:
    return Turn("s", "m", lasts_s, sent_at, aborted_at)


def test_a_turn_that_is_cut_before_its_deadline_is_lost_however_long_it_would_have_been() -> None:
    stop = Stop(asked_at=1, deadline_at=21, cordoned_at=2, gone_at=10)
    assert verdict(turn_of(60), stop) is Verdict.LOST
    assert verdict(turn_of(60, aborted_at=5), Stop(1, 21, 2, gone_at=22)) is Verdict.LOST
    assert verdict(turn_of(60, aborted_at=21), Stop(1, 21, 2, gone_at=22)) is Verdict.ABORTED_AT_DEADLINE


def test_a_turn_that_had_the_time_to_end_and_has_no_answer_is_lost() -> None:
    assert verdict(turn_of(3), Stop(1, 21, 2, gone_at=22)) is Verdict.LOST


def test_a_message_that_waits_for_the_turn_before_it_may_run_into_the_deadline() -> None:
    first = turn_of(19)
    stop = Stop(asked_at=1, deadline_at=21, cordoned_at=2, gone_at=22)
    assert verdict(replace(turn_of(4, aborted_at=21), behind=first), stop) is Verdict.ABORTED_AT_DEADLINE
    assert verdict(replace(turn_of(4, aborted_at=21), behind=turn_of(10)), stop) is Verdict.LOST, "it had the time"
    assert verdict(replace(turn_of(4, aborted_at=5), behind=first), stop) is Verdict.LOST, "it was cut before"


def test_who_may_wait_for_ever_has_no_deadline_to_be_cut_at() -> None:
    assert verdict(turn_of(60), Stop(1, None, 2, gone_at=50)) is Verdict.LOST


def test_a_message_after_the_cordon_is_no_loss_and_one_before_it_is() -> None:
    stop = Stop(1, 21, 2, gone_at=3)
    assert verdict(turn_of(1, sent_at=2.5), stop) is Verdict.CUT_AFTER_CORDON
    assert verdict(turn_of(1, sent_at=1.5), stop) is Verdict.LOST
    assert verdict(turn_of(1, sent_at=2.5), Stop(1, 21, None, gone_at=3)) is Verdict.LOST


def test_the_summary_counts() -> None:
    outcomes = [
        Outcome("a", (Verdict.KEPT, Verdict.LOST), stuck=False, killed=True, overhead_s=1.0),
        Outcome("b", (), stuck=True, killed=False, overhead_s=None),
    ]
    found = summary(outcomes)
    assert (found["stops"], found["turns"], found["lost"], found["stuck"]) == (2, 2, 1, 1)
    assert found["causes"] == {"a": 1, "b": 1}
    assert summary([])["overhead_s_p50"] is None
