"""The servers that are held to one contract, and the model their turns need."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.rpc.client import Connection
from tests.support.cli import Cli, copilot_runtime, real_cli
from tests.support.model import ModelServer
from tests.support.standin import StandIn, standin

TOKEN = "server-token"
CALL_TIMEOUT_S = 20.0


class Client:
    """A client of a CLI that remembers what it was told."""

    def __init__(self, connection: Connection, told: list[tuple[str, dict[str, Any]]]) -> None:
        self.connection, self.told = connection, told

    async def __call__(self, method: str, **params: Any) -> Any:
        return await self.connection.call(method, params, timeout_s=CALL_TIMEOUT_S)

    def events(self, id: str) -> list[str]:
        """Types of the events of one session, as they came."""
        return [str(event["type"]) for event in self.whole_events(id)]

    def whole_events(self, id: str) -> list[dict[str, Any]]:
        """The events of one session, as they came."""
        return [
            params["event"] for method, params in self.told if method == "session.event" and params["sessionId"] == id
        ]

    def lifecycle(self, id: str) -> list[str]:
        """Types of the lifecycle notifications of one session, as they came."""
        return [
            params["type"]
            for method, params in self.told
            if method == "session.lifecycle" and params["sessionId"] == id
        ]


@dataclass
class Subject:
    """One CLI, real or not, and how to talk to it."""

    host: str
    port: int
    options: dict[str, Any]  # of session.create: where the model is
    end: Callable[[signal.Signals], Coroutine[Any, Any, None]]  # the process
    start: Callable[[], Coroutine[Any, Any, None]]  # another on its state and port, once it has ended
    clients: list[Client] = field(default_factory=list)

    async def client(self, token: str | None = TOKEN) -> Client:
        """A new connection that has passed ``connect``."""
        told: list[tuple[str, dict[str, Any]]] = []
        connection = await Connection.open(
            self.host, self.port, timeout_s=5, on_notification=lambda method, params: told.append((method, params))
        )
        self.clients.append(Client(connection, told))
        await connection.connect(token, timeout_s=5)
        return self.clients[-1]

    async def create(self, client: Client, id: str, **options: Any) -> None:
        """A new session of that client."""
        await client("session.create", sessionId=id, **self.options, **options)


Make = Callable[[AsyncExitStack, Path], Coroutine[Any, Any, Subject]]


async def a_real_cli(stack: AsyncExitStack, directory: Path) -> Subject:
    model = await stack.enter_async_context(ModelServer())
    cli = await stack.enter_async_context(real_cli(directory, token=TOKEN))
    return subject_of(cli, model)


async def a_copilot_runtime(stack: AsyncExitStack, directory: Path) -> Subject:
    model = await stack.enter_async_context(ModelServer())
    runtime = await stack.enter_async_context(copilot_runtime(directory, token=TOKEN))
    return subject_of(runtime, model)


def subject_of(cli: Cli, model: ModelServer) -> Subject:
    """A real CLI as the subject of a test."""
    provider = {"type": "openai", "baseUrl": model.base_url, "apiKey": "not-a-key", "wireApi": "completions"}
    options = {"model": "fake-model", "provider": provider, "streaming": True, "workingDirectory": str(cli.workspace)}
    return Subject(cli.host, cli.port, options, cli.stop, lambda: started_again(cli))


async def started_again(cli: Cli) -> None:
    await cli.stop()  # what is left of one that has ended by itself
    await cli.start()


async def a_stand_in(stack: AsyncExitStack, directory: Path) -> Subject:
    return a_stand_in_of(await stack.enter_async_context(standin(token=TOKEN)))


def a_stand_in_of(stand_in: StandIn) -> Subject:
    """A stand-in as the subject of a test."""
    server = stand_in.server

    async def end(how: signal.Signals) -> None:
        server.end(killed=how is signal.SIGKILL)

    async def start() -> None:
        if not server.runs:  # one that ended by itself may be up again
            server.start()

    return Subject(stand_in.host, stand_in.port, {}, end, start)


@asynccontextmanager
async def running(make: Make, directory: Path) -> AsyncIterator[Subject]:
    """A server until the block ends, and its clients with it."""
    async with AsyncExitStack() as stack:
        subject = await make(stack, directory)
        yield subject
        await asyncio.gather(*(client.connection.close() for client in subject.clients))


NOT_OF_COPILOT_RUNTIME = pytest.mark.parametrize(
    "cli", [a_real_cli, a_stand_in], ids=["real", "stand-in"], indirect=True
)
"""What test_copilot_runtime.py has otherwise."""


@pytest.fixture(params=[a_real_cli, a_copilot_runtime, a_stand_in], ids=["real", "copilot-runtime", "stand-in"])
async def cli(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    """A fresh CLI."""
    async with running(request.param, tmp_path) as subject:
        yield subject
