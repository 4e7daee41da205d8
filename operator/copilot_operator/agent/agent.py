"""The agent as a whole: one probe, one observer, at most one drain, and the pages that show them."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from copilot_operator import __version__
from copilot_operator.agent import metrics
from copilot_operator.agent.drain import Drain, Keeper
from copilot_operator.agent.log import log
from copilot_operator.agent.observer import Observer, Sessions
from copilot_operator.agent.probe import Probe
from copilot_operator.agent.settings import Settings
from copilot_operator.agent.state import State
from copilot_operator.agent.usage import read_disk, read_processes
from copilot_operator.agent.web import BadRequest, Handler, Response
from copilot_operator.rpc.errors import ServerError
from copilot_operator.rpc.ping import ping

_SESSIONS_MAX_AGE_S: Final = 1.0
_SESSIONS_TIMEOUT_S: Final = 3.0
_DRAIN_PING_TIMEOUT_S: Final = 1.0
_PROC: Final = Path("/proc")


class Agent:
    """Everything that is known and done about the CLI beside us."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cli = (settings.cli_host, settings.cli_port, settings.token)
        self._probe = Probe(*self._cli, timeout_s=settings.probe_timeout_s)
        self._observer = Observer(*self._cli)
        self._drain: Drain | None = None
        self._draining: asyncio.Task[object] | None = None

    @property
    def pages(self) -> dict[str, Handler]:
        """What is served, by path."""
        return {
            "/agentz": self._agentz,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/state": self._state,
            "/metrics": self._metrics,
            "/drain": self._drain_page,
        }

    async def run(self) -> None:
        """Observe until cancelled."""
        await self._observer.run(self._met_new_cli)

    async def finish_drain(self) -> None:
        """Return when no drain is under way."""
        if self._draining is not None:
            await asyncio.wait([self._draining])

    async def drain(self, deadline_s: float) -> Drain:
        """Drain the CLI, or join the drain that runs; the earliest deadline counts.

        After one that is done another is run: clients with an open connection may have begun again meanwhile.
        """
        if self._drain is not None and self._draining is not None and not self._draining.done():
            self._drain.hasten(deadline_s)
        else:
            self._drain = Drain(self._observer, self._answers_ping, Keeper(*self._cli), deadline_s=deadline_s)
            self._draining = asyncio.create_task(self._drain.run())
        drain, draining = self._drain, self._draining
        # Waited for, not awaited: the drain goes on when who asked for it hangs up.
        await asyncio.wait([draining])
        return drain

    async def _answers_ping(self) -> bool:
        """For a drain that waits for a hung CLI, and has to say so before kubelet's grace for such a one ends."""
        return (await ping(*self._cli, _DRAIN_PING_TIMEOUT_S)).answered

    def _met_new_cli(self) -> None:
        """What was drained is gone; what stands there now serves."""
        if self._drain is not None and self._drain.generation != self._observer.generation:
            log("drain is over: another CLI serves")
            self._drain = None

    async def _agentz(self, _: Mapping[str, str]) -> Response:
        return Response(200, "ok\n")

    async def _livez(self, _: Mapping[str, str]) -> Response:
        reading = await self._probe.reading()
        # A CLI that rejects our token lives. Killing it would cost its turns, and cure nothing that a drained restart
        # does not cure as well; it is not ready, which the operator sees.
        return Response(200, "ok\n") if reading.answered else Response(503, f"{reading.failure}: {reading.message}\n")

    async def _readyz(self, _: Mapping[str, str]) -> Response:
        if self._drain is not None:
            return Response(503, f"draining: {self._drain.progress.phase}\n")
        reading = await self._probe.reading()
        return Response(200, "ok\n") if reading.ok else Response(503, f"{reading.failure}: {reading.message}\n")

    async def _state(self, _: Mapping[str, str]) -> Response:
        state = await self._observe()
        return Response(200, json.dumps(state.document()) + "\n", "application/json")

    async def _metrics(self, _: Mapping[str, str]) -> Response:
        state = await self._observe()
        return Response(200, metrics.text(state), "text/plain; version=0.0.4; charset=utf-8")

    async def _drain_page(self, query: Mapping[str, str]) -> Response:
        deadline_s = self._settings.drain_deadline_s
        if given := query.get("deadline_s"):
            try:
                deadline_s = float(given)
            except ValueError as error:
                raise BadRequest(400, "deadline_s must be a number of seconds") from error
            if not 0 <= deadline_s <= 86_400:
                raise BadRequest(400, "deadline_s must be between 0 and 86400")
        drain = await self.drain(deadline_s)
        progress = drain.progress
        summary = {"closed": len(progress.closed), "cut": len(progress.cut), "gaveUp": progress.gave_up}
        return Response(200, json.dumps(summary) + "\n", "application/json")

    async def _observe(self) -> State:
        reading, sessions = await asyncio.gather(self._probe.reading(), self._sessions())
        now = asyncio.get_running_loop().time()
        heard_at = self._observer.heard_at
        return State(
            version=__version__,
            reading=reading,
            probe_failures=dict(self._probe.failures),
            sessions=sessions,
            quiet_s=None if heard_at is None else now - heard_at,
            processes=read_processes(_PROC),
            disk=read_disk(self._settings.data),
            drain=self._drain,
            now=now,
        )

    async def _sessions(self) -> Sessions | None:
        """The sessions; None if they could not be counted."""
        try:
            return await self._observer.sessions(max_age_s=_SESSIONS_MAX_AGE_S, timeout_s=_SESSIONS_TIMEOUT_S)
        except ServerError:
            return None
