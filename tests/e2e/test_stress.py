"""Short runs of the stress tests: every turn survives, and would not without the drain (else the test is blind), and
servers that sleep and are woken leave nothing behind.

On clusters of simulated nodes of their own; the long runs are ``make stress-drain`` and ``make stress-sleepers``.
"""

import asyncio
import json
import signal
import sys
from typing import Any

from tests.cluster.layout import ROOT

DRAINS = ("tests.stress", "--stops", "30", "--seed", "4")
WAKES = ("tests.stress.sleepers", "--wakes", "6", "--tenants", "3")
LONGEST_S = 540.0


async def run(module: str, *words: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, figures, and what was said meanwhile."""
    argv = [sys.executable, "-m", module, *words]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(LONGEST_S):
            out, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # it takes its cluster down
            await process.wait()
    text = said.decode(errors="replace")
    assert out, text
    return process.returncode or 0, json.loads(out.splitlines()[-1]), text


async def test_no_turn_is_lost_whatever_stops_its_server() -> None:
    code, figures, said = await run(*DRAINS)
    assert (figures["lost"], figures["stuck"]) == (0, 0), said
    assert figures["turns"] > 0
    assert code == 0, said


async def test_without_the_drain_the_same_run_loses_turns() -> None:
    code, figures, said = await run(*DRAINS, "--drain", "off")
    assert figures["lost"] > 0, said
    assert code == 0, said


async def test_servers_that_sleep_and_are_woken_leave_nothing_behind() -> None:
    code, figures, said = await run(*WAKES)
    assert (figures["left"], figures["lost"], figures["refused"]) == (0, 0, 0), said
    assert code == 0, said
