"""What servers do and take: the agent of every watched pod is asked for ``/state`` now and then."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final

from copilot_operator.domain.nodes import just_worked
from copilot_operator.domain.retention import FULL_PERCENT, Retention, steps_above
from copilot_operator.domain.snapshot import ServerState
from copilot_operator.engine.agenda import Agenda
from copilot_operator.servers import Key
from copilot_operator.servers.agents import AgentAddress, AgentClient, AgentError, state_of

EVERY_S: Final = 20.0
OFTEN_S: Final = 4.0  # where the number of loaded sessions decides
SOON_S: Final = 3.0  # after a failure, and while something is wrong with a server
HASTE_FOR_S: Final = 60.0
TRIES: Final = 3  # unanswered in a row, then what was known is too old to decide by
MOST_AT_ONCE: Final = 250


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decision waits for a reading to exceed; None: nothing does. Bytes, seconds, plain numbers."""

    memory_bytes: float | None = None
    processes: float | None = None
    latency_factor: float | None = None
    age_s: float | None = None
    stalled_s: float | None = None
    unused_s: float | None = None
    ran_s: float | None = None


NO_LIMITS: Final = Limits()
FOR_EVER: Final = Retention()


@dataclass(eq=False, slots=True)
class _Entry:
    key: Key
    pod_uid: str
    at: AgentAddress
    limits: Limits
    retention: Retention
    often: bool = False
    hasty_until: float = 0.0  # of the event loop's clock
    failures: int = 0  # in a row
    state: ServerState | None = None


class Inventory:
    """``changed(key)`` is called when something that decisions use has changed, not at every reading."""

    def __init__(
        self,
        client: AgentClient,
        changed: Callable[[Key], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._changed, self._clock = client, changed, clock
        self._entries: dict[Key, _Entry] = {}
        self._stored: dict[Key, int] = {}  # sessions, as they were told last, though the server may have stopped since
        self._erase: dict[Key, tuple[str, ...]] = {}  # codes of deleted tenants
        self._erases: dict[Key, frozenset[Key]] = {}  # servers with such codes, by pool
        self._agenda: Agenda[_Entry] = Agenda(self._ask, MOST_AT_ONCE)

    def watch(
        self,
        key: Key,
        pod_uid: str,
        at: AgentAddress | None,
        limits: Limits = NO_LIMITS,
        retention: Retention = FOR_EVER,
        often: bool = False,
    ) -> None:
        """Ask this pod from now on, at once if it is new, and tell it ``retention``; ``at`` None: no longer."""
        entry = self._entries.get(key)
        if at is None:
            self._drop(key)
        elif entry is None or entry.pod_uid != pod_uid:
            self._enter(_Entry(key, pod_uid, at, limits, retention, often))
        else:
            entry.at, entry.limits, entry.retention, entry.often = at, limits, retention, often

    def erase(self, namespace: str, pool: str, orders: Mapping[str, tuple[str, ...]]) -> None:
        """Have the servers of a pool erase what deleted tenants have left: codes by server, all that there are. Each is
        asked every 3 s until it says that it has."""
        wanted = {(namespace, server): codes for server, codes in orders.items()}
        for key in self._erases.pop((namespace, pool), frozenset()) - wanted.keys():
            del self._erase[key]
        if wanted:
            self._erases[namespace, pool] = frozenset(wanted)
        for key, codes in wanted.items():
            before, self._erase[key] = self._erase.get(key), codes
            if before != codes and (entry := self._entries.get(key)):
                self._agenda.put(entry)

    def erasing(self) -> dict[Key, tuple[str, ...]]:
        """Codes that are to be erased, by server."""
        return dict(self._erase)

    def hasten(self, key: Key) -> None:
        """Ask at once, and every 3 s for the next minute: something is wrong with the server."""
        if (entry := self._entries.get(key)) is None:
            return
        now = asyncio.get_running_loop().time()
        if entry.hasty_until <= now:
            self._agenda.put(entry)
        entry.hasty_until = now + HASTE_FOR_S

    def forget_state(self, key: Key) -> None:
        """What is known is of the past, of another CLI process perhaps. Ask anew; an answer under way is not used."""
        if entry := self._entries.get(key):
            hasty_until = asyncio.get_running_loop().time() + HASTE_FOR_S
            self._enter(_Entry(key, entry.pod_uid, entry.at, entry.limits, entry.retention, entry.often, hasty_until))

    def state(self, namespace: str, server: str) -> ServerState | None:
        """None: nothing is known, or the agent did not answer the last three times."""
        entry = self._entries.get((namespace, server))
        return entry.state if entry else None

    def stored(self, namespace: str, server: str) -> int | None:
        """Sessions that a server stored when it was asked last; None: it was not, since we started."""
        return self._stored.get((namespace, server))

    def forget(self, key: Key) -> None:
        """The server is gone, and its volume with it, or nobody's."""
        self._stored.pop(key, None)

    def counts(self) -> dict[str, int]:
        """Servers by what they do: Busy, Idle, NotAnswering, Unknown."""
        return dict(Counter(_doing(entry.state) for entry in self._entries.values()))

    def sessions(self) -> dict[str, int]:
        """Sessions of all servers, as far as they are known: loaded, busy, waiting."""
        states = [entry.state for entry in self._entries.values() if entry.state]
        return {
            "loaded": sum(state.loaded or 0 for state in states),
            "busy": sum(state.busy or 0 for state in states),
            "waiting": sum(state.waiting or 0 for state in states),
        }

    async def run(self) -> None:
        """Until cancelled."""
        await self._agenda.run()

    def _enter(self, entry: _Entry) -> None:
        self._drop(entry.key)
        self._entries[entry.key] = entry
        self._agenda.put(entry)

    def _drop(self, key: Key) -> None:
        if entry := self._entries.pop(key, None):
            self._agenda.drop(entry)

    async def _ask(self, entry: _Entry) -> float | None:
        """Ask one agent, and say in how many seconds again."""
        state: ServerState | None = None
        try:
            told = await self._client.state(entry.at, entry.retention, self._erase.get(entry.key, ()))
            state = state_of(told, entry.pod_uid, self._clock())
        except AgentError:
            entry.failures += 1
        else:
            entry.failures = 0
        if self._entries.get(entry.key) is not entry:
            return None  # the pod went away meanwhile, or runs another CLI
        before = mark_of(entry.state, entry.limits, entry.retention)
        if state or entry.failures >= TRIES:
            entry.state = state
        if state and state.stored is not None:
            self._stored[entry.key] = state.stored
        if mark_of(entry.state, entry.limits, entry.retention) != before:
            self._changed(entry.key)
        soon = 0 < entry.failures < TRIES or asyncio.get_running_loop().time() < entry.hasty_until
        soon = soon or entry.key in self._erase
        return (SOON_S if soon else OFTEN_S if entry.often else EVERY_S) * (0.8 + 0.4 * random.random())


def mark_of(state: ServerState | None, limits: Limits, retention: Retention = FOR_EVER) -> object:
    """What decisions use of a state: as long as it stays the same there is nothing to decide anew."""
    if state is None:
        return None
    passed = tuple(
        limit is not None and (getattr(state, name) or 0) > limit
        for name, limit in ((each.name, getattr(limits, each.name)) for each in fields(Limits))
    )
    busy = None if state.busy is None else state.busy > 0
    doing = state.answering, state.failure, busy, just_worked(state), state.draining, bool(state.deep_failure)
    steps = None if state.disk_percent is None else steps_above(state.disk_percent, retention.high_water_percent)
    full = (max(steps, -2), (state.disk_percent or 0) >= FULL_PERCENT) if steps is not None else None  # -2: well below
    told = state.read_only, state.largest, state.expired_kept, state.deletion, state.erased, state.quarantined
    asks = bool(state.wait_for_room), state.token_serial, state.credential_refused
    return *doing, *asks, passed, full, *told


def _doing(state: ServerState | None) -> str:
    if state is None:
        return "Unknown"
    if not state.answering:
        return "NotAnswering"
    return "Unknown" if state.busy is None else "Busy" if state.busy else "Idle"
