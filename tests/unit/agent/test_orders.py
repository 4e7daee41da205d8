"""The drain as the operator asks for it: watched, moved, called off, looked at again."""

import asyncio
import json
from socket import gethostname
from typing import Any

import pytest

from tests.support.agent import RunningAgent
from tests.support.eventually import eventually
from tests.support.standin import Fault, StandIn
from tests.unit.agent.conftest import SOON_S, answers, begin, client, is_ready, keeps, order, sessions_are


async def test_an_order_tells_what_it_waits_for_and_answers_when_that_changes(
    cli: StandIn, agent: RunningAgent
) -> None:
    turn, waits = await begin(cli, "turn", "SLEEP=2"), await begin(cli, "waits", "TOOL=`ls`", requestPermission=True)
    answer = await order(agent, deadline_s=300, wait_s=20)
    while answer["busy"] is None:
        answer = await order(agent, deadline_s=300, wait_s=20)
    assert 290 < answer.pop("secondsToDeadline") <= 300
    assert answer.pop("secondsRunning") < SOON_S
    kept = answer.pop("kept")
    assert answer == {
        "phase": "Quiescing", "onTimeout": "Abort", "loaded": 2, "busy": 2, "waiting": 1,
        "work": {"turn": 1, "task": 0, "queued": 0, "waiting": 1, "unknown": 0}, "closed": 0, "cut": 0, "gaveUp": None,
    }  # fmt: skip
    assert kept in (0, 2)  # it is told before they are attached to
    async with asyncio.timeout(10):  # half of what it may wait
        assert (await order(agent, deadline_s=300, wait_s=20))["busy"] == 1
    await eventually(lambda: keeps(agent, 2), within_s=SOON_S, what="both are kept")
    status, body = await agent.get("/drain/cancel")
    assert (status, json.loads(body)) == (200, {"cancelled": True})
    for connection in (turn, waits):
        await connection.close()


async def test_without_news_an_order_is_answered_when_its_time_is_up(cli: StandIn, agent: RunningAgent) -> None:
    connection = await begin(cli, "a", "SLEEP=60")
    await until_busy(agent, 1)
    clock = asyncio.get_running_loop().time
    asked_at = clock()
    assert (await order(agent, wait_s=1))["busy"] == 1
    assert 1 <= clock() - asked_at < 5
    await connection.close()


async def until_busy(agent: RunningAgent, count: int, **settings: Any) -> Any:
    """Ask until the drain has counted."""

    async def asked() -> Any:
        answer = await order(agent, **settings)
        return answer if answer["busy"] == count else None

    return await eventually(asked, within_s=SOON_S, what=f"{count} are busy")


async def test_a_deadline_can_be_put_off_and_brought_forward(cli: StandIn, agent: RunningAgent) -> None:
    connection = await begin(cli, "a", "SLEEP=60")
    await until_busy(agent, 1, deadline_s=2)
    assert (await order(agent, deadline_s=600, wait_s=0))["secondsToDeadline"] > 500
    assert (await order(agent, deadline_s=600, wait_s=3))["phase"] == "Quiescing"  # past the first deadline
    await until_done(agent, deadline_s=0)
    assert (await order(agent, deadline_s=0))["cut"] == 1
    await connection.close()


async def until_done(agent: RunningAgent, **settings: Any) -> Any:
    async def asked() -> Any:
        answer = await order(agent, **settings)
        return answer if answer["phase"] == "Done" else None

    return await eventually(asked, within_s=SOON_S, what="the drain is done")


async def test_no_time_at_all_aborts_at_once(cli: StandIn, agent: RunningAgent) -> None:
    connection = await begin(cli, "a", "SLEEP=60")
    async with asyncio.timeout(3):
        _, body = await agent.get("/drain?deadline_s=0")
    assert json.loads(body) == {"closed": 1, "cut": 1, "gaveUp": ""}
    await connection.close()


async def test_with_wait_a_passed_deadline_stays_visible_until_the_turn_ends(cli: StandIn, agent: RunningAgent) -> None:
    connection = await begin(cli, "a", "SLEEP=3")
    await until_busy(agent, 1, deadline_s=0.5, on_timeout="Wait")
    answer = await order(agent, deadline_s=0, on_timeout="Wait", wait_s=1)
    assert (answer["phase"], answer["secondsToDeadline"], answer["onTimeout"]) == ("Quiescing", 0.0, "Wait")
    answer = await until_done(agent, deadline_s=0, on_timeout="Wait")
    assert (answer["cut"], answer["closed"]) == (0, 1)
    assert await answers(cli, "a") == 1
    await connection.close()


async def test_who_ends_the_pod_ends_a_wait_within_its_grace_and_nobody_takes_it_back(
    cli: StandIn, agent: RunningAgent
) -> None:
    connection = await begin(cli, "a", "SLEEP=60")
    await until_busy(agent, 1, deadline_s=0, on_timeout="Wait")
    pre_stop = asyncio.create_task(agent.get("/drain?deadline_s=3", timeout_s=SOON_S))

    async def is_bound() -> bool:
        answer = await order(agent, deadline_s=900, on_timeout="Wait", wait_s=0)
        return bool(answer["onTimeout"] == "Abort" and answer["secondsToDeadline"] <= 3)

    await eventually(is_bound, within_s=SOON_S, what="the operator's order to wait no longer counts")
    assert (await agent.get("/drain/cancel"))[0] == 409
    assert json.loads((await pre_stop)[1]) == {"closed": 1, "cut": 1, "gaveUp": ""}
    await connection.close()


@pytest.mark.parametrize("on_timeout", ["Abort", "Wait"])
async def test_a_session_that_says_it_works_for_ever_ends_by_the_order(
    cli: StandIn, agent: RunningAgent, on_timeout: str
) -> None:
    connection = await begin(cli, "a", "hi")
    cli.server.fault = Fault.SAYS_BUSY
    await until_busy(agent, 1, deadline_s=1, on_timeout=on_timeout)
    if on_timeout == "Abort":
        assert (await until_done(agent, deadline_s=0))["cut"] == 1
    else:
        answer = await order(agent, deadline_s=0, on_timeout="Wait", wait_s=2)
        assert (answer["phase"], answer["work"]["turn"]) == ("Quiescing", 1)
    await connection.close()


async def test_after_it_was_done_a_drain_goes_on_for_who_has_begun_again(cli: StandIn, agent: RunningAgent) -> None:
    connection = await client(cli)
    assert (await until_done(agent))["loaded"] == 0
    assert (await order(agent))["phase"] == "Done"
    await connection.call("session.create", {"sessionId": "a"}, timeout_s=SOON_S)
    await connection.call("session.send", {"sessionId": "a", "prompt": "SLEEP=1.5"}, timeout_s=SOON_S)
    assert (await order(agent))["phase"] == "Quiescing"
    await eventually(lambda: keeps(agent, 1), within_s=SOON_S, what="the turn is kept")
    await connection.close()
    assert (await until_done(agent))["closed"] == 1
    assert await answers(cli, "a") == 1


async def test_a_drain_called_off_serves_again_and_kills_no_turn(cli: StandIn, agent: RunningAgent) -> None:
    connection = await begin(cli, "a", "SLEEP=2")
    await until_busy(agent, 1)
    await eventually(lambda: keeps(agent, 1), within_s=SOON_S, what="the turn is kept")
    await connection.close()
    assert (await agent.get("/drain/cancel"))[0] == 200
    assert await agent.get("/readyz") == (200, "ok\n")
    assert (await agent.state())["draining"] is None
    assert await agent.sessions() == (1, 1, 0)
    await eventually(lambda: sessions_are(agent, 0, 0, 0), within_s=SOON_S, what="it is let go when idle")
    assert await answers(cli, "a") == 1


async def test_told_to_stop_after_a_drain_was_called_off_the_agent_keeps_what_it_has_kept(
    cli: StandIn, agent: RunningAgent
) -> None:
    connection = await begin(cli, "a", "SLEEP=2")
    await until_busy(agent, 1)
    await eventually(lambda: keeps(agent, 1), within_s=SOON_S, what="the turn is kept")
    await agent.get("/drain/cancel")
    await connection.close()
    agent.process.terminate()
    await agent.process.wait()
    assert await answers(cli, "a") == 1


async def test_a_drain_that_flushes_is_not_called_off(cli: StandIn, agent: RunningAgent) -> None:
    aborting, never = asyncio.Event(), asyncio.Event()

    async def abort(*_: object) -> None:
        aborting.set()
        await never.wait()

    cli.server.methods["session.abort"] = abort
    connection = await begin(cli, "a", "SLEEP=60")
    draining = asyncio.create_task(order(agent, deadline_s=0))
    await aborting.wait()
    status, body = await agent.get("/drain/cancel")
    assert (status, json.loads(body)) == (409, {"cancelled": False})
    never.set()
    await draining
    assert (await until_done(agent, deadline_s=0))["cut"] == 1
    await connection.close()


async def test_nothing_to_call_off_and_a_drain_that_is_done_are_called_off(agent: RunningAgent) -> None:
    assert (await agent.get("/drain/cancel"))[0] == 200
    await until_done(agent)
    assert not await is_ready(agent)
    assert (await agent.get("/drain/cancel"))[0] == 200
    assert await is_ready(agent)


async def test_a_cli_that_hangs_holds_up_no_order(cli: StandIn, agent: RunningAgent) -> None:
    connection = await begin(cli, "a", "SLEEP=60")
    cli.server.fault = Fault.HANG
    async with asyncio.timeout(10):  # kubelet's grace for such a server
        answer = await order(agent, wait_s=1)
        while answer["phase"] != "Done":
            answer = await order(agent, wait_s=1)
    assert answer["gaveUp"]
    async with asyncio.timeout(2):
        assert (await order(agent))["phase"] == "Done"
    connection.abort()


async def test_a_cli_that_answers_nothing_but_ping_is_not_waited_for_past_the_deadline(
    cli: StandIn, agent: RunningAgent
) -> None:
    connection = await begin(cli, "a", "SLEEP=60")
    never = asyncio.Event()
    cli.server.methods["session.metadata.activity"] = lambda *_: never.wait()
    async with asyncio.timeout(15):  # with more patience it takes 25 s
        assert (await until_done(agent, deadline_s=0))["gaveUp"]
    connection.abort()


@pytest.mark.parametrize(
    "query", ["deadline_s=x&wait_s=1", "wait_s=31", "wait_s=-1", "wait_s=nan", "on_timeout=Never", "on_timeout="]
)
async def test_an_order_that_is_none_is_refused(agent: RunningAgent, query: str) -> None:
    assert (await agent.get(f"/drain?{query}"))[0] == 400
    assert await is_ready(agent)


async def test_an_unused_cli_is_restarted_in_place_and_serves_again(cli: StandIn, agent: RunningAgent) -> None:
    connection = await begin(cli, "a", "hi")
    await eventually(lambda: sessions_are(agent, 1, 0, 0), within_s=SOON_S, what="it is loaded")
    status, body = await agent.get("/restart")
    assert (status, json.loads(body)) == (409, {"restarted": False, "busy": 0, "loaded": 1})
    await until_done(agent)
    starts = cli.server.starts
    status, body = await agent.get("/restart")
    assert (status, json.loads(body)) == (200, {"restarted": True})
    await eventually(lambda: is_ready(agent), within_s=SOON_S, what="the next CLI serves")
    assert cli.server.starts == starts + 1
    assert (await agent.state())["cli"]["ageSeconds"] < SOON_S
    connection.abort()


async def test_a_cli_that_goes_on_or_does_not_answer_was_not_restarted(cli: StandIn, agent: RunningAgent) -> None:
    cli.server.methods["runtime.shutdown"] = lambda *_: {}
    assert (await agent.get("/restart"))[0] == 503
    cli.server.fault = Fault.HANG
    status, body = await agent.get("/restart")
    assert (status, json.loads(body)["restarted"]) == (503, False)


@pytest.mark.parametrize("page", ["/state", "/drain", "/drain/cancel", "/restart"])
async def test_what_is_meant_for_the_pod_that_had_our_address_before_is_refused(
    cli: StandIn, agent: RunningAgent, page: str
) -> None:
    working = await begin(cli, "s", "SLEEP=60")
    await eventually(lambda: sessions_are(agent, 1, 1, 0), within_s=SOON_S, what="the turn is counted")
    status, body = await agent.get(f"{page}?deadline_s=0&on_timeout=Abort&wait_s=0&pod=copilot-bob-1")
    assert (status, body) == (421, f"this is pod {gethostname()}\n")
    state = await agent.state()
    assert (state["draining"], state["sessions"]["busy"]) == (None, 1)
    assert (await agent.get(f"/state?pod={gethostname()}"))[0] == 200
    await working.close()
