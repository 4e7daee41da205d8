"""The stand-in model behind the real CLI: whole turns, tools, aborts, and a conversation's memory over a restart."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.rpc.client import Connection
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

TIMEOUT_S = 30.0


class Client:
    """One application, connected to a CLI."""

    def __init__(self, model: ModelServer, wire_api: str) -> None:
        self.provider = {"type": "openai", "baseUrl": model.base_url, "apiKey": "not-a-key", "wireApi": wire_api}
        self.events: list[dict[str, Any]] = []

    async def connect(self, cli: Cli) -> None:
        self.connection = await Connection.open(cli.host, cli.port, timeout_s=5, on_notification=self.heard)
        await self.connection.connect(cli.token, timeout_s=5)

    def heard(self, method: str, params: Any) -> None:
        if method == "session.event":
            self.events.append(params["event"])

    async def call(self, method: str, **params: Any) -> Any:
        return await self.connection.call(method, {"sessionId": "s1", **params}, timeout_s=TIMEOUT_S)

    async def open_session(self, method: str, **params: Any) -> None:
        await self.call(method, model="fake-model", streaming=True, provider=self.provider, **params)
        await self.call("session.permissions.setApproveAll", enabled=True)

    async def turn(self, prompt: str) -> str:
        """Run a turn and return what the assistant said last."""
        self.events.clear()
        await self.call("session.send", prompt=prompt)
        await eventually(lambda: self.of_type("session.idle"), within_s=TIMEOUT_S, what=f"the end of: {prompt}")
        return str(self.of_type("assistant.message")[-1]["content"])

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.events if event["type"] == kind]


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.mark.parametrize("wire_api", ["completions", "responses"])
async def test_turns_tools_aborts_and_memory(model: ModelServer, tmp_path: Path, wire_api: str) -> None:
    async with real_cli(tmp_path, flags=("--log-dir", str(tmp_path / "logs"))) as cli:
        client = Client(model, wire_api)
        await client.connect(cli)
        await client.open_session("session.create", workingDirectory=str(cli.workspace))

        assert await client.turn("hello NOTE=alpha CHUNKS=2") == "part0 part1 "
        assert len(client.of_type("assistant.message_delta")) == 2

        assert "from-the-tool" in await client.turn("run TOOL=`echo from-the-tool`, NOTE=beta")

        await client.call("session.send", prompt="STALL")
        await eventually(lambda: model.stats.inflight == 1, within_s=TIMEOUT_S, what="the stalled turn")
        await client.call("session.abort")
        await eventually(lambda: model.stats.aborted == 1, within_s=30, what="the model is told of the abort")

        await client.connection.close()
        await cli.stop()
        await cli.start()
        await client.connect(cli)
        await client.open_session("session.resume")
        assert await client.turn("RECALL") == "notes: alpha beta"
        await client.connection.close()
        assert model.stats.inflight == 0


async def test_a_github_token_is_accepted_and_its_turns_come_here(
    model: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cli, "_environment", with_github(model))
    async with real_cli(tmp_path, flags=("--auth-token-env", "COPILOT_SDK_AUTH_TOKEN")) as cli:
        client = Client(model, "completions")
        await client.connect(cli)
        status = await client.connection.call("auth.getStatus", {}, timeout_s=TIMEOUT_S)
        assert status["isAuthenticated"]
        await client.call("session.create", model="fake-model", streaming=True, workingDirectory=str(cli.workspace))
        assert await client.turn("ECHO=`via GitHub`") == "via GitHub"
        await client.connection.close()


async def test_what_it_does_is_exported_where_the_environment_says(
    model: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/monitoring.md has it set in ``server.env``."""
    seen: list[str] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        seen.extend(head.split(" ")[1] for _ in [0] if b"copilot-saas" in body)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        )
        writer.close()

    collector = await asyncio.start_server(collect, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{collector.sockets[0].getsockname()[1]}"
    more = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": "copilot-saas"}
    plain = Cli._environment
    monkeypatch.setattr(Cli, "_environment", lambda cli: plain(cli) | more)
    async with collector, real_cli(tmp_path) as cli:
        client = Client(model, "completions")
        await client.connect(cli)
        await client.open_session("session.create", workingDirectory=str(cli.workspace))
        await client.turn("hello")
        await eventually(lambda: "/v1/traces" in seen, within_s=TIMEOUT_S, what="traces of the turn")
        await client.connection.close()


def with_github(model: ModelServer) -> Any:
    """The environment of a CLI for which the stand-in is GitHub."""
    plain = Cli._environment
    more = {"COPILOT_DEBUG_GITHUB_API_URL": f"http://{model.host}:{model.port}", "COPILOT_SDK_AUTH_TOKEN": "good"}
    return lambda cli: plain(cli) | more
