"""Other gateways' sessions are kept while they are used, and none is loaded for it."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from copilot_operator.gateway import keeper as module
from copilot_operator.gateway.keeper import Keeper
from copilot_operator.rpc import owners
from copilot_operator.rpc.errors import ConnectionLost, RpcError


async def settled() -> None:
    """Nothing here waits for the world, so a few rounds of the loop do all there is to do."""
    for _ in range(20):
        await asyncio.sleep(0)


@dataclass
class Way:
    """To attach to a session."""

    bed: "Bed"
    id: str

    async def make(self) -> None:
        await self.bed.call("session.resume", {"sessionId": self.id})

    def give_up(self) -> None:
        """It was not needed."""


class Bed:
    """A server as a keeper sees it: sessions that are loaded, of which some work."""

    def __init__(self, *, on: bool = True) -> None:
        self.loaded: set[str] = set()
        self.working: set[str] = set()
        self.ours: set[str] = set()
        self.going: set[str] = set()  # about to be unloaded
        self.attached: set[str] = set()
        self.told: list[tuple[str, str]] = []
        self.left: list[str] = []  # of which it was said that nobody needs them
        self.fails = False
        self.on_told: Callable[[str], None] = lambda what: None
        self.meanwhile: Callable[[], None] = lambda: None  # while it is asked whether a session works
        self.keeper = Keeper(self.call, self._works, self._may_attach, lambda id: id in self.ours, on=on)

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        id = params["sessionId"]
        if self.fails:
            raise ConnectionLost("gone")
        match method:
            case "session.metadata.activity" if id not in self.loaded:
                raise RpcError(method, -32603, f"Session not found for sessionId: {id}")
            case "session.resume":
                assert id not in self.attached, "once is enough"
                self.loaded.add(id)
                self.attached.add(id)
            case "session.detach":
                self.attached.remove(id)
            case "session.log" if id not in self.loaded:
                raise RpcError(method, -32603, f"Session not found for sessionId: {id}")
            case "session.log" if params["type"] == owners.LEFT:
                self.left.append(id)
            case "session.log":
                assert (params["message"], params["ephemeral"]) == (module.ME, True)
                assert id in self.attached, "owners only are heard"
                self.told.append((id, params["type"]))
                self.on_told(params["type"])

    async def _may_attach(self, id: str) -> "Way | None":
        return None if id in self.going else Way(self, id)

    async def _works(self, id: str) -> bool:
        works = id in self.working
        self.meanwhile()
        return works

    async def kept(self, id: str) -> None:
        self.keeper.updated(id)
        await settled()
        assert id in self.attached

    def event(self, id: str, type: str, **data: str) -> None:
        event = {"type": type, "data": data, "id": "1"}
        frame = {"jsonrpc": "2.0", "method": "session.event", "params": {"sessionId": id, "event": event}}
        self.keeper.event(json.dumps(frame, separators=(",", ":")).encode())

    async def swept_after(self, seconds: float) -> None:
        self.keeper.sweep(asyncio.get_running_loop().time() + seconds)
        await settled()


async def test_a_loaded_session_of_another_gateway_is_attached_to_once() -> None:
    bed = Bed()
    bed.loaded = {"a"}
    for _ in range(5):
        bed.keeper.updated("a")
    await settled()
    bed.keeper.updated("a")
    await settled()
    assert bed.attached == {"a"}


async def test_a_created_one_is_attached_to_before_it_can_be_asked_about() -> None:
    bed = Bed()
    bed.keeper.created("a")
    bed.keeper.updated("a")
    bed.keeper.created("a")
    await settled()
    assert bed.attached == {"a"}


@pytest.mark.parametrize(
    "change",
    [
        lambda bed: bed.ours.add("a"),
        lambda bed: setattr(bed.keeper, "on", False),
        lambda bed: bed.loaded.clear(),
        lambda bed: bed.going.add("a"),
    ],
    ids=["our own", "the only gateway", "not loaded", "about to be unloaded"],
)
async def test_what_need_not_be_kept_is_left_alone(change: Callable[[Bed], Any]) -> None:
    bed = Bed()
    bed.loaded = {"a"}
    change(bed)
    bed.keeper.updated("a")
    await settled()
    assert bed.attached == set()
    assert len(bed.keeper) == 0


async def test_it_is_let_go_after_a_rest_and_not_between_two_turns() -> None:
    bed = Bed()
    bed.loaded = bed.working = {"a"}
    await bed.kept("a")
    await bed.swept_after(module.REST_S + 5)
    assert bed.attached == {"a"}, "it works"
    bed.event("a", "session.idle")
    await bed.swept_after(module.REST_S - 5)
    bed.event("a", "user.message")
    await bed.swept_after(module.REST_S + 5)
    assert bed.attached == {"a"}, "a turn may be silent for longer"
    bed.event("a", "session.idle")
    await bed.swept_after(module.REST_S + 5)
    assert bed.attached == set()
    assert len(bed.keeper) == 0


async def test_one_that_was_closed_behind_its_back_is_kept_again_when_it_is_loaded_again() -> None:
    bed = Bed()
    bed.loaded = {"a"}
    await bed.kept("a")
    for _ in range(2):  # an event and its broadcast, as owners hear them
        bed.event("a", "user.message")
        bed.keeper.updated("a")
    await settled()
    assert bed.told == [("a", owners.KEPT)]
    bed.attached.clear()
    bed.keeper.updated("a")
    await settled()
    assert bed.attached == {"a"}
    assert bed.told == [("a", owners.KEPT)] * 2


async def test_those_who_own_it_are_told_that_it_is_kept_and_when_it_is_let_go() -> None:
    bed = Bed()
    bed.loaded = {"a"}
    await bed.kept("a")
    assert bed.told == [("a", owners.KEPT)]
    await bed.swept_after(module.REST_S + 5)
    assert bed.told == [("a", owners.KEPT), ("a", owners.LET_GO)]


async def test_a_turn_that_began_before_they_were_told_is_kept_all_the_same() -> None:
    bed = Bed()
    bed.loaded = {"a"}
    await bed.kept("a")
    bed.on_told = lambda what: bed.event("a", "user.message") if what == owners.LET_GO else None
    await bed.swept_after(module.REST_S + 5)
    assert bed.attached == {"a"}
    assert [what for _, what in bed.told] == [owners.KEPT, owners.LET_GO, owners.KEPT]


@pytest.mark.parametrize("told", [owners.LEFT, owners.EVICT])
@pytest.mark.parametrize("works", [True, False])
async def test_it_is_let_go_at_once_if_nobody_is_there_or_room_is_wanted_unless_it_works(
    told: str, works: bool
) -> None:
    bed = Bed()
    bed.loaded, bed.working = {"a"}, {"a"} if works else set()
    await bed.kept("a")
    bed.event("a", "session.info", infoType=told)
    await settled()
    assert bed.attached == ({"a"} if works else set())


@pytest.mark.parametrize("works", [True, False])
async def test_it_is_let_go_as_soon_as_it_is_known_to_be_idle_if_nobody_was_there_before(works: bool) -> None:
    bed = Bed()
    bed.loaded, bed.working = {"a"}, {"a"} if works else set()
    bed.meanwhile = lambda: bed.event("a", "session.info", infoType=owners.LEFT)
    bed.keeper.updated("a")
    await settled()
    assert bed.told[0] == ("a", owners.KEPT)
    assert bed.attached == ({"a"} if works else set())


@pytest.mark.parametrize("ours", [False, True])
async def test_who_hands_a_session_over_waits_until_it_is_kept_though_it_was_just_heard_of(ours: bool) -> None:
    bed = Bed()
    bed.loaded = bed.working = {"a"}
    bed.keeper.updated("a")
    bed.ours = {"a"} if ours else set()
    await bed.keeper.keep("a")
    assert bed.attached == {"a"}


@pytest.mark.looptime
async def test_who_attached_as_the_last_one_left_is_told_that_nobody_is_there() -> None:
    bed = Bed()
    bed.loaded = {"a"}
    bed.keeper.leave("a")
    await asyncio.sleep(2 * module.AGAIN_S)
    assert bed.left == ["a", "a"]


@pytest.mark.looptime
async def test_who_loads_what_a_keeper_let_go_of_last_is_told_that_nobody_is_there() -> None:
    bed = Bed()
    bed.loaded = {"a"}
    await bed.kept("a")
    await bed.swept_after(module.REST_S + 5)
    bed.left.clear()
    await asyncio.sleep(2 * module.AGAIN_S)
    assert bed.left == ["a"]


async def test_one_that_never_worked_is_let_go_after_a_rest() -> None:
    bed = Bed()
    bed.loaded = {"a"}
    await bed.kept("a")
    await bed.swept_after(module.REST_S + 5)
    assert bed.attached == set()


async def test_a_turn_that_begins_while_it_is_asked_about_is_not_forgotten() -> None:
    bed = Bed()
    bed.loaded = {"a"}
    bed.meanwhile = lambda: bed.event("a", "user.message")
    await bed.kept("a")
    await bed.swept_after(module.REST_S + 5)
    assert bed.attached == {"a"}


async def test_nobody_is_kept_for_ever() -> None:
    bed = Bed()
    bed.loaded = bed.working = {"a"}
    await bed.kept("a")
    await bed.swept_after(module.MOST_S + 5)
    assert bed.attached == set()


async def test_what_was_closed_or_could_not_be_attached_to_is_kept_no_more() -> None:
    bed = Bed()
    bed.loaded = {"a", "b"}
    await bed.kept("a")
    bed.event("a", "session.shutdown")
    bed.fails = True
    bed.keeper.updated("b")
    await settled()
    assert len(bed.keeper) == 0
    bed.fails = False
    await bed.kept("b")
    bed.keeper.lost()
    assert len(bed.keeper) == 0
