"""Gateways ask the agent before they load a session: who is let in, and what becomes of those that have to go."""

import asyncio
import json
from typing import Any

import pytest

from copilot_operator.agent.admission import Admission
from copilot_operator.agent.observer import Observer
from copilot_operator.agent.slots import Bounds
from copilot_operator.rpc import owners
from copilot_operator.rpc.client import Connection
from tests.support.agent import RunningAgent
from tests.support.eventually import eventually
from tests.support.standin import StandIn
from tests.unit.agent.conftest import SOON_S, TOKEN, begin


async def lacks(
    agent: RunningAgent, ids: str, *, most: int = 1, evict: bool = False, wait_s: float = 0, waiting_s: str = ""
) -> Any:
    path = f"/slots?most={most}&code_length=1&evict={str(evict).lower()}&wait_s={wait_s}&ids={ids}"
    path += f"&waiting_s={waiting_s}" if waiting_s else ""
    status, body = await agent.get(path, timeout_s=SOON_S)
    assert status == 200, body
    return json.loads(body)["lacks"]


async def owner(cli: StandIn, id: str, **params: Any) -> tuple[Connection, list[str]]:
    """A client with an idle session, and what owners tell each other of it."""
    heard: list[str] = []

    def told(method: str, params: Any) -> None:
        if method == "session.event" and (said := owners.heard(params["event"])):
            heard.append(said[1] or said[0])

    connection = await Connection.open(cli.host, cli.port, timeout_s=SOON_S, on_notification=told)
    await connection.connect(TOKEN, timeout_s=SOON_S)
    await connection.call("session.create", {"sessionId": id} | params, timeout_s=SOON_S)
    await connection.call("session.send", {"sessionId": id, "prompt": "hello", "wait": True}, timeout_s=SOON_S)
    return connection, heard


@pytest.mark.parametrize("query", ["", "?most=x&code_length=0", "?most=1", "?most=1&code_length=0&wait_s=-1"])
async def test_a_question_that_makes_no_sense_is_told_so(agent: RunningAgent, query: str) -> None:
    status, text = await agent.get(f"/slots{query}")
    assert status == 400
    assert "must be" in text


async def test_so_many_are_let_in_and_no_more_and_metrics_say_who_waits(agent: RunningAgent) -> None:
    assert await lacks(agent, "a1:1,a2:1,b1,c1", most=2) == {"a1": "", "a2": "tenant", "b1": "", "c1": "server"}
    assert await lacks(agent, "a1,b1", most=2) == {"a1": "", "b1": ""}, "they have their slots"
    attach = [json.loads((await agent.get(f"/slots/attach?id={id}"))[1])["attach"] for id in ("a1", "c1")]
    assert attach == [True, False]
    assert "copilot_server_sessions_waiting_for_room 2" in (await agent.get("/metrics"))[1]


async def test_the_owner_of_an_idle_one_is_asked_to_close_it_for_who_waits(cli: StandIn, agent: RunningAgent) -> None:
    assert await lacks(agent, "a") == {"a": ""}
    connection, heard = await owner(cli, "a")
    asking = asyncio.create_task(lacks(agent, "b", evict=True, wait_s=10))
    await eventually(lambda: owners.EVICT in heard, within_s=SOON_S, what="the owner is asked")
    assert not json.loads((await agent.get("/slots/attach?id=a"))[1])["attach"], "it is about to go"
    assert not asking.done()
    await connection.call("sessions.close", {"sessionId": "a"}, timeout_s=SOON_S)
    assert await asking == {"b": ""}
    assert "copilot_server_sessions_evicted_total 1" in (await agent.get("/metrics"))[1]
    await connection.close()


async def test_what_is_taken_for_loaded_and_is_not_holds_nobody_up(cli: StandIn) -> None:
    """As thousands of stored sessions are after a start, which a survey had no time to ask about."""
    observer = Observer(cli.host, cli.port, TOKEN)
    running = asyncio.create_task(observer.run(lambda: None))
    try:
        await eventually(lambda: observer.met_at is not None, within_s=SOON_S, what="the CLI is met")
        admission, bounds = Admission(observer), Bounds(20)
        admission.slots.loaded([f"s{number}" for number in range(500)], -10.0)
        assert await admission.admit({"new": None}, bounds, evict=False, wait_s=0) == {"new": ""}
        assert len(admission.slots) <= bounds.most
    finally:
        running.cancel()


async def test_one_that_waits_for_an_answer_goes_after_a_while_and_not_while_an_idle_one_is_left(
    cli: StandIn, agent: RunningAgent
) -> None:
    assert await lacks(agent, "a,b", most=2) == {"a": "", "b": ""}
    waits, heard = await owner(cli, "a", requestPermission=True)
    await waits.call("session.send", {"sessionId": "a", "prompt": "TOOL=`sleep 0`"}, timeout_s=SOON_S)
    idle, heard_of_idle = await owner(cli, "b")
    asking = asyncio.create_task(lacks(agent, "c", most=2, evict=True, wait_s=20, waiting_s="0.5"))
    await eventually(lambda: heard_of_idle, within_s=SOON_S, what="the owner of the idle one is asked")
    assert heard == []
    await idle.call("sessions.close", {"sessionId": "b"}, timeout_s=SOON_S)
    assert await asking == {"c": ""}
    assert await lacks(agent, "d", most=2, evict=True, wait_s=1) == {"d": "server"}, "without a time it stays for ever"
    asking = asyncio.create_task(lacks(agent, "d", most=2, evict=True, wait_s=20, waiting_s="0.5"))
    await eventually(lambda: owners.WAITS in heard, within_s=SOON_S, what="the owner of the one that waits is asked")
    await waits.call("sessions.close", {"sessionId": "a"}, timeout_s=SOON_S)
    assert await asking == {"d": ""}
    for connection in (waits, idle):
        await connection.close()


async def test_one_that_works_stays_and_who_waits_is_let_in_when_it_has_gone(cli: StandIn, agent: RunningAgent) -> None:
    assert await lacks(agent, "a") == {"a": ""}
    connection = await begin(cli, "a", "SLEEP=60")
    assert await lacks(agent, "b", evict=True, wait_s=1) == {"b": "server"}
    assert [session.id for session in cli.server.sessions.loaded] == ["a"]
    await connection.close()  # its last owner: the CLI ends it
    assert await lacks(agent, "b", evict=True, wait_s=10) == {"b": ""}
