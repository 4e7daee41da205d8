"""Whether GitHub took the token that the CLI was started with, by the latest turn that told so.

A gateway hears that from the events it passes on; where there is none, nobody else would. The agent owns no session and
is sent no events, but may read the last of a session when it hears that something was written to it: from what is
stored, if it is unloaded by then.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from itertools import islice
from typing import Any, Final

from copilot_operator.agent.log import log
from copilot_operator.agent.observer import Observer
from copilot_operator.rpc.errors import RpcError, ServerError

_AT_ONCE: Final = 20  # sessions; a question costs the CLI about 0.5 ms
_REST_S: Final = 0.25
_TIMEOUT_S: Final = 5.0
_LAST: Final[Mapping[str, Any]] = {"types": ["session.error", "assistant.message"], "direction": "backward", "max": 1}
_STORED: Final[Mapping[str, Any]] = {"direction": "backward", "max": 20}  # the end of a turn, and its session's
_PROVIDERS: Final = "authentication"  # the type of an error by which a client's own model provider refused its key
_GITHUB: Final = "copilot"


def latest(events: Any) -> tuple[str, bool] | None:
    """The latest verdict in the order that events happened in, whichever way round they come."""
    found = [told for each in events if (told := verdict(each))] if isinstance(events, list) else []
    return max(found, key=lambda told: told[0], default=None)


def verdict(event: Any) -> tuple[str, bool] | None:
    """When the event was (RFC 3339), and whether the token was refused; None: it tells nothing of that."""
    data = event.get("data") if isinstance(event, dict) else None
    if not isinstance(data, dict):
        return None
    at = str(event.get("timestamp") or "")
    if event.get("type") == "assistant.message" and data.get("providerId") == _GITHUB:
        return at, False
    refused = data.get("statusCode") == HTTPStatus.UNAUTHORIZED and data.get("errorType") != _PROVIDERS
    return (at, True) if event.get("type") == "session.error" and refused else None


class Paid:
    """``refused``: None as long as no turn has told. ``run`` must be running."""

    def __init__(self, observer: Observer) -> None:
        self.refused: bool | None = None
        self._observer, self._at = observer, ""
        self._written: dict[str, None] = {}  # sessions that were not looked at since
        self._wake = asyncio.Event()

    def met_new_cli(self) -> None:
        """It may have been started with another token."""
        self.refused, self._at = None, ""
        self._written.clear()

    def heard(self, id: str) -> None:
        """Something was written to a session, or has happened to it."""
        self._written[id] = None
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            ids = list(islice(self._written, _AT_ONCE))
            for id in ids:
                del self._written[id]
            if not self._written:
                self._wake.clear()
            await asyncio.gather(*map(self._look, ids))
            await asyncio.sleep(_REST_S)

    async def _look(self, id: str) -> None:
        generation = self._observer.generation
        told = latest(await self._events(id))
        if told is None or told[0] < self._at or generation != self._observer.generation:
            return
        self._at, before, self.refused = told[0], self.refused, told[1]
        if self.refused and not before:
            log("github refuses the token", session=id)

    async def _events(self, id: str) -> Any:
        """The last ones; None: they can't be read, or an older CLI has no such methods."""
        try:
            try:
                return await self._asked("session.eventLog.read", id, _LAST)
            except RpcError:  # it was unloaded
                return await self._asked("sessions.readPersistedEvents", id, _STORED)
        except ServerError:
            return None

    async def _asked(self, method: str, id: str, how: Mapping[str, Any]) -> Any:
        answer = await self._observer.connection.call(method, {"sessionId": id, **how}, timeout_s=_TIMEOUT_S)
        return answer.get("events") if isinstance(answer, dict) else None
