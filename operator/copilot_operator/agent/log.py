"""Log lines for machines: one JSON object a line on stdout. No secret is ever handed to it.

The standard library's ``logging`` needs configuration modules that cost the agent memory.
"""

import json
import sys
import time


def log(event: str, /, **fields: object) -> None:
    """Write one line: when, what, and the fields that tell which."""
    now = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    line = json.dumps({"time": at, "logger": "agent", "event": event, **fields}, default=str, ensure_ascii=False)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
