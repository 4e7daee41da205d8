"""The clients of the stress test beside one server that is drained: what they say of a turn is what happened."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.stress.clients import Client, Manners, answers_ping, carry_on, look_for_answers
from tests.stress.servers import Address
from tests.support.agent import http_get
from tests.support.eventually import eventually
from tests.support.loopback import own_address
from tests.support.standin import AGENT_PORT, Server, StandIn
from tests.support.standin_agent import SimulatedAgent

HOST = own_address()
SOON_S = 10.0


@asynccontextmanager
async def pod(stand_in: StandIn, server: Server, *, drains: bool) -> AsyncIterator[SimulatedAgent]:
    agent = SimulatedAgent(server, HOST, stand_in.port, drains=drains)
    await agent.start(AGENT_PORT)

    async def knows_its_server() -> bool:
        return (await http_get(AGENT_PORT, "/readyz", host=HOST))[0] == 200

    await eventually(knows_its_server, within_s=SOON_S, what="the agent is ready")
    try:
        yield agent
    finally:
        await agent.stop()


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    started = StandIn(everywhere=False)
    await started.start("0.0.0.0")
    yield started
    await started.stop()


@pytest.mark.parametrize("drains", [True, False])
async def test_a_client_hangs_up_in_the_middle_and_its_answer_is_there_after_a_drain_only(
    stand_in: StandIn, drains: bool
) -> None:
    server = stand_in.run(HOST)
    at = Address(HOST, stand_in.port, None, HOST)
    async with pod(stand_in, server, drains=drains) as agent:
        client = await Client.begin(at, "a", {})
        turn = await client.say(1.5)
        going = asyncio.create_task(carry_on(client, Manners(1.5, goes_after_s=0.1, says_after_s=None, says_s=0), at))
        await agent.drain({})
        assert client.closed == drains
        assert turn.sent_at < agent.told_to_drain_at[1] + 1.5
    stand_in.remove(HOST)
    await going
    again = stand_in.run(HOST, server.volume)
    assert await answers_ping(at)
    await look_for_answers(at, [client])
    assert turn.answered == drains
    assert again.starts == 1


async def test_a_turn_that_is_aborted_is_heard_of(stand_in: StandIn) -> None:
    server = stand_in.run(HOST)
    at = Address(HOST, stand_in.port, None, HOST)
    async with pod(stand_in, server, drains=True) as agent:
        client = await Client.begin(at, "a", {})
        turn = await client.say(30)
        await agent.drain({"deadline_s": "0.2"})
        await eventually(lambda: turn.aborted_at, within_s=SOON_S, what="the client hears of it")
        await look_for_answers(at, [client])
        assert not turn.answered
        await client.hang_up()
