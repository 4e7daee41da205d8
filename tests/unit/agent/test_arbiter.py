"""Gateways ask the agent who may speak in a shared session; the CLI says whether it works."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import RunningAgent, running_agent
from tests.support.eventually import eventually
from tests.support.standin import StandIn
from tests.unit.agent.conftest import SOON_S, TOKEN, begin, ready


@pytest.fixture
async def agent(cli: StandIn, tmp_path: Path) -> AsyncIterator[RunningAgent]:
    async with running_agent(cli.port, TOKEN, tmp_path, COPILOT_AGENT_LOCK_TTL_S="2") as running:
        await eventually(lambda: ready(running), within_s=SOON_S, what="the agent counts sessions")
        yield running


async def page(agent: RunningAgent, path: str) -> Any:
    status, body = await agent.get(path, timeout_s=SOON_S)
    assert status == 200, body
    return json.loads(body)


async def asks(agent: RunningAgent, *who: str) -> dict[str, Any]:
    """What each gets, once it is known; a member's token is its name, in capitals if it waits."""
    words = ",".join(f"s:{name}:{name.lower()}:{'w' if name.isupper() else 'n'}" for name in who)

    async def known() -> Any:
        found = (await page(agent, f"/locks?asks={words}"))["asks"]
        return None if any(each.get("settling") for each in found.values()) else found

    found: dict[str, Any] = await eventually(known, within_s=SOON_S, what="the agent knows")
    return found


@pytest.mark.parametrize("path", ["/locks?asks=s:t:alice", "/locks/renew?leases=s:t", "/locks/release?leases=s:"])
async def test_a_question_that_makes_no_sense_is_told_so(agent: RunningAgent, path: str) -> None:
    status, text = await agent.get(path)
    assert status == 400
    assert "parts each" in text


async def test_one_speaks_until_its_lease_is_given_back(agent: RunningAgent) -> None:
    given = (await asks(agent, "alice"))["alice"]
    assert (given["granted"], given["ttlSeconds"] >= 2) == (True, True)
    refused = (await asks(agent, "bob"))["bob"]
    assert (refused["granted"], refused["holder"]) == (False, "alice")
    assert not (await page(agent, "/locks/tend?id=s&holder=bob"))["tend"]["granted"]
    assert (await page(agent, "/locks/renew?leases=s:alice:alice,s:bob:bob"))["renewed"] == ["alice"]
    waits = asyncio.create_task(asks(agent, "BOB"))
    await eventually(lambda: says(agent, "copilot_server_waiting_to_speak 1"), within_s=SOON_S, what="bob waits")
    assert (await page(agent, "/locks/release?leases=s:alice,s:other"))["released"] == ["alice"]
    assert (await waits)["BOB"]["granted"]


async def test_who_waited_for_its_lease_has_it_whole_counted_from_when_it_asked(agent: RunningAgent) -> None:
    await asks(agent, "alice")
    clock = asyncio.get_running_loop().time

    async def lease() -> float:
        """Until when it is good, by the clock of who asked for it."""
        while True:
            asked_at = clock()
            given = (await page(agent, "/locks?asks=s:bob:bob:w"))["asks"]["bob"]
            if given["granted"]:
                return asked_at + float(given["ttlSeconds"])

    waits = asyncio.create_task(lease())
    await eventually(lambda: says(agent, "copilot_server_waiting_to_speak 1"), within_s=SOON_S, what="bob waits")
    released_at = clock()
    await page(agent, "/locks/release?leases=s:alice")
    assert await waits >= released_at + 2


async def test_who_does_not_wait_is_not_refused_for_a_lease_that_is_about_to_be_given_back(
    cli: StandIn, agent: RunningAgent
) -> None:
    assert (await asks(agent, "alice"))["alice"]["granted"]
    asking = asyncio.create_task(asks(agent, "bob"))
    await page(agent, "/locks/renew?leases=s:alice:alice")
    await page(agent, "/locks/release?leases=s:alice")
    assert (await asking)["bob"]["granted"]


async def says(agent: RunningAgent, line: str) -> bool:
    return line in (await agent.get("/metrics"))[1]


async def test_a_lease_that_ends_frees_nothing_while_the_turn_runs(cli: StandIn, agent: RunningAgent) -> None:
    assert (await asks(agent, "alice"))["alice"]["granted"]
    connection = await begin(cli, "s", "SLEEP=60")

    async def may_tend() -> bool:
        return bool((await page(agent, "/locks/tend?id=s&holder=bob"))["tend"]["granted"])

    await eventually(may_tend, within_s=SOON_S, what="alice has gone")
    refused = (await asks(agent, "bob"))["bob"]
    assert (refused["granted"], refused["holder"]) == (False, "alice")
    await connection.call("session.abort", {"sessionId": "s"}, timeout_s=SOON_S)
    assert (await asks(agent, "bob"))["bob"]["granted"]
    await connection.close()


async def test_a_turn_that_ran_before_is_somebodys(cli: StandIn, agent: RunningAgent) -> None:
    connection = await begin(cli, "s", "SLEEP=60")
    refused = (await asks(agent, "bob"))["bob"]
    assert (refused["granted"], refused["holder"]) == (False, "")
    await connection.close()  # its last owner: the CLI ends it
    assert (await asks(agent, "BOB"))["BOB"]["granted"]
