"""The official Node SDK as a process that runs the scenarios, on pinned packages."""

import asyncio
import itertools
import json
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tests.cluster.image_cache import cache_directory, digest, made_once
from tests.cluster.image_npm import FETCH_TIMEOUT_S, PinnedPackage, check_integrity, npm
from tests.contract.sdk_scenarios import Place

SCENARIOS: Final = Path(__file__).parent / "node_sdk" / "scenarios.mjs"
PACKAGES: Final = (
    PinnedPackage(
        "@github/copilot-sdk",
        "1.0.14",
        "sha512-knNiXKO7jpp8OrLc8ePGuPssf7CsktJwhv4ukfFXfB2RNgO/59hloSILaEL+mDjwt+QjawrLqgO3HN7Pyud2hA==",
    ),
    PinnedPackage(
        "vscode-jsonrpc",
        "8.2.1",
        "sha512-kdjOSJ2lLIn7r1rtrMbbNCHjyMPfRnowdKjBQ+mGq6NAW5QY2bEZC/khaC5OR8svbbjvLEaIXkOq45e2X9BIbQ==",
    ),
    PinnedPackage(
        "zod",
        "4.6.7",
        "sha512-g8W2D2kU6a8untc053fX1uVBKzM7yqAxW/3zwk83+6RyF2+SKOuV+c0wBDhUwzV1PaGapmZH+rmcUzPf+3CGwg==",
    ),
)
"""The SDK and what it imports when the server is elsewhere; it brings a runtime of 113 MB of its own, left out here."""

SCENARIO_S: Final = 60.0
END_S: Final = 5.0


class ScenarioFailed(Exception):
    """The scenario broke off; the message is the stack of the Node process."""


def sdk_directory() -> Path:
    """A directory with the SDK in its ``node_modules``; fetched and checked at the first call on a machine."""
    target = cache_directory() / "npm" / f"node-sdk-{digest(*(package.integrity for package in PACKAGES))}"

    def fetch(scratch: Path) -> None:
        names = [f"{package.name}@{package.version}" for package in PACKAGES]
        command = [*npm(), "pack", *names, "--loglevel=error", "--pack-destination", str(scratch)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=FETCH_TIMEOUT_S, cwd=scratch)
        for package in PACKAGES:
            tarball = scratch / package.tarball_name
            check_integrity(tarball, package.integrity)
            place = scratch / target.name / "node_modules" / package.name
            place.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(tarball) as archive:
                archive.extractall(scratch / "unpacked", filter="data")
            (scratch / "unpacked" / "package").rename(place)

    return made_once(target, fetch)


def node() -> str:
    """Node itself: npm's own where npm is not the machine's."""
    command = npm()
    return command[0] if len(command) > 1 else shutil.which("node") or "node"


class NodeSdk:
    """The running process; scenarios may run side by side."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    async def run(self, scenario: str, place: Place, id: str) -> Any:
        """What the scenario saw. Raises ScenarioFailed."""
        assert self._process.stdin is not None
        number, seen = next(self._numbers), asyncio.get_running_loop().create_future()
        self._open[number] = seen
        order = {"number": number, "scenario": scenario, "id": id, "place": asdict(place)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(SCENARIO_S):
            return await seen

    async def close(self) -> None:
        """End it; the end of its input is its sign."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            seen = self._open.pop(told["number"])
            if seen.done():
                continue
            if "error" in told:
                seen.set_exception(ScenarioFailed(told["error"]))
            else:
                seen.set_result(told["seen"])
        for left in self._open.values():
            if not left.done():
                left.set_exception(ScenarioFailed("the Node process has ended"))


@asynccontextmanager
async def node_sdk() -> AsyncIterator[NodeSdk]:
    directory = await asyncio.to_thread(sdk_directory)
    process = await asyncio.create_subprocess_exec(
        node(),
        str(SCENARIOS),
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    sdk = NodeSdk(process)
    try:
        yield sdk
    finally:
        await sdk.close()
