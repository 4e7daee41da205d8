"""Asks the operator at an address, for so many seconds: is a replica ready, are there metrics? Else exits with 1."""

import sys
import time
import urllib.request

address, ends_at, why = sys.argv[1], time.monotonic() + float(sys.argv[2]), "no answer"
while time.monotonic() < ends_at:
    try:
        for path, expected in (("/readyz", "ok"), ("/metrics", "copilot_operator_leading")):
            text = urllib.request.urlopen(address + path, timeout=5).read().decode()
            if expected not in text:
                raise OSError(f"{path} says {text[:200]!r} and not {expected!r}")
    except OSError as error:
        why = str(error)
        time.sleep(1)
    else:
        print(f"the operator at {address} is ready")
        sys.exit(0)
sys.exit(f"the operator at {address} is not ready: {why}")
