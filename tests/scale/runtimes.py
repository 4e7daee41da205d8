"""``make bench-runtimes``: the two servers of the CLI's package side by side (``server.runtime``); N=15 starts of each.

Prints one JSON line. ``start``: seconds from the start of the process to the first answered ping; ``idle``: its memory
(RSS, MiB) then; ``used``: with a turn in each of some sessions. In turns, on loopback, with a stand-in for the model;
the first start of each, which warms caches, is not counted.
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from copilot_operator.rpc.ping import ping
from tests.contract.conftest import TOKEN, subject_of
from tests.support.cli import Cli, copilot_runtime, real_cli
from tests.support.model import ModelServer

SESSIONS: Final = 10
PING_S: Final = 30.0


@dataclass
class Figures:
    """Of one kind of server, a value for each start."""

    start_s: list[float] = field(default_factory=list)
    idle_mib: list[float] = field(default_factory=list)
    used_mib: list[float] = field(default_factory=list)


def rss_mib(cli: Cli) -> float:
    """Resident memory of the process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{cli.pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


async def one_start(directory: Path, model: ModelServer, figures: Figures, *, runtime: bool) -> None:
    """Start a server, use it, end it."""
    began = time.perf_counter()
    async with (copilot_runtime if runtime else real_cli)(directory, token=TOKEN) as cli:
        reading = await ping(cli.host, cli.port, TOKEN, PING_S)
        assert reading.ok, reading.message
        figures.start_s.append(time.perf_counter() - began)
        figures.idle_mib.append(rss_mib(cli))
        subject = subject_of(cli, model)
        client = await subject.client()
        for number in range(SESSIONS):
            await subject.create(client, f"s{number}")
            await client("session.send", sessionId=f"s{number}", prompt="hi", wait=True)
        figures.used_mib.append(rss_mib(cli))
        await client.connection.close()


async def measured(directory: Path, starts: int) -> dict[str, object]:
    """The whole run."""
    kinds = {"cli": Figures(), "copilot_runtime": Figures()}
    async with ModelServer() as model:
        for number in range(starts + 1):
            for name, figures in kinds.items():
                kept = figures if number else Figures()
                await one_start(directory / f"{name}-{number}", model, kept, runtime=name == "copilot_runtime")
    found: dict[str, object] = {"bench": "runtimes", "n": starts, "sessions": SESSIONS}
    for what, digits in (("start_s", 3), ("idle_mib", 0), ("used_mib", 0)):
        cli, other = (median(getattr(figures, what)) for figures in kinds.values())
        found |= {f"cli_{what}_p50": round(cli, digits), f"copilot_runtime_{what}_p50": round(other, digits)}
        found[f"ratio_{what.partition('_')[0]}"] = round(other / cli, 2)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=15)
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(asyncio.run(measured(Path(directory), parser.parse_args().n))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
