"""Whoever pauses, dies or starts again: one speaks at a time, no lock is freed in mid-turn, and who waits is served."""

from dataclasses import dataclass, field
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from copilot_operator.agent.locks import MOST_WAITING, NEVER, TTL_S, WAITS_S, Held, Locks

ID = "s"
MEMBERS = ["alice", "bob", "carol"]
PAIRS = [(gateway, member) for gateway in (0, 1) for member in MEMBERS]


@dataclass
class Gateway:
    """What one gateway believes of one member's lease: it is good until ``until``, counted from before it asked."""

    token: str = ""
    until: float = NEVER
    old: list[str] = field(default_factory=list)


class Speaking(RuleBasedStateMachine):
    """One session, two gateways, three members. Any rule may come between any two steps of the others, so a gateway
    that pauses or has died is one of which no rule is called."""

    @initialize()
    def begins(self) -> None:
        self.now, self.locks = 0.0, Locks(0.0)
        self.busy_for: set[str] = set()  # whose messages the turn that runs works on
        self.gateways = {pair: Gateway() for pair in PAIRS}
        self.names = (f"t{number}" for number in count())
        self.look: tuple[bool, float] | None = None  # that of a slow asker: what it found, and when it began

    def holders(self) -> set[str]:
        return {member for (_, member), gateway in self.gateways.items() if gateway.until > self.now}

    @rule(pair=st.sampled_from(PAIRS), waits=st.booleans(), slow=st.booleans())
    def asks(self, pair: tuple[int, str], waits: bool, slow: bool) -> None:
        gateway, member = self.gateways[pair], pair[1]
        if not gateway.token:
            gateway.token = next(self.names)
        busy, idle_at = False, NEVER
        if self.locks.must_look(ID, self.now):
            busy, began_at = self.look if slow and self.look else (bool(self.busy_for), self.now)
            idle_at = NEVER if busy else began_at
        if self.locks.ask(ID, gateway.token, member, self.now, waits=waits, busy=busy, idle_at=idle_at) is None:
            assert self.busy_for <= {member} or (slow and self.look), "it was given in somebody's turn"
            gateway.until = self.now + TTL_S

    @rule()
    def a_slow_look_begins(self) -> None:
        self.look = bool(self.busy_for), self.now

    @precondition(lambda self: self.look is not None)
    @rule()
    def the_slow_look_is_over(self) -> None:
        self.look = None

    @rule(pair=st.sampled_from(PAIRS))
    def says_something(self, pair: tuple[int, str]) -> None:
        """It looks at its own clock before."""
        if self.gateways[pair].until > self.now:
            self.busy_for.add(pair[1])

    @rule()
    def the_turn_ends(self) -> None:
        self.busy_for.clear()

    @rule(pair=st.sampled_from(PAIRS))
    def renews(self, pair: tuple[int, str]) -> None:
        gateway = self.gateways[pair]
        if gateway.until > self.now:  # else it would ask
            renewed = self.locks.renew(ID, gateway.token, pair[1], self.now)
            assert renewed, "it was good by the gateway's own clock"
            gateway.until = self.now + TTL_S

    @rule(pair=st.sampled_from(PAIRS))
    def releases(self, pair: tuple[int, str]) -> None:
        gateway = self.gateways[pair]
        if gateway.token and not self.busy_for:
            self.locks.release(ID, gateway.token, self.now)
            gateway.old.append(gateway.token)
            gateway.token, gateway.until = "", NEVER

    @rule(pair=st.sampled_from(PAIRS))
    def dies(self, pair: tuple[int, str]) -> None:
        """Its turn goes on, for another gateway keeps it."""
        gateway = self.gateways[pair]
        gateway.old.append(gateway.token)
        gateway.token, gateway.until = "", NEVER

    @rule(pair=st.sampled_from(PAIRS))
    def an_old_token_comes_late(self, pair: tuple[int, str]) -> None:
        before = self.locks.leases(ID, self.now)
        current = {gateway.token for gateway in self.gateways.values()}
        for token in set(self.gateways[pair].old) - current:
            self.locks.release(ID, token, self.now)
        assert before & current == self.locks.leases(ID, self.now) & current

    @rule(seconds=st.sampled_from([0.1, 1.0, TTL_S / 2, WAITS_S, TTL_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def the_agent_starts_again(self) -> None:
        self.locks = Locks(self.now)
        self.look = None

    @invariant()
    def one_speaks_at_a_time(self) -> None:
        assert len(self.holders()) <= 1
        assert len(self.busy_for) <= 1, "two spoke in one turn"

    @invariant()
    def who_may_speak_is_of_the_turn_that_runs(self) -> None:
        assert not self.busy_for or self.holders() <= self.busy_for


TestSpeaking = Speaking.TestCase
TestSpeaking.settings = settings(max_examples=150, stateful_step_count=50, deadline=None, derandomize=True)


@given(order=st.permutations(range(8)), deaths=st.sets(st.integers(0, 7), max_size=4))
def test_who_waits_is_served_in_order_of_arrival_and_the_dead_hold_nobody_up_for_long(
    order: list[int], deaths: set[int]
) -> None:
    locks, now = Locks(-TTL_S), 0.0
    assert locks.ask(ID, "first", "alice", now, waits=True, idle_at=now) is None
    for place, member in enumerate(order):
        held = locks.ask(ID, f"t{member}", f"m{member}", now, waits=True)
        assert held == Held("alice", 0.0, ahead=place)
    assert locks.waiting(now) == 8
    locks.release(ID, "first", now)
    served, left = [], [member for member in order if member not in deaths]
    for _ in range(200):
        now += 0.5
        for member in reversed(list(left)):  # in another order than that in which they came
            idle_at = now if locks.must_look(ID, now) else NEVER
            if locks.ask(ID, f"t{member}", f"m{member}", now, waits=True, idle_at=idle_at) is None:
                served.append(member)
                left.remove(member)
                locks.release(ID, f"t{member}", now)
    assert served == [member for member in order if member not in deaths]
    assert now >= WAITS_S


def test_so_many_wait_and_no_more_and_who_does_not_wait_is_told_who_holds_it() -> None:
    locks = Locks(-TTL_S)
    locks.ask(ID, "t", "alice", 0.0, waits=True, idle_at=0.0)
    for number in range(MOST_WAITING):
        assert locks.ask(ID, f"t{number}", "bob", 1.0, waits=True) == Held("alice", 1.0, ahead=number)
    assert locks.ask(ID, "one-more", "bob", 1.0, waits=True) == Held("alice", 1.0, MOST_WAITING, full=True)
    assert locks.ask(ID, "other", "bob", 1.0, waits=False) == Held("alice", 1.0, MOST_WAITING)
    assert locks.release(ID, "t0", 1.0), "it leaves the queue"
    assert locks.ask(ID, "one-more", "bob", 1.0, waits=True) == Held("alice", 1.0, MOST_WAITING - 1)


def test_its_own_turn_a_member_may_add_to_also_when_its_gateway_has_died() -> None:
    locks = Locks(-TTL_S)
    locks.ask(ID, "t", "alice", 0.0, waits=False, idle_at=0.0)
    assert locks.ask(ID, "u", "alice", 1.0, waits=False) is None
    assert locks.release(ID, "t", 2.0)
    assert locks.leases(ID, 2.0) == {"u"}
    late = 1.0 + TTL_S
    assert locks.ask(ID, "v", "bob", late, waits=False, busy=True) == Held("alice", late)
    assert locks.ask(ID, "w", "alice", late, waits=False, busy=True) is None


def test_who_has_just_spoken_comes_after_those_who_wait() -> None:
    locks = Locks(-TTL_S)
    locks.ask(ID, "t", "alice", 0.0, waits=False, idle_at=0.0)
    locks.ask(ID, "u", "bob", 1.0, waits=True)
    locks.release(ID, "t", 2.0)
    assert locks.ask(ID, "v", "alice", 2.0, waits=True, idle_at=2.0) == Held(ahead=1)
    assert locks.ask(ID, "u", "bob", 2.0, waits=True, idle_at=2.0) is None


def test_a_look_that_began_before_the_last_one_spoke_says_nothing() -> None:
    locks = Locks(-TTL_S)
    locks.ask(ID, "t", "alice", 1.0, waits=False, idle_at=0.5)
    ended = 1.0 + TTL_S
    assert locks.ask(ID, "u", "bob", ended, waits=False, idle_at=0.5) == Held("alice", TTL_S)
    assert locks.ask(ID, "u", "bob", ended, waits=False, idle_at=ended) is None


def test_a_turn_that_nobody_is_known_to_hold_keeps_others_out_until_it_ends() -> None:
    locks = Locks(-TTL_S)
    assert locks.ask(ID, "t", "bob", 1.0, waits=True, busy=True) == Held("", 0.0)
    assert locks.ask(ID, "t", "bob", 3.0, waits=True) == Held("", 2.0), "nor if it can't be told"
    assert locks.ask(ID, "t", "bob", 4.0, waits=True, idle_at=4.0) is None


def test_only_the_holder_ends_or_answers_for_a_turn_unless_it_has_gone() -> None:
    locks = Locks(-TTL_S)
    assert locks.tend(ID, "bob", 0.0) is None
    locks.ask(ID, "t", "alice", 0.0, waits=False, idle_at=0.0)
    assert locks.tend(ID, "alice", 1.0) is None
    assert locks.tend(ID, "bob", 1.0) == Held("alice", 1.0)
    assert locks.tend(ID, "bob", TTL_S) is None
    assert Locks(0.0).tend(ID, "bob", 1.0) == Held(settling=True)
