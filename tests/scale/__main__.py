"""``python3 -m tests.scale [N...]``: the operator with N tenants against the floor, one line of JSON for each N.

Figures go to stdout, everything else to stderr; the exit code is 1 when a promise is broken.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from tests.scale.bed import logs_in, simulated_cluster
from tests.scale.client import broken, say

DEFAULT: Final = (100, 1000)
CLUSTER: Final = "bench"
MOST_RATIO, MOST_MB = 1.3, 150.0


def bench(count: int, logs: Path, command: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The line of figures, and what was promised and not kept."""
    say(f"{count} tenants; load average before: {os.getloadavg()[0]:.1f}")
    python = [sys.executable, "-m"]
    with simulated_cluster(CLUSTER) as cluster:
        floor = cluster.measured([*python, "tests.scale.floor", str(count)], with_operator=False)
    log = logs / f"operator-{count}.log"
    with simulated_cluster(CLUSTER) as cluster:
        subject = cluster.measured([*python, "tests.scale.subject", str(count), log, *command])
    ratio = subject["ready_s"] / floor["floor_s"]
    line = {
        "bench": "operator",
        "n": count,
        "ready_s": round(subject["ready_s"], 1),
        "floor_s": round(floor["floor_s"], 1),
        "ratio": round(ratio, 2),
        "cpu_s": round(subject["cpu_s"], 1),
        "rss_mb": round(subject["rss_mb"]),
        "requests_per_tenant": {verb: round(n, 2) for verb, n in subject["requests_per_tenant"].items()},
        "idle_writes": subject["idle_writes"],
        "restart_s": round(subject["restart_s"], 1),
        "restart_cpu_s": round(subject["restart_cpu_s"], 1),
        "restart_writes": subject["restart_writes"],
    }
    promises = {
        "at most one status write a tenant": subject["most_status_writes"] <= 1,
        "at most one Event a tenant": subject["most_events"] <= 1,
        "idle_writes 0": subject["idle_writes"] == 0,
        "restart_writes 0": subject["restart_writes"] == 0,
    }
    if count >= max(DEFAULT):
        promises[f"ratio <= {MOST_RATIO}"] = ratio <= MOST_RATIO
        promises[f"rss_mb <= {MOST_MB:.0f}"] = subject["rss_mb"] <= MOST_MB
    say(
        f"status writes {subject['status_writes']} (most of a tenant {subject['most_status_writes']}), "
        f"events {subject['events']} (most {subject['most_events']})"
    )
    return line, broken(promises)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.scale", description=__doc__)
    parser.add_argument("count", type=int, nargs="*", help=f"numbers of tenants (default: {DEFAULT})")
    parser.add_argument("--logs", type=Path, help="keep the operator's logs here")
    own = str(Path(sys.executable).with_name("copilot-operator"))
    parser.add_argument("--operator", default=own, help="how the operator is called (default: %(default)s)")
    options = parser.parse_args()
    not_kept = []
    with logs_in(options.logs) as logs:
        for count in options.count or DEFAULT:
            line, found = bench(count, logs, options.operator.split())
            print(json.dumps(line), flush=True)
            not_kept += found
    return 1 if not_kept else 0


if __name__ == "__main__":
    sys.exit(main())
