"""Whatever happens in whatever order: no turn is sent twice, none is lost in silence, every request is answered."""

from typing import Any

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from copilot_operator.gateway.session.machine import Bounds
from tests.property.gateway_world import UTILITY, World

CLIENTS = st.integers(1, 3)


class Sessions(RuleBasedStateMachine):
    """Clients 1 to 3 on one session, two servers on one disk."""

    bounds = Bounds()

    def __init__(self) -> None:
        super().__init__()
        self.world = World(bounds=self.bounds)
        self.next_client = 4
        self.numbers = {1: 1, 2: 2, 3: 3}  # the connection each person has now

    @initialize()
    def begins(self) -> None:
        self.world.asks(1, "session.create", tools=[])

    def pick(self, data: st.DataObject, of: list[Any]) -> Any:
        return data.draw(st.sampled_from(sorted(of, key=repr)))

    # Clients

    @rule(person=CLIENTS)
    def sends(self, person: int) -> None:
        self.world.asks(self.numbers[person], "session.send", prompt="hello")

    @rule(person=CLIENTS, quiet=st.booleans())
    def resumes(self, person: int, quiet: bool) -> None:
        self.world.asks(self.numbers[person], "session.resume", **({"disableResume": True} if quiet else {}))

    @rule(person=CLIENTS)
    def reads(self, person: int) -> None:
        self.world.asks(self.numbers[person], "session.getMessages")

    @rule(person=CLIENTS, how=st.sampled_from(["session.detach", "session.destroy"]))
    def detaches(self, person: int, how: str) -> None:
        self.world.asks(self.numbers[person], how)

    @rule(person=CLIENTS)
    def aborts(self, person: int) -> None:
        self.world.asks(self.numbers[person], "session.abort")

    @rule(person=CLIENTS, method=st.sampled_from(["session.tools.set", "session.permissions.setApproveAll"]))
    def changes_what_is_said_again(self, person: int, method: str) -> None:
        self.world.asks(self.numbers[person], method, tools=[], enabled=True)

    @rule(person=CLIENTS)
    def hangs_up(self, person: int) -> None:
        self.world.leaves(self.numbers[person])
        self.numbers[person] = self.next_client
        self.next_client += 1

    # Servers and the network

    @rule(data=st.data(), times=st.integers(1, 5))
    def network(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            up = [("up", key) for key, wire in self.world.wires.items() if wire.up]
            down = [("down", key) for key, wire in self.world.wires.items() if wire.down]
            if not up + down:
                return
            way, key = self.pick(data, up + down)
            (self.world.handles if way == "up" else self.world.arrives)(*key)

    @rule(steps=st.integers(1, 12))
    def all_goes_well(self, steps: int) -> None:
        for _ in range(steps):
            self.world.step()

    @rule(what=st.sampled_from(["begins", "stores", "wants", "finishes"]))
    def works(self, what: str) -> None:
        for server, session in list(self.world.loaded.items()):
            turn = session.running
            if what == "begins" and turn is None and session.queue:
                self.world.begins(server)
            elif what == "stores" and turn is not None and not turn.stored:
                self.world.stores(server)
            elif what == "wants" and turn is not None and turn.waits_for is None:
                self.world.wants_permission(server)
            elif what == "finishes" and turn is not None and turn.stored and turn.waits_for is None:
                self.world.finishes(server)

    @rule(server=st.sampled_from("ab"), heard=st.integers(0, 9))
    def dies(self, server: str, heard: int) -> None:
        if self.world.alive[server]:
            self.world.dies(server, heard)

    @rule(server=st.sampled_from("ab"))
    def starts(self, server: str) -> None:
        self.world.alive[server] = True

    @precondition(lambda self: self.world.wires)
    @rule(data=st.data(), handled=st.booleans())
    def connection_breaks(self, data: st.DataObject, handled: bool) -> None:
        keys = [key for key in self.world.wires if key[0] != UTILITY]
        if keys:
            link, server = self.pick(data, keys)
            self.world.breaks(link, server, handled)

    @precondition(lambda self: self.world.loaded)
    @rule()
    def somebody_else_closes_it(self) -> None:
        for server, session in list(self.world.loaded.items()):
            if session.running is not None and not session.running.stored:
                self.world.stores(server)  # a close writes what there is
            self.world.ends(server)

    @rule()
    def drains(self) -> None:
        self.world.feed(self.world.session.on_draining(self.world.now))

    @rule()
    def is_evicted(self) -> None:
        self.world.feed(self.world.session.close(self.world.now))

    @rule(seconds=st.sampled_from([0.0, 12.0]))
    def is_evicted_though_it_waits(self, seconds: float) -> None:
        for key in list(self.world.wires):  # in so long a time all is told
            while seconds and key in self.world.wires and self.world.wires[key].down:
                self.world.arrives(*key)
        self.world.time_passes(seconds)
        self.world.feed(self.world.session.close_waiting(self.world.now))

    @rule(seconds=st.sampled_from([0.05, 0.5, 1.0, 3.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.time_passes(seconds)

    @invariant()
    def nothing_forbidden_happened(self) -> None:
        assert not self.world.problems, "\n".join(self.world.problems + self.world.log[-60:])

    def teardown(self) -> None:
        world = self.world
        world.calm()
        note("\n".join(world.log[-80:]))
        self.nothing_forbidden_happened()
        for request in world.asked:
            if request.client in world.clients:
                assert world.answers[request] == 1, f"{request.method} of client {request.client} has no answer"
        for client, sends in world.waiting.items():
            assert client not in world.session.owners.clients, f"client {client} waits for {sends} turns in silence"
        for request in world.asked:
            owned = request in world.asked_as_owner  # else there may be nobody to tell, and no link to repeat it over
            waits = [world.disk_waits.mark] if world.disk_waits else []
            known = world.completed + world.cut + waits
            if owned and request.mark in world.accepted and request.mark not in known:
                assert world.told_error.total(), f"{request.mark} is lost, and nobody was told"
        assert not world.session.busy
        for client in list(world.clients):
            world.leaves(client)
        world.calm()
        self.nothing_forbidden_happened()
        assert world.session.forgotten
        assert not world.loaded, "nobody is there, and it is loaded still"


class KeptSessions(Sessions):
    """Beside another gateway, which keeps the session or does not."""

    bounds = Bounds(kept_s=0.25)

    @rule(gateway=st.sampled_from("xy"), keeps=st.booleans())
    def another_gateway_says(self, gateway: str, keeps: bool) -> None:
        self.world.feed(self.world.session.on_kept(gateway, keeps))


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=200, stateful_step_count=60, deadline=None, derandomize=True)
TestKeptSessions = KeptSessions.TestCase
TestKeptSessions.settings = settings(max_examples=100, stateful_step_count=60, deadline=None, derandomize=True)


def a_waiting_world() -> World:
    """A client's only turn waits for a permission, and has done so for long."""
    world = World()
    world.asks(1, "session.create")
    world.calm()
    world.asks(1, "session.send", prompt="hello")
    while not world.prompts.get(1):
        world.step()
        turn = world.loaded["a"].running
        if turn is not None and turn.stored and turn.waits_for is None:
            world.wants_permission("a")
            world.arrives(1, "a")
    world.time_passes(60.0)
    return world


def closes_waiting(world: World) -> None:
    world.feed(world.session.close_waiting(world.now))
    for _ in range(2):  # there and back
        world.step()


def test_a_turn_that_waits_is_unloaded_for_another_and_goes_on_when_it_is_answered() -> None:
    world = a_waiting_world()
    closes_waiting(world)
    assert (world.loaded, world.session.busy, world.session.forgotten) == ({}, False, False)
    world.calm()  # who knows the prompt answers it
    assert world.completed == ["m2"]
    assert not world.told_error
    assert not world.problems


def test_a_question_that_is_not_stored_ends_with_an_error_when_its_session_is_unloaded_for_another() -> None:
    world = a_waiting_world()
    world.session.prompts.clear()
    world.session.prompts.saw("user_input.requested", {"requestId": "q"}, b"q")
    closes_waiting(world)
    assert world.told_error == {1: 1}
    assert not world.session.busy
    assert 1 not in world.waiting, "session.idle follows"


def test_one_that_was_just_answered_or_lingers_or_has_more_to_do_stays() -> None:
    for change in ("answered", "left", "queued"):
        world = a_waiting_world()
        match change:
            case "answered":
                world.asks(1, "session.permissions.handlePendingPermissionRequest", requestId="other")
            case "left":
                world.leaves(1)
            case _:
                world.asks(1, "session.send", prompt="and this")
        if change != "answered":
            world.step()
            world.step()
            world.time_passes(10.0)
        assert world.session.close_waiting(world.now) == [], change


def test_a_request_that_changes_nothing_goes_the_short_way_and_an_owners_turn_does_not() -> None:
    world = World()
    for method in ("session.create", "session.getMessages", "session.send", "session.tools.set"):
        world.asks(1, method, prompt="hello")
        world.calm()
    world.asks(2, "session.getMessages")  # who owns nothing
    world.calm()
    assert (world.passed, world.passed_back, world.problems) == (1, 1, [])


def test_with_two_owners_answers_go_the_long_way_for_another_may_have_to_be_let_go() -> None:
    world = World()
    world.asks(1, "session.create")
    world.calm()
    world.asks(2, "session.resume")
    world.calm()
    world.asks(2, "session.getMessages")
    world.calm()
    assert (world.passed, world.passed_back, world.problems) == (1, 0, [])
