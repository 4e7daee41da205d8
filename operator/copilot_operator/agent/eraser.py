"""The eraser: everything is deleted whose id begins with the code of a tenant that is gone (the operator says which).

The CLI deletes, as it does for the janitor. A loaded session is closed first, with its turn: its client's token is
dead. A code is erased once a look at the volume finds nothing of it; until then it is tried again.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from copilot_operator.agent.deletion import Claiming, all_ours
from copilot_operator.agent.log import log
from copilot_operator.agent.observer import Observer
from copilot_operator.agent.store import quarantined
from copilot_operator.agent.survey import stored_ids
from copilot_operator.rpc.errors import RpcError, ServerError

_AGAIN_S: Final = 3.0  # doubled with each pass that left something
_AGAIN_AT_MOST_S: Final = 60.0
_AT_ONCE: Final = 5  # 30 to 50 ms of the CLI's time
_PER_S: Final = 20.0
_CALL_TIMEOUT_S: Final = 10.0
_SURVEY_TIMEOUT_S: Final = 10.0


@dataclass(slots=True)
class Erased:
    """What was done since the agent started. ``codes``: sessions that were erased, by each code of which nothing is
    left; only of those that the operator still asks about."""

    codes: dict[str, int] = field(default_factory=dict)
    sessions: int = 0
    failure: str = ""  # why something is left


class Eraser:
    """Of the sessions in ``directory``, those of the CLI that ``observer`` sees. ``may_delete`` tells whether that is
    not being drained."""

    def __init__(
        self,
        observer: Observer,
        directory: Path,
        quarantine: Path,
        may_delete: Callable[[], bool],
        claiming: Claiming = all_ours,
    ) -> None:
        self.done = Erased()
        self._claiming = claiming
        self._observer, self._directory, self._quarantine = observer, directory, quarantine
        self._may_delete = may_delete
        self._found: dict[str, set[str]] = {}  # sessions erased so far, by every code that is asked for
        self._asked = asyncio.Event()

    def follow(self, codes: Iterable[str]) -> None:
        """Erase these, and forget of all others that they were erased."""
        wanted = set(codes)
        if wanted == self._found.keys():
            return
        self._found = {code: self._found.get(code, set()) for code in sorted(wanted)}
        self.done.codes = {code: number for code, number in self.done.codes.items() if code in wanted}
        self._asked.set()

    @property
    def _left(self) -> list[str]:
        return [code for code in self._found if code not in self.done.codes]

    async def run(self) -> None:
        """Erase whatever is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            wait_s = _AGAIN_S
            while self._left and not self._asked.is_set():
                self.done.failure = await self._pass(self._left)
                if self._left:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await self._asked.wait()
                    wait_s = min(2 * wait_s, _AGAIN_AT_MOST_S)

    async def _pass(self, codes: list[str]) -> str:
        """Delete what is there of these, and look again; why something is left."""
        if not self._may_delete():
            return "the server is being drained"
        try:
            ids = _of(codes, await self._all())
            for at in range(0, len(ids), _AT_ONCE):
                few = ids[at : at + _AT_ONCE]
                async with self._claiming(few) as ours:  # another server's are for its own agent
                    await self._delete(list(ours))
                await asyncio.sleep(len(few) / _PER_S)
            left = _of(codes, await self._all())
            aside = _of(codes, quarantined(self._quarantine))
        except (ServerError, OSError) as error:
            return str(error) or type(error).__name__
        for code in codes:
            if code in self._found and not _of([code], left + aside):
                self.done.codes[code] = len(self._found[code])
                log("sessions of a deleted tenant are erased", code=code, sessions=self.done.codes[code])
        if left:
            return f"{len(left)} of them are left"
        return f"{len(aside)} of them are in quarantine, where only people delete: {aside[0]}" if aside else ""

    async def _delete(self, ids: list[str]) -> None:
        if not ids:
            return
        call = self._observer.connection.call
        for id in ids:
            with suppress(RpcError):  # of a full volume, say; the deletion works all the same
                await call("sessions.close", {"sessionId": id}, timeout_s=_CALL_TIMEOUT_S)
        freed = await self._observer.delete(ids, sized=False)
        for code, found in self._found.items():
            new = set(_of([code], freed)) - found  # the CLI says so of those that are not there any more, too
            found |= new
            self.done.sessions += len(new)

    async def _all(self) -> set[str]:
        """Ids of all that is stored, or loaded and not yet stored. Raises ServerError and OSError."""
        loaded = await self._observer.sessions(max_age_s=0, timeout_s=_SURVEY_TIMEOUT_S)
        return await stored_ids(self._observer.connection, self._directory) | loaded.standings.keys()


def _of(codes: Iterable[str], ids: Iterable[str]) -> list[str]:
    """Those that begin with one of the codes."""
    begin = tuple(codes)
    return sorted(id for id in ids if id.startswith(begin))
