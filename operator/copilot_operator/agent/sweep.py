"""One pass over the stored sessions: which have expired, and have those deleted by the CLI.

The names and times of the directories tell which may have; about those the CLI is asked (pin, another process, last
use). Each few are deleted right after it has said that they are not loaded: it would delete loaded ones as well.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from copilot_operator.agent import expiry
from copilot_operator.agent.deletion import Claiming, Deletion, all_ours
from copilot_operator.agent.expiry import Stored
from copilot_operator.agent.policy import Policy
from copilot_operator.agent.store import scan
from copilot_operator.agent.survey import stored_sessions
from copilot_operator.rpc.busy import says_not_loaded
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import RpcError
from copilot_operator.rpc.ids import is_id

MOST_ASKED: Final = 5_000  # sessions a pass, the oldest; 0.2 ms of the CLI's time each
MOST_DELETED: Final = 750  # sessions a pass; 1.3 to 1.8 ms each
_ASKED_AT_ONCE: Final = 50
_ASKED_PER_S: Final = 1000.0
_DELETED_AT_ONCE: Final = 5  # 30 to 50 ms; fewer cost the CLI more
_DELETED_PER_S: Final = 20.0
_CALL_TIMEOUT_S: Final = 10.0
_NEVER: Final = Stored("", math.inf)


class Sweep:
    """One pass by ``policy``, as long as it ``holds``. ``delete`` has the CLI delete: bytes by id of what it did."""

    def __init__(
        self,
        connection: Connection,
        directory: Path,
        policy: Policy,
        holds: Callable[[], bool],
        delete: Callable[[Sequence[str]], Awaitable[dict[str, int]]] | None = None,
        claiming: Claiming = all_ours,
    ) -> None:
        self.deleted = self.freed_bytes = 0
        self.expired = 0  # and not deleted: found by a dry run
        self.ended_early = False  # there may be more
        self._connection, self._directory = connection, directory
        self._policy, self._holds, self._claiming = policy, holds, claiming
        self._delete_them = delete or partial(Deletion(), connection)
        assert policy.ttl_s is not None
        self._before = time.time() - policy.ttl_s

    async def run(self, loaded: set[str]) -> None:
        """``loaded``: sessions that need not be asked about. Raises ServerError and OSError."""
        stored = [each for each in await self._candidates() if each.id not in loaded]
        for at_once in _in_parts(stored, _ASKED_AT_ONCE):
            if not self._holds():
                self.ended_early = True
                return
            gone = await self._expired(at_once)
            if self._policy.dry_run:
                self.expired += len(gone)
                gone = []
            for few in _in_parts(gone, _DELETED_AT_ONCE):
                if self.deleted + len(few) > MOST_DELETED or not self._holds():
                    self.ended_early = True
                    return
                await self._delete_claimed(few)
                await asyncio.sleep(len(few) / _DELETED_PER_S)
            await asyncio.sleep(len(at_once) / _ASKED_PER_S)

    async def _candidates(self) -> list[Stored]:
        def found() -> list[Stored]:
            return expiry.candidates(scan(self._directory), before=self._before, most=MOST_ASKED)

        try:
            return await asyncio.to_thread(found)  # a slow volume must not hold up probes
        except PermissionError:  # made by a CLI that was not started by our script
            return await self._listed()

    async def _listed(self) -> list[Stored]:
        """The same by the CLI, which spends a second on 10,000 sessions."""
        sessions = await stored_sessions(self._connection)
        old = (each for each in sessions if expiry.expired({"session": each}, _NEVER, before=self._before))
        return [Stored(each["sessionId"], self._before) for each in old if is_id(each["sessionId"])][-MOST_ASKED:]

    async def _expired(self, stored: Sequence[Stored]) -> list[Stored]:
        """Those that are neither pinned, nor held by another process, nor young."""
        ids = [each.id for each in stored]
        keys = [expiry.PINNED]
        ids = sorted(expiry.unpinned(await self._ask("sessions.getClientMetadata", sessionIds=ids, keys=keys)))
        free = expiry.unheld(await self._ask("sessions.checkInUse", sessionIds=ids), ids) if ids else set()
        asked = [each for each in stored if each.id in free]
        answers = await asyncio.gather(*(self._ask_of("session.getMetadata", each.id) for each in asked))
        return [
            each
            for each, answer in zip(asked, answers, strict=True)
            if expiry.expired(answer, each, before=self._before)
        ]

    async def _delete_claimed(self, stored: Sequence[Stored]) -> None:
        if self._claiming is all_ours:
            await self._delete([each.id for each in stored])
            return
        async with self._claiming([each.id for each in stored]) as ours:
            # asked again: another server may have had it until a moment ago
            still = await self._expired([each for each in stored if each.id in ours])
            await self._delete([each.id for each in still])

    async def _delete(self, ids: Sequence[str]) -> None:
        answers = await asyncio.gather(*(self._ask_of("session.metadata.activity", id) for id in ids))
        resting = [id for id, answer in zip(ids, answers, strict=True) if says_not_loaded(answer)]
        if not resting:
            return
        freed = await self._delete_them(resting)
        self.deleted += len(freed)
        self.freed_bytes += sum(freed.values())

    async def _ask_of(self, method: str, id: str) -> Any:
        """The answer, or the error that is the answer about one session."""
        try:
            return await self._ask(method, sessionId=id)
        except RpcError as error:
            return error

    async def _ask(self, method: str, **params: Any) -> Any:
        return await self._connection.call(method, params, timeout_s=_CALL_TIMEOUT_S)


def _in_parts(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[at : at + size] for at in range(0, len(items), size)]
