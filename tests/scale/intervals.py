"""Our own programs with other intervals: ``python3 -m tests.scale.intervals '{"module.NAME": seconds}' COMMAND...``"""

import json
import sys
from collections.abc import Mapping
from importlib import import_module

from copilot_operator.__main__ import main as program


def set_intervals(intervals: Mapping[str, float]) -> None:
    """Replace constants, by ``module.NAME`` in our package."""
    for path, seconds in intervals.items():
        module, _, name = path.rpartition(".")
        found = import_module(f"copilot_operator.{module}")
        assert hasattr(found, name), path
        setattr(found, name, seconds)


if __name__ == "__main__":
    set_intervals(json.loads(sys.argv[1]))
    sys.exit(program(sys.argv[2:]))
