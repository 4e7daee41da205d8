"""Actions of a session that take a wait or several calls: carried out side by side, and their outcome fed back."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from copilot_operator.gateway.enquiries import messages_of, standing_of
from copilot_operator.gateway.link import Link
from copilot_operator.gateway.loads import entered, sent
from copilot_operator.gateway.permits import Permit
from copilot_operator.gateway.rules.create_tables import PAYING
from copilot_operator.gateway.rules.fields import Credential, Refused
from copilot_operator.gateway.rules.ids import NameSpace
from copilot_operator.gateway.session.actions import Action, Failure
from copilot_operator.gateway.slots import Slot, Surroundings, tools_of
from copilot_operator.rpc.busy import Standing
from copilot_operator.rpc.errors import ConnectionLost, ProtocolError, RpcError, ServerError

log = logging.getLogger(__name__)

CALL_S: Final = 20.0
LOADED_S: Final = 30.0
LOOK_S: Final = 0.25
GITHUB: Final = "https://github.com"


class Errands:
    """Those of one tenant. ``feed`` executes what an outcome brings; ``route`` finds the link that an action names."""

    def __init__(
        self,
        tenant: str,
        space: NameSpace,
        around: Surroundings,
        feed: Callable[[Slot, list[Action]], None],
        route: Callable[[Slot, int | None], Link | None],
    ) -> None:
        self._tenant, self._space, self._around = tenant, space, around
        self._feed, self._route = feed, route
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry out one of the errands below."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _call(self, slot: Slot, via: int, method: str, params: Mapping[str, Any]) -> Any:
        link = self._route(slot, via)
        if link is None:
            raise ConnectionLost(f"{method}: its server has left")
        params = self._space.to_server(method, params)
        return await link.call(method, params, timeout_s=CALL_S)

    async def _admitted(self, slot: Slot, via: int) -> tuple[Link, Permit]:
        """Return when the session may be loaded, which it is as a rule, over which link and with which permission.
        Raises ServerError if it may not."""
        link = self._route(slot, via)
        server = self._around.server(link.server) if link is not None else None
        if server is None or link is None:
            raise ConnectionLost("its server has left")
        slot.home = server.name
        server.opens(slot.server_id)
        of_tenant = self._around.sessions_of(self._tenant)
        failure, _, permit = await entered(server.permits, link, slot.server_id, of_tenant, within_s=CALL_S)
        if failure is not None and failure.says_not_stored:
            raise RpcError("session.resume", failure.code, failure.message, failure.data)
        if failure is not None:
            raise ProtocolError(failure.message)
        return link, permit

    async def attach(self, slot: Slot, via: int, params: Mapping[str, Any]) -> None:
        try:
            params = self._around.restored(params, tools_of(slot.session))
            link, permit = await self._admitted(slot, via)
            params = self._space.to_server("session.resume", params)
            await sent(permit, link, "session.resume", params, timeout_s=CALL_S)
        except ConnectionLost:
            pass  # told as the loss of the link
        except (ServerError, Refused) as error:
            log.warning("cannot attach once more: %s", error, extra={"tenant": self._tenant})
            failure = Failure(error.code, error.message, error.data) if isinstance(error, RpcError) else None
            self._feed(slot, slot.session.on_attach_failed(via, self._loop.time(), failure))

    async def replay(self, slot: Slot, via: int, method: str, params: Mapping[str, Any]) -> None:
        try:
            await self._call(slot, via, method, params)
        except ServerError as error:
            log.warning("%s could not be repeated: %s", method, error, extra={"tenant": self._tenant})

    async def settle(self, slot: Slot, via: int, not_before: float) -> None:
        session = slot.session
        await asyncio.sleep(not_before - self._loop.time())
        link = self._route(slot, via)
        try:
            if link is None:
                raise ConnectionLost("its server has left")
            stored = await messages_of(link, slot.server_id, CALL_S)
            standing = await standing_of(link, slot.server_id, CALL_S)
        except ConnectionLost:
            return
        except ServerError as error:
            log.warning("cannot settle what was sent: %s", error, extra={"tenant": self._tenant})
            self._feed(slot, session.on_settle_failed(self._loop.time()))
        else:
            self._feed(slot, session.on_settled(stored, standing, self._loop.time()))

    async def ask_work(self, slot: Slot, via: int, not_before: float) -> None:
        await asyncio.sleep(not_before - self._loop.time())
        link, standing = self._route(slot, via), Standing.UNCOUNTED
        try:
            if link is not None:
                standing = await standing_of(link, slot.server_id, CALL_S)
        except ConnectionLost:
            pass  # it cannot be told
        self._feed(slot, slot.session.on_work(standing, self._loop.time()))

    async def pay_with(self, slot: Slot, credential: Credential) -> None:
        """A model call under way ends with what it began with. What is unloaded gets it when it is loaded again."""
        session, by = slot.session, self._loop.time() + LOADED_S
        while session.server is None and session.owners and self._loop.time() < by:  # noqa: ASYNC110  # seldom, and short
            await asyncio.sleep(LOOK_S)  # it is being loaded, perhaps with the credential of before
        via, made_with = session.owners.any_link(), session.made_with or {}
        if session.server is None or via is None or any(made_with.get(name) for name in PAYING):
            return
        try:
            if credential.git_hub_token is not None:
                given = {"type": "token", "host": GITHUB, "token": credential.git_hub_token}
                params = {"sessionId": session.session_id, "credentials": given}
                said = await self._call(slot, via, "session.gitHubAuth.setCredentials", params)
                if isinstance(said, dict) and said.get("copilotUserResolved") is False:
                    log.warning("GitHub does not accept the new token", extra={"tenant": self._tenant})
                return
            # With all that makes the session what it is: should it be unloaded by then, this would load it.
            params = {"sessionId": session.session_id} | made_with | session.owners[via].own
            params = dict(self._around.restored(params, tools_of(session)))
            params.pop("model", None)  # it may have been switched since
            link, permit = await self._admitted(slot, via)
            params = self._space.to_server("session.resume", params)
            await sent(permit, link, "session.resume", params, timeout_s=CALL_S)
        except (ServerError, Refused) as error:
            log.warning("a session goes on with its old credential: %s", error, extra={"tenant": self._tenant})

    async def close(self, slot: Slot, name: str) -> None:
        server = self._around.server(name)
        params = self._space.to_server("sessions.close", {"sessionId": slot.session.session_id})
        try:
            if server is None:
                raise ConnectionLost("its server has left")
            await server.call("sessions.close", params, timeout_s=CALL_S)
            closed = True
            if server.permits.claims and not server.serving:
                await server.permits.release(slot.server_id)  # it goes to another one
        except ServerError as error:
            log.warning("cannot close a session: %s", error, extra={"tenant": self._tenant, "server": name})
            closed = False
        self._feed(slot, slot.session.on_closed(closed, self._loop.time()))
