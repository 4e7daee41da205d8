"""``make stress-sleepers``: servers that sleep and are woken, again and again, leave nothing behind.

Prints one JSON line; everything else goes to stderr. Real operator, gateway and agents, on simulated nodes; stand-ins
for the CLI. The exit code is 1 if a request or a turn was lost, or anything is left.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Final

from tests.scale.bed import logs_in, simulated_cluster
from tests.scale.client import say

CLUSTER: Final = "sleepers"
TENANTS, WAKES = 6, 200


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.stress.sleepers", description=__doc__)
    parser.add_argument("--wakes", type=int, default=int(os.environ.get("WAKES") or WAKES), help="of each tenant")
    parser.add_argument("--tenants", type=int, default=int(os.environ.get("TENANTS") or TENANTS))
    parser.add_argument("--logs", type=Path, help="keep the logs here")
    given = parser.parse_args()
    with logs_in(given.logs) as logs, simulated_cluster(CLUSTER, served=False) as cluster:
        words = [sys.executable, "-m", "tests.stress.sleepers_run", str(given.tenants), str(given.wakes), str(logs)]
        found = cluster.measured(words)
    left = found.pop("left")
    for each in left:
        say(f"LEFT: {each}")
    print(json.dumps({"bench": "stress-sleepers"} | found | {"left": len(left)}), flush=True)
    return 1 if left or found["lost"] or found["refused"] else 0


if __name__ == "__main__":
    sys.exit(main())
