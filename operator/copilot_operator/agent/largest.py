"""The largest sessions of a server whose volume is getting full."""

import asyncio
from collections.abc import Callable
from typing import Final

from copilot_operator.agent import expiry
from copilot_operator.agent.log import log
from copilot_operator.agent.observer import Observer
from copilot_operator.agent.usage import Disk
from copilot_operator.rpc.errors import ServerError

_MOST: Final = 3
_LOOK_EVERY_S: Final = 15.0
_EVERY_S: Final = 3600.0  # 10,000 sessions cost the CLI a second
_TIMEOUT_S: Final = 30.0


class Largest:
    """``sessions``: ids and bytes, the largest first; empty as long as the volume is not that full.

    ``mark`` is how full that is, in percent (None: it does not matter), ``disk`` the volume.
    """

    def __init__(self, observer: Observer, mark: Callable[[], float | None], disk: Callable[[], Disk | None]) -> None:
        self.sessions: list[tuple[str, int]] = []
        self._observer, self._mark, self._disk = observer, mark, disk

    async def run(self) -> None:
        """Until cancelled. Sizes are the CLI's to tell, for it alone may look into the directories: once in an hour."""
        clock, asked_at = asyncio.get_running_loop().time, float("-inf")
        while True:
            mark, disk = self._mark(), self._disk()
            if mark is None or disk is None or disk.used_percent < mark:
                self.sessions = []
            elif clock() >= asked_at + _EVERY_S:
                asked_at = clock()
                await self._look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> None:
        try:
            answer = await self._observer.connection.call("sessions.getSizes", {}, timeout_s=_TIMEOUT_S)
        except ServerError as error:
            log("sizes of sessions are not known", message=str(error))
            return
        self.sessions = expiry.largest(answer, _MOST)
