"""The deep probe: whether the CLI can still make a session. Pings are answered even if that part of it is stuck.

No turn, and no network: the session names a provider, so that the CLI asks nobody for models, and never talks to it.
Its id is always the same, so that what a broken attempt leaves behind is found and deleted by the next one; where
servers share their sessions each has one of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from copilot_operator.agent.log import log
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import (
    METHOD_NOT_FOUND,
    AuthenticationFailed,
    ConnectionLost,
    RpcError,
    ServerError,
    ServerRefused,
)
from copilot_operator.rpc.framing import KIB

SESSION_ID: Final = "copilot-operator-deep-probe"

_LOOK_EVERY_S: Final = 15.0  # for a moment at which nothing is loaded
_AGAIN_S: Final = 30.0  # after a first failure
_TIMEOUT_S: Final = 20.0  # for each of its calls; 0.1 s is usual
_MAX_BODY_BYTES: Final = 256 * KIB

_SESSION: Final[dict[str, Any]] = {
    "model": "none",
    "provider": {"type": "openai", "baseUrl": "http://127.0.0.1:9/v1", "apiKey": "none"},
    "enableSessionStore": False,
}


@dataclass(frozen=True, slots=True)
class DeepReading:
    """What one deep probe found, and when by the event loop's clock; ``message`` says why it is not ok."""

    ok: bool
    message: str
    at: float


class DeepProbe:
    """Probes one CLI now and then, when nobody can be in the way."""

    def __init__(
        self,
        host: str,
        port: int,
        token: str | None,
        *,
        every_s: float,
        is_unused: Callable[[], Awaitable[bool]],
        id: str = SESSION_ID,
    ) -> None:
        self.reading: DeepReading | None = None  # of the CLI process that is there
        self._cli, self._id = (host, port, token), id
        self._every_s, self._is_unused = every_s, is_unused
        self._new_cli = False

    def met_new_cli(self) -> None:
        """What was found is of a process that is gone."""
        self.reading, self._new_cli = None, True

    async def run(self) -> None:
        """Probe until cancelled. One failure is only a doubt: a second one soon after it is a reading."""
        clock = asyncio.get_running_loop().time
        wait_s, doubted = self._every_s, False
        while True:
            await asyncio.sleep(wait_s)
            if not await self._is_unused():
                wait_s = min(self._every_s, _LOOK_EVERY_S)
                continue
            wait_s, self._new_cli = self._every_s, False
            try:
                message = await create_and_delete(*self._cli, self._id)
            except ServerError:
                continue
            if message:
                log("cli cannot make sessions", message=message)
            doubted = bool(message) and not doubted
            if doubted:
                wait_s = min(self._every_s, _AGAIN_S)
                continue
            if not self._new_cli:
                self.reading = DeepReading(not message, message, clock())


async def create_and_delete(host: str, port: int, token: str | None, id: str = SESSION_ID) -> str:
    """Make a session and remove it. "": it worked, else why not.

    Raises ServerError when that cannot be said: the CLI went away meanwhile, rejects our token, or has no such methods.
    """
    try:
        connection = await Connection.open(
            host, port, timeout_s=_TIMEOUT_S, max_body_bytes=_MAX_BODY_BYTES, skip_oversized=True
        )
        try:
            await connection.connect(token, timeout_s=_TIMEOUT_S)
            stored = await connection.call("session.getMetadata", {"sessionId": id}, timeout_s=_TIMEOUT_S)
            if stored != {}:
                return ""  # somebody gave a session of theirs this name, and had a turn in it: leave it alone
            await connection.call("session.create", {"sessionId": id, **_SESSION}, timeout_s=_TIMEOUT_S)
            answer = await connection.call("session.delete", {"sessionId": id}, timeout_s=_TIMEOUT_S)
        finally:
            connection.abort()
    except (ConnectionLost, ServerRefused, AuthenticationFailed):
        raise
    except RpcError as error:
        if error.code == METHOD_NOT_FOUND:
            raise
        return str(error)
    except ServerError as error:
        return str(error)
    if isinstance(answer, dict) and answer.get("success") is True:
        return ""
    return f"session.delete: {answer.get('error') if isinstance(answer, dict) else answer}"
