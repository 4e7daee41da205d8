"""Has the CLI delete ephemeral sessions that no client has open any more (``held``), once they are not loaded.

Loaded means that somebody owns it still: a gateway whose client's turn goes on, or one that keeps it for another. One
that rests, and that its clients have left, is kept for nobody: it is closed. The names of the directories tell what is
stored; a session that was never used is in no list.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from copilot_operator.agent.deletion import Claiming, all_ours
from copilot_operator.agent.held import Held
from copilot_operator.agent.log import log
from copilot_operator.agent.observer import Observer
from copilot_operator.agent.survey import standing_of, stored_ids
from copilot_operator.rpc.busy import Standing
from copilot_operator.rpc.ephemeral import Ephemeral
from copilot_operator.rpc.errors import RpcError, ServerError

_LOOK_EVERY_S: Final = 5.0
_AGAIN_S: Final = 0.5  # while one is over and still loaded
_ASKED_AT_ONCE: Final = 50  # 0.3 to 0.5 ms of the CLI's time each
_CALL_TIMEOUT_S: Final = 10.0


class EphemeralSessions:
    """Of the sessions in ``directory`` that are in ``which``, those of the CLI that ``observer`` sees.

    ``besides``: what is not anybody's session; ``held_s``: see ``held``. ``erased`` counts the deleted ones,
    ``stored`` those that there were when it looked last.
    """

    def __init__(
        self,
        observer: Observer,
        directory: Path,
        which: Ephemeral,
        *,
        besides: Callable[[str], bool],
        held_s: float,
        claiming: Claiming = all_ours,
    ) -> None:
        self.erased = self.stored = 0
        self.held = Held(held_s)
        self._observer, self._directory, self._which, self._besides = observer, directory, which, besides
        self._claiming = claiming
        self._found_loaded_at: dict[str, float] = {}  # of those that are over
        self._told = asyncio.Event()

    def told(self, gateway: str, opened: Iterable[str], left: Iterable[str]) -> None:
        """What a gateway says of its clients. Ids that are not of ephemeral sessions are not taken in."""
        gone = [id for id in left if self._ours(id)]
        self.held.opened(gateway, filter(self._ours, opened), asyncio.get_running_loop().time())
        self.held.left(gateway, gone)
        if gone:
            self._told.set()

    async def run(self) -> None:
        """Look now and then, and when told to, until cancelled."""
        failed = ""
        while True:
            wait_s = _LOOK_EVERY_S
            try:
                wait_s = _AGAIN_S if await self._look() else _LOOK_EVERY_S
                failed = ""
            except (ServerError, OSError) as error:
                if (why := str(error) or type(error).__name__) != failed:
                    log("ephemeral sessions could not be looked for", reason=type(error).__name__, message=why)
                failed = why
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._told.wait()
                await asyncio.sleep(0)  # what is told at the same time is looked at together
            self._told.clear()

    def _ours(self, id: str) -> bool:
        return id in self._which and not self._besides(id)

    async def _look(self) -> bool:
        """Delete what is over; True: some of that is still loaded. Raises ServerError and OSError."""
        clock = asyncio.get_running_loop().time
        stored = set(filter(self._ours, await stored_ids(self._observer.connection, self._directory)))
        self.held.stored(stored, clock())
        self.stored = len(stored)
        over = self.held.over(clock())
        asked = sorted(over, key=lambda id: self._found_loaded_at.get(id, 0.0))[:_ASKED_AT_ONCE]
        unloaded = await asyncio.gather(*(self._is_unloaded(id) for id in asked))
        resting = [id for id, is_unloaded in zip(asked, unloaded, strict=True) if is_unloaded]
        found = self._found_loaded_at | dict.fromkeys(set(asked) - set(resting), clock())
        self._found_loaded_at = {id: found[id] for id in over if id in found}
        still = set(self.held.over(clock()))
        resting = [id for id in resting if id in still]  # a client may have come back meanwhile
        if resting:
            async with self._claiming(resting) as ours:  # another server may have it loaded
                freed = await self._delete(list(ours))
            self.erased += len(freed)
            self.held.stored(stored - freed, clock())
            self.stored = len(stored - freed)
        return len(over) > len(resting)

    async def _delete(self, ids: list[str]) -> set[str]:
        if not ids:
            return set()
        return set(await self._observer.delete(ids, sized=False))

    async def _is_unloaded(self, id: str) -> bool:
        """Whether a session is not loaded, or not any more."""
        standing = await standing_of(self._observer.connection, id, timeout_s=_CALL_TIMEOUT_S)
        if standing is Standing.IDLE and self.held.left_by_all(id, asyncio.get_running_loop().time()):
            with suppress(RpcError):  # it went by itself
                await self._ask("sessions.close", sessionId=id)
            return True
        return not standing.is_loaded

    async def _ask(self, method: str, **params: Any) -> Any:
        return await self._observer.connection.call(method, params, timeout_s=_CALL_TIMEOUT_S)
