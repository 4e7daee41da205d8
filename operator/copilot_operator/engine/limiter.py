"""How many requests may be under way towards a server at once: follows the server's own answers.

Additive increase, multiplicative decrease, as TCP does it: a refusal (HTTP 429) halves the window and pauses all,
every window full of good answers opens it by one. A fixed rate would be too slow for a large server and too fast for
a small one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Limiter:
    """Admits at most ``window`` holders of a slot at once, 1 <= window <= most."""

    def __init__(self, most: int = 32, start: int = 16) -> None:
        self.most = most
        self.window = float(start)
        self._under_way = 0
        self._resume_at = 0.0
        self._line: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a place; the caller reports a refusal by :meth:`refused`."""
        while self._under_way >= int(self.window):
            await self._turn()
        self._under_way += 1
        try:
            pause_s = self._resume_at - asyncio.get_running_loop().time()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            yield
            self.window = min(self.most, self.window + 1 / self.window)
        finally:
            self._under_way -= 1
            self._wake()

    async def _turn(self) -> None:
        """Stand in line; a cancelled waiter that had been called already passes its turn on."""
        call = asyncio.get_running_loop().create_future()
        self._line.append(call)
        try:
            await call
        except asyncio.CancelledError:
            if call.done() and not call.cancelled():
                self._wake()
            raise

    def _wake(self) -> None:
        """Call as many as there is room for: the window may have grown since the last call."""
        room = int(self.window) - self._under_way
        while room > 0 and self._line:
            call = self._line.popleft()
            if not call.done():
                call.set_result(None)
                room -= 1

    def refused(self, retry_after_s: float) -> None:
        """The server answered 429: halve the window, let nothing through for ``retry_after_s``."""
        now = asyncio.get_running_loop().time()
        if now >= self._resume_at:  # one refusal counts once, however many requests were under way
            self.window = max(1.0, self.window / 2)
        self._resume_at = max(self._resume_at, now + retry_after_s)
