"""Hours in milliseconds, for property tests, which bring no event loop."""

from collections.abc import Coroutine

import looptime


def run_in_virtual_time(coroutine: Coroutine[None, None, None]) -> None:
    """Run to the end, on a loop whose clock jumps to the next thing that is due."""
    loop = looptime.new_event_loop()
    loop.setup_looptime()
    try:
        loop.run_until_complete(coroutine)
    finally:
        loop.close()
