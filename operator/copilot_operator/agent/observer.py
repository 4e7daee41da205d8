"""Watches the CLI beside the agent over one lasting connection, from the CLI's first moment.

The connection attaches to no session, since one attached to would outlive its client. It is opened again whenever the
CLI comes back; each time is another CLI process (``generation``), of which nothing is known yet.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from copilot_operator.agent.known import KnownSessions
from copilot_operator.agent.log import log
from copilot_operator.agent.survey import survey
from copilot_operator.rpc import busy
from copilot_operator.rpc.busy import Count, Standing
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import ConnectionLost, ProtocolError, ServerError, ServerSilent
from copilot_operator.rpc.framing import MIB

# A client may create a session the moment the port opens, and one that never sends is invisible to who comes late:
# so try often. Refused on loopback costs about 0.2 ms.
_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 1.0

_CALL_TIMEOUT_S: Final = 5.0
_LIST_TIMEOUT_S: Final = 20.0  # 1,000 stored sessions take half a second; this is for a busy machine
_LIST_EVERY_S: Final = 30.0  # and then only if something has changed
_LIST_RETRY_S: Final = 5.0
_RESTING_EVERY_S: Final = 5.0
_RESTING_AT_ONCE: Final = 250  # about 0.1 s of the CLI's time

# The listing of 1,000 sessions has 250 KiB. Larger answers than this are not kept: the agent has to stay small.
_MAX_BODY_BYTES: Final = 8 * MIB


@dataclass(frozen=True, slots=True)
class Sessions:
    """What a survey found. ``standings`` holds loaded sessions only."""

    standings: Mapping[str, Standing]
    count: Count
    stored: int
    at: float  # of the event loop's clock


class Observer:
    """Knows the sessions of the CLI at ``host:port``. ``run`` must be running."""

    def __init__(self, host: str, port: int, token: str | None) -> None:
        self.generation = 0  # which CLI process of those we met
        self.heard_at: float | None = None  # the last sign of life of any session
        self._host, self._port, self._token = host, port, token
        self._known = KnownSessions()
        self._connection: Connection | None = None
        self._listed = False
        self._resting_asked_at = float("-inf")
        self._latest: Sessions | None = None
        self._surveying = asyncio.Lock()

    @property
    def connection(self) -> Connection:
        """The connection to ask on. Raises ConnectionLost while there is none."""
        if self._connection is None or self._connection.closed:
            raise ConnectionLost("the CLI is not connected")
        return self._connection

    async def run(self, on_new_cli: Callable[[], None]) -> None:
        """Keep connected until cancelled; ``on_new_cli`` is called once for each CLI process that is met."""
        wait_s, told = _RETRY_S, ""
        while True:
            try:
                connection = await self._open()
            except ServerError as error:
                if str(error) != told:
                    log("cli is not connected", reason=type(error).__name__, message=str(error))
                    told = str(error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 1.5, _RETRY_MAX_S)
                continue
            wait_s, told = _RETRY_S, ""
            on_new_cli()
            try:
                await self._list_until_closed(connection)
            finally:
                self._connection = None
                await connection.close()
            log("cli is gone", generation=self.generation)

    async def sessions(self, *, max_age_s: float, timeout_s: float, full: bool = False) -> Sessions:
        """Where the sessions stand, not older than ``max_age_s``. Callers at the same time share one survey.

        ``full`` asks about every known id; else those that were found unloaded and not heard of since are asked about
        in turn, some in each survey. Raises ServerError when it cannot be said.
        """
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        try:
            async with asyncio.timeout(timeout_s), self._surveying:
                if self._latest is not None and not full and self._latest.at >= asked_at - max_age_s:
                    return self._latest
                self._latest = None
                self._latest = await self._survey(timeout_s=asked_at + timeout_s - clock(), full=full)
                return self._latest
        except TimeoutError as error:
            raise ServerSilent("a survey of the sessions", timeout_s) from error

    async def _list_until_closed(self, connection: Connection) -> None:
        while not connection.closed:
            wait_s = _LIST_EVERY_S
            try:
                if self._known.stale:
                    async with self._surveying:
                        self._known.ask()
                        self._known.listed(await _listed(connection))
                        self._listed = True
            except ServerError as error:
                log("sessions could not be listed", reason=type(error).__name__, message=str(error))
                wait_s = _LIST_RETRY_S
            try:
                async with asyncio.timeout(wait_s):
                    await connection.wait_closed()
            except TimeoutError:
                continue

    async def _open(self) -> Connection:
        connection = await Connection.open(
            self._host,
            self._port,
            timeout_s=_CALL_TIMEOUT_S,
            on_notification=self._heard,
            ignored=("session.event", "host.event"),
            max_body_bytes=_MAX_BODY_BYTES,
            skip_oversized=True,
        )
        try:
            # Heard from here on: the server tells lifecycle to whoever has passed ``connect``.
            self._known = KnownSessions()
            self._latest, self._listed, self._resting_asked_at = None, False, float("-inf")
            info = await connection.connect(self._token, timeout_s=_CALL_TIMEOUT_S)
        except BaseException:
            connection.abort()
            raise
        self._connection = connection
        self.generation += 1
        log("cli is connected", generation=self.generation, version=info.version)
        return connection

    def _heard(self, method: str, params: Any) -> None:
        if method != "session.lifecycle" or not isinstance(params, dict):
            return
        kind, id = params.get("type"), params.get("sessionId")
        if isinstance(kind, str) and isinstance(id, str):
            self._known.heard(kind, id)
            self.heard_at = asyncio.get_running_loop().time()

    async def _survey(self, *, timeout_s: float, full: bool) -> Sessions:
        clock = asyncio.get_running_loop().time
        connection = self.connection
        if not self._listed:
            raise ConnectionLost("the CLI has not listed its sessions yet")
        asked = set(self._known.ids if full else self._known.stirring)
        if clock() - self._resting_asked_at > _RESTING_EVERY_S:
            asked.update(self._known.resting(_RESTING_AT_ONCE))
            self._resting_asked_at = clock()
        self._known.ask()
        # A little before the caller's own time is up, so that those not reached are reported as uncounted.
        standings = await survey(connection, asked, timeout_s=max(0.1, timeout_s - 0.25))
        loaded = {id: each for id, each in standings.items() if each.is_loaded}
        self._known.surveyed(loaded, standings.keys() - loaded.keys())
        return Sessions(loaded, busy.count(loaded.values()), self._known.stored, clock())


async def _listed(connection: Connection) -> list[str]:
    answer = await connection.call("session.list", {}, timeout_s=_LIST_TIMEOUT_S)
    sessions = answer.get("sessions") if isinstance(answer, dict) else None
    if not isinstance(sessions, list):
        raise ProtocolError("session.list answered without sessions")
    return [each["sessionId"] for each in sessions if isinstance(each, dict) and isinstance(each.get("sessionId"), str)]
