"""Which sessions go: pure decisions over what was seen and said, whatever shape that has."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.agent.expiry import (
    PINNED,
    Stored,
    candidates,
    expired,
    freed,
    largest,
    timestamp,
    unheld,
    unpinned,
)
from copilot_operator.agent.policy import Policy, told
from copilot_operator.agent.store import scan
from copilot_operator.rpc.ids import is_id

NOW = 1_795_702_224.0
ids = st.text("abc", min_size=1, max_size=3)
stored = st.lists(st.builds(Stored, ids, st.floats(0, 2 * NOW)), max_size=20)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(stored, st.floats(0, 2 * NOW), st.integers(0, 30))
def test_candidates_are_the_oldest_of_those_that_are_old_enough(found: list[Stored], before: float, most: int) -> None:
    chosen = candidates(iter(found), before=before, most=most)
    old = sorted(each.touched_at for each in found if each.touched_at < before)
    assert [each.touched_at for each in chosen] == old[:most]


@given(st.integers(-(10**6), 10**6), st.integers(0, 999))
def test_a_session_expires_by_its_last_event_and_not_a_moment_before(after_s: int, ms: int) -> None:
    used_at = f"{timestamp(NOW + after_s)[:-1]}.{ms:03d}Z"
    answer = {"session": {"sessionId": "a", "modifiedTime": used_at}}
    for touched_at in (0.0, 2 * NOW):  # whatever the directory says
        assert expired(answer, Stored("a", touched_at), before=NOW) == (after_s < 0)


def test_a_session_without_events_expires_by_its_directory() -> None:
    assert expired({}, Stored("a", NOW - 1), before=NOW)
    assert not expired({}, Stored("a", NOW), before=NOW)


@given(anything)
def test_what_the_cli_did_not_say_plainly_keeps_a_session(answer: Any) -> None:
    if answer != {}:
        assert not expired(answer, Stored("a", 0.0), before=NOW)
    assert unpinned(answer) == set()
    assert unheld(answer, ["a"]) == set()
    assert freed(answer) == {}
    assert largest(answer, 3) == []


@pytest.mark.parametrize(
    "used_at", [None, 0, "", "1970", "1970-01-01", "1970-01-01T00:00:00", "1970-01-01T00:00:00+01:00"]
)
def test_a_time_of_another_kind_keeps_a_session(used_at: Any) -> None:
    assert not expired({"session": {"modifiedTime": used_at}}, Stored("a", 0.0), before=NOW)


def test_a_pin_counts_whatever_it_says_and_unknown_is_pinned() -> None:
    answer = [
        {"sessionId": "plain", "status": "ok", "metadata": {}},
        {"sessionId": "other", "status": "ok", "metadata": {"x": "y"}},
        {"sessionId": "pinned", "status": "ok", "metadata": {PINNED: ""}},
        {"sessionId": "gone", "status": "notFound"},
        {"sessionId": "strange", "status": "error", "metadata": {}},
    ]
    assert unpinned(answer) == {"plain", "other"}


def test_what_another_process_holds_stays() -> None:
    assert unheld({"inUse": ["b", "z"]}, ["a", "b"]) == {"a"}


def test_sizes() -> None:
    sizes = {"a": 5, "b": 7, "c": 7, "d": 1, "e": -1, "f": True, "g": "9"}
    assert largest({"sizes": sizes}, 3) == [("c", 7), ("b", 7), ("a", 5)]
    assert freed({"freedBytes": {"a": 0, "b": None}}) == {"a": 0}


# ---- what is seen of the volume


def test_a_scan_sees_directories_with_names_of_sessions_and_follows_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "session-state"
    assert list(scan(directory)) == []
    for name in ("a", "B-1_2", ".session-operation-locks", "with space", "dot.ted", "x" * 251):
        (directory / name).mkdir(parents=True)
    (directory / "file").write_text("")
    (directory / "link").symlink_to(directory / "a")
    (directory / "dangling").symlink_to(directory / "absent")
    os.mkdir(os.fsencode(directory) + b"/\xff\xfe")
    os.utime(directory / "a", (1, 1000.5))
    found = {each.id: each.touched_at for each in scan(directory)}
    assert set(found) == {"a", "B-1_2"}
    assert found["a"] == 1000.5


def test_a_scan_of_what_is_no_directory_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        list(scan(tmp_path / "file"))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "é", "x" * 251])
def test_what_is_no_id(name: str) -> None:
    assert not is_id(name)


# ---- what the operator tells


def test_a_policy_is_told_piece_by_piece_and_what_is_not_named_stays() -> None:
    policy = told(Policy(), {"ttl_s": "3600", "ttl_action": "DryRun", "high_water_percent": "85", "pod": "x"})
    assert policy == Policy(3600.0, True, 85.0)
    assert told(policy, {}) == policy
    assert told(policy, {"ttl_action": "Delete"}) == Policy(3600.0, False, 85.0)
    assert told(policy, {"ttl_s": "0"}) == Policy(None, True, 85.0)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"ttl_s": "soon"}, "ttl_s must be a number from 0 to 1e[+]10"),
        ({"ttl_s": "-1"}, "ttl_s must be a number"),
        ({"ttl_s": "nan"}, "ttl_s must be a number"),
        ({"ttl_s": "inf"}, "ttl_s must be a number"),
        ({"ttl_action": "delete"}, "ttl_action must be one of Delete, DryRun"),
        ({"high_water_percent": "101"}, "high_water_percent must be a number from 0 to 100"),
    ],
)
def test_a_policy_that_is_none_is_refused_with_a_sentence(query: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        told(Policy(), query)
