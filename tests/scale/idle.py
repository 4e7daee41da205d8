"""``make bench-idle``: 1,000 tenants with servers of their own, of whom 20 are active at a time; the others sleep.

Prints one JSON line. Real operator, gateway and agents, on simulated nodes; stand-ins for the CLI. The exit code is 1
if a request was lost, a session did not come back whole, or more than ``MOST_AWAKE`` servers were awake at any time.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Final

from tests.scale.bed import logs_in, simulated_cluster
from tests.scale.client import broken

CLUSTER: Final = "idle"
TENANTS, ACTIVE, MOST_AWAKE = 1000, 20, 25


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.scale.idle", description=__doc__)
    parser.add_argument("--tenants", type=int, default=int(os.environ.get("TENANTS") or TENANTS))
    parser.add_argument("--active", type=int, default=ACTIVE, help="at a time (default: %(default)s)")
    parser.add_argument("--logs", type=Path, help="keep the logs here")
    given = parser.parse_args()
    with logs_in(given.logs) as logs, simulated_cluster(CLUSTER, served=False) as cluster:
        words = [sys.executable, "-m", "tests.scale.idle_subject", str(given.tenants), str(given.active), str(logs)]
        found = cluster.measured(words)
    print(json.dumps({"bench": "idle", "tenants": given.tenants, "active": given.active} | found), flush=True)
    promises = {
        "no request is lost": not found["lost"],
        "sessions come back whole": found["whole"] == found["users"],
        f"at most {MOST_AWAKE} servers are awake": found["awake_most"] <= MOST_AWAKE,
    }
    return 1 if broken(promises) else 0


if __name__ == "__main__":
    sys.exit(main())
