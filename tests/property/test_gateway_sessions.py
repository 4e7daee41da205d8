"""Whatever happens in whatever order: no turn is sent twice, none is lost in silence, every request is answered."""

from typing import Any

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.property.gateway_world import UTILITY, World

CLIENTS = st.integers(1, 3)


class Sessions(RuleBasedStateMachine):
    """Clients 1 to 3 on one session, two servers on one disk."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
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
            if owned and request.mark in world.accepted and request.mark not in world.completed + world.cut:
                assert world.told_error.total(), f"{request.mark} is lost, and nobody was told"
        assert not world.session.busy
        for client in list(world.clients):
            world.leaves(client)
        world.calm()
        self.nothing_forbidden_happened()
        assert world.session.forgotten
        assert not world.loaded, "nobody is there, and it is loaded still"


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=200, stateful_step_count=60, deadline=None, derandomize=True)


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
