"""Two gateways before one CLI: each keeps the turns of the other's clients. Real CLI, Python SDK."""

import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from copilot_operator.rpc.client import Connection
from tests.contract.gateway_bed import Gateway, gateway_before, token_of
from tests.contract.sdk_scenarios import WEATHER, Heard, Place, app, say, weather
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

SERVER_TOKEN: Final = "server-token"
TENANT: Final = "one"


@dataclass
class Pair:
    """A CLI behind two gateways."""

    cli: Cli
    one: Gateway
    other: Gateway
    model: ModelServer

    async def unloaded(self) -> None:
        """Close all sessions, as an idle timeout does."""
        connection = await Connection.open(self.cli.host, self.cli.port, timeout_s=5)
        await connection.connect(SERVER_TOKEN, timeout_s=5)
        for each in (await connection.call("session.list", {}, timeout_s=5))["sessions"]:
            await connection.call("sessions.close", {"sessionId": each["sessionId"]}, timeout_s=5)
        await connection.close()

    @staticmethod
    def at(gateway: Gateway) -> Place:
        return Place(gateway.url, token_of(TENANT))


@pytest.fixture(params=["Shared", "Dedicated"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    logging.getLogger("copilot").setLevel(logging.CRITICAL)
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer())
        cli = await stack.enter_async_context(real_cli(tmp_path / "cli", token=SERVER_TOKEN))
        made = [
            await stack.enter_async_context(
                gateway_before(cli, tmp_path / name, {TENANT: model}, request.param, gateways=2)
            )
            for name in ("a", "b")
        ]
        yield Pair(cli, made[0], made[1], model)


async def test_a_killed_gateway_loses_no_running_turn(pair: Pair) -> None:
    calls: list[Any] = []
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(abandoned(pair.at(pair.one)))
        session = await one.create("s1", streaming=True, tools=[weather(calls)])
        await say(session, "ECHO=`first` NOTE=alpha")
        heard = Heard(session)
        await session.send("CHUNKS=6 SLEEP=5 NOTE=beta")
        await heard.until("assistant.message_delta")
        await pair.one.stop(signal.SIGKILL)
        other = await stack.enter_async_context(app(pair.at(pair.other)))
        session = await other.resume("s1", tools=[weather(calls)])
        heard = Heard(session)
        await heard.until("session.idle")
        assert [data.content for data in heard.of("assistant.message")] == ["part0 part1 part2 part3 part4 part5 "]
        assert await say(session, "RECALL") == "notes: alpha beta"
        assert await say(session, WEATHER) == "the tool said: rain in Oslo"
    assert pair.model.stats.aborted == 0


@pytest.mark.parametrize("loaded", [True, False], ids=["just created", "loaded for it"])
async def test_a_first_turn_outlives_a_gateway_that_is_killed_when_it_has_answered_the_message(
    pair: Pair, loaded: bool
) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(abandoned(pair.at(pair.one)))
        session = await one.create("s1", streaming=True)
        if not loaded:
            await say(session, "NOTE=alpha")
            await pair.unloaded()
        await session.send("CHUNKS=4 SLEEP=3 NOTE=beta")
        await pair.one.stop(signal.SIGKILL)
        other = await stack.enter_async_context(app(pair.at(pair.other)))
        session = await other.resume("s1")
        heard = Heard(session)
        await heard.until("session.idle")
        assert await say(session, "RECALL") == "notes: beta" if loaded else "notes: alpha beta"
    assert pair.model.stats.aborted == 0


async def test_a_turn_outlives_the_gateway_that_its_client_has_gone_to_as_well(pair: Pair) -> None:
    """It began at one, which let go of it for the other, which is killed: the one keeps it from then on."""
    async with app(pair.at(pair.one)) as one:
        session = await one.create("s1", streaming=True)
        await say(session, "NOTE=alpha")
        heard = Heard(session)
        await session.send("CHUNKS=6 SLEEP=6 NOTE=beta")
        await heard.until("assistant.message_delta")
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(abandoned(pair.at(pair.other)))
        await other.resume("s1")
        await pair.other.stop(signal.SIGKILL)
        async with app(pair.at(pair.one)) as back:
            session = await back.resume("s1")
            await Heard(session).until("session.idle")
            assert await say(session, "RECALL") == "notes: alpha beta"
    assert pair.model.stats.aborted == 0


async def test_its_turn_ends_well_if_nobody_comes_back(pair: Pair) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(abandoned(pair.at(pair.one)))
        session = await one.create("s1", streaming=True)
        heard = Heard(session)
        await session.send("CHUNKS=4 SLEEP=3 NOTE=alpha")
        await heard.until("assistant.message_delta")
        await pair.one.stop(signal.SIGKILL)
        assert pair.model.stats.inflight == 1
        await eventually(lambda: pair.model.stats.inflight == 0, within_s=30, what="the turn has ended")
    assert pair.model.stats.aborted == 0
    async with app(pair.at(pair.other)) as other:
        assert await say(await other.resume("s1"), "RECALL") == "notes: alpha"


async def test_a_client_finds_its_running_turn_and_its_tools_at_the_other_gateway(pair: Pair) -> None:
    calls: list[Any] = []
    async with app(pair.at(pair.one)) as one:
        session = await one.create("s1", streaming=True, tools=[weather(calls)])
        heard = Heard(session)
        await session.send("CHUNKS=6 SLEEP=5 NOTE=alpha")
        await heard.until("assistant.message_delta")
    async with app(pair.at(pair.other)) as other:
        session = await other.resume("s1", tools=[weather(calls)])
        heard = Heard(session)
        await heard.until("session.idle")
        assert [data.content for data in heard.of("assistant.message")] == ["part0 part1 part2 part3 part4 part5 "]
        assert await say(session, WEATHER) == "the tool said: rain in Oslo"
    assert pair.model.stats.aborted == 0


@asynccontextmanager
async def abandoned(place: Place) -> AsyncIterator[Any]:
    """A client whose gateway is killed: it can't leave properly."""
    client = app(place)
    made = await client.__aenter__()
    try:
        yield made
    finally:
        with suppress(ExceptionGroup):
            await client.__aexit__(None, None, None)
