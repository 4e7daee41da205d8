"""Whatever gateways say, and whichever die: no ephemeral session is over that a client may have open, and each is in
the end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from copilot_operator.agent.held import HELD_S, Held
from copilot_operator.rpc.ephemeral import NONE, Ephemeral

IDS = ["ephemeral-a", "ephemeral-b", "ephemeral-c"]
SAY_EVERY_S = 10.0


class Sessions(RuleBasedStateMachine):
    """Gateways x and y with clients, beside an agent that looks now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.held = 0.0, Held()
        self.stored: set[str] = set()
        self.left: set[str] = set()  # said to be, once at least
        self.open: dict[str, set[str]] = {"x": set(), "y": set()}  # by gateway

    @rule(gateway=st.sampled_from("xy"), id=st.sampled_from(IDS))
    def a_client_opens(self, gateway: str, id: str) -> None:
        self.open[gateway].add(id)
        self.held.opened(gateway, [id], self.now)  # said before the server is done
        self.stored.add(id)

    @rule(gateway=st.sampled_from("xy"), id=st.sampled_from(IDS))
    def the_last_client_of_a_gateway_leaves(self, gateway: str, id: str) -> None:
        if id in self.open[gateway]:
            self.open[gateway].discard(id)
            self.held.left(gateway, [id])
            self.left.add(id)

    @rule(gateway=st.sampled_from("xy"))
    def a_gateway_is_killed(self, gateway: str) -> None:
        self.open[gateway] = set()

    @rule(id=st.sampled_from(IDS))
    def one_is_found_that_nobody_told_of(self, id: str) -> None:
        self.stored.add(id)

    @rule()
    def the_agent_looks(self) -> None:
        self.held.stored(self.stored, self.now)
        over = set(self.held.over(self.now))
        assert over <= self.stored
        self.stored -= over
        self.held.stored(self.stored, self.now)

    @rule()
    def the_agent_starts_again(self) -> None:
        self.held = Held()
        for gateway, ids in self.open.items():  # said again before long
            self.held.opened(gateway, ids, self.now)

    @rule(times=st.integers(1, 6))
    def time_passes(self, times: int) -> None:
        for _ in range(times):
            self.now += SAY_EVERY_S
            for gateway, ids in self.open.items():
                self.held.opened(gateway, ids, self.now)

    @invariant()
    def what_a_client_has_open_is_not_over(self) -> None:
        opened = self.open["x"] | self.open["y"]
        assert not set(self.held.over(self.now)) & opened
        assert not [id for id in IDS if self.held.left_by_all(id, self.now) and (id in opened or id not in self.left)]

    def teardown(self) -> None:
        self.open = {"x": set(), "y": set()}
        self.the_agent_looks()
        self.now += HELD_S
        self.the_agent_looks()
        assert not self.stored, "something is left"
        assert len(self.held) == 0


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)


def test_ids_tell_which_sessions_are_ephemeral() -> None:
    assert "ephemeral-1" in Ephemeral()
    assert "not-ephemeral-1" not in Ephemeral()
    assert None not in Ephemeral()
    assert "abcdefgh-ephemeral-1" not in Ephemeral(), "whatever an id of a Dedicated tenant looks like"
    shared = Ephemeral(code_length=4)
    assert "codeephemeral-1" in shared
    assert "ephemeral-1" not in shared
    assert "anything" in Ephemeral(all=True)
    assert "ephemeral-1" not in NONE


def test_one_that_was_just_found_is_held_for_whoever_is_about_to_say_so() -> None:
    held = Held()
    held.stored(["ephemeral-a"], 0.0)
    assert (held.over(HELD_S - 0.1), held.over(HELD_S)) == ([], ["ephemeral-a"])
