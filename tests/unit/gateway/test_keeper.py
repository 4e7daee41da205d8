"""Another gateway's turn is kept as long as it works, and not a session that would have to be loaded for it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from copilot_operator.gateway import keeper as module
from copilot_operator.gateway.keeper import Keeper
from copilot_operator.rpc.errors import ConnectionLost


class Bed:
    """A server as a keeper sees it."""

    def __init__(self, *, on: bool = True) -> None:
        self.working: set[str] = set()
        self.ours: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.fails = False
        self.keeper = Keeper(self._call, self._works, lambda id: id in self.ours, on=on)

    async def _call(self, method: str, params: dict[str, Any]) -> Any:
        if self.fails:
            raise ConnectionLost("gone")
        self.calls.append((method, params["sessionId"]))

    async def _works(self, id: str) -> bool:
        return id in self.working

    def event(self, id: str, type: str) -> None:
        event = {"type": type, "data": {}, "id": "1"}
        frame = {"jsonrpc": "2.0", "method": "session.event", "params": {"sessionId": id, "event": event}}
        self.keeper.event(json.dumps(frame, separators=(",", ":")).encode())

    async def swept_after(self, seconds: float) -> None:
        self.keeper.sweep(asyncio.get_running_loop().time() + seconds)
        await asyncio.sleep(0.1)


LOOKS_S = 2 * (module.LOOK_EVERY_S + module.LOOK_AGAIN_S)  # nothing is asked later than that


async def test_a_session_that_works_for_another_gateway_is_attached_to_once() -> None:
    bed = Bed()
    bed.working = {"a"}
    for _ in range(5):
        bed.keeper.heard_of("a")
    await asyncio.sleep(LOOKS_S)
    assert bed.calls == [("session.resume", "a")]


@pytest.mark.parametrize(
    "change",
    [
        lambda bed: bed.ours.add("a"),
        lambda bed: setattr(bed.keeper, "on", False),
        lambda bed: bed.working.clear(),
    ],
    ids=["our own", "the only gateway", "idle"],
)
async def test_what_need_not_be_kept_is_left_alone(change: Callable[[Bed], Any]) -> None:
    bed = Bed()
    bed.working = {"a"}
    change(bed)
    bed.keeper.heard_of("a")
    await asyncio.sleep(LOOKS_S)
    assert bed.calls == []


async def test_a_turn_that_begins_just_after_the_last_sign_is_kept() -> None:
    bed = Bed()
    bed.keeper.heard_of("a")
    await asyncio.sleep(0.1)
    bed.working = {"a"}
    await asyncio.sleep(LOOKS_S)
    assert bed.calls == [("session.resume", "a")]


async def test_it_is_let_go_after_a_rest_and_not_between_two_turns() -> None:
    bed = Bed()
    bed.working = {"a"}
    bed.keeper.heard_of("a")
    await asyncio.sleep(LOOKS_S)
    bed.event("a", "session.idle")
    await bed.swept_after(module.REST_S - 5)
    bed.event("a", "user.message")
    await bed.swept_after(module.REST_S + 5)
    assert bed.calls == [("session.resume", "a")], "a turn may be silent for longer"
    bed.event("a", "session.idle")
    await bed.swept_after(module.REST_S + 5)
    assert bed.calls == [("session.resume", "a"), ("session.detach", "a")]
    assert len(bed.keeper) == 0


async def test_nobody_is_kept_for_ever() -> None:
    bed = Bed()
    bed.working = {"a"}
    bed.keeper.heard_of("a")
    await asyncio.sleep(LOOKS_S)
    await bed.swept_after(module.MOST_S + 5)
    assert bed.calls == [("session.resume", "a"), ("session.detach", "a")]


async def test_what_was_closed_or_could_not_be_attached_to_is_kept_no_more() -> None:
    bed = Bed()
    bed.working = {"a", "b"}
    bed.keeper.heard_of("a")
    await asyncio.sleep(LOOKS_S)
    bed.event("a", "session.shutdown")
    bed.fails = True
    bed.keeper.heard_of("b")
    await asyncio.sleep(LOOKS_S)
    assert len(bed.keeper) == 0
    bed.fails = False
    bed.keeper.heard_of("b")
    await asyncio.sleep(LOOKS_S)
    bed.keeper.lost()
    assert len(bed.keeper) == 0
