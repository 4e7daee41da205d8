"""What an application does not notice behind a gateway, and what of its own it need not stay for. Real CLI, Python SDK.

Without a gateway each of these ends in an error or in a lost turn.
"""

import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import RpcError
from tests.contract.gateway_bed import Gateway, code_of, gateway_before, token_of
from tests.contract.sdk_scenarios import WEATHER, Heard, Place, app, say, weather
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

SERVER_TOKEN: Final = "server-token"
TENANT: Final = "one"


@dataclass
class Bed:
    """One CLI behind a gateway."""

    cli: Cli
    gateway: Gateway
    model: ModelServer
    code: str  # in front of the ids that the CLI knows

    @property
    def place(self) -> Place:
        return Place(self.gateway.url, token_of(TENANT))

    async def at_the_cli(self, method: str, id: str) -> Any:
        """A call to the CLI itself about the tenant's session."""
        connection = await Connection.open(self.cli.host, self.cli.port, timeout_s=5)
        try:
            await connection.connect(SERVER_TOKEN, timeout_s=5)
            return await connection.call(method, {"sessionId": self.code + id}, timeout_s=10)
        finally:
            await connection.close()

    async def loaded(self, id: str) -> bool:
        try:
            await self.at_the_cli("session.metadata.activity", id)
        except RpcError:
            return False
        return True


@pytest.fixture(params=["Shared", "Dedicated"])
async def bed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bed]:
    logging.getLogger("copilot").setLevel(logging.CRITICAL)
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer())
        cli = await stack.enter_async_context(real_cli(tmp_path / "cli", token=SERVER_TOKEN))
        before = gateway_before(cli, tmp_path / "gateway", {TENANT: model}, request.param)
        made = await stack.enter_async_context(before)
        code = code_of(TENANT) if request.param == "Shared" else ""
        yield Bed(cli, made, model, code)


async def test_a_turn_outlives_the_client_that_began_it(bed: Bed) -> None:
    async with app(bed.place) as one:
        session = await one.create("s1", streaming=True)
        heard = Heard(session)
        await session.send("CHUNKS=4 SLEEP=2")
        await heard.until("assistant.message_delta")
    assert bed.model.stats.inflight == 1
    await eventually(lambda: bed.model.stats.inflight == 0, within_s=30, what="the end of the turn")
    assert bed.model.stats.aborted == 0
    async with app(bed.place) as two:
        session = await two.resume("s1")

        async def stored() -> list[str]:
            events = await session.get_events()
            return [event.data.content for event in events if event.type.value == "assistant.message"]

        await eventually(stored, within_s=30, what="the answer is stored")
        assert await stored() == ["part0 part1 part2 part3 "]


async def test_a_client_returns_to_its_running_turn(bed: Bed) -> None:
    async with app(bed.place) as one:
        session = await one.create("s1", streaming=True)
        heard = Heard(session)
        await session.send("CHUNKS=4 SLEEP=4")
        await heard.until("assistant.message_delta")
    async with app(bed.place) as two:
        session = await two.resume("s1", suppress_resume_event=True)
        heard = Heard(session)
        await heard.until("session.idle")
        assert [data.content for data in heard.of("assistant.message")] == ["part0 part1 part2 part3 "]
        assert await say(session, "ECHO=`next`") == "next"
    assert bed.model.stats.aborted == 0


async def test_an_idle_session_is_unloaded_when_its_client_has_gone(bed: Bed) -> None:
    async with app(bed.place) as one:
        await say(await one.create("s1"), "hello")
        assert await bed.loaded("s1")
    await eventually(lambda: _not(bed.loaded("s1")), within_s=30, what="the session is unloaded")


async def test_a_restart_of_the_server_is_not_noticed(bed: Bed) -> None:
    calls: list[Any] = []
    async with app(bed.place) as one:
        session = await one.create("s1", tools=[weather(calls)])
        await say(session, "ECHO=`first` NOTE=alpha")
        await bed.cli.stop()
        await bed.cli.start()
        assert await say(session, "RECALL") == "notes: alpha"
        assert await say(session, WEATHER) == "the tool said: rain in Oslo"
        assert calls == [["s1", "get_weather", {"city": "Oslo"}]]


async def test_a_session_that_was_unloaded_is_loaded_as_it_was_made(bed: Bed) -> None:
    calls: list[Any] = []
    async with app(bed.place) as one:
        session = await one.create("s1", tools=[weather(calls)])
        await say(session, "ECHO=`first` NOTE=alpha")
        await bed.at_the_cli("sessions.close", "s1")
        assert await say(session, WEATHER) == "the tool said: rain in Oslo"
        assert await say(session, "RECALL") == "notes: alpha"


async def test_a_turn_that_died_with_its_server_ends_at_once(bed: Bed) -> None:
    """The server stays away; that the message is stored was certain by then."""
    async with app(bed.place) as one:
        session = await one.create("s1", streaming=True)
        await say(session, "ECHO=`first` NOTE=alpha")
        heard = Heard(session)
        await session.send("CHUNKS=3 SLEEP=9")
        await heard.until("assistant.message_delta")  # after 3 s
        await bed.cli.stop(signal.SIGKILL)
        await heard.until("session.error", within_s=2)
        await heard.until("session.idle", within_s=2)
        await bed.cli.start()
        assert await say(session, "RECALL") == "notes: alpha"


async def test_a_message_is_answered_once_whenever_its_server_died(bed: Bed) -> None:
    """Killed before it can have stored the message: it is sent again, or its turn ends with an error; never neither."""
    async with app(bed.place) as one:
        session = await one.create("s1", streaming=True)
        await say(session, "ECHO=`first` NOTE=alpha")
        heard = Heard(session)
        await session.send("ECHO=`second` NOTE=beta")
        await bed.cli.stop(signal.SIGKILL)
        await bed.cli.start()
        await heard.until("session.idle")
        assert len(heard.of("session.error")) + len(heard.of("assistant.message")) == 1
        assert await say(session, "RECALL") == "notes: alpha beta"
        events = await session.get_events()
        stored = [event.data.content for event in events if event.type.value == "user.message"]
        assert len([text for text in stored if "NOTE=beta" in text]) == 1


async def _not(answer: Any) -> bool:
    return not await answer
