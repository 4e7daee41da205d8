"""Two tenants of one gateway before one real CLI, the second with a secret and a turn that goes on."""

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import RpcError
from tests.contract.gateway_bed import Gateway, gateway_before, provider_at, token_of
from tests.support.cli import real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

SERVER_TOKEN: Final = "server-token"
CALL_S: Final = 20.0
SECRET: Final = "the-secret-of-the-other"
VICTIM: Final = "session-of-the-other"
OWN: Final = "session-of-mine"


class Client:
    """A connection that keeps everything it was ever told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.received: list[str] = []

    async def connect(self, host: str, port: int, token: str) -> None:
        self.connection = await Connection.open(host, port, timeout_s=5, on_notification=self._heard)
        await self.connection.connect(token, timeout_s=5)

    def _heard(self, method: str, params: Any) -> None:
        self.told.append((method, params))
        self.received.append(json.dumps([method, params]))

    async def __call__(self, method: str, **params: Any) -> Any:
        try:
            result = await self.connection.call(method, params, timeout_s=CALL_S)
        except RpcError as error:
            self.received.append(str(error))
            raise
        self.received.append(json.dumps(result))
        return result

    async def answer(self, method: str, params: dict[str, Any]) -> tuple[Any, ...]:
        """What comes back, as a value: a result or an error."""
        try:
            return ("result", await self(method, **params))
        except RpcError as error:
            return ("error", error.code, error.message)

    def events(self, id: str, kind: str) -> list[Any]:
        """The data of the events of one type of one session."""
        own = (
            params["event"] for method, params in self.told if method == "session.event" and params["sessionId"] == id
        )
        return [event["data"] for event in own if event["type"] == kind]

    async def until(self, id: str, kind: str, count: int = 1) -> None:
        await eventually(lambda: len(self.events(id, kind)) >= count, within_s=CALL_S, what=f"{count} x {kind} of {id}")

    async def turn(self, id: str, prompt: str) -> None:
        ends = len(self.events(id, "session.idle")) + 1
        await self("session.send", sessionId=id, prompt=prompt)
        await self.until(id, "session.idle", ends)


@dataclass
class Bed:
    """One CLI, reached directly and through a gateway by two tenants."""

    model: ModelServer
    gateway: Gateway
    direct: Client
    mine: Client
    other: Client
    options: dict[str, Any]  # of session.create where no gateway adds a credential
    transcript: str = ""
    heard: int = 0
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def session(self, client: Client) -> str:
        """A new session of that client."""
        number = next(self.numbers)
        options = self.options if client is self.direct else {"model": "fake-model", "streaming": True}
        await client("session.create", sessionId=f"{OWN}-{number}", **options)
        return f"{OWN}-{number}"

    async def remember(self) -> None:
        """The other tenant's state, from which nothing may differ later."""
        self.transcript, self.heard = await self._transcript(), len(self.other.told)

    async def assert_untouched(self) -> None:
        """The other's turn still runs, nothing was added to its session, and it has heard of nothing."""
        assert (self.model.stats.inflight, self.model.stats.aborted) == (1, 0), "the other's turn"
        assert self.other.told[self.heard :] == []
        assert await self._transcript() == self.transcript

    async def _transcript(self) -> str:
        return json.dumps(await self.other("session.getMessages", sessionId=VICTIM))


@asynccontextmanager
async def two_tenants(directory: Path) -> AsyncIterator[Bed]:
    """Everything started, and the other at work; ended with the block."""
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer())
        others = await stack.enter_async_context(ModelServer())
        cli = await stack.enter_async_context(real_cli(directory / "cli", token=SERVER_TOKEN))
        models = {"mine": model, "other": others}
        made = await stack.enter_async_context(gateway_before(cli, directory / "gateway", models))
        direct, mine, other = Client(), Client(), Client()
        await direct.connect(cli.host, cli.port, SERVER_TOKEN)
        await mine.connect(made.host, made.port, token_of("mine"))
        await other.connect(made.host, made.port, token_of("other"))
        options = {"model": "fake-model", "streaming": True, "provider": provider_at(model)}
        bed = Bed(others, made, direct, mine, other, options)
        await the_other_works(bed)
        yield bed
        for client in (direct, mine, other):
            await client.connection.close()


async def the_other_works(bed: Bed) -> None:
    """A finished turn with a secret in it, and one that goes on until the end of the tests."""
    other = bed.other
    await other("session.create", sessionId=VICTIM, model="fake-model", streaming=True)
    await other.turn(VICTIM, f"ECHO=`{SECRET}`")
    deltas = len(other.events(VICTIM, "assistant.message_delta"))
    await other("session.send", sessionId=VICTIM, prompt=f"ECHO=`{SECRET} goes on` STALL=1")
    await other.until(VICTIM, "assistant.message_delta", deltas + 1)
    length = -1
    while length != len(other.told):  # what belongs to the beginning of the turn may still come
        length = len(other.told)
        await other("session.getMessages", sessionId=VICTIM)
    await bed.remember()
