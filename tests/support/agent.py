"""The agent as its users meet it: a process with an environment, asked over HTTP."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.eventually import eventually

_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 20.0


@dataclass
class RunningAgent:
    """An agent process and what it has logged so far."""

    process: asyncio.subprocess.Process
    port: int
    metrics_port: int
    log: list[dict[str, Any]]

    async def get(self, path: str, *, timeout_s: float = 10.0) -> tuple[int, str]:
        """Status and body of one page."""
        return await http_get(self.port, path, timeout_s=timeout_s)

    async def state(self) -> dict[str, Any]:
        """The document of ``/state``."""
        status, body = await self.get("/state")
        assert status == 200, body
        document = json.loads(body)
        assert isinstance(document, dict)
        return document

    async def sessions(self) -> tuple[int | None, ...]:
        """Loaded, busy, waiting sessions, by ``/state``."""
        found = (await self.state())["sessions"]
        return tuple(found[name] for name in ("loaded", "busy", "waiting"))

    @property
    def rss_bytes(self) -> int:
        """Resident memory at its highest."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    @property
    def cpu_s(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def http_get(port: int, path: str, *, host: str = "127.0.0.1", timeout_s: float = 10.0) -> tuple[int, str]:
    """Status and body, read to the end of the connection."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
    if not answer:
        raise ConnectionResetError(f"no answer to GET {path}")
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def running_agent(
    cli_port: int, token: str | None, data: Path, **environment: str
) -> AbstractAsyncContextManager[RunningAgent]:
    """An agent for the CLI at a port of this machine; told to stop at the end."""
    return agent_inside((), cli_port, token, data, **environment)


@asynccontextmanager
async def agent_inside(
    inside: tuple[str, ...], cli_port: int, token: str | None, data: Path, **environment: str
) -> AsyncIterator[RunningAgent]:
    """The same with words in front of the program, see ``tests/support/volume.py``."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    settings = {
        "COPILOT_AGENT_HOST": "127.0.0.1",
        "COPILOT_AGENT_PORT": "0",
        "COPILOT_AGENT_METRICS_PORT": "0",
        "COPILOT_AGENT_CLI_PORT": str(cli_port),
        "COPILOT_AGENT_DATA": str(data),
    } | ({} if token is None else {"COPILOT_CONNECTION_TOKEN": token})
    process = await asyncio.create_subprocess_exec(
        *inside,
        sys.executable,
        "-m",
        "copilot_operator",
        "agent",
        env=kept | settings | environment,
        stdout=asyncio.subprocess.PIPE,
    )
    log: list[dict[str, Any]] = []
    following = asyncio.create_task(_follow(process, log))
    try:
        listening = await eventually(
            lambda: next((line for line in log if line["event"] == "agent listens"), None),
            within_s=_START_TIMEOUT_S,
            what="the agent listens",
        )
        assert listening is not None
        yield RunningAgent(process, listening["port"], listening["metrics"], log)
    finally:
        if process.returncode is None:
            process.terminate()
            process.send_signal(signal.SIGINT)  # told twice, it does not even wait for turns that it keeps
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
        await following


async def _follow(process: asyncio.subprocess.Process, log: list[dict[str, Any]]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        log.append(json.loads(line))
