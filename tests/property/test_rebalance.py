"""Idle sessions move until load is even, and no further."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.gateway.placement import ServerView, Strategy, place
from copilot_operator.gateway.rebalance import Resting, moves, with_those_on_their_way

SERVERS = [f"server-{number}" for number in range(5)]
SESSIONS = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from(SERVERS[:4]), st.booleans(), st.integers(0, 9)), max_size=60
)


def views(serving: Sequence[str], loaded: Counter[str]) -> list[ServerView]:
    return [ServerView(name, name in serving, loaded[name]) for name in SERVERS]


@given(
    sessions=SESSIONS, strategy=st.sampled_from(Strategy), most=st.integers(1, 5), pending=st.booleans(),
    serving=st.lists(st.sampled_from(SERVERS), min_size=1, unique=True),
)  # fmt: skip
def test_whatever_there_is_moves_are_bounded_make_load_even_and_end(
    sessions: list[tuple[int, str, bool, int]], strategy: Strategy, most: int, pending: bool, serving: list[str]
) -> None:
    """``pending``: what has left is not loaded before the end."""
    home = {f"s-{number}": server for number, (_, server, _, _) in enumerate(sessions)}
    idle = {f"s-{number}": (f"t-{t}", float(used)) for number, (t, _, rests, used) in enumerate(sessions) if rests}
    left_for, moved = dict[str, str](), set[str]()
    for _ in range(len(sessions) + 1):
        loaded = Counter(server for id, server in home.items() if id not in left_for)
        resting = [Resting(id, who, home[id], at) for id, (who, at) in idle.items() if id not in left_for]
        found = moves(strategy, with_those_on_their_way(views(serving, loaded), left_for), resting, most)
        assert len(found) <= most
        fullest = max(Counter(home.values()).values(), default=0)
        for id, target in found.items():
            assert id in idle, "one that works stays"
            assert id not in moved, "nothing moves twice"
            assert {home[id], target} <= set(serving)
            if strategy is Strategy.STICKY:
                assert target == place(strategy, idle[id][0], id, views(serving, loaded))
            home[id] = target
        assert max(Counter(home.values()).values(), default=0) <= fullest
        moved |= found.keys()
        left_for |= found if pending else {}
        if not found:
            break
    else:
        raise AssertionError("it does not end")
    if strategy is not Strategy.STICKY:
        counts = {name: Counter(home.values())[name] for name in serving}
        fullest_with_idle = max((counts[home[id]] for id in idle if home[id] in counts), default=0)
        assert fullest_with_idle - min(counts.values()) < 2, "what may move has evened it out"


def test_the_longest_unused_goes_first_and_one_that_leaves_its_server_anyway_is_left_alone() -> None:
    servers = [ServerView("a", True, 4), ServerView("b", True, 0), ServerView("c", False, 9)]
    resting = [Resting(f"s-{used}", "t", "a", used) for used in (3.0, 1.0, 2.0)] + [Resting("leaves", "t", "c", 0.0)]
    assert moves(Strategy.LEAST_SESSIONS, servers, resting, 1) == {"s-1.0": "b"}
    assert list(moves(Strategy.LEAST_SESSIONS, servers, resting, 9)) == ["s-1.0", "s-2.0"]
    assert moves(Strategy.LEAST_SESSIONS, servers[2:], resting, 9) == {}


def test_where_tenants_stick_to_a_server_only_those_move_that_would_be_placed_elsewhere_now() -> None:
    """One comes to three: about a quarter of the tenants has its server there."""
    names = SERVERS[:3]
    before = [ServerView(name, True) for name in names]
    home = {f"t-{n}": place(Strategy.STICKY, f"t-{n}", "", before) or "" for n in range(400)}
    loaded = Counter(home.values())
    after = [ServerView(name, True, loaded[name]) for name in SERVERS[:4]]
    found = moves(Strategy.STICKY, after, [Resting(t, t, server, 0.0) for t, server in home.items()], 1000)
    assert set(found.values()) == {SERVERS[3]}
    assert 60 < len(found) <= 140
