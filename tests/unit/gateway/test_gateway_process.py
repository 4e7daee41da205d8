"""The gateway as a process: what it is started with, how it takes new files, and how it ends."""

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.gateway.admin import Asked, Page, response
from tests.support.eventually import eventually
from tests.support.gateway import (
    SERVER_TOKEN,
    RawClient,
    free_port,
    server_entry,
    servers_file,
    tenants_file,
    write_config,
)
from tests.support.standin import StandIn, standin

START_S = 20.0


class Process:
    """A gateway that runs."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, admin: int) -> None:
        self.process, self.port, self.admin = process, port, admin

    async def client(self, token: str = "alice") -> RawClient:
        client = await RawClient.open("127.0.0.1", self.port)
        assert "result" in await client.connect(token)
        return client

    async def page(self, path: str) -> tuple[int, str]:
        """Status and text."""

        def get() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as page:
                    return page.status, page.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        return await asyncio.to_thread(get)

    async def ready(self) -> bool:
        with suppress(OSError):
            return (await self.page("/readyz"))[0] == 200
        return False

    async def ended(self, within_s: float = 10.0) -> int:
        async with asyncio.timeout(within_s):
            return await self.process.wait()


async def started(config: Path, *more: str, **how: Any) -> Process:
    port, admin = free_port(), free_port()
    arguments = ["--config", str(config), "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", *more]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "copilot_operator.gateway.main", *arguments,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, **how,
    )  # fmt: skip
    return Process(process, port, admin)


@asynccontextmanager
async def running(config: Path, *more: str) -> AsyncIterator[Process]:
    """A gateway that is ready; killed at the end if it still runs."""
    made = await started(config, *more)
    try:
        await eventually(made.ready, within_s=START_S, what="that it is ready", every_s=0.1)
        yield made
    finally:
        with suppress(ProcessLookupError):
            made.process.kill()
        await made.process.wait()


@pytest.fixture
async def server() -> AsyncIterator[StandIn]:
    async with standin(token=SERVER_TOKEN) as made:
        yield made


@pytest.fixture
def config(server: StandIn, tmp_path: Path) -> Path:
    write(tmp_path, servers_file(one=server))
    return tmp_path


def write(directory: Path, servers: dict[str, Any], **files: Any) -> None:
    pool = files.get("pool", {"isolation": "Shared"})
    tenants = files.get("tenants", tenants_file("alice", "bob"))
    write_config(directory, {"pool.json": pool, "servers.json": servers, "tenants.json": tenants})


async def test_it_serves_and_a_stop_without_work_is_quick(config: Path) -> None:
    async with running(config) as gateway:
        client = await gateway.client()
        await client("session.create", sessionId="s")
        await client("session.send", sessionId="s", prompt="x", wait=True)
        assert await gateway.page("/livez") == (200, "ok\n")
        status, text = await gateway.page("/metrics")
        assert (status, "copilot_gateway_connections 1.0" in text) == (200, True)
        assert "alice" not in text, "tenants are many"
        assert (await gateway.page("/secrets"))[0] == 404
        gateway.process.send_signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        await client.ended.wait()


async def test_its_log_is_one_object_a_line(config: Path) -> None:
    gateway = await started(config, stdout=asyncio.subprocess.PIPE)
    await eventually(gateway.ready, within_s=START_S, what="that it is ready", every_s=0.1)
    gateway.process.send_signal(signal.SIGTERM)
    written, _ = await gateway.process.communicate()
    lines = [json.loads(line) for line in written.splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert lines[-1]["message"] == "drained"


async def test_a_stop_lets_running_turns_finish_and_takes_nobody_in(config: Path, server: StandIn) -> None:
    async with running(config) as gateway:
        busy, idle, gone = await gateway.client(), await gateway.client(), await gateway.client("bob")
        for client in (busy, gone):
            await client("session.create", sessionId="s")
            await client("session.send", sessionId="s", prompt="SLEEP=2")
        gone.abort()
        gateway.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            await idle.ended.wait()
        assert (await gateway.page("/readyz"))[0] == 503
        with pytest.raises(ConnectionRefusedError):
            await RawClient.open("127.0.0.1", gateway.port)
        await eventually(lambda: "session.idle" in busy.types("s"), within_s=10, what="the end of its turn")
        assert await gateway.ended() == 0
        stored = [[event["type"] for event in session.events] for session in server.server.volume.values()]
        assert [types.count("assistant.message") for types in stored] == [1, 1]


async def test_a_turn_that_takes_too_long_does_not_keep_it(config: Path) -> None:
    async with running(config, "--drain-seconds", "0.5") as gateway:
        client = await gateway.client()
        await client("session.create", sessionId="s")
        await client("session.send", sessionId="s", prompt="SLEEP=60")
        gateway.process.send_signal(signal.SIGTERM)
        assert await gateway.ended() == 0


async def test_new_files_are_taken_and_bad_ones_are_not(config: Path, server: StandIn) -> None:
    async with running(config) as gateway:
        client = await gateway.client()

        async def lets_in(token: str) -> bool:
            stranger = await RawClient.open("127.0.0.1", gateway.port)
            reply = await stranger.connect(token)
            await stranger.close()
            return "result" in reply

        assert not await lets_in("carol")
        write(config, servers_file(one=server), tenants=tenants_file("alice", "carol"))
        await eventually(lambda: lets_in("carol"), within_s=10, what="the new tenant", every_s=0.2)
        assert not await lets_in("bob")
        write(config, {"one": server_entry(server) | {"port": "x"}}, tenants=tenants_file("dave"))
        await asyncio.sleep(1.5)  # nothing shows that it has looked
        assert await lets_in("carol")
        assert not await lets_in("dave")
        write(config, servers_file(one=server), tenants=tenants_file("alice", "dave"))
        await eventually(lambda: lets_in("dave"), within_s=10, what="the next good files", every_s=0.2)
        assert await client("ping"), "who was connected all the time has not noticed"


@pytest.mark.parametrize("file", ["pool.json", "servers.json", "tenants.json"])
async def test_files_that_cannot_be_used_end_the_start_with_their_name(config: Path, file: str) -> None:
    (config / "..data" / file).write_text(json.dumps({"x": {"token": "very-secret"}}))
    process = await started(config, stderr=asyncio.subprocess.PIPE)
    assert await process.ended(START_S) == 1
    assert process.process.stderr is not None
    said = (await process.process.stderr.read()).decode()
    assert file in said
    assert "very-secret" not in said
    assert "Traceback" not in said


async def test_the_admin_port_answers_get_and_head_and_nothing_else() -> None:
    async def page(asked: Asked) -> Page:
        return Page("ok\n")

    served = {"/livez": page}
    assert (await response(served, b"GET /livez?x=1 HTTP/1.1\r\n\r\n")).endswith(b"Connection: close\r\n\r\nok\n")
    assert (await response(served, b"HEAD /livez HTTP/1.1\r\n\r\n")).endswith(
        b"Content-Length: 3\r\nConnection: close\r\n\r\n"
    )
    for head, status in ((b"POST /livez HTTP/1.1", b"405"), (b"GET / HTTP/1.1", b"404"), (b"\xff\xfe", b"405")):
        assert (await response(served, head + b"\r\n\r\n")).startswith(b"HTTP/1.1 " + status)
