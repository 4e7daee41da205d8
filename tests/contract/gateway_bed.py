"""A gateway as a process of this machine, in front of any CLI servers, fed by files as its pod is.

The files lie as the kubelet's atomic writer lays them: ``..data`` is a link that is swapped as a whole.
"""

import asyncio
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import httpx

from tests.support.agent import http_get
from tests.support.cli import Cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

START_S: Final = 20.0
STOP_S: Final = 15.0
SAYS_S: Final = 5.0
HOST: Final = "127.0.0.1"

ADMIN_KEY: Final = "admin-key"
NO_LIMITS: Final = {"connections": 100_000, "requestsPerSecond": 1e6, "burst": 1e6}

Isolation = Literal["Shared", "Dedicated"]

_versions = itertools.count()


@dataclass(frozen=True)
class Server:
    """A CLI server, as ``servers.json`` has it."""

    host: str
    port: int
    token: str = field(repr=False)
    state: Literal["Serving", "Draining", "Stopped"] = "Serving"
    agentPort: int = 4322
    pod: str = ""


@dataclass(frozen=True)
class Tenant:
    """A tenant, as ``tenants.json`` has it: Shared ones have a ``code``, Dedicated ones a ``server``."""

    name: str
    code: str = ""
    server: str | None = None
    credential: Mapping[str, Any] | None = field(default=None, repr=False)
    limits: Mapping[str, Any] | None = None
    shares: tuple[str, ...] = ()  # names of shared sessions


def code_of(name: str) -> str:
    """A code as the operator mints them: opaque, and of one length for all."""
    return hashlib.sha256(name.encode()).hexdigest()[:12] + "-"


def write_config(directory: Path, servers: Mapping[str, Server], tenants: Mapping[str, Tenant], **pool: Any) -> None:
    """Write or replace the configuration; ``tenants`` by their tokens, ``pool`` over the defaults of a test."""
    compiled = {
        "pool": {"isolation": "Shared", "limits": NO_LIMITS, "adminKey": ADMIN_KEY} | pool,
        "servers": {name: asdict(server) for name, server in servers.items()},
        "tenants": {
            hashlib.sha256(token.encode()).hexdigest(): _without_nothing(asdict(tenant))
            for token, tenant in tenants.items()
        },
    }
    version = directory / f"..version-{next(_versions)}"
    version.mkdir(parents=True)
    for name, content in compiled.items():
        (version / f"{name}.json").write_text(json.dumps(content))
        if not (link := directory / f"{name}.json").is_symlink():
            link.symlink_to(f"..data/{name}.json")
    old = os.readlink(directory / "..data") if (directory / "..data").is_symlink() else None
    (directory / "..data_tmp").symlink_to(version.name)
    (directory / "..data_tmp").rename(directory / "..data")
    if old:
        shutil.rmtree(directory / old)


def gateway_command(config: Path, listen: str, admin: str) -> list[str]:
    """How the process is started."""
    module = [sys.executable, "-m", "copilot_operator.gateway.main"]
    return [*module, "--config", str(config), "--listen", listen, "--admin", admin, "--drain-seconds", "1"]


def free_port() -> int:
    """A port that was free a moment ago."""
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def accepts(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


class Gateway:
    """A running gateway and its configuration."""

    host: Final = HOST

    def __init__(self, directory: Path) -> None:
        self.config, self.log = directory / "config", directory / "gateway.log"
        self.tls = directory / "tls"  # has it listen with TLS, too, if there is such a directory when it starts
        self.port, self.admin_port, self.tls_port = free_port(), free_port(), free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """What an SDK takes."""
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def tail(self, lines: int = 30) -> str:
        """The last of what it said, for a failing test."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    @property
    def errors(self) -> int:
        """How many errors it has logged: faults of its own."""
        return self.log.read_text(errors="replace").count('"level": "error"') if self.log.exists() else 0

    async def start(self) -> None:
        """Start and return when it takes connections."""
        command = gateway_command(self.config, f"{HOST}:{self.port}", f"{HOST}:{self.admin_port}")
        if self.tls.exists():
            command += ["--tls", str(self.tls), "--tls-listen", f"{HOST}:{self.tls_port}"]
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        process = self._process

        def listening() -> bool:
            assert process.returncode is None, f"the gateway ended with {process.returncode}:\n{self.tail()}"
            return accepts(HOST, self.port)

        await eventually(listening, within_s=START_S, what="the gateway takes connections")

    async def ready(self) -> None:
        """Return when it says so at /readyz."""

        async def says_so() -> bool:
            return (await http_get(self.admin_port, "/readyz"))[0] == 200

        await eventually(says_so, within_s=START_S, what="the gateway is ready")

    async def tells(self, page: str) -> Any:
        """What it tells at /servers, /demand or /tenants."""
        return (await self.tells_all(page))[page.removeprefix("/").replace("demand", "servers")]

    async def tells_all(self, page: str) -> Any:
        """The same with all that stands beside it."""
        async with httpx.AsyncClient(timeout=SAYS_S) as client:
            url = f"http://{HOST}:{self.admin_port}{page}"
            answer = await client.get(url, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
        return answer.raise_for_status().json()

    def send_signal(self, which: signal.Signals) -> None:
        """It goes on as if it ran; ``stop`` ends it."""
        assert self._process is not None
        self._process.send_signal(which)

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        """End it; killed when it takes too long, and then None."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            async with asyncio.timeout(STOP_S):
                return await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            return None


@asynccontextmanager
async def gateway(
    directory: Path, servers: Mapping[str, Server], tenants: Mapping[str, Tenant], **pool: Any
) -> AsyncIterator[Gateway]:
    """A gateway with this configuration (see ``write_config``), stopped at the end."""
    bed = Gateway(directory)
    await asyncio.to_thread(write_config, bed.config, servers, tenants, **pool)
    try:
        await bed.start()
        yield bed
    finally:
        await bed.stop()


@asynccontextmanager
async def gateway_before(
    cli: Cli, directory: Path, models: Mapping[str, ModelServer], isolation: Isolation = "Shared", **pool: Any
) -> AsyncIterator[Gateway]:
    """A gateway before one CLI; ``models`` by name of the tenants, whose tokens are ``token-of-<name>``.

    In a Dedicated pool the CLI is the server of them all.
    """
    shared = isolation == "Shared"
    tenants = {}
    for name, model in models.items():
        credential = {"provider": provider_at(model)}
        code, server = (code_of(name), None) if shared else ("", "server")
        tenants[token_of(name)] = Tenant(name, code=code, server=server, credential=credential)
    servers = {"server": Server(cli.host, cli.port, cli.token or "")}
    pool = {"isolation": isolation, "defaults": {"workingDirectory": str(cli.workspace)}} | pool
    async with gateway(directory, servers, tenants, **pool) as made:
        yield made


def token_of(name: str) -> str:
    """What a client of that tenant connects with."""
    return f"token-of-{name}"


def provider_at(model: ModelServer) -> dict[str, str]:
    """The provider of a session whose model is the stand-in."""
    return {"type": "openai", "baseUrl": model.base_url, "apiKey": "not-a-key", "wireApi": "completions"}


def _without_nothing(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None}
