"""Signs of life, and how much slower a CLI became: pure parts."""

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.agent.latency import Latencies
from copilot_operator.agent.signs import Signs


def test_a_turn_without_any_event_is_silent_since_its_cursor_was_first_read() -> None:
    signs = Signs()
    signs.at_work(["a"], 0.0)
    assert (signs.quiet(1.9), signs.quiet(2.0)) == ([], ["a"])
    signs.read("a", "7", 5.0)
    assert signs.longest_silence_s(5.0) == 0.0
    signs.read("a", "7", 65.0)
    assert signs.longest_silence_s(65.0) == 60.0


def test_a_moved_cursor_an_event_and_an_unread_cursor_end_a_silence() -> None:
    signs = Signs()
    signs.at_work(["moved", "heard", "unread"], 0.0)
    for id in ("moved", "heard", "unread"):
        signs.read(id, "1", 10.0)
    signs.read("moved", "2", 100.0)
    signs.heard("heard", 100.0)
    signs.read("unread", None, 100.0)
    assert signs.longest_silence_s(101.0) == 1.0


def test_who_works_no_more_is_forgotten_and_begins_anew() -> None:
    signs = Signs()
    signs.at_work(["a"], 0.0)
    signs.at_work([], 50.0)
    signs.heard("a", 55.0)
    assert signs.longest_silence_s(60.0) is None
    signs.at_work(["a"], 60.0)
    assert signs.longest_silence_s(61.0) == 1.0


def test_the_longest_silent_are_asked_first() -> None:
    signs = Signs()
    signs.at_work(["young"], 10.0)
    signs.at_work(["young", "old"], 10.0)
    signs.heard("young", 12.0)
    assert signs.quiet(30.0) == ["old", "young"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["heard", "1", "2", None])), max_size=20))
def test_silence_is_never_longer_than_the_time_since_the_last_sign(said: list[tuple[str, str | None]]) -> None:
    signs, now, last, cursors = Signs(), 0.0, {"a": 0.0, "b": 0.0}, {"a": "", "b": ""}
    signs.at_work("ab", now)
    for id, what in said:
        now += 7.0
        if what == "heard":
            signs.heard(id, now)
            last[id] = now
        else:
            signs.read(id, what, now)
            if what is None or what != cursors[id]:
                last[id], cursors[id] = now, what or ""
    assert signs.longest_silence_s(now) == now - min(last.values())


def test_latency_is_compared_only_when_both_medians_stand() -> None:
    latencies = Latencies()
    for _ in range(39):
        latencies.add(0.010)
    assert latencies.factor is None
    latencies.add(0.010)
    assert latencies.factor == 1.0


def test_a_cli_that_creeps_is_seen_and_single_slow_pings_are_not() -> None:
    latencies = Latencies()
    for _ in range(20):
        latencies.add(0.010)
    for n in range(20):
        latencies.add(5.0 if n % 4 == 0 else 0.010)
    assert latencies.factor == 1.0
    for _ in range(20):
        latencies.add(0.100)
    assert latencies.factor == 10.0


def test_what_is_fast_enough_is_not_slower_by_a_factor() -> None:
    latencies = Latencies()
    for n in range(40):
        latencies.add(0.0002 if n < 20 else 0.004)
    assert latencies.factor == 1.0
