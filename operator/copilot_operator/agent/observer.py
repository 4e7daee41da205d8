"""Watches the CLI beside the agent over one lasting connection, from the CLI's first moment.

The connection attaches to no session, since one attached to would outlive its client. It is opened again whenever the
CLI comes back; each time is another CLI process (``generation``), of which nothing is known yet.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from copilot_operator.agent.deletion import Deletion
from copilot_operator.agent.known import KnownSessions
from copilot_operator.agent.log import log
from copilot_operator.agent.signs import Signs
from copilot_operator.agent.survey import stored_sessions, survey
from copilot_operator.rpc import busy
from copilot_operator.rpc.busy import Count, Standing, Work
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import ConnectionLost, ServerError, ServerSilent
from copilot_operator.rpc.framing import MIB

# A client may create a session the moment the port opens, and one that never sends is invisible to who comes late:
# so try often. Refused on loopback costs about 0.2 ms.
_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 1.0

_CALL_TIMEOUT_S: Final = 5.0
_LIST_EVERY_S: Final = 30.0  # and then only if something has changed
_LIST_RETRY_S: Final = 5.0
_SIGN_TIMEOUT_S: Final = 2.0
_SIGNS_AT_ONCE: Final = 100  # of those silent for longest; a question costs the CLI 0.6 ms
_RESTING_EVERY_S: Final = 5.0
_RESTING_AT_ONCE: Final = 250  # about 0.1 s of the CLI's time

# The listing of 1,000 sessions has 250 KiB. Larger answers than this are not kept: the agent has to stay small.
_MAX_BODY_BYTES: Final = 8 * MIB
_MOST_OWN_DELETIONS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Sessions:
    """What a survey found. ``standings`` holds loaded sessions only, ``work`` what keeps the busy ones of them so.

    ``silent_s``: the longest time that a turn which waits for nobody has shown no event; None: none runs.
    """

    standings: Mapping[str, Standing]
    count: Count
    stored: int
    at: float  # of the event loop's clock
    work: Mapping[str, Work] = field(default_factory=dict)
    silent_s: float | None = None


class Observer:
    """Knows the sessions of the CLI at ``host:port``. ``run`` must be running."""

    def __init__(
        self,
        host: str,
        port: int,
        token: str | None,
        *,
        unseen: str = "",
        may_be_loaded: Callable[[str], bool] = lambda id: True,
        on_heard: Callable[[str], None] = lambda id: None,
    ) -> None:
        """``unseen`` is the id of a session of our own, which is neither counted nor heard. What can't be loaded here,
        by ``may_be_loaded``, is not asked about. ``on_heard`` is told of each session that something happened to."""
        self.generation = 0  # which CLI process of those we met
        self.met_at: float | None = None  # when that process was met; None while there is none
        self.deletion = Deletion()
        self.heard_at: float | None = None  # the last sign of life of any session
        self._host, self._port, self._token = host, port, token
        self._unseen, self._may_be_loaded, self._on_heard = unseen, may_be_loaded, on_heard
        self._own_deletions: dict[str, None] = {}  # the last ones
        self._known = KnownSessions()
        self._signs = Signs()
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

    async def delete(self, ids: Sequence[str], *, sized: bool = True) -> dict[str, int]:
        """Have these deleted: bytes by id of those that were, see ``Deletion``. Raises ServerError.

        It is no sign that anybody uses the server.
        """
        self._own_deletions |= dict.fromkeys(ids)
        while len(self._own_deletions) > _MOST_OWN_DELETIONS:
            del self._own_deletions[next(iter(self._own_deletions))]
        return await self.deletion(self.connection, ids, sized=sized)

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
                self._connection = self.met_at = None
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
                        stored = {each["sessionId"] for each in await stored_sessions(connection)}
                        self._known.listed(stored - {self._unseen})
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
            self._known, self._signs = KnownSessions(), Signs()
            self._latest, self._listed, self._resting_asked_at = None, False, float("-inf")
            info = await connection.connect(self._token, timeout_s=_CALL_TIMEOUT_S)
        except BaseException:
            connection.abort()
            raise
        self._connection = connection
        self.generation += 1
        self.met_at = asyncio.get_running_loop().time()
        log("cli is connected", generation=self.generation, version=info.version)
        return connection

    def _heard(self, method: str, params: Any) -> None:
        if method != "session.lifecycle" or not isinstance(params, dict):
            return
        kind, id = params.get("type"), params.get("sessionId")
        if isinstance(kind, str) and isinstance(id, str) and id != self._unseen:
            if kind == "session.deleted" and id in self._own_deletions:
                self._known.heard(kind, id)
                return
            self.heard_at = asyncio.get_running_loop().time()
            self._known.heard(kind, id)
            self._signs.heard(id, self.heard_at)
            self._on_heard(id)

    async def _survey(self, *, timeout_s: float, full: bool) -> Sessions:
        clock = asyncio.get_running_loop().time
        # A little before the caller's own time is up, so that those not reached are reported as uncounted.
        ends_at = clock() + max(0.1, timeout_s - 0.25)
        connection = self.connection
        if not self._listed:
            raise ConnectionLost("the CLI has not listed its sessions yet")
        asked = set(self._known.ids if full else self._known.stirring)
        if clock() - self._resting_asked_at > _RESTING_EVERY_S:
            asked.update(self._known.resting(_RESTING_AT_ONCE))
            self._resting_asked_at = clock()
        self._known.ask()
        elsewhere = {id for id in asked if not self._may_be_loaded(id)}
        found = await survey(connection, asked - elsewhere, timeout_s=ends_at - clock())
        loaded = {id: each.standing for id, each in found.items() if each.standing.is_loaded}
        work = {id: each.work for id, each in found.items() if each.work is not None}
        self._known.surveyed(loaded, (found.keys() - loaded.keys()) | elsewhere)
        turns = [id for id, each in work.items() if each in (Work.TURN, Work.QUEUED)]
        await self._read_signs(connection, turns, timeout_s=min(_SIGN_TIMEOUT_S, ends_at - clock()))
        silent_s = self._signs.longest_silence_s(clock())
        return Sessions(loaded, busy.count(loaded.values()), self._known.stored, clock(), work, silent_s)

    async def _read_signs(self, connection: Connection, turns: list[str], *, timeout_s: float) -> None:
        """Look for signs of life. Of turns only: a background shell may say nothing for hours, and is well."""
        clock = asyncio.get_running_loop().time
        self._signs.at_work(turns, clock())
        quiet = self._signs.quiet(clock())[:_SIGNS_AT_ONCE]
        cursors = await asyncio.gather(*(_cursor(connection, id, timeout_s) for id in quiet))
        for id, cursor in zip(quiet, cursors, strict=True):
            self._signs.read(id, cursor, clock())


async def _cursor(connection: Connection, id: str, timeout_s: float) -> str | None:
    try:
        answer = await connection.call("session.eventLog.tail", {"sessionId": id}, timeout_s=timeout_s)
    except ServerError:  # an older CLI, or a session that was unloaded just now
        return None
    cursor = answer.get("cursor") if isinstance(answer, dict) else None
    return cursor if isinstance(cursor, str) else None
