"""Keeps sessions alive whose clients may hang up: another owner, beside the client, as long as there is work."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final

from copilot_operator.agent.log import log
from copilot_operator.agent.observer import Sessions
from copilot_operator.rpc.busy import Standing
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.ephemeral import NONE, UNSTORED, Ephemeral
from copilot_operator.rpc.errors import ServerError
from copilot_operator.rpc.framing import KIB

_RELEASE_EVERY_S: Final = 1.0
_CALL_TIMEOUT_S: Final = 5.0
_AT_ONCE: Final = 8

# An answer to session.resume has under 2 KiB. Events, which a keeper is sent without wanting them, have up to many MiB;
# those are not even put together.
_MAX_BODY_BYTES: Final = 256 * KIB


class Keeper:
    """A connection that co-owns sessions, opened when there is something to keep.

    What it is sent is dropped unread, however large.
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: str | None,
        *,
        ephemeral: Ephemeral = NONE,
        loading: Callable[[str], AbstractAsyncContextManager[None]] | None = None,
    ) -> None:
        """``loading``: around what would load a session that is not loaded any more. Raises ServerError: it may not."""
        self._loading = loading or _freely
        self._host, self._port, self._token, self._ephemeral = host, port, token, ephemeral
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._kept: set[str] = set()

    @property
    def kept(self) -> frozenset[str]:
        """What is kept now; with the connection everything is lost."""
        return frozenset() if self._connection is None or self._connection.closed else frozenset(self._kept)

    async def keep(self, ids: Iterable[str]) -> None:
        """Become another owner of loaded sessions; their clients see nothing of it."""
        await side_by_side(self._attach, [id for id in ids if id not in self.kept])

    async def release(self, look: Callable[[], Awaitable[Sessions]]) -> None:
        """Let go of each session as soon as it is idle; return when nothing is kept any more."""
        try:
            while self.kept:
                await asyncio.sleep(_RELEASE_EVERY_S)
                with suppress(ServerError):  # what could not be counted may be at work
                    standings = (await look()).standings
                    idle = [id for id in self.kept if not standings.get(id, Standing.NOT_LOADED).is_busy]
                    await side_by_side(self._detach, idle)
        finally:
            await self.close()

    async def close(self) -> None:
        """Let go of everything. A session nobody else owns is closed by the server then."""
        if self._connection is not None:
            await self._connection.close()

    async def _attach(self, id: str) -> None:
        try:
            connection = await self._connected()
            self._kept.add(id)  # before it is known: a drain may be called off in between
            quietly = {"sessionId": id, "disableResume": True} | (UNSTORED if id in self._ephemeral else {})
            async with self._loading(id):
                await connection.call("session.resume", quietly, timeout_s=_CALL_TIMEOUT_S)
        except ServerError as error:  # tried again at the next look; the turn runs on as long as its client stays
            self._kept.discard(id)
            log("keeper could not attach", session=id, message=str(error))

    async def _detach(self, id: str) -> None:
        self._kept.discard(id)
        try:
            await (await self._connected()).call("session.detach", {"sessionId": id}, timeout_s=_CALL_TIMEOUT_S)
        except ServerError as error:
            log("keeper could not detach", session=id, message=str(error))

    async def _connected(self) -> Connection:
        async with self._opening:
            if self._connection is None or self._connection.closed:
                connection = await Connection.open(
                    self._host,
                    self._port,
                    timeout_s=_CALL_TIMEOUT_S,
                    ignored=("session.event", "session.lifecycle", "host.event"),
                    max_body_bytes=_MAX_BODY_BYTES,
                    skip_oversized=True,
                )
                try:
                    await connection.connect(self._token, timeout_s=_CALL_TIMEOUT_S)
                except BaseException:
                    connection.abort()
                    raise
                self._connection = connection
                self._kept.clear()
            return self._connection


@asynccontextmanager
async def _freely(id: str) -> AsyncIterator[None]:
    yield


async def side_by_side(step: Callable[[str], Awaitable[None]], ids: Iterable[str]) -> None:
    """Do a step for each id, a few at a time. The first step that fails ends the others, and is what is raised."""
    left = iter(list(ids))

    async def work() -> None:
        for id in left:
            await step(id)

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(_AT_ONCE):
                workers.create_task(work())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
