"""A short run of the stress test: every turn survives, and would not without the drain (else the test is blind).

On a cluster of simulated nodes of its own; the long runs are ``make stress-drain``.
"""

import asyncio
import json
import signal
import sys
from typing import Any

from tests.cluster.layout import ROOT

STOPS = "30"
LONGEST_S = 540.0


async def run(*words: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, figures, and what was said meanwhile."""
    argv = [sys.executable, "-m", "tests.stress", "--stops", STOPS, "--seed", "4", *words]
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
    code, figures, said = await run()
    assert (figures["lost"], figures["stuck"]) == (0, 0), said
    assert figures["turns"] > 0
    assert code == 0, said


async def test_without_the_drain_the_same_run_loses_turns() -> None:
    code, figures, said = await run("--drain", "off")
    assert figures["lost"] > 0, said
    assert code == 0, said
