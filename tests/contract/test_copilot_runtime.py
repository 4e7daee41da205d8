"""copilot-runtime, the server without Node.js (``server.runtime: CopilotRuntime``): where it differs from the CLI, and
that what stands around it does its work all the same. What it has in common with the CLI test_cli_contract.py asks.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from copilot_operator.api.runtime import MOST_SESSIONS
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import ConnectionLost, RpcError
from tests.contract.conftest import TOKEN, Client, Subject, a_copilot_runtime, running, subject_of
from tests.contract.gateway_bed import gateway_before, token_of
from tests.contract.sdk_scenarios import WEATHER, Heard, Place, app, say, weather
from tests.contract.test_copilot_server_script import SCRIPT, Server, lock_is_free
from tests.support.agent import RunningAgent, running_agent
from tests.support.cli import copilot_runtime, real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

SOON_S: Final = 15.0
MOST_CONNECTIONS: Final = 128
DAY_S: Final = 86_400
IS_ONE: Final = {"COPILOT_AGENT_RUNTIME": "CopilotRuntime"}


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Subject]:
    async with running(a_copilot_runtime, tmp_path) as subject:
        yield subject


async def counts(agent: RunningAgent, *expected: int) -> bool:
    return await agent.sessions() == expected


async def spoken(subject: Subject, client: Client, *ids: str) -> None:
    """Sessions with a turn in them."""
    for id in ids:
        await subject.create(client, id)
        await client("session.send", sessionId=id, prompt="hi", wait=True)


async def test_it_takes_128_connections_and_closes_any_further_one(runtime: Subject) -> None:
    """So ``sessions.maxConcurrent`` has to be below, with room for who looks after the server."""
    clients = [await runtime.client() for _ in range(MOST_CONNECTIONS)]
    assert MOST_SESSIONS < MOST_CONNECTIONS
    with pytest.raises(ConnectionLost):
        await runtime.client()
    assert (await clients[-1]("ping", message="x"))["message"] == "pong: x"
    await clients[0].connection.close()

    async def is_taken() -> bool:
        with suppress(ConnectionLost):
            await runtime.client()
            return True
        return False

    await eventually(is_taken, within_s=SOON_S, what="another one is taken in its place")


async def test_shut_down_it_stays_and_refuses_everything(runtime: Subject) -> None:
    """So the agent ends it otherwise."""
    owner = await runtime.client()
    assert await owner("runtime.shutdown") == {}
    with pytest.raises(RpcError, match="SERVER_SHUTTING_DOWN"):
        await owner("session.list")
    with pytest.raises(RpcError, match="SERVER_SHUTTING_DOWN"):
        await runtime.client()


async def test_what_is_deleted_in_bulk_is_told_to_nobody_and_what_is_deleted_by_itself_is(runtime: Subject) -> None:
    """So the agent deletes one by one."""
    owner, other = await runtime.client(), await runtime.client()
    await spoken(runtime, owner, "a", "b", "c")
    for id in ("a", "b"):
        await other("sessions.close", sessionId=id)
    freed = (await other("sessions.bulkDelete", sessionIds=["a", "c"]))["freedBytes"]
    assert set(freed) == {"a", "c"}
    assert (await other("session.delete", sessionId="b"))["success"]
    await eventually(lambda: "session.deleted" in other.lifecycle("b"), within_s=SOON_S, what="the last is heard of")
    assert not {"session.deleted"} & {*other.lifecycle("a"), *other.lifecycle("c")}


@pytest.mark.parametrize("kinds", [(real_cli, copilot_runtime), (copilot_runtime, real_cli)])
async def test_each_goes_on_with_the_sessions_of_the_other(tmp_path: Path, kinds: tuple[Any, Any]) -> None:
    """A pool's ``server.runtime`` may change."""
    first, second = kinds
    async with ModelServer() as model:
        async with first(tmp_path, token=TOKEN) as server:
            subject = subject_of(server, model)
            client = await subject.client()
            await subject.create(client, "a")
            await client("session.send", sessionId="a", prompt="NOTE=alpha", wait=True)
        async with second(tmp_path, token=TOKEN) as server:
            subject = subject_of(server, model)
            client = await subject.client()
            await client("session.resume", sessionId="a", **subject.options)
            await client("session.send", sessionId="a", prompt="RECALL", wait=True)
            answers = [event["data"] for event in client.whole_events("a") if event["type"] == "assistant.message"]
            assert answers[-1]["content"] == "notes: alpha"
            await client.connection.close()


async def test_the_agent_has_it_ended_by_the_script_and_only_when_it_is_unused(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    server.chosen = ("--runtime", "CopilotRuntime")
    await server.start()
    try:
        port = await server.listening()
        assert server.processes()[server.process.pid].startswith("copilot-runtime --headless")
        assert not lock_is_free(tmp_path / "data")
        await eventually(lambda: "Native runtime logging" in server.said, within_s=SOON_S, what="its log is printed")
        end = tmp_path / "logs" / "end"
        async with running_agent(port, "token", tmp_path, **IS_ONE, COPILOT_AGENT_END=str(end)) as agent:
            await eventually(lambda: counts(agent, 0, 0, 0), within_s=SOON_S, what="the agent counts")
            connection = await Connection.open("127.0.0.1", port, timeout_s=5)
            await connection.connect("token", timeout_s=5)
            provider = {"type": "openai", "baseUrl": "http://127.0.0.1:9/v1"}
            session = {"sessionId": "a", "model": "none", "provider": provider}
            await connection.call("session.create", session, timeout_s=20)
            await eventually(lambda: counts(agent, 1, 0, 0), within_s=SOON_S, what="the session is counted")
            assert (await agent.get("/restart"))[0] == 409
            await connection.close()
            await eventually(lambda: counts(agent, 0, 0, 0), within_s=SOON_S, what="it is unloaded")
            assert await agent.get("/restart", timeout_s=30) == (200, '{"restarted": true}\n')
        async with asyncio.timeout(SOON_S):
            assert await server.process.wait() == 0
        await eventually(lambda: not server.processes(), within_s=30, what="nothing is left of it")
        assert lock_is_free(tmp_path / "data")
        assert "copilot-server: told to end" in server.said
    finally:
        await killed(server)


async def test_where_nobody_waits_for_its_end_the_agent_says_so(runtime: Subject, tmp_path: Path) -> None:
    (tmp_path / "end").symlink_to(tmp_path / "another")
    async with running_agent(runtime.port, TOKEN, tmp_path, **IS_ONE, COPILOT_AGENT_END=str(tmp_path / "end")) as agent:
        await eventually(lambda: counts(agent, 0, 0, 0), within_s=SOON_S, what="the agent counts")
        status, body = await agent.get("/restart", timeout_s=30)
    assert (status, json.loads(body)["restarted"]) == (503, False)
    assert not (tmp_path / "another").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runtime", "Node"], "--runtime must be CLI or CopilotRuntime, not Node"),
        (
            ["--runtime", "CopilotRuntime"],
            "this image has no copilot-runtime: build it with the recipe of operator/images/cli, "
            "or choose another server.runtime",
        ),
    ],
)
async def test_a_wrong_word_and_an_image_without_it_are_named(tmp_path: Path, words: list[str], said: str) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "COPILOT_HOME": str(tmp_path / "data" / "copilot")}
    process = await asyncio.create_subprocess_exec(SCRIPT, *words, env=environment, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(SOON_S):
        output, _ = await process.communicate()
    assert (process.returncode, output.decode()) == (1, f"copilot-server: {said}\n")


async def killed(server: Server) -> None:
    for pid in server.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await server.process.wait()


async def test_a_drain_waits_for_its_turns_and_what_is_deleted_is_heard_of(tmp_path: Path) -> None:
    async with ModelServer() as model, copilot_runtime(tmp_path, token=TOKEN) as server:
        subject = subject_of(server, model)
        observed: Any = running_agent(server.port, TOKEN, tmp_path, **IS_ONE, COPILOT_AGENT_JANITOR_EVERY_S="1")
        async with observed as agent:
            await eventually(lambda: counts(agent, 0, 0, 0), within_s=SOON_S, what="the agent counts")
            owner, other = await subject.client(), await subject.client()
            await spoken(subject, owner, "old", "young")
            for id in ("old", "young"):
                await owner("sessions.close", sessionId=id)
            size = (await other("sessions.getSizes"))["sizes"]["old"]
            for path in (server.home / "session-state" / "old").glob("events.jsonl"):
                os.utime(path, (time.time() - 2 * DAY_S,) * 2)
                os.utime(path.parent, (time.time() - 2 * DAY_S,) * 2)

            async def expiry(query: str = "") -> Any:
                return json.loads((await agent.get(f"/state{query}"))[1])["expiry"]

            await expiry(f"?ttl_s={DAY_S}")

            async def has_deleted() -> bool:
                return bool((await expiry())["deleted"] == 1)

            await eventually(has_deleted, within_s=SOON_S, what="the old one is deleted")
            assert (await expiry())["freedBytes"] == size
            await eventually(
                lambda: "session.deleted" in other.lifecycle("old"), within_s=SOON_S, what="gateways hear of it"
            )

            await subject.create(owner, "busy")
            before = model.stats.requests
            await owner("session.send", sessionId="busy", prompt="SLEEP=3 CHUNKS=3")
            await eventually(lambda: model.stats.requests > before, within_s=SOON_S, what="the model is asked")
            draining = asyncio.create_task(agent.get("/drain", timeout_s=60))

            async def is_kept() -> bool:
                state = (await agent.state())["draining"]
                return state is not None and state["kept"] == 1

            await eventually(is_kept, within_s=SOON_S, what="the turn is kept")
            await owner.connection.close()
            assert json.loads((await draining)[1]) == {"closed": 1, "cut": 0, "gaveUp": ""}
            stored = await other("sessions.readPersistedEvents", sessionId="busy")
            assert sum(event["type"] == "assistant.message" for event in stored["events"]) == 1
            assert (await agent.get("/readyz"))[0] == 503
            await other.connection.close()


@pytest.mark.parametrize("isolation", ["Shared", "Dedicated"])
async def test_behind_a_gateway_its_restart_is_not_noticed(tmp_path: Path, isolation: Any) -> None:
    calls: list[Any] = []
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer())
        server = await stack.enter_async_context(copilot_runtime(tmp_path / "cli"))
        before = gateway_before(server, tmp_path / "gateway", {"one": model}, isolation)
        gateway = await stack.enter_async_context(before)
        one = await stack.enter_async_context(app(Place(gateway.url, token_of("one"))))
        session = await one.create("s1", tools=[weather(calls)], streaming=True)
        await say(session, "ECHO=`first` NOTE=alpha")
        await server.stop()
        await server.start()
        assert await say(session, "RECALL") == "notes: alpha"
        assert await say(session, WEATHER) == "the tool said: rain in Oslo"
        assert calls == [["s1", "get_weather", {"city": "Oslo"}]]
        heard = Heard(session)
        await session.send("CHUNKS=4 SLEEP=2")
        await heard.until("session.idle")
        assert [data.content for data in heard.of("assistant.message")] == ["part0 part1 part2 part3 "]
