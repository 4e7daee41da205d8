"""``python -m tests.elastic [--demand FILE]``: simulate a day of a pool with autoscaling, and draw it into the docs.

FILE has a number in each line: the new sessions of a minute, as they were recorded. Prints one JSON line.
"""

import argparse
import json
from pathlib import Path
from typing import Final

from copilot_operator.api.autoscaling import AutoscalingSpec
from tests.elastic.day import Day, Rate, by_the_minute, office_day, turns
from tests.elastic.picture import DAY_S, picture

PICTURE: Final = Path(__file__).resolve().parents[2] / "docs" / "autoscaling.svg"
SPEC: Final = AutoscalingSpec(min_replicas=0, max_replicas=12, free_sessions="20%", scale_in_delay="5m")
TITLE: Final = (
    "A day with minReplicas 0, maxReplicas 12, freeSessions 20%, 50 slots a server; operator restarted 29 times"
)


def simulated(rate: Rate) -> Day:
    day = Day(SPEC, 50, rate, seed=7, restarts=0.02)
    day.run(DAY_S)
    return day


def figures(day: Day) -> dict[str, float]:
    used = sum(sample.running for sample in day.samples) / len(day.samples)
    waits = sorted(day.waits)
    return {
        "sessions": len(waits),
        "servers_mean": round(used, 2),
        "servers_most": max(sample.running for sample in day.samples),
        "changes_of_direction": len(turns(day.samples)),
        "held": sum(wait > 0 for wait in waits),
        "wait_most_s": waits[-1],
        "lost": day.lost,
        "busy_servers_stopped": day.stopped_busy,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.elastic", description=__doc__)
    parser.add_argument("--demand", type=Path, help="new sessions of each minute, one number a line")
    path: Path | None = parser.parse_args().demand
    day = simulated(by_the_minute([float(line) for line in path.read_text().split()]) if path else office_day(12))
    if path is None:
        PICTURE.write_text(picture(day, TITLE), encoding="utf-8")
    print(json.dumps({"bench": "autoscaling-day", **figures(day)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
