"""An agent process beside a stand-in CLI, and what clients of that CLI do."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.rpc.client import Connection
from tests.support.agent import RunningAgent, running_agent
from tests.support.eventually import eventually
from tests.support.standin import StandIn, standin

TOKEN = "server-token-that-no-log-may-show"
SOON_S = 15.0


@pytest.fixture
async def cli() -> AsyncIterator[StandIn]:
    async with standin(token=TOKEN) as stand_in:
        yield stand_in


@pytest.fixture
async def agent(cli: StandIn, tmp_path: Path) -> AsyncIterator[RunningAgent]:
    async with running_agent(cli.port, TOKEN, tmp_path) as running:
        await eventually(lambda: ready(running), within_s=SOON_S, what="the agent counts sessions")
        yield running
        assert TOKEN not in json.dumps(running.log)


async def ready(agent: RunningAgent) -> bool:
    return (await agent.sessions())[0] is not None


async def client(cli: StandIn) -> Connection:
    connection = await Connection.open(cli.host, cli.port, timeout_s=SOON_S)
    await connection.connect(TOKEN, timeout_s=SOON_S)
    return connection


async def begin(cli: StandIn, id: str, prompt: str, **options: object) -> Connection:
    """A client with a session in which a turn runs."""
    connection = await client(cli)
    await connection.call("session.create", {"sessionId": id, **options}, timeout_s=SOON_S)
    await connection.call("session.send", {"sessionId": id, "prompt": prompt}, timeout_s=SOON_S)
    return connection


async def answers(cli: StandIn, id: str) -> int:
    """How many answers are stored in a session."""
    connection = await client(cli)
    stored = await connection.call("sessions.readPersistedEvents", {"sessionId": id}, timeout_s=SOON_S)
    await connection.close()
    return sum(event["type"] == "assistant.message" for event in stored["events"])


async def keeps(agent: RunningAgent, count: int) -> bool:
    draining = (await agent.state())["draining"]
    return draining is not None and draining["kept"] == count


async def sessions_are(agent: RunningAgent, *expected: int) -> bool:
    return await agent.sessions() == expected


async def is_ready(agent: RunningAgent) -> bool:
    return (await agent.get("/readyz"))[0] == 200


async def order(agent: RunningAgent, *, deadline_s: float = 60, on_timeout: str = "Abort", wait_s: float = 5) -> Any:
    """The answer to a drain in the operator's form."""
    path = f"/drain?deadline_s={deadline_s}&on_timeout={on_timeout}&wait_s={wait_s}"
    status, body = await agent.get(path, timeout_s=wait_s + SOON_S)
    assert status == 200, body
    return json.loads(body)
