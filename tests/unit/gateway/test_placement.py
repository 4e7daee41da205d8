"""Where a session is loaded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.gateway.placement import ServerView, Strategy, place, weight

NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True), min_size=2, max_size=8, unique=True)
TENANTS = [f"tenant-{number}" for number in range(300)]


def serving(*names: str) -> list[ServerView]:
    return [ServerView(name, serving=True) for name in names]


@pytest.mark.parametrize("strategy", Strategy)
def test_only_a_server_that_serves_is_chosen(strategy: Strategy) -> None:
    servers = [ServerView("a", serving=False), ServerView("b", serving=True, sessions=9)]
    assert {place(strategy, "t", f"s{n}", servers, turn=n) for n in range(20)} == {"b"}
    assert place(strategy, "t", "s", [ServerView("a", serving=False)]) is None
    assert place(strategy, "t", "s", []) is None


@pytest.mark.parametrize("strategy", Strategy)
def test_a_stored_session_goes_home_or_nowhere(strategy: Strategy) -> None:
    servers = [
        ServerView("a", serving=True),
        ServerView("b", serving=True, sessions=99),
        ServerView("c", serving=False),
    ]
    assert place(strategy, "t", "s", servers, ["b"]) == "b"
    assert place(strategy, "t", "s", servers, ["c"]) is None, "its history is nowhere else"
    assert place(strategy, "t", "s", servers, ["gone"]) is None


def test_sticky_keeps_the_tenant_together_whatever_the_session_and_the_order() -> None:
    chosen = {place(Strategy.STICKY, "t", f"s{n}", serving(*order)) for n in range(9) for order in ("abc", "cab")}
    assert len(chosen) == 1


def test_sticky_is_the_same_in_every_process_and_version() -> None:
    assert weight("tenant", "server").hex() == "51ec0cdd4ad2f13b"
    assert weight("ab", "c") != weight("a", "bc")


@given(NAMES, st.data())
def test_when_a_server_leaves_only_its_own_tenants_move(names: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(names))
    for tenant in TENANTS[:60]:
        before = place(Strategy.STICKY, tenant, "s", serving(*names))
        after = place(Strategy.STICKY, tenant, "s", serving(*(name for name in names if name != gone)))
        assert after == before or before == gone


@given(NAMES, st.from_regex(r"z[a-z0-9]{1,12}", fullmatch=True))
def test_when_a_server_comes_it_takes_from_the_others_and_nobody_else_moves(names: list[str], new: str) -> None:
    moved = 0
    for tenant in TENANTS:
        before = place(Strategy.STICKY, tenant, "s", serving(*names))
        after = place(Strategy.STICKY, tenant, "s", serving(*names, new))
        assert after in (before, new)
        moved += after != before
    if new not in names:
        assert moved / len(TENANTS) <= 1 / (len(names) + 1) + 0.15, "about 1/n, as far as chance allows"


def test_sticky_spreads_tenants() -> None:
    counts = dict.fromkeys("abcd", 0)
    for tenant in TENANTS:
        counts[str(place(Strategy.STICKY, tenant, "s", serving(*"abcd")))] += 1
    assert all(45 <= count <= 105 for count in counts.values()), counts


def test_round_robin_takes_turns() -> None:
    assert [place(Strategy.ROUND_ROBIN, "t", "s", serving(*"cab"), turn=n) for n in range(4)] == ["a", "b", "c", "a"]


def test_least_sessions_takes_the_emptiest_and_does_not_pile_equals_up() -> None:
    servers = [ServerView("a", serving=True, sessions=3), ServerView("b", serving=True, sessions=2)]
    assert place(Strategy.LEAST_SESSIONS, "t", "s", servers) == "b"
    equal = {place(Strategy.LEAST_SESSIONS, "t", f"s{n}", serving(*"ab")) for n in range(20)}
    assert equal == {"a", "b"}
