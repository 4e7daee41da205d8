"""The real CLI as a process of this machine, on loopback, with a state directory of its own.

The binary comes from the same pinned package as the image. It unpacks itself once into the cache of downloads.
"""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

from tests.cluster.image_cache import cache_directory
from tests.cluster.images import cli_package

_START_TIMEOUT_S: Final = 60.0  # the first start ever unpacks 235 MB
_STOP_TIMEOUT_S: Final = 10.0
_LISTENING: Final = re.compile(rb"listening on port (\d+)")


@cache
def cli_binary() -> Path:
    """Path of the platform binary, fetched at the first call on a machine."""
    return cli_package() / "copilot"


class Cli:
    """A CLI server that can be stopped, started again on its state and port, and frozen."""

    host: Final = "127.0.0.1"

    def __init__(self, directory: Path, *, token: str | None, flags: tuple[str, ...] = ()) -> None:
        self.token = token
        self.home, self.workspace = directory / "copilot", directory / "workspace"
        self.port = 0
        self._directory, self._flags = directory, flags
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start, on the port it had before, and return when it listens."""
        for directory in (self.home, self.workspace):
            directory.mkdir(parents=True, exist_ok=True)
        arguments = ["--headless", "--host", self.host, "--port", str(self.port), "--no-auto-update", "--no-auto-login"]
        self._process = await asyncio.create_subprocess_exec(
            await asyncio.to_thread(cli_binary),
            *arguments,
            *self._flags,
            cwd=self.workspace,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, so that what its tools start can be ended with it
        )
        assert self._process.stdout is not None
        said = b""
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not (found := _LISTENING.search(said)):
                line = await self._process.stdout.readline()
                assert line, f"the CLI ended instead of listening: {said.decode(errors='replace')}"
                said += line
        self.port = int(found[1])

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, and whatever its tools have left behind. May be called again."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Let it hang: connections are taken by the kernel, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """End a freeze."""
        os.kill(self.pid, signal.SIGCONT)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "SSL_CERT_FILE") if name in os.environ}
        token = {} if self.token is None else {"COPILOT_CONNECTION_TOKEN": self.token}
        return (
            kept
            | token
            | {
                "HOME": str(self._directory / "home"),
                "COPILOT_HOME": str(self.home),
                "COPILOT_CACHE_HOME": str(cache_directory() / "cli-unpacked"),
            }
        )


@asynccontextmanager
async def real_cli(
    directory: Path, *, token: str | None = "server-token", flags: tuple[str, ...] = ()
) -> AsyncIterator[Cli]:
    """A running CLI with its state in ``directory``; stopped at the end."""
    cli = Cli(directory, token=token, flags=flags)
    try:
        await cli.start()
        yield cli
    finally:
        await cli.stop()
