"""Servers that do not run and are wanted: requests for what they store are held. And how many sessions wait for any
server to be loaded by. Whoever asks is told at once.

Nothing is kept of it: a request that is held asks for its server again every second, so a restart loses nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Final

FRESH_S: Final = 5.0  # a request that is held asks again within a second
WAITS_S: Final = 2.5


class Demand:
    """``clock`` tells monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wanted: dict[str, float] = {}  # when it was wanted last, by server
        self._waits: dict[tuple[str, str], float] = {}  # when it was tried last, by tenant and session
        self._news = asyncio.Condition()
        self._telling: set[asyncio.Task[None]] = set()
        self.number = 0  # of the last time that a server came to be wanted

    def want(self, server: str) -> None:
        """A request that is held needs this server."""
        known = server in self.servers()
        self._wanted[server] = self._clock()
        if not known:
            self._tell_soon()

    def waits(self, tenant: str, session: str, does: bool) -> None:
        """No server takes a session that is to be loaded; or one does."""
        if does:
            first = not self.waiting()
            self._waits[tenant, session] = self._clock()
            if first:
                self._tell_soon()
        else:
            self._waits.pop((tenant, session), None)

    def waiting(self) -> int:
        """How many sessions no server takes now."""
        if self._waits:
            since = self._clock() - WAITS_S
            self._waits = {session: at for session, at in self._waits.items() if at >= since}
        return len(self._waits)

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

    def _tell_soon(self) -> None:
        self.number += 1
        task = asyncio.get_running_loop().create_task(self._tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()
