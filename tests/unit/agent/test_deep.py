"""The deep probe: a session made and removed, unseen by everything else."""

from collections.abc import AsyncIterator, Hashable
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.agent.deep import SESSION_ID
from tests.support.agent import RunningAgent, running_agent
from tests.support.eventually import eventually
from tests.support.standin import StandIn
from tests.support.standin_server import Method
from tests.support.standin_sessions import Refusal
from tests.unit.agent.conftest import SOON_S, TOKEN, answers, begin


@pytest.fixture
async def prober(cli: StandIn, tmp_path: Path) -> AsyncIterator[RunningAgent]:
    """An agent that probes every second."""
    async with running_agent(cli.port, TOKEN, tmp_path, COPILOT_AGENT_DEEP_PROBE_EVERY_S="1") as running:
        yield running


async def reading(agent: RunningAgent) -> Any:
    return (await agent.state())["cli"]["deep"]


async def test_it_leaves_no_session_and_no_sign_of_one(cli: StandIn, prober: RunningAgent) -> None:
    found = await eventually(lambda: reading(prober), within_s=SOON_S, what="it was probed")
    assert (found["ok"], found["message"]) == (True, "")
    state = (await prober.state())["sessions"]
    assert (state["loaded"], state["stored"], state["secondsSinceActivity"]) == (0, 0, None)
    assert SESSION_ID not in cli.server.volume


async def test_a_cli_that_makes_no_sessions_is_told_of(cli: StandIn, prober: RunningAgent) -> None:
    def refuse(*_: object) -> None:
        raise Refusal(-32603, "session construction failed")

    cli.server.methods["session.create"] = refuse

    async def failed() -> Any:
        found = await reading(prober)
        return found if found and not found["ok"] else None

    found = await eventually(failed, within_s=SOON_S, what="it is found")
    assert "session construction failed" in found["message"]


async def test_one_failure_is_only_a_doubt(cli: StandIn, prober: RunningAgent) -> None:
    make, tried = cli.server.methods["session.create"], []

    def refuse_once(owner: Hashable, params: dict[str, Any]) -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise Refusal(-32603, "session construction failed")
        return make(owner, params)

    cli.server.methods["session.create"] = refuse_once
    found = await eventually(lambda: reading(prober), within_s=SOON_S, what="it was probed again")
    assert (found["ok"], len(tried)) == (True, 2)


async def test_it_keeps_away_while_anything_is_loaded(cli: StandIn, prober: RunningAgent) -> None:
    connection = await begin(cli, "a", "hi")
    asked: list[str] = []
    methods = cli.server.methods
    for name in ("session.create", "session.metadata.activity"):
        methods[name] = noting(asked, name, methods[name])
    looks = "session.metadata.activity"
    await eventually(lambda: asked.count(looks) >= 3, within_s=SOON_S, what="it has looked whether it may probe")
    assert set(asked) == {looks}
    await connection.close()
    await eventually(lambda: "session.create" in asked, within_s=SOON_S, what="it is probed once nothing is loaded")


def noting(asked: list[str], name: str, method: Method) -> Method:
    def note(owner: Hashable, params: dict[str, Any]) -> Any:
        asked.append(name)
        return method(owner, params)

    return note


async def test_a_users_session_of_its_name_is_left_alone(cli: StandIn, prober: RunningAgent) -> None:
    connection = await begin(cli, SESSION_ID, "hi")
    await connection.close()
    await eventually(lambda: reading(prober), within_s=SOON_S, what="it was looked at")
    assert await answers(cli, SESSION_ID) == 1
