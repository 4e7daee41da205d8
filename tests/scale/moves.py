"""``make bench-moves``: a session that moves between two servers with a shared volume, through a gateway; real CLI.

Prints one JSON line, times in milliseconds. ``claim`` and ``release`` are those of the file system alone, on the disk
of this machine; ``move`` is how long a request waits for its answer whose session has just left the other server:
placing it, claiming it, resuming it, answering.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Final

from copilot_operator.agent.claim_files import ClaimFiles, name_of
from tests.contract.shared_volume import shared_bed, states, turn, watched
from tests.support.eventually import eventually

CLAIMS: Final = 500
MOVES: Final = 20


async def claimed(directory: Path) -> tuple[list[float], list[float]]:
    """Seconds of each claim and each release."""
    files, claims, releases = ClaimFiles(directory), list[float](), list[float]()
    for number in range(CLAIMS):
        began = time.perf_counter()
        assert await files.claim(name_of(str(number)), "holder", lambda _: False) == ""
        claims.append(time.perf_counter() - began)
    for number in range(CLAIMS):
        began = time.perf_counter()
        await files.release(name_of(str(number)), "holder")
        releases.append(time.perf_counter() - began)
    return claims, releases


async def moved(directory: Path) -> list[float]:
    """Seconds that a request waits for a session that has just left its server."""
    waits = []
    async with shared_bed(directory) as bed, watched(bed, "s"):
        client = await bed.client("g")
        await client("session.create", sessionId="s", model="fake-model")
        await turn(client, "s", "ECHO=`first`")
        for _ in range(MOVES):
            [home] = await bed.loaded_on("s")
            bed.configure("g", states(bed, **{home: "Draining"}))

            async def has_left(home: str = home) -> bool:
                return home not in await bed.loaded_on("s")

            await eventually(has_left, within_s=30, what=f"the session leaves {home}")
            began = time.perf_counter()
            await client("session.getMessages", sessionId="s")
            waits.append(time.perf_counter() - began)
        await client.close()
    return waits


async def measured(directory: Path) -> dict[str, object]:
    """The whole run."""
    (directory / "claims").mkdir()
    claims, releases = await claimed(directory / "claims")
    moves = await moved(directory / "bed")
    found: dict[str, object] = {"bench": "moves", "cli": "real", "claims": len(claims), "moves": len(moves)}
    for name, times in (("claim", claims), ("release", releases), ("move", moves)):
        cuts = quantiles(times, n=100, method="inclusive")
        found |= {f"{name}_p50_ms": round(1000 * cuts[49], 2), f"{name}_p99_ms": round(1000 * cuts[98], 2)}
    return found


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(asyncio.run(measured(Path(directory)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
