"""The faults of the stand-in look like faults to those who ask: an illness that nobody can see would test nothing."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from copilot_operator.rpc.busy import Standing
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.ping import Failure, ping
from tests.contract.conftest import TOKEN, Subject, a_stand_in_of
from tests.contract.test_cli_contract import becomes, standing, stored_answers
from tests.support.agent import http_get
from tests.support.eventually import eventually
from tests.support.standin import Fault, Server, StandIn, standin
from tests.support.standin_agent import SimulatedAgent

SOON_S = 5.0


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    async with standin(token=TOKEN) as started:
        yield started


@pytest.fixture
def server(stand_in: StandIn) -> Server:
    return stand_in.server


@pytest.fixture
async def subject(stand_in: StandIn) -> AsyncIterator[Subject]:
    made = a_stand_in_of(stand_in)
    yield made
    await asyncio.gather(*(client.connection.close() for client in made.clients))


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault.HANG, Failure.SILENT),
        (Fault.HALF, Failure.SILENT),
        (Fault.GARBAGE, Failure.PROTOCOL_ERROR),
        (Fault.REFUSE, Failure.LOST),
    ],
)
async def test_what_does_not_answer_fails_its_ping(stand_in: StandIn, fault: Fault, failure: Failure) -> None:
    stand_in.server.fault = fault
    assert (await ping(stand_in.host, stand_in.port, TOKEN, 0.5)).failure is failure


async def test_slowing_down_shows_in_the_latency(stand_in: StandIn) -> None:
    stand_in.server.fault, stand_in.server.delay_s = Fault.SLOWER, 0.01
    readings = [await ping(stand_in.host, stand_in.port, TOKEN, 5) for _ in range(4)]
    found = [reading.latency_s or 0.0 for reading in readings]
    longer = 2 * stand_in.server.delay_s  # connect is answered, too
    assert all(latency_s >= longer * number for number, latency_s in enumerate(found, 1)), found


async def test_one_that_dies_takes_its_turn_along_and_is_started_again(server: Server, subject: Subject) -> None:
    owner = await subject.client()
    await subject.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="hi", wait=True)
    server.fault, server.delay_s = Fault.DIES, 0.1
    await owner("session.send", sessionId="a", prompt="SLEEP=30")
    async with asyncio.timeout(SOON_S):
        await owner.connection.wait_closed()
    await eventually(lambda: server.starts == 2, within_s=SOON_S, what="it is started again")
    again = await subject.client()
    await again("session.resume", sessionId="a", disableResume=True)
    assert await stored_answers(again, "a") == 1


async def test_lies_about_activity_are_believed_by_who_asks(server: Server, subject: Subject) -> None:
    owner = await subject.client()
    await subject.create(owner, "works")
    await subject.create(owner, "rests")
    await owner("session.send", sessionId="works", prompt="SLEEP=30")
    await becomes(owner, "works", Standing.BUSY)
    server.fault = Fault.SAYS_IDLE
    assert await standing(owner, "works") is Standing.IDLE
    server.fault = Fault.SAYS_BUSY
    assert await standing(owner, "rests") is Standing.BUSY
    assert await standing(owner, "absent") is Standing.NOT_LOADED


async def test_a_fault_can_be_ordered_over_the_wire_and_is_cured_by_another_process(
    server: Server, subject: Subject
) -> None:
    client = await subject.client()
    await client("standin.fault", fault="leak", leak_bytes=1000)
    used = (server.memory_bytes, server.processes)
    await client("ping")
    assert (server.memory_bytes, server.processes) == (used[0] + 1000, used[1] + 1)
    await client("standin.fault", fault="hang")
    await client("standin.fault", fault="leak")  # a hung one still obeys its test
    await client("runtime.shutdown")
    await eventually(lambda: server.starts == 2, within_s=SOON_S, what="it is started again")
    assert server.fault is Fault.NONE
    assert (server.memory_bytes, server.processes) == used


@pytest.mark.parametrize(("drains", "answers"), [(True, 1), (False, 0)])
async def test_the_agent_beside_it_drains_as_in_a_pod_or_not_at_all(
    stand_in: StandIn, subject: Subject, drains: bool, answers: int
) -> None:
    agent = SimulatedAgent(stand_in.server, stand_in.host, stand_in.port, drains=drains)
    port = await agent.start(0)

    async def ready() -> bool:
        return (await http_get(port, "/readyz"))[0] == 200

    await eventually(ready, within_s=SOON_S, what="the agent is ready")
    owner = await subject.client()
    await subject.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="SLEEP=0.5")
    await http_get(port, "/drain?deadline_s=10")
    assert list(agent.told_to_drain_at) == [1]
    assert await stored_answers(owner, "a") == answers
    await agent.stop()


async def test_simulated_servers_have_their_own_addresses_and_volumes() -> None:
    stand_in = StandIn(everywhere=False)
    await stand_in.start("0.0.0.0")
    try:
        first = stand_in.run("127.0.2.1")
        connection = await Connection.open("127.0.2.1", stand_in.port, timeout_s=SOON_S)
        await connection.call("session.create", {"sessionId": "a"}, timeout_s=SOON_S)
        await connection.call("session.send", {"sessionId": "a", "prompt": "hi", "wait": True}, timeout_s=SOON_S)
        stand_in.remove("127.0.2.1")
        stand_in.run("127.0.2.2", first.volume)  # a new pod on the same claim
        assert (await ping("127.0.2.1", stand_in.port, None, SOON_S)).failure is Failure.LOST
        moved = await Connection.open("127.0.2.2", stand_in.port, timeout_s=SOON_S)
        await moved.call("session.resume", {"sessionId": "a"}, timeout_s=SOON_S)
        for each in (connection, moved):
            await each.close()
    finally:
        await stand_in.stop()
