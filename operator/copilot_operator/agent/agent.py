"""The agent as a whole: one probe, one observer, at most one drain, and the pages that show them."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from copilot_operator import __version__
from copilot_operator.agent import metrics
from copilot_operator.agent.deadline import OnTimeout
from copilot_operator.agent.deep import SESSION_ID, DeepProbe
from copilot_operator.agent.keeper import Keeper
from copilot_operator.agent.latency import Latencies
from copilot_operator.agent.log import log
from copilot_operator.agent.look import Look
from copilot_operator.agent.observer import Observer, Sessions
from copilot_operator.agent.orders import Orders
from copilot_operator.agent.probe import Probe
from copilot_operator.agent.settings import Settings
from copilot_operator.agent.state import State, draining
from copilot_operator.agent.usage import read_disk, read_processes
from copilot_operator.agent.web import BadRequest, Handler, Response
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import ConnectionLost, ServerError
from copilot_operator.rpc.ping import ping

_SESSIONS_MAX_AGE_S: Final = 1.0
_SESSIONS_TIMEOUT_S: Final = 3.0
_DRAIN_PING_TIMEOUT_S: Final = 1.0
_MAX_DEADLINE_S: Final = 86_400.0
_MAX_WAIT_S: Final = 30.0
_SHUTDOWN_TIMEOUT_S: Final = 5.0
_PROC: Final = Path("/proc")


class Agent:
    """Everything that is known and done about the CLI beside us."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cli = (settings.cli_host, settings.cli_port, settings.token)
        self._probe = Probe(*self._cli, timeout_s=settings.probe_timeout_s)
        self._observer = Observer(*self._cli, unseen=SESSION_ID)
        self._orders = Orders(self._observer, self._look, lambda: Keeper(*self._cli))
        self._deep = DeepProbe(*self._cli, every_s=settings.deep_probe_every_s, is_unused=self._is_unused)

    @property
    def pages(self) -> dict[str, Handler]:
        """What is served, by path."""
        return {
            "/agentz": self._agentz,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/state": self._if_meant(self._state),
            "/metrics": self._metrics,
            "/drain": self._if_meant(self._drain),
            "/drain/cancel": self._if_meant(self._cancel),
            "/restart": self._if_meant(self._restart),
        }

    async def run(self) -> None:
        """Observe until cancelled; a drain that runs then ends with it."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._observer.run(self._met_new_cli))
                group.create_task(self._deep.run())
        finally:
            await self._orders.stop()

    async def finish_drain(self) -> None:
        """Return when no drain is under way, and nothing is kept."""
        await self._orders.finish()

    def _if_meant(self, handler: Handler) -> Handler:
        """Refuse what was meant for another pod: our address may have been its own a moment ago (RFC 9110, 15.5.20)."""

        async def checked(query: Mapping[str, str]) -> Response:
            if query.get("pod", self._settings.pod) != self._settings.pod:
                return Response(421, f"this is pod {self._settings.pod}\n")
            return await handler(query)

        return checked

    def _look(self) -> Look:
        return Look(self._observer, self._answers_ping)

    async def _answers_ping(self) -> bool:
        """For a drain that waits for a hung CLI, and has to say so before kubelet's grace for such a one ends."""
        return (await ping(*self._cli, _DRAIN_PING_TIMEOUT_S)).answered

    def _met_new_cli(self) -> None:
        self._orders.met_new_cli()
        self._probe.latencies = Latencies()
        self._deep.met_new_cli()

    async def _is_unused(self) -> bool:
        sessions = await self._sessions()
        return self._orders.drain is None and sessions is not None and sessions.count.loaded == 0

    async def _agentz(self, _: Mapping[str, str]) -> Response:
        return Response(200, "ok\n")

    async def _livez(self, _: Mapping[str, str]) -> Response:
        reading = await self._probe.reading()
        # A CLI that rejects our token lives. Killing it would cost its turns, and cure nothing that a drained restart
        # does not cure as well; it is not ready, which the operator sees.
        return Response(200, "ok\n") if reading.answered else Response(503, f"{reading.failure}: {reading.message}\n")

    async def _readyz(self, _: Mapping[str, str]) -> Response:
        if self._orders.drain is not None:
            return Response(503, f"draining: {self._orders.drain.progress.phase}\n")
        reading = await self._probe.reading()
        return Response(200, "ok\n") if reading.ok else Response(503, f"{reading.failure}: {reading.message}\n")

    async def _state(self, _: Mapping[str, str]) -> Response:
        state = await self._observe()
        return _json(state.document())

    async def _metrics(self, _: Mapping[str, str]) -> Response:
        state = await self._observe()
        return Response(200, metrics.text(state), "text/plain; version=0.0.4; charset=utf-8")

    async def _drain(self, query: Mapping[str, str]) -> Response:
        """With ``on_timeout`` or ``wait_s`` as the operator asks, else as kubelet does before it ends the pod."""
        deadline_s = _seconds(query, "deadline_s", self._settings.drain_deadline_s, _MAX_DEADLINE_S)
        if not query.keys() & {"on_timeout", "wait_s"}:
            progress = (await self._orders.bind(deadline_s)).progress
            return _json({"closed": len(progress.closed), "cut": len(progress.cut), "gaveUp": progress.gave_up})
        try:
            on_timeout = OnTimeout(query.get("on_timeout", OnTimeout.ABORT))
        except ValueError as error:
            raise BadRequest(400, f"on_timeout must be one of {', '.join(OnTimeout)}") from error
        wait_s = _seconds(query, "wait_s", 0.0, _MAX_WAIT_S)
        drain = await self._orders.order(deadline_s, on_timeout, wait_s=wait_s)
        return _json(draining(drain, asyncio.get_running_loop().time()))

    async def _cancel(self, _: Mapping[str, str]) -> Response:
        cancelled = self._orders.cancel()
        return _json({"cancelled": cancelled}, status=200 if cancelled else 409)

    async def _restart(self, _: Mapping[str, str]) -> Response:
        """Ends the CLI for kubelet to start it again. Only an unused one: its shutdown waits for no turn."""
        try:
            count = (await self._look().at_all()).count
            if count.loaded:
                return _json({"restarted": False, "busy": count.busy, "loaded": count.loaded}, status=409)
            await self._shut_down(self._observer.connection)
        except (ServerError, TimeoutError) as error:
            return _json({"restarted": False, "message": str(error) or "the CLI goes on"}, status=503)
        return _json({"restarted": True})

    async def _shut_down(self, cli: Connection) -> None:
        """Raises ServerError, and TimeoutError when the CLI has agreed and yet goes on."""
        log("cli is told to end")
        with suppress(ConnectionLost):  # it may be quicker than its answer
            await cli.call("runtime.shutdown", timeout_s=_SHUTDOWN_TIMEOUT_S)
        async with asyncio.timeout(_SHUTDOWN_TIMEOUT_S):
            await cli.wait_closed()

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
            drain=self._orders.drain,
            now=now,
            met_at=self._observer.met_at,
            latency_factor=self._probe.latencies.factor,
            deep=self._deep.reading,
        )

    async def _sessions(self) -> Sessions | None:
        """The sessions; None if they could not be counted."""
        try:
            return await self._observer.sessions(max_age_s=_SESSIONS_MAX_AGE_S, timeout_s=_SESSIONS_TIMEOUT_S)
        except ServerError:
            return None


def _json(document: Mapping[str, Any], *, status: int = 200) -> Response:
    return Response(status, json.dumps(document) + "\n", "application/json")


def _seconds(query: Mapping[str, str], name: str, default: float, at_most: float) -> float:
    """A duration given in a query. Raises BadRequest."""
    if not (given := query.get(name)):
        return default
    try:
        seconds = float(given)
    except ValueError as error:
        raise BadRequest(400, f"{name} must be a number of seconds") from error
    if not 0 <= seconds <= at_most:
        raise BadRequest(400, f"{name} must be between 0 and {at_most:g}")
    return seconds
