"""Ephemeral sessions leave nothing once no client has them open, whatever has died in between. Real CLI and agent."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from copilot_operator.gateway.keeper import REST_S
from copilot_operator.rpc.client import Connection
from tests.contract.gateway_bed import Gateway, Server, Tenant, code_of, gateway, provider_at, token_of
from tests.support.agent import RunningAgent, running_agent
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.gateway import SERVER_TOKEN, RawClient
from tests.support.model import ModelServer

TENANT: Final = "one"
HELD_S: Final = 12  # a gateway says every 10 s what is open
GONE_WITHIN_S: Final = REST_S + 15.0  # a keeper may have attached while its last client left
TURN_S: Final = 30.0


@dataclass
class Bed:
    """A CLI with its agent, behind two gateways; what it stores is in ``state``."""

    cli: Cli
    agent: RunningAgent
    one: Gateway
    other: Gateway
    state: Path
    stores: bool  # whether clients may say that the session store shall have their sessions

    def traces(self, word: str) -> set[str]:
        """Files that have the word in them, but for the CLI's log, and directories that have it in their name."""
        found = set()
        for at, directories, files in os.walk(self.state):  # which does not mind what is deleted meanwhile
            named = [name for name in directories if word in name]
            written = [name for name in files if word.encode() in _bytes_of(Path(at, name)) and "/logs" not in at]
            found |= {str(Path(at, name).relative_to(self.state)) for name in (*named, *written)}
        return found

    async def gone(self, *words: str, within_s: float = GONE_WITHIN_S) -> None:
        def nothing() -> bool:
            return not any(map(self.traces, words))

        await eventually(nothing, within_s=within_s, what=f"nothing is left: {[*map(self.traces, words)]}")

    @staticmethod
    async def client(at: Gateway) -> RawClient:
        client = await RawClient.open(at.host, at.port)
        await client.connect(token_of(TENANT))
        return client

    async def unload(self, id: str) -> None:
        """As the CLI's idle timeout does: nobody is told."""
        direct = await Connection.open(self.cli.host, self.cli.port, timeout_s=5)
        await direct.connect(SERVER_TOKEN, timeout_s=5)
        await direct.call("sessions.close", {"sessionId": id}, timeout_s=5)
        await direct.close()


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # deleted meanwhile
        return b""


async def turn(client: RawClient, id: str, prompt: str) -> str:
    """The answer to a message."""
    ends = client.types(id).count("session.idle")
    await client("session.send", sessionId=id, prompt=prompt)
    await eventually(lambda: client.types(id).count("session.idle") > ends, within_s=TURN_S, what="the turn ends")
    answers = [event["data"]["content"] for event in client.events(id) if event["type"] == "assistant.message"]
    return str(answers[-1])


@pytest.fixture(params=["Shared", "Dedicated"])
async def bed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bed]:
    """A Persistent pool; where it is Dedicated, with the CLI's own tools and its session store."""
    shared, state = request.param == "Shared", tmp_path / "cli"
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer())
        cli = await stack.enter_async_context(real_cli(state, token=SERVER_TOKEN))
        known = {"COPILOT_AGENT_PERSISTENCE": "Persistent", "COPILOT_AGENT_HELD_S": str(HELD_S)}
        known |= {"COPILOT_AGENT_CODE_LENGTH": str(len(code_of(TENANT)))} if shared else {}
        agent = await stack.enter_async_context(running_agent(cli.port, SERVER_TOKEN, state, **known))
        servers = {"server": Server(cli.host, cli.port, SERVER_TOKEN, agentPort=agent.port)}
        code, server = (code_of(TENANT), None) if shared else ("", "server")
        tenants = {token_of(TENANT): Tenant(TENANT, code, server, {"provider": provider_at(model)})}
        pool: dict[str, Any] = {"isolation": request.param, "gateways": 2, "policy": {"hostTools": True}}
        pool["defaults"] = {"workingDirectory": str(cli.workspace)}
        one, other = [
            await stack.enter_async_context(gateway(tmp_path / name, servers, tenants, **pool)) for name in ("a", "b")
        ]
        yield Bed(cli, agent, one, other, state, stores=not shared)


async def test_nothing_is_left_of_a_session_whose_last_client_has_gone(bed: Bed) -> None:
    one, other = await bed.client(bed.one), await bed.client(bed.other)
    wishes = {"enableSessionStore": True} if bed.stores else {}
    for id in ("ephemeral-a", "kept"):
        await one("session.create", sessionId=id, model="fake-model", **wishes)
    await turn(one, "ephemeral-a", "ECHO=`canary` NOTE=canary")
    await turn(one, "kept", "ECHO=`lasting` NOTE=lasting")
    assert bed.traces("canary"), "as long as somebody has it open"
    server_id = next(path.name for path in bed.state.rglob("*ephemeral-a"))
    await bed.unload(server_id)
    assert await turn(one, "ephemeral-a", "RECALL NOTE=again") == "notes: canary", "unloaded, it comes back by itself"
    await other("session.resume", sessionId="ephemeral-a")
    await one.close()
    assert await turn(other, "ephemeral-a", "RECALL SLEEP=1") == "notes: canary again", "another client has it open"
    assert "ephemeral-a" in [each["sessionId"] for each in (await other("session.list"))["sessions"]]
    await other("session.send", sessionId="ephemeral-a", prompt="SLEEP=2 NOTE=last")
    await other.close()
    await bed.gone("canary", "again", "ephemeral-a")
    assert any("session-store.db" in name for name in bed.traces("lasting")) == bed.stores
    back = await bed.client(bed.one)
    assert [each["sessionId"] for each in (await back("session.list"))["sessions"]] == ["kept"]
    assert "not found" in (await back.ask("session.resume", sessionId="ephemeral-a"))["error"]["message"]
    assert await turn_again(back) == "notes: lasting"
    await back.close()
    assert (await bed.agent.state())["ephemeral"] == {"stored": 0, "erased": 1}


async def turn_again(client: RawClient) -> str:
    await client("session.resume", sessionId="kept", disableResume=True)
    return await turn(client, "kept", "RECALL")


async def test_a_session_survives_its_server_for_its_client_and_not_its_gateway(bed: Bed) -> None:
    client = await bed.client(bed.one)
    await client("session.create", sessionId="ephemeral-a", model="fake-model")
    await client("session.create", sessionId="ephemeral-unused", model="fake-model")
    await turn(client, "ephemeral-a", "NOTE=canary")
    await bed.cli.stop(signal.SIGKILL)
    await bed.cli.start()
    assert await turn(client, "ephemeral-a", "RECALL") == "notes: canary", "its client is still there"
    await bed.cli.stop(signal.SIGKILL)
    await bed.one.stop(signal.SIGKILL)
    assert bed.traces("canary"), "and nobody is there to delete it"
    await bed.cli.start()
    await bed.gone("canary", "ephemeral-", within_s=HELD_S + 2 * GONE_WITHIN_S)
