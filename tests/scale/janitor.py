"""``python -m tests.scale.janitor``: what looking for expired sessions costs a real CLI, one line of JSON.

Ten thousand sessions on its volume, copies of one that had a turn, all expired; first counted by a dry run, then
deleted, both as far as one pass goes. Meanwhile the CLI is pinged; the processor time that pings alone take is taken
off.

Figures go to stdout, everything else to stderr; the exit code is 1 when an aim is missed.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from copilot_operator.agent.sweep import MOST_ASKED
from copilot_operator.rpc.ping import ping
from tests.contract.conftest import TOKEN, subject_of
from tests.scale.client import say
from tests.support.agent import RunningAgent, running_agent
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

SESSIONS: Final = 10_000
DAY_S: Final = 86_400.0
PING_EVERY_S: Final = 0.05
PING_TIMEOUT_S: Final = 10.0
IDLE_S: Final = 10.0
LONGEST_PASS_S: Final = 120.0
MOST_CPU_S, MOST_PING_MS = 2.0, 100.0
TICKS: Final = os.sysconf("SC_CLK_TCK")
ONE: Final = "template"


@dataclass
class Window:
    """A stretch of time, and what was measured in it."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    ping_max_ms: float = 0.0


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


@asynccontextmanager
async def measured(cli: Cli) -> AsyncIterator[Window]:
    """Ping as long as the block lasts, as probes and the operator do: connection, connect, ping."""
    window = Window()

    async def keep_pinging() -> None:
        while True:
            began_at = time.perf_counter()
            assert (await ping(cli.host, cli.port, cli.token, PING_TIMEOUT_S)).ok
            window.ping_max_ms = max(window.ping_max_ms, (time.perf_counter() - began_at) * 1000)
            await asyncio.sleep(PING_EVERY_S)

    began_at, cpu_before, pinging = time.perf_counter(), cpu_s(cli.pid), asyncio.create_task(keep_pinging())
    try:
        yield window
    finally:
        pinging.cancel()
        window.seconds, window.cpu_s = time.perf_counter() - began_at, cpu_s(cli.pid) - cpu_before


async def have_one_session(cli: Cli) -> None:
    async with ModelServer() as model:
        subject = subject_of(cli, model)
        client = await subject.client()
        await subject.create(client, ONE)
        await client("session.send", sessionId=ONE, prompt="hi", wait=True)
        await client("sessions.close", sessionId=ONE)
        await client.connection.close()


def copy(sessions: Path, number: int, used_at: float) -> None:
    """Copies of the one session, which is taken away, used last at that time."""
    one = sessions / ONE
    files = {path.relative_to(one): path.read_text() for path in one.rglob("*") if path.is_file()}
    directories = [path.relative_to(one) for path in one.rglob("*") if path.is_dir()]
    one.rename(sessions.parent / ONE)
    for index in range(number):
        id = f"session-{index:05}"
        made = sessions / id
        made.mkdir(mode=0o700)
        for each in directories:
            (made / each).mkdir(mode=0o700)
        for name, text in files.items():
            (made / name).write_text(text.replace(ONE, id))
        for path in (made / "events.jsonl", made):
            os.utime(path, (used_at + index / 1000, used_at + index / 1000))


async def one_pass(cli: Cli, agent: RunningAgent, action: str) -> tuple[Window, dict[str, Any]]:
    """Measure a pass, and what the agent says of it."""

    def passes() -> list[dict[str, Any]]:
        return [line for line in agent.log if line["event"] == "janitor has passed"]

    before = len(passes())
    async with measured(cli) as window:
        await agent.get(f"/state?ttl_s={DAY_S:.0f}&ttl_action={action}")
        await eventually(lambda: len(passes()) > before, within_s=LONGEST_PASS_S, what="a pass", every_s=0.05)
    return window, passes()[-1]


async def measure(directory: Path, number: int) -> dict[str, Any]:
    async with real_cli(directory, token=TOKEN) as cli:
        await have_one_session(cli)
        await cli.stop()
        say(f"copying one session {number} times")
        await asyncio.to_thread(copy, cli.home / "session-state", number, time.time() - 2 * DAY_S)
        await cli.start()
        async with running_agent(cli.port, TOKEN, directory, COPILOT_AGENT_JANITOR_EVERY_S="3600") as agent:

            async def counts() -> bool:
                return bool((await agent.state())["sessions"]["stored"] == number)

            await eventually(counts, within_s=60, what="the agent counts")
            say("pings alone")
            async with measured(cli) as idle:
                await asyncio.sleep(IDLE_S)  # the time over which rest is measured
            before_mb = agent.rss_bytes / 2**20
            pings_cpu = idle.cpu_s / idle.seconds
            say("a dry run, then a pass that deletes")
            counted, dry = await one_pass(cli, agent, "DryRun")
            deleted, done = await one_pass(cli, agent, "Delete")
            return {
                "bench": "janitor",
                "sessions": number,
                "expired": dry["expired"],
                "dry_run_s": dry["seconds"],
                "dry_run_cpu_s": round(counted.cpu_s - pings_cpu * counted.seconds, 2),
                "deleted": done["deleted"],
                "pass_s": done["seconds"],
                "janitor_cpu_s": round(deleted.cpu_s - pings_cpu * deleted.seconds, 2),
                "agent_rss_before_mb": round(before_mb, 1),
                "agent_rss_mb": round(agent.rss_bytes / 2**20, 1),
                "ping_max_ms": round(max(counted.ping_max_ms, deleted.ping_max_ms), 1),
                "idle_ping_max_ms": round(idle.ping_max_ms, 1),
                "failure": dry["failure"] or done["failure"],
            }


def is_well(found: dict[str, Any]) -> bool:
    """Whether the passes came to their end, and reached the aims."""
    complete = not found["failure"] and found["expired"] == min(SESSIONS, MOST_ASKED) and found["deleted"]
    most_cpu = max(found["janitor_cpu_s"], found["dry_run_cpu_s"])
    return bool(complete) and most_cpu < MOST_CPU_S and bool(found["ping_max_ms"] <= MOST_PING_MS)


def main() -> int:
    """Measure, print, judge."""
    with tempfile.TemporaryDirectory(prefix="janitor-") as directory:
        found = asyncio.run(measure(Path(directory), SESSIONS))
    print(json.dumps(found), flush=True)
    return 0 if is_well(found) else 1


if __name__ == "__main__":
    sys.exit(main())
