"""Turns of a pool's servers: never too many away at once, idle ones first, and everybody's turn comes."""

from dataclasses import replace

from hypothesis import given, note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from copilot_operator.cluster.rollouts import Rollouts
from copilot_operator.domain.rollout import ABSENT, Standing, admitted, most_unavailable
from copilot_operator.domain.snapshot import Finding

BAD = Finding("CrashLooping", "it ends")
MAX = st.one_of(st.integers(1, 8).map(str), st.integers(1, 100).map(lambda share: f"{share}%"))
NAMES = [f"copilot-{letter}" for letter in "abcdefgh"]
STANDING = st.builds(
    Standing,
    wants_turn=st.booleans(),
    unavailable=st.booleans(),
    busy=st.sampled_from([True, False, None]),
    failed=st.sampled_from([None, None, None, None, BAD]),
    revision=st.sampled_from(["", "one", "two"]),
)


@given(st.dictionaries(st.sampled_from(NAMES), STANDING), MAX, st.sets(st.sampled_from(NAMES)))
def test_who_is_admitted(standings: dict[str, Standing], limit: str, holding: set[str]) -> None:
    chosen = admitted(standings, limit, holding)
    running = {name: standing for name, standing in standings.items() if standing.revision}
    most = most_unavailable(limit, len(running))
    away = {name for name, standing in running.items() if standing.unavailable}
    wanting = {name for name, standing in running.items() if standing.wants_turn}
    assert chosen <= wanting
    assert len(chosen) <= most
    assert len(chosen - away) == 0 or len(away | chosen) <= most, "of those that serve none too many"
    if any(standing.failed for standing in running.values()):
        assert not chosen, "no further than the first failure"
        return
    if wanting and len(away - wanting) < most:
        assert chosen, "somebody's turn it always is, else it never ends"
    for taken in chosen - away:
        for left in wanting - away - chosen:
            assert (taken not in holding, running[taken].busy is not False, taken) < (
                left not in holding,
                running[left].busy is not False,
                left,
            )


@given(MAX, st.integers(0, 2000))
def test_a_share_is_rounded_down_and_at_least_one(limit: str, servers: int) -> None:
    most = most_unavailable(limit, servers)
    assert most >= 1
    if limit.endswith("%"):
        assert most <= max(1, servers)
        assert most == 1 or most * 100 <= servers * int(limit[:-1])
    else:
        assert most == int(limit)


class Fleet(RuleBasedStateMachine):
    """Servers that do as the registry says, in any order. All begin with version 1 and are available."""

    @initialize(limit=st.integers(1, 4), count=st.integers(1, len(NAMES)))
    def a_fleet(self, limit: int, count: int) -> None:
        self.limit, self.now, self.wanted = limit, 0.0, 1
        self.names = NAMES[:count]
        self.woken: set[str] = set()
        self.runs = dict.fromkeys(self.names, 1)
        self.moves_to: dict[str, int] = {}
        self.busy = dict.fromkeys(self.names, False)
        self.broken: set[str] = set()
        self.rollouts = self.started()

    def started(self) -> Rollouts:
        made = Rollouts(lambda *_: self.names, self.wake, lambda *_: None, lambda: self.now)
        made.allows("ns", "pool", str(self.limit))
        return made

    def wake(self, namespace: str, pool: str, servers: frozenset[str]) -> None:
        self.woken |= servers

    def away(self) -> set[str]:
        return set(self.moves_to) | self.broken

    def cycle(self, name: str) -> None:
        """One cycle of a tenant: ask, decide, tell."""
        may = self.rollouts.admits("ns", "pool", name)
        if self.runs[name] != self.wanted and name not in self.moves_to and may:
            before = len(self.away())
            self.moves_to[name] = self.wanted
            assert len(self.away()) <= max(self.limit, before), f"{name} is one too many"
        wants = self.runs[name] != self.wanted and name not in self.moves_to
        standing = Standing(wants, name in self.away(), self.busy[name], None, f"r{self.runs[name]}")
        self.rollouts.report("ns", "pool", name, standing)

    @rule(name=st.sampled_from(NAMES))
    def a_tenant_looks(self, name: str) -> None:
        if name in self.names:
            self.cycle(name)

    @rule(name=st.sampled_from(NAMES))
    def a_server_arrives(self, name: str) -> None:
        if name in self.moves_to and name not in self.broken:
            self.runs[name] = self.moves_to.pop(name)
            self.cycle(name)

    @rule(name=st.sampled_from(NAMES))
    def somebody_works(self, name: str) -> None:
        if name in self.names:
            self.busy[name] = not self.busy[name]

    @rule()
    def the_pool_changes(self) -> None:
        self.wanted += 1
        self.rollouts.asked("ns", "pool")

    @rule()
    def the_operator_starts_again(self) -> None:
        self.woken.clear()
        self.rollouts = self.started()

    @invariant()
    def nobody_goes_before_all_have_told(self) -> None:
        if hasattr(self, "names"):
            assert len(self.away()) <= self.limit

    def teardown(self) -> None:
        if not hasattr(self, "names"):
            return
        for _ in range(3 * len(self.names) + 3):
            for name in self.names:
                self.cycle(name)
            for name in list(self.moves_to):
                self.a_server_arrives(name)
        note(f"{self.runs} wanted {self.wanted}")
        assert set(self.runs.values()) == {self.wanted}, "everybody's turn has come"


TestFleet = Fleet.TestCase


def told(rollouts: Rollouts, **standings: Standing) -> None:
    for name, standing in standings.items():
        rollouts.report("ns", "pool", name, standing)


WANTS = Standing(wants_turn=True, revision="old")


class Woken(list[str]):
    def __call__(self, namespace: str, pool: str, servers: frozenset[str]) -> None:
        self.extend(sorted(servers))


def a_registry(*names: str, limit: str = "1") -> tuple[Rollouts, Woken, list[str], list[float]]:
    """Registry, who was woken, which pools were, and the clock."""
    woken, due, now = Woken(), list[str](), [0.0]
    rollouts = Rollouts(lambda *_: list(names), woken, lambda _, pool: due.append(pool), lambda: now[0])
    rollouts.allows("ns", "pool", limit)
    return rollouts, woken, due, now


def test_nobody_is_admitted_before_the_last_has_told_and_then_the_idle_one() -> None:
    rollouts, woken, _, _ = a_registry("a", "b", "c")
    told(rollouts, a=replace(WANTS, busy=True), b=replace(WANTS, busy=None))
    assert (woken, rollouts.admits("ns", "pool", "a")) == ([], False)
    told(rollouts, c=WANTS)
    assert woken == ["c"]
    told(rollouts, c=Standing(unavailable=True, revision="new"))
    assert woken == ["c"]
    told(rollouts, c=Standing(revision="new"))
    assert woken == ["c", "a"], "uncounted is as busy as busy"


def test_a_tenant_that_cannot_tell_holds_up_nobody_but_counts_as_away() -> None:
    rollouts, woken, _, _ = a_registry("a", "b", limit="2")
    told(rollouts, a=WANTS)
    rollouts.could_not_tell("ns", "pool", "b")
    assert woken == ["a"]
    strict, woken, _, _ = a_registry("a", "b", limit="1")
    told(strict, a=WANTS)
    strict.could_not_tell("ns", "pool", "b")
    assert woken == []


def test_after_a_change_of_the_pool_all_must_tell_again() -> None:
    rollouts, woken, _, _ = a_registry("a", "b")
    idle = Standing(revision="old")
    told(rollouts, a=idle, b=idle)
    rollouts.asked("ns", "pool")
    told(rollouts, a=replace(WANTS, busy=True))
    assert woken == []
    told(rollouts, b=WANTS)
    assert woken == ["b"]


def test_a_deleted_tenant_gives_its_turn_to_the_next() -> None:
    rollouts, woken, _, _ = a_registry("a", "b")
    told(rollouts, a=WANTS, b=WANTS)
    assert woken == ["a"]
    rollouts.forget("ns", "a")
    assert woken == ["a", "b"]


def test_a_failure_stops_the_others_at_once_and_is_a_verdict_after_a_while() -> None:
    rollouts, woken, due, now = a_registry("a", "b")
    told(rollouts, a=WANTS, b=WANTS)
    told(rollouts, a=Standing(unavailable=True, revision="new", failed=BAD))
    assert (rollouts.failing("ns", "pool"), due) == ({}, ["pool"])
    now[0] = 10.0
    assert rollouts.next_verdict_s("ns", "pool") == 20.0
    told(rollouts, a=Standing(unavailable=True, revision="new"))  # it runs for a moment, and will crash again
    now[0] = 30.0
    assert rollouts.failing("ns", "pool")["a"].finding == BAD
    assert rollouts.next_verdict_s("ns", "pool") is None
    assert woken == ["a"]
    told(rollouts, a=Standing(revision="new"))
    assert (rollouts.failing("ns", "pool"), woken) == ({}, ["a", "b"])


def test_who_did_not_work_before_its_turn_is_no_evidence() -> None:
    rollouts, woken, _, now = a_registry("a", "b", limit="2")
    told(rollouts, a=replace(WANTS, unavailable=True), b=WANTS)
    assert woken == ["a", "b"]
    told(rollouts, a=Standing(unavailable=True, revision="new", failed=BAD))
    now[0] = 60.0
    assert rollouts.failing("ns", "pool")["a"].excused


def test_a_server_that_starts_takes_a_turn_only_while_there_is_room() -> None:
    rollouts, _, _, _ = a_registry("a", "b", "c")
    assert not rollouts.takes_turn("ns", "pool", "a"), "the others have not told"
    told(rollouts, a=ABSENT, b=ABSENT, c=Standing(revision="old"))
    assert rollouts.takes_turn("ns", "pool", "a")
    assert not rollouts.takes_turn("ns", "pool", "b"), "a is about to start"
    told(rollouts, a=ABSENT)
    assert rollouts.takes_turn("ns", "pool", "b"), "a did not start after all"


def test_the_revision_that_a_server_was_last_known_to_run() -> None:
    rollouts, _, _, _ = a_registry("a", "b")
    assert rollouts.revision("ns", "pool", "a") == ""
    told(rollouts, a=WANTS)
    rollouts.could_not_tell("ns", "pool", "b")
    assert [rollouts.revision("ns", "pool", name) for name in "ab"] == ["old", ""]


def test_a_turn_lasts_until_the_server_is_back() -> None:
    """It may have neither a pod nor a note of its own in between, and must not start with what it came from."""
    rollouts, _, _, _ = a_registry("a", "b", limit="2")
    told(rollouts, a=WANTS, b=Standing(revision="new"))
    told(rollouts, a=Standing(unavailable=True, revision="old"))
    told(rollouts, b=Standing(busy=True, revision="new"))
    assert rollouts.admits("ns", "pool", "a")
    told(rollouts, a=Standing(revision="new"))
    assert not rollouts.admits("ns", "pool", "a")


def test_a_turn_that_is_being_taken_is_not_given_away() -> None:
    rollouts, woken, _, _ = a_registry("a", "b")
    told(rollouts, a=ABSENT, b=Standing(revision="old"))
    assert rollouts.takes_turn("ns", "pool", "a")
    told(rollouts, b=WANTS)
    assert (woken, rollouts.admits("ns", "pool", "a")) == ([], True)


def test_a_tenant_that_goes_before_it_has_told_holds_up_nobody() -> None:
    rollouts, woken, _, _ = a_registry("a", "b")
    told(rollouts, a=WANTS)
    rollouts.forget("ns", "b")
    assert woken == ["a"]


def test_a_tenant_that_was_made_again_for_another_pool_is_forgotten_in_its_first() -> None:
    rollouts, woken, _, _ = a_registry("a", "b")
    told(rollouts, a=Standing(unavailable=True, revision="old"), b=WANTS)
    assert woken == []
    rollouts.report("ns", "other", "a", Standing(revision="theirs"))
    assert woken == ["b"]
    assert [rollouts.revision("ns", pool, "a") for pool in ("pool", "other")] == ["", "theirs"]
