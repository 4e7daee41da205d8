"""Servers that do not run and are wanted: requests for what they store are held. Whoever asks is told at once.

Nothing is kept of it: a request that is held asks for its server again every second, so a restart loses nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Final

FRESH_S: Final = 5.0  # a request that is held asks again within a second


class Demand:
    """``clock`` tells monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wanted: dict[str, float] = {}  # when it was wanted last, by server
        self._news = asyncio.Condition()
        self._telling: set[asyncio.Task[None]] = set()
        self.number = 0  # of the last time that a server came to be wanted

    def want(self, server: str) -> None:
        """A request that is held needs this server."""
        known = server in self.servers()
        self._wanted[server] = self._clock()
        if not known:
            self.number += 1
            task = asyncio.get_running_loop().create_task(self._tell())
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    def servers(self) -> list[str]:
        """Those wanted now, sorted."""
        since = self._clock() - FRESH_S
        self._wanted = {server: at for server, at in self._wanted.items() if at >= since}
        return sorted(self._wanted)

    async def after(self, number: int, wait_s: float) -> list[str]:
        """The servers that are wanted, as soon as there was news after ``number``, or after ``wait_s``."""
        try:
            async with asyncio.timeout(wait_s), self._news:
                await self._news.wait_for(lambda: self.number != number)
        except TimeoutError:
            pass
        return self.servers()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()
