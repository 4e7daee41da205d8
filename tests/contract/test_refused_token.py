"""A GitHub token that is not taken any more is told by the agent, where no gateway would hear of it. Real CLI."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import TOKEN, Client, Subject
from tests.support.agent import RunningAgent, running_agent
from tests.support.cli import Cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

SOON_S = 30.0
TURN_S = 60.0


class PaidCli(Cli):
    """Started with a GitHub token: a person's, as of a Secret, or an installation's, as of an App."""

    def __init__(self, directory: Path, model: ModelServer, token: str) -> None:
        installations = token.startswith("ghs_")
        super().__init__(directory, token=TOKEN, flags=() if installations else ("--auth-token-env", "PAYS"))
        self.login = () if installations else Cli.login
        at = f"http://{model.host}:{model.port}"
        self._more = dict.fromkeys(("COPILOT_DEBUG_GITHUB_API_URL", "COPILOT_API_URL"), at)
        self._more["COPILOT_GITHUB_TOKEN" if installations else "PAYS"] = token

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self._more


@dataclass
class Bed:
    cli: PaidCli
    agent: RunningAgent
    model: ModelServer

    async def turn(self, id: str, **options: Any) -> None:
        """Of a new session, whose client goes as soon as the turn has ended."""
        subject = Subject(
            self.cli.host, self.cli.port, {"model": "fake-model"} | options, self.cli.stop, self.cli.start
        )
        client: Client = await subject.client()
        await subject.create(client, id)
        await client("session.send", sessionId=id, prompt="ECHO=x")
        await eventually(lambda: "session.idle" in client.events(id), within_s=TURN_S, what="the turn ends")
        await client.connection.close()

    async def says(self) -> bool | None:
        found: bool | None = (await self.agent.state())["credentialRefused"]
        return found

    async def comes_to_say(self, refused: bool) -> None:
        async def does() -> bool:
            return await self.says() is refused

        await eventually(does, within_s=SOON_S, what=f"refused: {refused}")


@pytest.fixture(params=["gho_of-a-person", "ghs_of-an-installation"])
async def bed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer())
        cli = PaidCli(tmp_path, model, request.param)
        stack.push_async_callback(cli.stop)
        await cli.start()
        yield Bed(cli, await stack.enter_async_context(running_agent(cli.port, TOKEN, tmp_path)), model)


async def test_a_refused_token_is_told_until_it_is_taken_again_and_a_clients_own_key_is_not(bed: Bed) -> None:
    assert await bed.says() is None
    await bed.turn("first")
    await bed.comes_to_say(refused=False)
    bed.model.accepts = "another"
    provider = {"type": "openai", "baseUrl": bed.model.base_url, "apiKey": "wrong", "wireApi": "completions"}
    await bed.turn("with-a-key-of-its-own", provider=provider)
    await bed.turn("refused")
    await bed.comes_to_say(refused=True)
    bed.model.accepts = None
    await bed.turn("taken-again")
    await bed.comes_to_say(refused=False)
    bed.model.accepts = "another"
    await bed.turn("with-another-key", provider=provider)
    assert await bed.says() is False
