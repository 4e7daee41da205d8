"""What servers do and take: the agent of every watched pod is asked for ``/state`` now and then."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final

from copilot_operator.domain.nodes import just_worked
from copilot_operator.domain.snapshot import ServerState
from copilot_operator.engine.agenda import Agenda
from copilot_operator.servers import Key
from copilot_operator.servers.agents import AgentAddress, AgentClient, AgentError, state_of

EVERY_S: Final = 20.0
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


NO_LIMITS: Final = Limits()


@dataclass(eq=False, slots=True)
class _Entry:
    key: Key
    pod_uid: str
    at: AgentAddress
    limits: Limits
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
        self._agenda: Agenda[_Entry] = Agenda(self._ask, MOST_AT_ONCE)

    def watch(self, key: Key, pod_uid: str, at: AgentAddress | None, limits: Limits = NO_LIMITS) -> None:
        """Ask this pod from now on, at once if it is new; ``at`` None: no longer."""
        entry = self._entries.get(key)
        if at is None:
            self._drop(key)
        elif entry is None or entry.pod_uid != pod_uid:
            self._enter(_Entry(key, pod_uid, at, limits))
        else:
            entry.at, entry.limits = at, limits

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
            self._enter(_Entry(key, entry.pod_uid, entry.at, entry.limits, hasty_until))

    def state(self, namespace: str, server: str) -> ServerState | None:
        """None: nothing is known, or the agent did not answer the last three times."""
        entry = self._entries.get((namespace, server))
        return entry.state if entry else None

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
            state = state_of(await self._client.state(entry.at), entry.pod_uid, self._clock())
        except AgentError:
            entry.failures += 1
        else:
            entry.failures = 0
        if self._entries.get(entry.key) is not entry:
            return None  # the pod went away meanwhile, or runs another CLI
        before = mark_of(entry.state, entry.limits)
        if state or entry.failures >= TRIES:
            entry.state = state
        if mark_of(entry.state, entry.limits) != before:
            self._changed(entry.key)
        soon = 0 < entry.failures < TRIES or asyncio.get_running_loop().time() < entry.hasty_until
        return (SOON_S if soon else EVERY_S) * (0.8 + 0.4 * random.random())


def mark_of(state: ServerState | None, limits: Limits) -> object:
    """What decisions use of a state: as long as it stays the same there is nothing to decide anew."""
    if state is None:
        return None
    passed = tuple(
        limit is not None and (getattr(state, name) or 0) > limit
        for name, limit in ((each.name, getattr(limits, each.name)) for each in fields(Limits))
    )
    busy = None if state.busy is None else state.busy > 0
    return state.answering, state.failure, busy, just_worked(state), state.draining, bool(state.deep_failure), passed


def _doing(state: ServerState | None) -> str:
    if state is None:
        return "Unknown"
    if not state.answering:
        return "NotAnswering"
    return "Unknown" if state.busy is None else "Busy" if state.busy else "Idle"
