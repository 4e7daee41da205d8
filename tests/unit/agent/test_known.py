"""Known sessions: what is loaded is never forgotten, what rests is asked about rarely."""

from copilot_operator.agent.known import KnownSessions


def a_server(*stored: str) -> KnownSessions:
    """What is known right after the first listing."""
    known = KnownSessions()
    known.ask()
    known.listed(stored)
    return known


def test_stored_and_created_sessions_are_known_and_deleted_ones_are_not() -> None:
    known = a_server("old", "gone")
    known.heard("session.created", "new")
    known.heard("session.deleted", "gone")
    assert known.ids == known.stirring == {"old", "new"}


def test_a_session_that_rests_stirs_when_it_is_heard_of() -> None:
    known = a_server("a", "b")
    known.ask()
    known.surveyed({"a"}, {"b"})
    assert known.stirring == {"a"}
    known.heard("session.updated", "b")
    assert known.stirring == {"a", "b"}


def test_what_was_heard_while_the_server_was_asked_is_newer_than_its_answer() -> None:
    known = a_server("a")
    known.ask()
    known.heard("session.updated", "a")
    known.heard("session.created", "b")
    known.surveyed((), {"a", "b"})
    assert known.stirring == {"a", "b"}
    known.ask()
    known.heard("session.created", "c")
    known.heard("session.deleted", "a")
    known.listed(["a"])
    assert known.ids == {"b", "c"}
    assert known.stale


def test_a_session_closed_before_its_first_turn_is_forgotten_at_the_next_listing() -> None:
    known = a_server()
    known.heard("session.created", "empty")
    known.ask()
    known.surveyed((), {"empty"})
    known.ask()
    known.listed([])
    assert known.ids == set()


def test_a_loaded_session_without_a_turn_is_kept_although_it_is_not_listed() -> None:
    known = a_server()
    known.heard("session.created", "empty")
    known.ask()
    known.surveyed({"empty"}, ())
    known.ask()
    known.listed([])
    assert known.stirring == {"empty"}


def test_it_asks_for_a_new_listing_only_when_one_would_show_something_else() -> None:
    known = KnownSessions()
    assert known.stale
    known.ask()
    known.listed(["a"])
    assert not known.stale
    known.heard("session.updated", "a")
    assert not known.stale
    known.heard("session.created", "b")
    assert known.stale


def test_sessions_that_rest_are_asked_about_in_turn() -> None:
    known = a_server(*"abcde")
    known.ask()
    known.surveyed((), "abcde")
    assert known.stirring == set()
    asked = []
    for _ in range(3):
        some = known.resting(2)
        asked += some
        known.ask()
        known.surveyed((), some)
    assert asked == list("abcdea")
    known.heard("session.deleted", "b")
    known.ask()
    known.surveyed({"c"}, {"b"})
    assert known.resting(9) == ["d", "e", "a"]
    assert known.stirring == {"c"}
