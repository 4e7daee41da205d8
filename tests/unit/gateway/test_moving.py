"""Idle sessions of a gateway's clients leave for a server that has come; those that work, or were just used, stay."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from copilot_operator.gateway.moving import MOVE_EVERY_S, Moving
from copilot_operator.gateway.placement import ServerView
from tests.support.eventually import eventually
from tests.support.gateway import SERVER_TOKEN, house
from tests.support.standin import standin


def views(one: int) -> Callable[[], Sequence[ServerView]]:
    """Of a server with so many loaded sessions, and of an empty one."""
    return lambda: [ServerView("one", serving=True, sessions=one), ServerView("two", serving=True)]


async def test_idle_sessions_leave_for_a_server_that_has_come_and_others_stay(tmp_path: Path) -> None:
    pool = {"isolation": "Shared", "routing": "LeastSessions", "idle": {"movesS": 60}}
    async with standin(token=SERVER_TOKEN) as one, house(tmp_path, {"one": one}, pool=pool) as at:
        client = await at.client()
        for id in ("s0", "s1", "s2", "works"):
            await client("session.create", sessionId=id)
        for id in ("s0", "s1", "s2"):
            await client("session.send", sessionId=id, prompt=id, wait=True)
        await client("session.send", sessionId="works", prompt="SLEEP=30")
        moving, hub, now = Moving(), at.hub, asyncio.get_running_loop().time()

        def moved(servers: Callable[[], Sequence[ServerView]], at_s: float) -> int:
            return moving.sweep(hub.config, hub.tenants.values(), servers, now + at_s)

        assert moved(views(4), 30.0) == 0, "they have been used a moment ago"
        assert moved(views(4), 30.0 + MOVE_EVERY_S - 1) == 0, "it does not look so often"
        assert moved(views(4), 100.0) == 2
        await eventually(lambda: len(one.server.sessions.loaded) == 2, within_s=10, what="two have left")
        assert {session.id[-5:] for session in one.server.sessions.loaded} >= {"works"}
        assert moved(views(2), 100.0 + MOVE_EVERY_S) == 0, "those that left count where they are to be loaded"
        await client("session.send", sessionId="s0", prompt="again", wait=True)
        assert client.types("s0")[-1] == "session.idle", "its client has not noticed"
