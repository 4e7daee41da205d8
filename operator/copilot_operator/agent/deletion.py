"""How the CLI is made to delete sessions, and who may: where servers share them, only one that no other server has."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from copilot_operator.agent import expiry
from copilot_operator.rpc.client import Connection

Claiming = Callable[[Collection[str]], AbstractAsyncContextManager[Collection[str]]]
"""Around the deletion of sessions: gives those that no other server has, or gets meanwhile. Raises ServerError and
OSError."""

_CALL_TIMEOUT_S: Final = 10.0
_SIZES_TIMEOUT_S: Final = 30.0
_SIZES_HOLD_S: Final = 300.0  # a pass of the janitor takes less; the CLI looks at every file for them


@asynccontextmanager
async def all_ours(ids: Collection[str]) -> AsyncIterator[Collection[str]]:
    """Of a server that shares its sessions with no other."""
    yield ids


class Deletion:
    """Has a CLI delete sessions. ``one_by_one``: that is copilot-runtime, which tells nobody of what it deletes in
    bulk, and gateways count what is stored by what they are told."""

    def __init__(self, *, one_by_one: bool = False) -> None:
        self._one_by_one = one_by_one
        self._sizes: dict[str, int] = {}
        self._sized_at = float("-inf")

    async def __call__(self, connection: Connection, ids: Sequence[str], *, sized: bool = True) -> dict[str, int]:
        """Bytes by id of those that were deleted; all 0 if not ``sized``. Raises ServerError."""
        if not self._one_by_one:
            params = {"sessionIds": list(ids)}
            return expiry.freed(await connection.call("sessions.bulkDelete", params, timeout_s=_CALL_TIMEOUT_S))
        sizes = await self._sizes_now(connection) if sized else {}
        gone = await asyncio.gather(*(self._delete(connection, id) for id in ids))
        return {id: sizes.get(id, 0) for id, is_gone in zip(ids, gone, strict=True) if is_gone}

    async def _delete(self, connection: Connection, id: str) -> bool:
        answer: Any = await connection.call("session.delete", {"sessionId": id}, timeout_s=_CALL_TIMEOUT_S)
        return isinstance(answer, dict) and answer.get("success") is True

    async def _sizes_now(self, connection: Connection) -> dict[str, int]:
        now = asyncio.get_running_loop().time()
        if now - self._sized_at > _SIZES_HOLD_S:
            answer = await connection.call("sessions.getSizes", {}, timeout_s=_SIZES_TIMEOUT_S)
            self._sizes, self._sized_at = expiry.sizes(answer), now
        return self._sizes
