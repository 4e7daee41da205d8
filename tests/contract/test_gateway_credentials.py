"""A key or token that changes reaches sessions that live, without a restart. Real CLI; the model sees the bearer."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.gateway_bed import Gateway, Server, Tenant, code_of, gateway, provider_at, token_of, write_config
from tests.contract.test_model_with_cli import with_github
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.gateway import RawClient
from tests.support.model import ModelServer

TURN_S = 30.0


@dataclass
class Bed:
    """One CLI behind a gateway, which pays for the one tenant as ``kind`` says: provider or GitHub."""

    kind: str
    cli: Cli
    model: ModelServer
    gateway: Gateway

    def credential(self, secret: str) -> Mapping[str, Any]:
        if self.kind == "provider":
            return {"provider": provider_at(self.model) | {"apiKey": secret}}
        return {"gitHubToken": secret}

    async def pays_with(self, secret: str) -> None:
        tenants = {token_of("one"): Tenant("one", code=code_of("one"), credential=self.credential(secret))}
        servers = {"server": Server(self.cli.host, self.cli.port, self.cli.token or "")}
        pool = {"defaults": {"workingDirectory": str(self.cli.workspace)}}
        await asyncio.to_thread(write_config, self.gateway.config, servers, tenants, **pool)


@pytest.fixture(params=["provider", "GitHub"])
async def bed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer())
        if request.param == "GitHub":
            monkeypatch.setattr(Cli, "_environment", with_github(model))
        cli = await stack.enter_async_context(real_cli(tmp_path / "cli"))
        made = await stack.enter_async_context(gateway(tmp_path / "gateway", {}, {}))
        bed = Bed(request.param, cli, model, made)
        await bed.pays_with("first-key")
        yield bed


async def turn(client: RawClient, id: str, prompt: str) -> list[str]:
    """The types of the events of a turn, from its send to ``session.idle``."""
    before = len(client.types(id))
    await client("session.send", sessionId=id, prompt=prompt)
    await eventually(lambda: "session.idle" in client.types(id)[before:], within_s=TURN_S, what="the turn ends")
    return client.types(id)[before:]


async def test_the_next_turn_of_a_live_session_has_the_new_key_and_the_running_one_ends_with_the_old(bed: Bed) -> None:
    client = await eventually(lambda: _connected(bed), within_s=30, what="the tenant is known")
    await client("session.create", sessionId="a", model="fake-model", streaming=True)
    assert "session.error" not in await turn(client, "a", "remember NOTE=one")
    assert bed.model.bearers[-1] == "first-key"

    running = asyncio.create_task(turn(client, "a", "SLEEP=4 CHUNKS=8"))
    await eventually(lambda: bed.model.stats.inflight == 1, within_s=30, what="the model is asked")
    await bed.pays_with("second-key")
    assert "session.error" not in await running
    assert bed.model.bearers[-1] == "first-key"

    async def has_it() -> bool:
        await turn(client, "a", "ECHO=x")
        return bed.model.bearers[-1] == "second-key"

    await eventually(has_it, within_s=30, what="the new key is used")
    bed.model.accepts = "second-key"
    before = len(client.types("a"))
    assert "session.error" not in await turn(client, "a", "RECALL")
    said = [
        event["data"].get("content") for event in client.events("a")[before:] if event["type"] == "assistant.message"
    ]
    assert said == ["notes: one"], "it is the same conversation"

    bed.model.accepts = "a third key"
    assert "session.error" in await turn(client, "a", "ECHO=x")
    await eventually(lambda: refused(bed), within_s=30, what="it is told that the key is refused")
    bed.model.accepts = None
    assert "session.error" not in await turn(client, "a", "ECHO=x")
    assert not await refused(bed)
    await client.close()


WAIT = {
    "name": "wait",
    "description": "waits",
    "parameters": {"type": "object", "properties": {}},
    "skipPermission": True,
}


@pytest.mark.parametrize("bed", ["GitHub"], indirect=True)
async def test_a_turn_keeps_the_token_that_it_began_with(bed: Bed) -> None:
    """Which is why the operator renews a person's token, and so ends the one before, when nobody is in a turn."""
    client = await eventually(lambda: _connected(bed), within_s=30, what="the tenant is known")
    await client("session.create", sessionId="a", model="fake-model", streaming=True, tools=[WAIT])
    running = asyncio.create_task(turn(client, "a", "CALL=`wait {}`"))

    def asked() -> str | None:
        found = [each for each in client.events("a") if each["type"] == "external_tool.requested"]
        return str(found[-1]["data"]["requestId"]) if found else None

    request = await eventually(asked, within_s=30, what="the tool is called")
    await bed.pays_with("second-key")
    await eventually(
        lambda: "second-key" in bed.model.logins, within_s=30, what="the gateway has given it to the session"
    )
    bed.model.accepts = "second-key"  # as GitHub does once it has given another one
    done = {"textResultForLlm": "done", "resultType": "success"}
    await client("session.tools.handlePendingToolCall", sessionId="a", requestId=request, result=done)
    assert "session.error" in await running
    assert set(bed.model.bearers) == {"first-key"}
    assert "session.error" not in await turn(client, "a", "ECHO=x"), "the next turn has the new one"
    await client.close()


async def refused(bed: Bed) -> bool:
    return bool((await bed.gateway.tells("/tenants"))["one"].get("refused"))


async def _connected(bed: Bed) -> RawClient | None:
    client = await RawClient.open(bed.gateway.host, bed.gateway.port)
    client.answer_s = TURN_S
    if "result" in await client.connect(token_of("one")):
        return client
    await client.close()
    return None
