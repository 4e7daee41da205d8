"""Claims of the CLI beside us, for whoever asks the agent: gateways over HTTP, the drain's keeper and the janitor."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from copilot_operator.agent.claim_files import ClaimFiles
from copilot_operator.agent.claims import CALL_S, Claims
from copilot_operator.agent.cli_lock import CliLock
from copilot_operator.agent.log import log
from copilot_operator.agent.queries import as_json, listed
from copilot_operator.agent.settings import Settings
from copilot_operator.agent.web import BadRequest, Handler, Response
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import RpcError, ServerError

AGAIN_S: Final = 0.5
LEAVE_S: Final = 5.0
LOCK: Final = "server.lock"  # see copilot-server


class Claiming:
    """For an agent whose server shares its sessions with others (``settings.claims``)."""

    def __init__(self, settings: Settings) -> None:
        assert settings.claims is not None
        lock = CliLock(settings.data / LOCK)
        self.claims = Claims(ClaimFiles(settings.claims), lock, (settings.pod, settings.pod_uid))
        self._meeting: asyncio.Task[None] | None = None

    @property
    def pages(self) -> dict[str, Handler]:
        """What gateways ask for, by path."""
        return {"/claims/settle": self._settle, "/claims/release": self._release}

    def met(self, connection: Connection) -> None:
        """This is the connection with the CLI from now on."""
        if self._meeting is not None:
            self._meeting.cancel()
        self._meeting = asyncio.create_task(self._meet(connection))

    async def run(self, loaded: Callable[[], Awaitable[Collection[str]]]) -> None:
        """Until cancelled. ``loaded`` tells ids, and raises ServerError."""
        try:
            await self.claims.run(loaded)
        finally:
            if self._meeting is not None:
                self._meeting.cancel()

    async def leave(self) -> None:
        """The agent ends, as a rule after the CLI: set free what it had. Else others do, once our pod is gone."""
        self.claims.lost()
        self.claims.notice_end()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self.claims.drop_void()

    async def take(self, wanted: Collection[str], query: Mapping[str, str]) -> dict[str, str]:
        """Claim what a gateway wants, with the permissions it names in ``permits``, one for each. Returns who holds
        those that are not ours. ``gone``: UIDs of pods that are. Raises BadRequest, ServerError, OSError."""
        self.claims.settle(listed(query, "settled"))
        return await self.claims.grant(_permits(wanted, query), listed(query, "gone"))

    def give_back(self, ids: Collection[str], wanted: Collection[str], query: Mapping[str, str]) -> None:
        """These may not be loaded after all."""
        permits = _permits(wanted, query)
        self.claims.settle([permits[id] for id in ids])

    @asynccontextmanager
    async def deleting(self, ids: Collection[str]) -> AsyncIterator[Collection[str]]:
        """Around a call that removes sessions: gives those that no other server has, or gets meanwhile. They are free
        afterwards, unless it was not answered."""
        permits = {id: self.claims.own_permit() for id in ids}
        others = await self.claims.grant(permits)
        ours = [id for id in ids if id not in others]
        try:
            yield ours
        except RpcError:
            self.claims.settle(permits.values())
            raise
        self.claims.settle(permits.values())
        for id in ours:
            await self.claims.release(id)

    async def _meet(self, connection: Connection) -> None:
        told = ""
        while not connection.closed:
            try:
                await self.claims.met(partial(_asked, connection))
                break
            except ServerError as error:
                if str(error) != told:
                    log("sessions cannot be claimed", message=str(error))
                told = str(error)
                await asyncio.sleep(AGAIN_S)
        await connection.wait_closed()
        self.claims.lost()

    async def _settle(self, query: Mapping[str, str]) -> Response:
        self.claims.settle(listed(query, "settled"))
        return as_json({})

    async def _release(self, query: Mapping[str, str]) -> Response:
        """Which of ``ids`` other servers may have now."""
        self.claims.settle(listed(query, "settled"))
        try:
            free = {id: await self.claims.release(id) for id in listed(query, "ids")}
        except (ServerError, OSError) as error:
            return Response(503, f"{error}\n")
        return as_json({"free": free})


async def _asked(connection: Connection, method: str, params: dict[str, Any]) -> Any:
    return await connection.call(method, params, timeout_s=CALL_S)


def _permits(wanted: Collection[str], query: Mapping[str, str]) -> dict[str, str]:
    permits = listed(query, "permits")
    if len(permits) != len(wanted):
        raise BadRequest(400, "permits must name a permission for each of ids: sessions are shared with other servers")
    return dict(zip(wanted, permits, strict=True))
