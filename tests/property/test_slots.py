"""However many ask, come and go: no more sessions may be loaded than there are slots, and nobody waits for ever."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from copilot_operator.agent.slots import LOADED_WITHIN_S, RESTS_S, WAITS_S, Bounds, Slots

IDS = [f"{tenant}{number}" for tenant in "abc" for number in range(4)]
OF_TENANT = {"a": 1, "b": 3, "c": None}


class Loading(RuleBasedStateMachine):
    """A server that loads what was granted, or does not, and unloads what it likes."""

    @initialize(most=st.integers(1, 6))
    def begins(self, most: int) -> None:
        self.slots, self.bounds, self.now = Slots(), Bounds(most, code_length=1), 0.0
        self.loaded: set[str] = set()
        self.loading: dict[str, float] = {}  # were let in, and may be there until then

    @rule(ids=st.sets(st.sampled_from(IDS), min_size=1, max_size=5), load=st.booleans())
    def are_wanted(self, ids: set[str], load: bool) -> None:
        granted = self.slots.ask({id: OF_TENANT[id[0]] for id in sorted(ids)}, self.bounds, self.now)
        assert set(granted) <= ids
        assert all(id in granted for id in ids & self.loaded), "what is loaded may stay so"
        for id in ids - set(granted):
            assert self.slots.lacks(id, self.bounds), "it was refused, and there is room"
        self.loaded |= set(granted) if load else set()
        self.loading |= dict.fromkeys(set(granted) - self.loaded - self.loading.keys(), self.now + LOADED_WITHIN_S)

    @rule(id=st.sampled_from(IDS))
    def is_used(self, id: str) -> None:
        self.slots.used(id, self.now)

    @rule()
    def all_that_load_are_there(self) -> None:
        self.loaded |= self.loading.keys()
        self.loading = {}

    @rule(id=st.sampled_from(IDS))
    def is_looked_at(self, id: str) -> None:
        if id in self.loaded:
            self.slots.loaded([id], self.now)
        elif self.slots.unloaded(id, self.now):
            assert id not in self.loading, "it would be loaded without a slot"

    @rule(id=st.sampled_from(IDS))
    def is_unloaded_unseen(self, id: str) -> None:
        self.loaded.discard(id)

    @rule(seconds=st.sampled_from([0.1, RESTS_S, WAITS_S, LOADED_WITHIN_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.loading = {id: until for id, until in self.loading.items() if self.now < until}  # else its gateway died

    @rule(id=st.sampled_from(IDS))
    def room_is_wanted(self, id: str) -> None:
        if id in self.slots:
            return
        self.slots.ask({id: OF_TENANT[id[0]]}, self.bounds, self.now)
        lacks = self.slots.lacks(id, self.bounds)
        for other in self.slots.candidates(id, self.bounds, self.now):
            assert other in self.slots
            assert other != id
            assert lacks != "tenant" or other[0] == id[0], "what another tenant gives up is of no use"

    @invariant()
    def never_more_than_may_be(self) -> None:
        assert len(self.loaded | self.loading.keys()) <= self.bounds.most
        assert self.loaded | self.loading.keys() <= {id for id in IDS if id in self.slots}
        for tenant, most in OF_TENANT.items():
            assert most is None or len([id for id in self.loaded if id[0] == tenant]) <= most


TestLoading = Loading.TestCase
TestLoading.settings = settings(max_examples=200, stateful_step_count=40, deadline=None, derandomize=True)


@given(order=st.permutations(IDS))
def test_who_came_first_gets_what_is_free_first(order: list[str]) -> None:
    slots, bounds = Slots(), Bounds(1)
    slots.ask({"first": None}, bounds, 0)
    for place, id in enumerate(order):
        assert slots.ask({id: None}, bounds, place / 100) == []
    before, place_at = "first", 1.0
    for turn, id in enumerate(order):
        slots.loaded([before], place_at)
        assert slots.unloaded(before, place_at)
        assert slots.ask(dict.fromkeys(order[turn:]), bounds, place_at) == [id]
        before = id


def test_the_least_recently_used_of_the_tenant_that_has_most_goes_first() -> None:
    slots, bounds = Slots(), Bounds(4, code_length=1)
    for id, at in (("b1", 0.0), ("a2", 1.0), ("a1", 2.0), ("a3", 3.0)):
        assert slots.ask({id: None}, bounds, at) == [id]
    assert slots.ask({"c1": None}, bounds, 4.0) == []
    assert slots.candidates("c1", bounds, 5.0) == [], "they are being loaded"
    assert not slots.unloaded("a1", 5.0), "and not there yet"
    slots.used("a1", 5.0)
    assert slots.candidates("c1", bounds, 6.0) == ["a1"], "it may be there by now"
    slots.loaded(["a1"], 6.0)
    slots.used("a1", 2.0)
    slots.used("a2", 20.0)
    assert slots.candidates("c1", bounds, 30.0) == ["a1", "a3", "a2", "b1"]
    assert slots.candidates("c1", bounds, 30.0, {"a1"}) == ["a3", "a2", "b1"]


def test_a_tenant_that_has_its_share_makes_room_for_itself() -> None:
    slots, bounds = Slots(), Bounds(4, code_length=1)
    slots.ask({"a1": 1, "b1": None, "b2": None}, bounds, 0.0)
    assert slots.ask({"a2": 1}, bounds, 20.0) == []
    assert (slots.lacks("a2", bounds), slots.candidates("a2", bounds, 20.0)) == ("tenant", ["a1"])


def test_who_does_not_ask_again_loses_its_place() -> None:
    slots, bounds = Slots(), Bounds(1)
    slots.ask({"a": None}, bounds, 0.0)
    slots.ask({"b": None}, bounds, 0.0)
    assert slots.waiting(1.0) == 1
    slots.ask({"c": None}, bounds, WAITS_S + 1)
    slots.loaded(["a"], 0.0)
    assert slots.unloaded("a", WAITS_S)
    assert slots.ask({"c": None}, bounds, WAITS_S + 1) == ["c"]
    assert slots.waiting(WAITS_S + 1) == 0
