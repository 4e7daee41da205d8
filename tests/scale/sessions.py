"""``make bench-sessions``: more clients than a server may have sessions loaded, through two gateways and one agent.

Prints one JSON line. ``loaded_max`` is what the server itself had loaded at most, looked at all the time; ``wait_s`` is
how long a message waits for its answer, room and loading included. ``janitor_`` is what passes over 10,000 stored
sessions take from a real CLI (``tests.scale.janitor``, which tells more). The exit code is 1 when a turn failed, more
were loaded than may be, or an aim of the janitor's is missed.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import RpcError
from tests.contract.gateway_bed import Gateway, Server, Tenant, code_of, provider_at, token_of, write_config
from tests.scale import janitor
from tests.support.agent import running_agent
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.gateway import SERVER_TOKEN, RawClient
from tests.support.model import ModelServer
from tests.support.standin import StandIn, standin

TENANTS: Final = 6
TURN_S: Final = 60.0
LOOK_EVERY_S: Final = 0.02


@dataclass(frozen=True)
class Plan:
    """``clients`` with a session each, of which ``most`` may be loaded, take ``turns`` each."""

    clients: int = 60
    most: int = 20
    turns: int = 5
    of_tenant: int | None = None
    real: bool = False


@dataclass
class Tally:
    """What came of it."""

    waits_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    loaded_max: int = 0
    loaded_max_of_tenant: int = 0


@dataclass(frozen=True)
class Bed:
    """One server with its agent, behind two gateways."""

    cli: Cli | StandIn
    gateways: list[Gateway]

    @asynccontextmanager
    async def looked_at(self, ids: list[str], tally: Tally) -> AsyncIterator[None]:
        """Have the server asked all the time which of its sessions are loaded."""
        connection = await Connection.open(self.cli.host, self.cli.port, timeout_s=5)
        await connection.connect(SERVER_TOKEN, timeout_s=5)

        async def is_loaded(id: str) -> bool:
            try:
                await connection.call("session.metadata.activity", {"sessionId": id}, timeout_s=20)
            except RpcError:
                return False
            return True

        async def look() -> None:
            before = set[str]()
            while True:
                found = await asyncio.gather(*map(is_loaded, ids))
                loaded = {id for id, is_ in zip(ids, found, strict=True) if is_}
                # One may have gone and another come while all were asked: what was there twice in a row was there at
                # the moment between.
                names, before = [id[:13] for id in loaded & before], loaded
                tally.loaded_max = max(tally.loaded_max, len(names))
                most = max((names.count(name) for name in names), default=0)
                tally.loaded_max_of_tenant = max(tally.loaded_max_of_tenant, most)
                await asyncio.sleep(LOOK_EVERY_S)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            await connection.close()


@asynccontextmanager
async def a_bed(
    plan: Plan, directory: Path, *, idle: dict[str, Any] | None = None, **sessions: Any
) -> AsyncIterator[Bed]:
    """``idle`` and ``sessions`` over those of ``pool.json``."""
    async with AsyncExitStack() as stack:
        made = real_cli(directory / "cli", token=SERVER_TOKEN) if plan.real else standin(token=SERVER_TOKEN)
        cli: Cli | StandIn = await stack.enter_async_context(made)
        model = await stack.enter_async_context(ModelServer()) if plan.real else None
        credential = {"provider": provider_at(model)} if model else None
        agent = await stack.enter_async_context(running_agent(cli.port, SERVER_TOKEN, directory))
        limits = {"sessions": plan.of_tenant} if plan.of_tenant else None
        tenants = {
            token_of(name): Tenant(name, code=code_of(name), credential=credential, limits=limits)
            for name in (f"tenant-{number}" for number in range(TENANTS))
        }
        servers = {"server": Server(cli.host, cli.port, SERVER_TOKEN, agentPort=agent.port)}
        gateways = []
        for name in ("a", "b"):
            (directory / name / "config").mkdir(parents=True)
            gateways.append(gateway := Gateway(directory / name))
            pool = {"gateways": 2, "sessions": {"most": plan.most} | sessions, "idle": idle or {}}
            write_config(gateway.config, servers, tenants, **pool)
            await gateway.start()
            stack.push_async_callback(gateway.stop)
        yield Bed(cli, gateways)


async def talk(bed: Bed, plan: Plan, number: int, tally: Tally, choice: random.Random) -> None:
    """One client: its turns, and pauses between them."""
    tenant, gateway, id = f"tenant-{number % TENANTS}", bed.gateways[number % 2], f"s{number}"
    client = await RawClient.open(gateway.host, gateway.port)

    def ended() -> int:
        return client.types(id).count("session.idle")

    try:
        await client.connect(token_of(tenant))
        client.answer_s = TURN_S
        await client("session.create", sessionId=id, model="fake-model", streaming=True)
        for turn in range(plan.turns):
            began = time.monotonic()
            await client("session.send", sessionId=id, prompt=f"ECHO=`{turn}` SLEEP={choice.choice((0, 1))}")
            tally.waits_s.append(time.monotonic() - began)
            await eventually(partial(_more_than, ended, turn), within_s=TURN_S, what=f"turn {turn} of {id} has ended")
            await asyncio.sleep(choice.uniform(0, 2))
    except (AssertionError, ConnectionError, TimeoutError) as error:
        tally.failed.append(f"{id}: {error!r}"[:300])
    finally:
        await client.close()


def _more_than(count: Callable[[], int], number: int) -> bool:
    return count() > number


async def measured(plan: Plan, directory: Path, seed: int = 0, **sessions: Any) -> dict[str, Any]:
    """The whole run."""
    tally = Tally()
    async with a_bed(plan, directory, **sessions) as bed:
        ids = [f"{code_of(f'tenant-{number % TENANTS}')}s{number}" for number in range(plan.clients)]
        async with bed.looked_at(ids, tally):
            talks: list[Awaitable[None]] = [
                talk(bed, plan, number, tally, random.Random(f"{seed}-{number}")) for number in range(plan.clients)
            ]
            await asyncio.gather(*talks)
        errors = sum(gateway.errors for gateway in bed.gateways)
    for failed in tally.failed:
        print(failed, file=sys.stderr)
    cuts = quantiles(tally.waits_s, n=100) if len(tally.waits_s) > 1 else [0.0] * 99
    return {
        "bench": "sessions", "cli": "real" if plan.real else "stand-in", "clients": plan.clients,
        "max_concurrent": plan.most, "turns": len(tally.waits_s), "failed": len(tally.failed), "errors": errors,
        "loaded_max": tally.loaded_max, "loaded_max_of_tenant": tally.loaded_max_of_tenant,
        "wait_p50_s": round(cuts[49], 2), "wait_p99_s": round(cuts[98], 2),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cli", choices=["standin", "real"], default=os.environ.get("CLI", "real"))
    given = parser.parse_args()
    real = given.cli == "real"
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measured(Plan(real=real), Path(directory)))
    well = not (found["failed"] or found["errors"] or found["loaded_max"] > found["max_concurrent"])
    if real:
        with tempfile.TemporaryDirectory() as directory:
            passes = asyncio.run(janitor.measure(Path(directory), janitor.SESSIONS))
        found["janitor_cpu_s"] = max(passes["janitor_cpu_s"], passes["dry_run_cpu_s"])
        found["janitor_ping_max_ms"] = passes["ping_max_ms"]
        well = well and janitor.is_well(passes)
    print(json.dumps(found))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
