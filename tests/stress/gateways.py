"""``python3 -m tests.stress.gateways``: servers are drained, restarted, scaled in, and gateways killed, under clients.

Two gateway processes before several servers of a Shared pool, configured as the operator would. A turn is lost when its
answer is not in its session at the end. Prints one line of JSON; the exit code is 1 when a turn was lost, or a
connection closed that was not a killed gateway's. With ``--keep off`` gateways do not keep each other's turns, and some
must be lost, or the test is blind.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import RpcError, ServerError
from tests.contract.gateway_bed import Gateway, Server, Tenant, code_of, provider_at, token_of, write_config
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.gateway import SERVER_TOKEN, RawClient
from tests.support.model import ModelServer
from tests.support.standin import StandIn, standin

TENANTS: Final = 5
ANSWER_S: Final = 60.0  # what an SDK waits for a turn
DRAIN_S: Final = 120.0
UNWANTED_S: Final = 5.0


@dataclass(frozen=True)
class Plan:
    """What is done: ``events`` to ``servers`` and gateways while ``clients`` talk."""

    events: int
    seed: int
    clients: int
    servers: int
    keep: bool
    real: bool


@dataclass
class Sent:
    """A message that a client got through, the seconds that its turn takes, and those that it took."""

    session: str
    mark: str
    lasts_s: float


@dataclass
class Tally:
    """What came of it."""

    sent: list[Sent] = field(default_factory=list)
    closed: int = 0
    worst_pause_s: float = 0.0
    refused: list[str] = field(default_factory=list)


@dataclass
class Bed:
    """The servers by name, and two gateways. ``state`` is what gateways are told of the servers."""

    plan: Plan
    servers: dict[str, Cli | StandIn]
    gateways: list[Gateway]
    credential: Mapping[str, Any] | None
    state: dict[str, str] = field(default_factory=dict)
    down: set[int] = field(default_factory=set)  # gateways that were killed and are not back

    def tell(self) -> None:
        """Write the configuration of both."""
        servers = {
            name: Server(at.host, at.port, SERVER_TOKEN, self.state.get(name, "Serving"))  # type: ignore[arg-type]
            for name, at in self.servers.items()
        }
        tenants = {
            token_of(name): Tenant(name, code=code_of(name), credential=self.credential)
            for name in (f"tenant-{number}" for number in range(TENANTS))
        }
        for gateway in self.gateways:
            write_config(gateway.config, servers, tenants, gateways=2 if self.plan.keep else 1)

    @property
    def up(self) -> list[Gateway]:
        return [gateway for number, gateway in enumerate(self.gateways) if number not in self.down]

    async def heard(self, name: str) -> None:
        """As the operator does before it has a server drained: until all gateways know of it."""

        async def all_know() -> bool:
            return "Serving" not in [(await gateway.tells("/servers"))[name] for gateway in self.up]

        await eventually(all_know, within_s=30, what="gateways know that a server drains")

    async def drained(self, name: str, *, close: bool = True) -> None:
        """As an agent drains: until nothing works there any more, then every session is closed."""
        at = self.servers[name]
        connection = await Connection.open(at.host, at.port, timeout_s=5)
        try:
            await connection.connect(SERVER_TOKEN, timeout_s=5)
            async with asyncio.timeout(DRAIN_S):
                idle = 0
                while idle < 2:  # a message that was under way may still come
                    ids = [
                        each["sessionId"]
                        for each in (await connection.call("session.list", {}, timeout_s=20))["sessions"]
                    ]
                    busy = [await self._works(connection, id) for id in ids]
                    idle = 0 if any(busy) else idle + 1
                    await asyncio.sleep(0.2)
            for id in ids if close else ():
                await connection.call("sessions.close", {"sessionId": id}, timeout_s=20)
        finally:
            await connection.close()

    async def _works(self, connection: Connection, id: str) -> bool:
        try:
            answer = await connection.call("session.metadata.activity", {"sessionId": id}, timeout_s=20)
        except RpcError:
            return False
        return bool(answer["hasActiveWork"])

    async def stopped(self, name: str, away: Callable[[], Awaitable[None]]) -> None:
        """Drain a server, stop it, and start it again on its state after ``away``."""
        self.state[name] = "Draining"
        self.tell()
        await self.heard(name)
        await self.drained(name)
        await self.servers[name].stop()
        self.state[name] = "Stopped"
        self.tell()
        await away()
        await self.servers[name].start()
        self.state[name] = "Serving"
        self.tell()

    async def wanted(self, name: str) -> None:
        """Until a gateway says that it holds requests for the server, as the operator learns it; or nobody does."""

        async def is_wanted() -> bool:
            return any([name in await gateway.tells("/demand") for gateway in self.up])

        with suppress(AssertionError):
            await eventually(is_wanted, within_s=UNWANTED_S, what="somebody wants it", every_s=0.1)

    async def killed(self, number: int, away_s: float) -> None:
        """SIGKILL a gateway, and start another in its place; the next may be killed once that one is ready."""
        self.down.add(number)
        await self.gateways[number].stop(signal.SIGKILL)
        await asyncio.sleep(away_s)
        await self.gateways[number].start()
        self.down.discard(number)
        await self.gateways[number].ready()


class Talker:
    """A client with one session, which talks until told to stop; connects again when its gateway was killed."""

    def __init__(self, number: int, bed: Bed, tally: Tally, choice: random.Random) -> None:
        self.session, self.tenant = f"session-{number}", f"tenant-{number % TENANTS}"
        self._bed, self._tally, self._choice = bed, tally, choice
        self._marks = (f"M{number}x{count}" for count in itertools.count())
        self._client: RawClient | None = None
        self._at = -1
        self._made = False

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._connected()
                await self._turn()
                if self._choice.random() < 0.1:  # hangs up in between, and comes back anywhere
                    await self._hang_up()
            except (ConnectionError, OSError):
                await self._lost()
        await self._hang_up()

    async def _turn(self) -> None:
        lasts_s = round(self._choice.uniform(0.1, 4.0), 1)
        mark = next(self._marks)
        began = time.monotonic()
        reply = await self.ask("session.send", prompt=f"ECHO=`{mark}` SLEEP={lasts_s}")
        if "error" in reply:
            self._tally.refused.append(reply["error"]["message"][:200])
            await asyncio.sleep(0.5)
            return
        self._tally.sent.append(Sent(self.session, mark, lasts_s))
        if self._choice.random() < 0.1:
            await self._hang_up()  # in mid-turn
            return
        await self._idle(mark)
        pause_s = time.monotonic() - began - lasts_s
        self._tally.worst_pause_s = max(self._tally.worst_pause_s, pause_s)

    async def _idle(self, mark: str) -> None:
        """Until the turn of this message has ended."""
        client = self._client
        assert client
        async with asyncio.timeout(ANSWER_S):
            while True:
                types = [event["type"] for event in client.events(self.session)]
                begun = any(mark in json.dumps(each) for each in client.events(self.session))
                if begun and types and "session.idle" in types[_last(client.events(self.session), mark) :]:
                    return
                if client.ended.is_set():
                    raise ConnectionResetError
                await asyncio.sleep(0.02)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The whole reply; held requests may take long."""
        client = self._client
        assert client
        id = client.begin(method, sessionId=self.session, **params)
        reply = asyncio.ensure_future(client._replies[id])
        ended = asyncio.ensure_future(client.ended.wait())
        done, _ = await asyncio.wait({reply, ended}, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if reply in done:
            return dict(reply.result())
        if not done:
            raise AssertionError(f"{method} of {self.session} was not answered within {ANSWER_S:g} s")
        raise ConnectionResetError

    async def _connected(self) -> None:
        if self._client is not None and not self._client.ended.is_set():
            return
        if self._client is not None:
            await self._lost()
        up = [number for number in range(len(self._bed.gateways)) if number not in self._bed.down]
        self._at = self._choice.choice(up)
        gateway = self._bed.gateways[self._at]
        client = await RawClient.open(gateway.host, gateway.port)
        reply = await client.connect(token_of(self.tenant))
        assert "result" in reply, reply
        self._client = client
        reply = await self.ask("session.resume" if self._made else "session.create", model="fake-model", streaming=True)
        if "error" in reply:
            self._tally.refused.append(reply["error"]["message"][:200])
            await self._hang_up()
            await asyncio.sleep(0.5)
            raise ConnectionResetError
        self._made = True

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client:
            await client.close()

    async def _lost(self) -> None:
        """Its connection has ended: by the kill of its gateway, or it is counted."""
        if self._client is not None and self._at not in self._bed.down:
            self._tally.closed += 1
        client, self._client = self._client, None
        if client:
            await client.close()
        await asyncio.sleep(0.05)


def _last(events: list[dict[str, Any]], mark: str) -> int:
    return max((place for place, event in enumerate(events) if mark in json.dumps(event)), default=0)


async def judged(bed: Bed, tally: Tally) -> list[str]:
    """Marks whose answer is in no session, asked of the servers themselves."""
    answered = set[str]()
    for at in bed.servers.values():
        connection = await Connection.open(at.host, at.port, timeout_s=5)
        try:
            await connection.connect(SERVER_TOKEN, timeout_s=5)
            listed = await connection.call("session.list", {}, timeout_s=30)
            for each in listed["sessions"]:
                id = each["sessionId"]
                with suppress(ServerError):
                    await connection.call("session.resume", {"sessionId": id, "disableResume": True}, timeout_s=30)
                    history = await connection.call("session.getMessages", {"sessionId": id}, timeout_s=30)
                    answered |= {
                        str(event["data"].get("content"))
                        for event in history["events"]
                        if event["type"] == "assistant.message"
                    }
        finally:
            await connection.close()
    return [each.mark for each in tally.sent if not any(each.mark in content for content in answered)]


@asynccontextmanager
async def a_bed(plan: Plan, directory: Path) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        servers: dict[str, Cli | StandIn] = {}
        for number in range(plan.servers):
            made = (
                real_cli(directory / f"cli-{number}", token=SERVER_TOKEN) if plan.real else standin(token=SERVER_TOKEN)
            )
            servers[f"server-{number}"] = await stack.enter_async_context(made)
        model = await stack.enter_async_context(ModelServer()) if plan.real else None
        gateways = []
        for name in ("a", "b"):
            (directory / name / "config").mkdir(parents=True)
            gateways.append(Gateway(directory / name))
        bed = Bed(plan, servers, gateways, {"provider": provider_at(model)} if model else None)
        bed.tell()
        for gateway in gateways:
            await gateway.start()
            stack.push_async_callback(gateway.stop, signal.SIGKILL)
        yield bed


async def measured(plan: Plan, directory: Path) -> dict[str, Any]:
    """The whole run."""
    choice = random.Random(plan.seed)
    tally = Tally()
    async with a_bed(plan, directory) as bed:
        stop = asyncio.Event()
        talkers = [Talker(number, bed, tally, random.Random(f"{plan.seed}-{number}")) for number in range(plan.clients)]
        talking = [asyncio.create_task(talker.run(stop)) for talker in talkers]
        for _ in range(plan.events):
            server = f"server-{choice.randrange(plan.servers)}"
            match choice.choices(("kill", "restart", "scale in"), (3, 5, 2))[0]:
                case "kill":
                    await bed.killed(choice.randrange(2), choice.uniform(0.2, 1.0))
                case "restart":
                    await bed.stopped(server, partial(asyncio.sleep, choice.uniform(0.0, 1.0)))
                case _:
                    await bed.stopped(server, partial(bed.wanted, server))
            await asyncio.sleep(choice.uniform(0.0, 1.0))
        stop.set()
        ended = await asyncio.gather(*talking, return_exceptions=True)
        for name in bed.servers:
            await bed.drained(name, close=False)  # turns whose client has hung up
        lost, errors = await judged(bed, tally), sum(gateway.errors for gateway in bed.gateways)
    failed = [repr(each) for each in ended if isinstance(each, BaseException)]
    for each in (*failed, *(f"lost: {mark}" for mark in lost), *sorted(set(tally.refused))):
        print(each, file=sys.stderr)
    return {
        "bench": "stress-gateway", "cli": "real" if plan.real else "stand-in", "keep": "on" if plan.keep else "off",
        "events": plan.events, "turns": len(tally.sent), "lost": len(lost), "stuck": len(failed), "errors": errors,
        "connections_closed": tally.closed, "refused": len(tally.refused),
        "worst_pause_s": round(tally.worst_pause_s, 1), "seed": plan.seed,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=int(os.environ.get("EVENTS", "200")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED", str(random.randrange(10_000)))))
    parser.add_argument("--cli", choices=["standin", "real"], default=os.environ.get("CLI", "standin"))
    parser.add_argument("--keep", choices=["on", "off"], default=os.environ.get("KEEP", "on"))
    given = parser.parse_args()
    real = given.cli == "real"
    plan = Plan(given.events, given.seed, 10 if real else 50, 3, given.keep == "on", real)
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measured(plan, Path(directory)))
    print(json.dumps(found))
    bad = found["lost"] or found["connections_closed"] or found["stuck"] or found["errors"]
    return int(bool(bad) if plan.keep else not found["lost"])


if __name__ == "__main__":
    sys.exit(main())
