"""Waiting for a condition, with a deadline, instead of sleeping and hoping."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def eventually(condition: Callable[[], Any], *, within_s: float, what: str, every_s: float = 0.02) -> Any:
    """Ask, with a plain or an async function, until the answer is true-ish and return it.

    Past the deadline it fails with the last answer.
    """
    clock = asyncio.get_running_loop().time
    ends_at = clock() + within_s
    while True:
        asked = condition()
        answer = await asked if inspect.isawaitable(asked) else asked
        if answer:
            return answer
        assert clock() < ends_at, f"{what}: not within {within_s:g} s, last answer {answer!r}"
        await asyncio.sleep(every_s)
