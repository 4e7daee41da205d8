"""``make stress-wake``: servers that sleep and are woken, again and again, leave nothing behind.

Tenants with servers of their own behind a gateway; CLI, agent and gateway are processes of this machine. The operator
is played: it has a server drained by its agent, stops both, and starts them when the gateway says that a request waits.
What there is when all sleep after the last wake is compared with what there was after the first. Prints one line of
JSON; the exit code is 1 if a request or a turn was lost, or anything is left.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.contract.gateway_bed import Gateway, Server, Tenant, provider_at, token_of, write_config
from tests.scale.process import resident_mb
from tests.support.agent import RunningAgent, http_get, running_agent
from tests.support.cli import Cli
from tests.support.eventually import eventually
from tests.support.gateway import SERVER_TOKEN, RawClient
from tests.support.model import ModelServer
from tests.support.standin import StandIn

SESSION: Final = "notes"
ANSWER_S: Final = 90.0
STOP_S: Final = 20.0
GROWTH_MB: Final = (
    16.0  # of a gateway, from a quarter of the wakes on, and of an agent, from its first life to its last
)
RESTLESS: Final = 3  # open files that come and go
OF_A_PROCESS: Final = ("logs/",)  # in a pod they lie in a volume that goes with it
_NUMBERS: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")


@dataclass(frozen=True)
class Plan:
    """``wakes`` of each of ``tenants``; with the ``real`` CLI or its stand-in."""

    wakes: int
    tenants: int
    real: bool


@dataclass(frozen=True)
class Remains:
    """What is there while all sleep: open files and connections of the gateway, connections that it says it has, and
    files of the servers by their names, where all numbers and ids are the same."""

    open_files: int
    upstreams: int
    stored: Counter[str]

    def more_than(self, before: "Remains") -> list[str]:
        """In words; empty: nothing was left."""
        found = [f"{count} more files {name}" for name, count in sorted((self.stored - before.stored).items())]
        if self.open_files > before.open_files + RESTLESS:
            found.append(f"{self.open_files} open files of the gateway for {before.open_files}")
        if self.upstreams:
            found.append(f"{self.upstreams} connections of the gateway to servers that sleep")
        return found


@dataclass
class Sleeper:
    """A tenant's server, and the client that wakes it. It begins asleep."""

    name: str
    cli: Cli | StandIn
    data: Path
    bed: "Bed"
    state: str = "Stopped"
    agent: RunningAgent | None = None
    agent_bytes: list[int] = field(default_factory=list)  # of each life, at its highest
    waits: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _client: RawClient | None = None

    @property
    def server(self) -> str:
        return f"server-{self.name}"

    async def begin(self) -> None:
        """The first start, as every new tenant's server has one, a session and its first turn; then it sleeps."""
        await self._start()
        self._client = await RawClient.open(self.bed.gateway.host, self.bed.gateway.port)
        self._client.answer_s = ANSWER_S
        assert "result" in await self._client.connect(token_of(self.name))
        await self._client("session.create", sessionId=SESSION, model="fake-model", streaming=True)
        await self._turn()
        await self._sleep()

    async def woken(self, times: int) -> None:
        """By a message each; afterwards it sleeps."""
        for _ in range(times):
            began = time.monotonic()
            turn = asyncio.create_task(self._turn())
            await eventually(self._is_wanted, within_s=30, what=f"{self.server} is wanted", every_s=0.02)
            await self._start()
            await turn
            self.waits.append(time.monotonic() - began)
            await self._sleep()

    async def lost(self) -> int:
        """Turns that are not in its session once, in their order, with their answers."""
        assert self._client
        reading = self._client.begin("session.getMessages", sessionId=SESSION)
        await eventually(self._is_wanted, within_s=30, what=f"{self.server} is wanted", every_s=0.02)
        await self._start()
        events = (await self._client.reply(reading))["result"]["events"]
        await self._sleep()
        said = [each["data"]["content"] for each in events if each["type"] == "user.message"]
        answers = [str(each["data"].get("content")) for each in events if each["type"] == "assistant.message"]
        kept = sum(any(_mark(prompt) in answer for answer in answers) for prompt in self.sent)
        return max(len(self.sent) - kept, int(said != self.sent))

    async def end(self) -> None:
        if self._client:
            await self._client.close()
        await self.cli.stop()
        await self._stack.aclose()

    async def _is_wanted(self) -> bool:
        return self.server in await self.bed.gateway.tells("/demand")

    async def _turn(self) -> None:
        client = self._client
        assert client
        self.sent.append(f"ECHO=`{self.name}x{len(self.sent)}x`")
        reply = await client.ask("session.send", sessionId=SESSION, prompt=self.sent[-1])
        if "error" in reply:
            self.refused.append(str(reply["error"])[:300])
            return
        idle = len(self.sent)
        over = lambda: client.types(SESSION).count("session.idle") >= idle  # noqa: E731
        await eventually(over, within_s=ANSWER_S, what=f"the turn of {self.name} is over", every_s=0.02)

    async def _start(self) -> None:
        await self.cli.start()
        self.agent = await self._stack.enter_async_context(running_agent(self.cli.port, SERVER_TOKEN, self.data))
        self._tell("Serving")

    async def _sleep(self) -> None:
        """As the operator stops a server that nobody uses."""
        assert self.agent
        self._tell("Draining")
        await eventually(self._is_cordoned, within_s=30, what=f"{self.server} is left", every_s=0.02)
        status, said = await self.agent.get("/drain", timeout_s=60.0)
        assert status == 200, said
        self.agent_bytes.append(self.agent.rss_bytes)
        await self.cli.stop()
        self.agent.process.terminate()
        async with asyncio.timeout(STOP_S):
            await self.agent.process.wait()
        await self._stack.aclose()
        self._tell("Stopped")

    async def _is_cordoned(self) -> bool:
        states: dict[str, str] = await self.bed.gateway.tells("/servers")
        return states[self.server] != "Serving"

    def _tell(self, state: str) -> None:
        self.state = state
        self.bed.tell()


class Bed:
    """The gateway, and the tenants behind it."""

    def __init__(self, gateway: Gateway, credential: dict[str, Any] | None) -> None:
        self.gateway, self._credential = gateway, credential
        self.sleepers: list[Sleeper] = []

    def tell(self) -> None:
        """Write the gateway's configuration."""
        servers = {
            each.server: Server(
                each.cli.host or "127.0.0.1",
                each.cli.port or 1,
                SERVER_TOKEN,
                each.state,  # type: ignore[arg-type]
                each.agent.port if each.agent else 4322,
            )
            for each in self.sleepers
        }
        tenants = {
            token_of(each.name): Tenant(each.name, server=each.server, credential=self._credential)
            for each in self.sleepers
        }
        write_config(self.gateway.config, servers, tenants, isolation="Dedicated")

    async def woken(self, times: int) -> None:
        """All of them, side by side."""
        await asyncio.gather(*(each.woken(times) for each in self.sleepers))

    async def remains(self) -> Remains:
        """Now; a gateway may need a moment to let go of a server that has left."""
        return Remains(len(os.listdir(f"/proc/{self.gateway.pid}/fd")), await self._upstreams(), self._stored())

    async def settled(self, before: Remains | None = None) -> Remains:
        """As soon as nothing more is left than ``before`` (or no connection), or what is left in the end."""
        found = await self.remains()
        for _ in range(20):
            if not found.more_than(before or found):
                break
            await asyncio.sleep(0.5)
            found = await self.remains()
        return found

    async def _upstreams(self) -> int:
        _, page = await http_get(self.gateway.admin_port, "/metrics")
        found = re.search(r"^copilot_gateway_upstream_connections (\S+)", page, re.MULTILINE)
        assert found, page
        return int(float(found[1]))

    def _stored(self) -> Counter[str]:
        found = Counter[str]()
        for each in self.sleepers:
            for path in each.data.rglob("*"):
                name = str(path.relative_to(each.data))
                if path.is_file() and not any(f"/{part}" in f"/{name}" for part in OF_A_PROCESS):
                    found[f"{each.name}/{_NUMBERS.sub('#', name)}"] += 1
        return found


@asynccontextmanager
async def a_bed(plan: Plan, directory: Path) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer()) if plan.real else None
        gateway = Gateway(directory / "gateway")
        gateway.config.mkdir(parents=True)
        bed = Bed(gateway, {"provider": provider_at(model)} if model else None)
        for number in range(plan.tenants):
            data = directory / f"data-{number}"
            data.mkdir()
            cli = Cli(data, token=SERVER_TOKEN) if plan.real else StandIn(token=SERVER_TOKEN)
            bed.sleepers.append(Sleeper(f"tenant-{number}", cli, data, bed))
        bed.tell()
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        for each in bed.sleepers:
            stack.push_async_callback(each.end)
        yield bed


async def measured(plan: Plan, directory: Path) -> dict[str, Any]:
    """The whole run; ``left`` are words."""
    began = time.monotonic()
    async with a_bed(plan, directory) as bed:
        for each in bed.sleepers:
            await each.begin()
        await bed.woken(1)
        before = await bed.settled()
        quarter = max(1, plan.wakes // 4)
        await bed.woken(quarter - 1)
        early = resident_mb(bed.gateway.pid)
        await bed.woken(plan.wakes - quarter)
        gateway_grown = resident_mb(bed.gateway.pid) - early
        left = (await bed.settled(before)).more_than(before)
        agent_grown = max((each.agent_bytes[-1] - each.agent_bytes[0]) / 1e6 for each in bed.sleepers)
        for what, grown in (("the gateway", gateway_grown), ("an agent", agent_grown)):
            left += [f"{grown:.1f} MB of {what}"] if grown > GROWTH_MB else []
        lost = [await each.lost() for each in bed.sleepers]
        refused, errors = [said for each in bed.sleepers for said in each.refused], bed.gateway.errors
        waits = [seconds for each in bed.sleepers for seconds in each.waits]
    for said in sorted(set(refused)):
        print(f"refused: {said}", file=sys.stderr)
    return {
        "bench": "stress-wake", "cli": "real" if plan.real else "stand-in", "tenants": plan.tenants,
        "wakes": plan.wakes, "lost": sum(lost), "refused": len(refused), "errors": errors,
        "wake_p50_s": round(median(waits), 2), "wake_max_s": round(max(waits), 2),
        "gateway_mb": round(early + gateway_grown, 1), "gateway_grown_mb": round(gateway_grown, 1),
        "agent_grown_mb": round(agent_grown, 1), "open_files": before.open_files,
        "seconds": round(time.monotonic() - began), "left": left,
    }  # fmt: skip


def _mark(prompt: str) -> str:
    return prompt.removeprefix("ECHO=`").removesuffix("`")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wakes", type=int, default=int(os.environ.get("WAKES") or 200), help="of each tenant")
    parser.add_argument("--tenants", type=int, default=int(os.environ.get("TENANTS") or 3))
    parser.add_argument("--cli", choices=["standin", "real"], default=os.environ.get("CLI") or "real")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measured(Plan(given.wakes, given.tenants, given.cli == "real"), Path(directory)))
    left = found.pop("left")
    for each in left:
        print(f"left: {each}", file=sys.stderr)
    print(json.dumps(found | {"left": len(left)}))
    return int(bool(left or found["lost"] or found["refused"] or found["errors"]))


if __name__ == "__main__":
    sys.exit(main())
