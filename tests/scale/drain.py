"""``python3 -m tests.scale.drain``: how fast idle servers drain, how soon dead ones are found; one line of JSON.

The exit code is 1 when a promise is broken.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Final

from tests.scale.bed import logs_in, simulated_cluster
from tests.scale.client import broken
from tests.scale.survey import cpu_ms_per_survey

CLUSTER: Final = "drain"
SERVERS, HUNG = 200, 500
FOUND_S, REPLACED_S = 15.0, 45.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.scale.drain", description=__doc__)
    parser.add_argument("--servers", type=int, default=SERVERS, help="drained at once (default: %(default)s)")
    parser.add_argument("--hung", type=int, default=HUNG, help="servers that hang for good (default: %(default)s)")
    parser.add_argument("--logs", type=Path, help="keep the operator's log here")
    options = parser.parse_args()
    survey_ms = asyncio.run(cpu_ms_per_survey())
    own = str(Path(sys.executable).with_name("copilot-operator"))
    with logs_in(options.logs) as logs, simulated_cluster(CLUSTER, served=False) as cluster:
        words = [sys.executable, "-m", "tests.scale.drain_subject", str(options.servers), str(options.hung)]
        found = cluster.measured([*words, logs / "operator.log", own])
    line = {"bench": "drain", "servers": options.servers, "hung": options.hung} | found
    line["cpu_ms_per_survey"] = round(survey_ms, 2)
    print(json.dumps(line), flush=True)
    promises = {
        f"a dead server is found within {FOUND_S:.0f} s": line["found_dead_s_max"] <= FOUND_S,
        f"and replaced within {REPLACED_S:.0f} s": line["replaced_s_max"] <= REPLACED_S,
    }
    return 1 if broken(promises) else 0


if __name__ == "__main__":
    sys.exit(main())
