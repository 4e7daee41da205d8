"""The agent process beside a stand-in CLI: probes, counts, drain, and CLIs that are ill."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest

from copilot_operator.rpc.client import Connection
from tests.support.agent import RunningAgent, http_get, running_agent
from tests.support.eventually import eventually
from tests.support.standin import Fault, StandIn
from tests.unit.agent.conftest import SOON_S, TOKEN, answers, begin, client, is_ready, keeps, sessions_are


async def test_probes_of_a_good_server_are_well(agent: RunningAgent) -> None:
    for path in ("/agentz", "/livez", "/readyz"):
        assert await agent.get(path) == (200, "ok\n")
    status, text = await agent.get("/metrics")
    assert status == 200
    assert "copilot_cli_up 1" in text
    assert (await agent.get("/nothing"))[0] == 404


async def test_who_may_read_metrics_can_do_nothing_else(agent: RunningAgent) -> None:
    status, text = await http_get(agent.metrics_port, "/metrics")
    assert (status, "copilot_cli_up 1" in text) == (200, True)
    for path in ("/drain", "/drain/cancel", "/restart", "/slots", "/state", "/livez"):
        assert (await http_get(agent.metrics_port, path))[0] == 404
    assert (await agent.state())["draining"] is None


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.REFUSE, Fault.GARBAGE])
async def test_probes_of_an_ill_server_say_so_in_time(cli: StandIn, tmp_path: Path, fault: Fault) -> None:
    cli.server.fault = fault
    async with running_agent(cli.port, TOKEN, tmp_path, COPILOT_AGENT_PROBE_TIMEOUT_S="1") as agent:
        async with asyncio.timeout(3):
            assert (await agent.get("/livez"))[0] == 503
        assert (await agent.get("/readyz"))[0] == 503
        assert await agent.get("/agentz") == (200, "ok\n")
        state = await agent.state()
    assert state["cli"]["answering"] is False
    assert state["sessions"]["loaded"] is None


async def test_a_cli_that_rejects_the_token_lives_but_is_not_ready(cli: StandIn, tmp_path: Path) -> None:
    async with running_agent(cli.port, "another-token", tmp_path) as agent:
        assert (await agent.get("/livez"))[0] == 200
        status, why = await agent.get("/readyz")
    assert (status, why.split(":")[0]) == (503, "AuthenticationFailed")


async def test_sessions_are_counted_as_they_come_wait_and_go(cli: StandIn, agent: RunningAgent) -> None:
    idle = await begin(cli, "idle", "hi")
    busy = await begin(cli, "busy", "SLEEP=60")
    shell = await begin(cli, "shell", "hi")
    await shell.call("session.permissions.setApproveAll", {"sessionId": "shell", "enabled": True}, timeout_s=SOON_S)
    await shell.call("session.send", {"sessionId": "shell", "prompt": "ATOOL=`sleep 60`"}, timeout_s=SOON_S)
    waiting = await begin(cli, "waiting", "TOOL=`ls`", requestPermission=True)
    await eventually(lambda: sessions_are(agent, 4, 3, 1), within_s=SOON_S, what="all four are counted")
    await busy.close()
    await eventually(lambda: sessions_are(agent, 3, 2, 1), within_s=SOON_S, what="one is gone with its client")
    for connection in (idle, shell, waiting):
        await connection.close()
    await eventually(lambda: sessions_are(agent, 0, 0, 0), within_s=SOON_S, what="nobody is left")


async def test_a_session_loaded_unheard_is_found_by_a_drain(cli: StandIn, agent: RunningAgent) -> None:
    first = await begin(cli, "a", "hi")
    await first.close()
    await eventually(lambda: sessions_are(agent, 0, 0, 0), within_s=SOON_S, what="it rests")
    second = await client(cli)
    await second.call("session.resume", {"sessionId": "a", "disableResume": True}, timeout_s=SOON_S)
    status, body = await agent.get("/drain")
    assert (status, json.loads(body)) == (200, {"closed": 1, "cut": 0, "gaveUp": ""})


async def test_a_drain_waits_for_the_turn_and_keeps_it_when_its_client_hangs_up(
    cli: StandIn, agent: RunningAgent
) -> None:
    hangs_up, stays = await begin(cli, "one", "SLEEP=1.5"), await begin(cli, "two", "SLEEP=1")
    draining = asyncio.create_task(agent.get("/drain"))
    await eventually(lambda: keeps(agent, 2), within_s=SOON_S, what="both turns are kept")
    assert await agent.get("/readyz") == (503, "draining: Quiescing\n")
    assert (await agent.get("/livez"))[0] == 200
    await hangs_up.close()
    status, body = await draining
    assert (status, json.loads(body)) == (200, {"closed": 2, "cut": 0, "gaveUp": ""})
    assert [await answers(cli, id) for id in ("one", "two")] == [1, 1]
    assert await agent.sessions() == (0, 0, 0)
    await stays.close()


async def test_a_session_that_becomes_busy_during_a_drain_is_kept_as_well(cli: StandIn, agent: RunningAgent) -> None:
    first, second = await begin(cli, "one", "SLEEP=2"), await begin(cli, "two", "hi")
    draining = asyncio.create_task(agent.get("/drain"))
    await eventually(lambda: keeps(agent, 1), within_s=SOON_S, what="the first turn is kept")
    await second.call("session.send", {"sessionId": "two", "prompt": "SLEEP=2"}, timeout_s=SOON_S)
    await eventually(lambda: keeps(agent, 2), within_s=SOON_S, what="the second turn is kept")
    await first.close()
    await second.close()
    assert json.loads((await draining)[1]) == {"closed": 2, "cut": 0, "gaveUp": ""}
    assert [await answers(cli, id) for id in ("one", "two")] == [1, 2]


async def test_a_drain_that_is_out_of_time_ends_the_turn_for_its_client_to_see(
    cli: StandIn, agent: RunningAgent
) -> None:
    heard: list[str] = []
    connection = await Connection.open(
        cli.host, cli.port, timeout_s=SOON_S, on_notification=lambda _, params: heard.append(type_of(params))
    )
    await connection.connect(TOKEN, timeout_s=SOON_S)
    await connection.call("session.create", {"sessionId": "long"}, timeout_s=SOON_S)
    await connection.call("session.send", {"sessionId": "long", "prompt": "SLEEP=60"}, timeout_s=SOON_S)
    _, body = await agent.get("/drain?deadline_s=0.5")
    assert json.loads(body) == {"closed": 1, "cut": 1, "gaveUp": ""}
    assert "session.idle" in heard[heard.index("abort") :]
    assert "copilot_server_drain_cut_turns 1" in (await agent.get("/metrics"))[1]
    await connection.close()


def type_of(params: object) -> str:
    assert isinstance(params, dict)
    return str(params.get("event", params)["type"])


async def test_a_second_caller_joins_and_may_hasten_the_drain(cli: StandIn, agent: RunningAgent) -> None:
    connection = await begin(cli, "long", "SLEEP=60")
    first = asyncio.create_task(agent.get("/drain?deadline_s=50"))
    await eventually(lambda: keeps(agent, 1), within_s=SOON_S, what="the drain runs")
    second = await agent.get("/drain?deadline_s=0.1")
    assert await first == second
    assert len([line for line in agent.log if line["event"] == "drain begins"]) == 1
    await connection.close()


async def test_a_drain_goes_on_when_who_asked_for_it_hangs_up(cli: StandIn, agent: RunningAgent) -> None:
    connection = await begin(cli, "a", "SLEEP=1.5")
    with pytest.raises(TimeoutError):
        await agent.get("/drain", timeout_s=0.3)
    assert await keeps(agent, 1)
    assert json.loads((await agent.get("/drain"))[1]) == {"closed": 1, "cut": 0, "gaveUp": ""}
    assert await answers(cli, "a") == 1
    await connection.close()


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.REFUSE])
async def test_a_cli_that_does_not_answer_is_not_waited_for(cli: StandIn, agent: RunningAgent, fault: Fault) -> None:
    connection = await begin(cli, "a", "SLEEP=60")
    cli.server.fault = fault
    if fault is Fault.REFUSE:
        cli.server.end()
    status, body = await agent.get("/drain", timeout_s=10)  # kubelet's grace for such a server
    assert status == 200
    assert json.loads(body)["gaveUp"]
    connection.abort()


@pytest.mark.parametrize("query", ["x", "-1", "nan", "1e9"])
async def test_a_deadline_that_is_none_is_refused(agent: RunningAgent, query: str) -> None:
    assert (await agent.get(f"/drain?deadline_s={query}"))[0] == 400
    assert await agent.get("/readyz") == (200, "ok\n")


async def test_after_a_drain_the_next_cli_process_serves(cli: StandIn, agent: RunningAgent) -> None:
    await agent.get("/drain")
    assert await agent.get("/readyz") == (503, "draining: Done\n")
    port = cli.port
    await cli.stop()
    await cli.start(port=port)
    await eventually(lambda: is_ready(agent), within_s=SOON_S, what="the new CLI serves")


async def test_told_to_stop_it_ends_at_once_but_not_before_a_drain(cli: StandIn, agent: RunningAgent) -> None:
    connection = await begin(cli, "a", "SLEEP=1.5")
    draining = asyncio.create_task(agent.get("/drain"))
    await eventually(lambda: keeps(agent, 1), within_s=SOON_S, what="the turn is kept")
    agent.process.terminate()
    await connection.close()
    await agent.process.wait()
    assert await answers(cli, "a") == 1
    draining.cancel()


async def test_hostile_requests_do_no_harm(agent: RunningAgent) -> None:
    async def say(data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        writer.write(data)
        async with asyncio.timeout(SOON_S):
            answer = await reader.read()
        writer.close()
        return answer

    assert (await say(b"POST /drain HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
    assert (await say(b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert (await say(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n"))[:13] in (b"HTTP/1.1 431 ", b"")
    silent = [await asyncio.open_connection("127.0.0.1", agent.port) for _ in range(100)]
    for _, writer in silent:
        writer.close()

    async def answers_again() -> bool:
        with suppress(ConnectionError):  # until it has seen that the hundred are gone
            return await is_ready(agent)
        return False

    await eventually(answers_again, within_s=SOON_S, what="it answers again")
