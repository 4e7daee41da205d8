"""How a session is loaded where servers share their sessions: over one connection, which was open before the agent was
asked, and with the agent's permission, which is over when that connection has brought the answer.

So a gateway that stood still in between loads nothing at a server that is another process by now.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from copilot_operator.gateway.link import Link
from copilot_operator.gateway.permits import Done, Permit, Permits
from copilot_operator.gateway.session.actions import GATEWAY_ERROR, Failure
from copilot_operator.gateway.upstream import Answered
from copilot_operator.rpc.ephemeral import UNSTORED
from copilot_operator.rpc.errors import ConnectionLost

CALL_S: Final = 10.0
LOST: Final = Failure(GATEWAY_ERROR, "the connection to the server ended", {"reason": "ConnectionLost"})


def enter(permits: Permits, link: Link, id: str, of_tenant: int | None, admitted: Done, *, within_s: float) -> None:
    """Ask for a session to be let in over ``link``. ``admitted`` may send over it at once; it has a permission then,
    and says when it is over."""
    if not permits.claims:
        permits.ask(id, of_tenant, admitted, within_s=within_s)
        return
    link.holds += 1  # nothing else keeps it open

    def answered(failure: Failure | None, again: bool, permit: Permit) -> None:
        link.holds -= 1
        if failure is None and not link.is_open:
            permit.over()
            failure = LOST
        admitted(failure, again, permit)

    def opened(body: bytes | None, _: int) -> None:
        if body is None:
            link.holds -= 1
            admitted(LOST, True, Permit())
        else:
            permits.ask(id, of_tenant, answered, within_s=within_s)

    if link.is_open:
        permits.ask(id, of_tenant, answered, within_s=within_s)
    else:
        link.request("ping", {}, opened)


async def entered(
    permits: Permits, link: Link, id: str, of_tenant: int | None, *, within_s: float
) -> tuple[Failure | None, bool, Permit]:
    """What ``enter`` tells."""
    done: asyncio.Future[tuple[Failure | None, bool, Permit]] = asyncio.get_running_loop().create_future()

    def admitted(failure: Failure | None, again: bool, permit: Permit) -> None:
        if done.done():  # given up meanwhile
            permit.over()
        else:
            done.set_result((failure, again, permit))

    enter(permits, link, id, of_tenant, admitted, within_s=within_s)
    return await done


def send(permit: Permit, link: Link, method: str, params: Mapping[str, Any], answered: Answered) -> None:
    """Use a permission for one request."""
    link.request(method, params, partial(_over, permit, answered))


def _over(permit: Permit, answered: Answered, body: bytes | None, end: int) -> None:
    permit.over(body is not None)
    answered(body, end)


async def sent(permit: Permit, link: Link, method: str, params: Mapping[str, Any], *, timeout_s: float) -> Any:
    """The result of a request that a permission is used for. Raises ServerError; the answer may be still to come."""
    if not link.is_open:
        permit.over()
        raise ConnectionLost(f"{method}: the connection has ended")
    return await link.call(method, params, timeout_s=timeout_s, heard=permit.over)


class Attachment:
    """A way to attach to a session that is loaded: to be made once, or given up."""

    def __init__(self, link: Link, permit: Permit, id: str, *, ephemeral: bool = False) -> None:
        self._link, self._permit = link, permit
        self._params = {"sessionId": id, "disableResume": True} | (UNSTORED if ephemeral else {})

    async def make(self) -> None:
        """Raises ServerError."""
        await sent(self._permit, self._link, "session.resume", self._params, timeout_s=CALL_S)

    def give_up(self) -> None:
        self._permit.over()
