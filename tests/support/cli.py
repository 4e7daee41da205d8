"""The real CLI as a process of this machine, on loopback, with a state directory of its own.

The binary comes from the same pinned package as the image. It unpacks itself once into the cache of downloads.
"""

import asyncio
import fcntl
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

from tests.cluster.image_cache import cache_directory
from tests.cluster.image_npm import cli_package, pinned_cli

_START_TIMEOUT_S: Final = 60.0  # the first start ever unpacks 235 MB
_STOP_TIMEOUT_S: Final = 10.0
_UNPACKED: Final = cache_directory() / "cli-unpacked"
_LISTENING: Final = re.compile(rb"listening on port (\d+)")


@cache
def cli_binary() -> Path:
    """Path of the platform binary, fetched at the first call on a machine."""
    return cli_package() / "copilot"


@cache
def runtime_binary() -> Path:
    """Path of ``copilot-runtime``, out of what the CLI unpacks."""
    packages, version = _UNPACKED / "pkg", pinned_cli().version
    if not list(packages.glob(f"*/{version}/.extraction-complete")):
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "COPILOT_CACHE_HOME": str(_UNPACKED)}
        command = [str(cli_binary()), "--version"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment, timeout=_START_TIMEOUT_S)
    [found] = packages.glob(f"*/{version}/prebuilds/*/copilot-runtime")
    return found


class Cli:
    """A CLI server that can be stopped, started again on its state and port, and frozen."""

    host: Final = "127.0.0.1"
    login: tuple[str, ...] = ("--no-auto-login",)

    def __init__(
        self,
        directory: Path,
        *,
        token: str | None,
        flags: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        inside: tuple[str, ...] = (),
    ) -> None:
        """``inside``: the words in front of the program, see ``tests/support/volume.py``."""
        self._inside = inside
        self.token, self._env = token, dict(env or {})
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
        arguments = ["--headless", "--host", self.host, "--port", str(self.port), "--no-auto-update", *self.login]
        lock = self._lock()
        self._process = await asyncio.create_subprocess_exec(
            *self._inside,
            await asyncio.to_thread(self._binary),
            *arguments,
            *self._flags,
            pass_fds=(lock,),
            cwd=self.workspace,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, so that what its tools start can be ended with it
        )
        os.close(lock)
        assert self._process.stdout is not None
        said = b""
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not (found := _LISTENING.search(said)):
                line = await self._process.stdout.readline()
                assert line, f"the CLI ended instead of listening: {said.decode(errors='replace')}"
                said += line
        self.port = int(found[1])

    def _lock(self) -> int:
        """Taken for the process, which inherits it, as ``copilot-server`` takes it."""
        lock = os.open(self._directory / "server.lock", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, b"the CLI of a test\n")
        return lock

    async def ended(self) -> None:
        """Return when the process has ended by itself."""
        if self._process is not None:
            await self._process.wait()

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

    def _binary(self) -> Path:
        return cli_binary()

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
                "COPILOT_CACHE_HOME": str(_UNPACKED),
            }
            | self._env
        )


@asynccontextmanager
async def real_cli(
    directory: Path,
    *,
    token: str | None = "server-token",
    flags: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    inside: tuple[str, ...] = (),
) -> AsyncIterator[Cli]:
    """A running CLI with its state in ``directory``; stopped at the end."""
    cli = Cli(directory, token=token, flags=flags, env=env, inside=inside)
    try:
        await cli.start()
        yield cli
    finally:
        await cli.stop()


class CopilotRuntime(Cli):
    """The server without Node.js, out of the same package."""

    def _binary(self) -> Path:
        return runtime_binary()


@asynccontextmanager
async def copilot_runtime(
    directory: Path,
    *,
    token: str | None = "server-token",
    flags: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Cli]:
    """A running one with its state in ``directory``; stopped at the end."""
    runtime = CopilotRuntime(directory, token=token, flags=flags, env=env)
    try:
        await runtime.start()
        yield runtime
    finally:
        await runtime.stop()
