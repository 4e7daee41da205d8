"""The agent as a whole: one probe, one observer, at most one drain, and the pages that show them."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

from copilot_operator import __version__
from copilot_operator.agent import metrics
from copilot_operator.agent.admission import Admission
from copilot_operator.agent.arbiter import Arbiter
from copilot_operator.agent.claiming import Claiming
from copilot_operator.agent.deadline import OnTimeout
from copilot_operator.agent.deep import SESSION_ID, DeepProbe
from copilot_operator.agent.deletion import Deletion, all_ours
from copilot_operator.agent.ending import tell_to_end
from copilot_operator.agent.ephemeral import EphemeralSessions
from copilot_operator.agent.eraser import Eraser
from copilot_operator.agent.janitor import Janitor
from copilot_operator.agent.keeper import Keeper
from copilot_operator.agent.largest import Largest
from copilot_operator.agent.latency import Latencies
from copilot_operator.agent.log import log
from copilot_operator.agent.look import Look
from copilot_operator.agent.observer import Observer, Sessions
from copilot_operator.agent.orders import Orders
from copilot_operator.agent.paid import Paid
from copilot_operator.agent.policy import told
from copilot_operator.agent.probe import Probe
from copilot_operator.agent.queries import as_json, listed, seconds, whole
from copilot_operator.agent.settings import Settings
from copilot_operator.agent.slots import Bounds
from copilot_operator.agent.state import State, draining
from copilot_operator.agent.store import QUARANTINE, SESSIONS, quarantined
from copilot_operator.agent.usage import Disk, read_disk, read_line, read_processes
from copilot_operator.agent.web import BadRequest, Handler, Response
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.ephemeral import NONE
from copilot_operator.rpc.errors import ConnectionLost, ServerError
from copilot_operator.rpc.ping import ping

_SESSIONS_MAX_AGE_S: Final = 1.0
_SESSIONS_TIMEOUT_S: Final = 3.0
_DRAIN_PING_TIMEOUT_S: Final = 1.0
_MAX_DEADLINE_S: Final = 86_400.0
_MAX_WAIT_S: Final = 30.0
_MAX_WAITING_S: Final = 1e7
_SHUTDOWN_TIMEOUT_S: Final = 5.0
TOKEN_SERIAL: Final = "token-serial"  # below the volume; the script that starts the CLI writes it
_PROC: Final = Path("/proc")


class Agent:
    """Everything that is known and done about the CLI beside us."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cli = (settings.cli_host, settings.cli_port, settings.token)
        self._claiming = Claiming(settings) if settings.claims else None
        self._own_session = f"{SESSION_ID}-{settings.pod_uid}" if settings.claims else SESSION_ID
        self._probe = Probe(*self._cli, timeout_s=settings.probe_timeout_s)
        may_be_loaded = self._claiming.claims.may_be_loaded if self._claiming else lambda id: True
        self._observer = Observer(
            *self._cli, unseen=self._own_session, may_be_loaded=may_be_loaded, on_heard=self._heard
        )
        self._admission = Admission(self._observer)
        self._paid = None if settings.behind_gateway else Paid(self._observer)
        self._arbiter = Arbiter(self._observer, settings.lock_ttl_s)
        self._orders = Orders(self._observer, self._look, self._keeper)
        self._deep = DeepProbe(
            *self._cli, every_s=settings.deep_probe_every_s, is_unused=self._is_unused, id=self._own_session
        )
        stored = settings.sessions or settings.data / SESSIONS
        claiming = self._claiming.deleting if self._claiming else all_ours
        self._janitor = Janitor(
            self._observer, stored, every_s=settings.janitor_every_s, loaded=self._loaded, may_delete=self._is_at_work,
            claiming=claiming, read_only=self._is_read_only,
        )  # fmt: skip
        self._eraser = Eraser(
            self._observer, stored, settings.data / QUARANTINE, may_delete=self._is_at_work, claiming=claiming
        )
        self._ephemeral = EphemeralSessions(
            self._observer,
            stored,
            settings.ephemeral,
            besides=self._is_a_probe,
            held_s=settings.held_s,
            claiming=claiming,
        )
        self._largest = Largest(self._observer, lambda: self._janitor.policy.high_water_percent, self._disk)
        if settings.is_copilot_runtime:
            self._observer.deletion = Deletion(one_by_one=True)

    @property
    def pages(self) -> dict[str, Handler]:
        """What is served, by path."""
        return {
            "/agentz": self._agentz,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/state": self._if_meant(self._state),
            **self.metrics_pages,
            "/drain": self._if_meant(self._drain),
            "/drain/cancel": self._if_meant(self._cancel),
            "/restart": self._if_meant(self._restart),
            "/slots": self._if_meant(self._slots),
            "/slots/attach": self._if_meant(self._attach),
            "/ephemeral": self._if_meant(self._told_of_ephemeral),
            **{path: self._if_meant(page) for path, page in self._arbiter.pages.items()},
            **{path: self._if_meant(page) for path, page in (self._claiming.pages if self._claiming else {}).items()},
        }

    @property
    def metrics_pages(self) -> dict[str, Handler]:
        """What is served to who may only look."""
        return {"/metrics": self._metrics}

    async def run(self) -> None:
        """Observe until cancelled; a drain that runs then ends with it."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._observer.run(self._met_new_cli))
                group.create_task(self._deep.run())
                group.create_task(self._janitor.run())
                group.create_task(self._eraser.run())
                group.create_task(self._largest.run())
                if self._settings.ephemeral != NONE:
                    group.create_task(self._ephemeral.run())
                if self._paid:
                    group.create_task(self._paid.run())
                if self._claiming:
                    group.create_task(self._claiming.run(self._loaded))
        finally:
            await self._orders.stop()

    async def finish_drain(self) -> None:
        """Return when no drain is under way, and nothing is kept."""
        await self._orders.finish()

    async def leave(self) -> None:
        """Last of all: what nobody may keep from others."""
        if self._claiming:
            await self._claiming.leave()

    def _if_meant(self, handler: Handler) -> Handler:
        """Refuse what was meant for another pod: our address may have been its own a moment ago (RFC 9110, 15.5.20)."""

        async def checked(query: Mapping[str, str]) -> Response:
            if query.get("pod", self._settings.pod) != self._settings.pod:
                return Response(421, f"this is pod {self._settings.pod}\n")
            return await handler(query)

        return checked

    def _keeper(self) -> Keeper:
        loading = self._claiming.claims.loading if self._claiming else None
        return Keeper(*self._cli, ephemeral=self._settings.ephemeral, loading=loading)

    def _is_a_probe(self, id: str) -> bool:
        """Whether it is ours, or that of another agent."""
        return id.startswith(f"{SESSION_ID}-") if self._claiming else id == SESSION_ID

    def _is_at_work(self) -> bool:
        """Not drained."""
        return self._orders.drain is None

    def _is_read_only(self) -> bool:
        disk = self._disk()
        return disk is not None and disk.read_only

    def _look(self) -> Look:
        return Look(self._observer, self._answers_ping)

    async def _answers_ping(self) -> bool:
        """For a drain that waits for a hung CLI, and has to say so before kubelet's grace for such a one ends."""
        return (await ping(*self._cli, _DRAIN_PING_TIMEOUT_S)).answered

    def _heard(self, id: str) -> None:
        self._admission.heard(id)
        if self._paid:
            self._paid.heard(id)

    def _met_new_cli(self) -> None:
        self._orders.met_new_cli()
        if self._paid:
            self._paid.met_new_cli()
        self._probe.latencies = Latencies()
        self._deep.met_new_cli()
        self._admission.met_new_cli()
        if self._claiming:
            self._claiming.met(self._observer.connection)

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

    async def _state(self, query: Mapping[str, str]) -> Response:
        """The operator says with it how long sessions are kept and whose are erased, see ``policy``."""
        try:
            self._janitor.follow(told(self._janitor.policy, query))
            self._eraser.follow(self._janitor.policy.erase)
        except ValueError as error:
            raise BadRequest(400, str(error)) from error
        state = await self._observe()
        return as_json(state.document())

    async def _metrics(self, _: Mapping[str, str]) -> Response:
        state = await self._observe()
        return Response(200, metrics.text(state), "text/plain; version=0.0.4; charset=utf-8")

    async def _drain(self, query: Mapping[str, str]) -> Response:
        """With ``on_timeout`` or ``wait_s`` as the operator asks, else as kubelet does before it ends the pod."""
        deadline_s = seconds(query, "deadline_s", self._settings.drain_deadline_s, _MAX_DEADLINE_S)
        if not query.keys() & {"on_timeout", "wait_s"}:
            progress = (await self._orders.bind(deadline_s)).progress
            return as_json({"closed": len(progress.closed), "cut": len(progress.cut), "gaveUp": progress.gave_up})
        try:
            on_timeout = OnTimeout(query.get("on_timeout", OnTimeout.ABORT))
        except ValueError as error:
            raise BadRequest(400, f"on_timeout must be one of {', '.join(OnTimeout)}") from error
        wait_s = seconds(query, "wait_s", 0.0, _MAX_WAIT_S)
        drain = await self._orders.order(deadline_s, on_timeout, wait_s=wait_s)
        return as_json(draining(drain, asyncio.get_running_loop().time()))

    async def _cancel(self, _: Mapping[str, str]) -> Response:
        cancelled = self._orders.cancel()
        return as_json({"cancelled": cancelled}, status=200 if cancelled else 409)

    async def _attach(self, query: Mapping[str, str]) -> Response:
        """Whether ``id``, which is loaded, may be attached to: it is not about to be unloaded."""
        id = query.get("id", "")
        try:
            if self._claiming and await self._claiming.take([id], query):
                return as_json({"attach": False})
        except (ServerError, OSError) as error:
            return Response(503, f"{error}\n")
        may = self._admission.attach(id)
        if self._claiming and not may:
            self._claiming.give_back([id], [id], query)
        return as_json({"attach": may})

    async def _slots(self, query: Mapping[str, str]) -> Response:
        """Which of ``ids`` may be loaded, each with the most that its tenant may have, if any: ``a:5,b``."""
        bounds = Bounds(whole(query, "most"), whole(query, "code_length"))
        given = [id.partition(":") for id in listed(query, "ids")]
        wanted = {id: int(most) if most.isdigit() else None for id, _, most in given}
        wait_s, evict = seconds(query, "wait_s", 0.0, _MAX_WAIT_S), query.get("evict") == "true"
        waiting_s = seconds(query, "waiting_s", inf, _MAX_WAITING_S)
        given_back = list(wanted)
        try:
            held = await self._claiming.take(wanted, query) if self._claiming else {}
            free = {id: most for id, most in wanted.items() if id not in held}
            room = partial(self._admission.admit, evict=evict, wait_s=wait_s, waiting_s=waiting_s)
            lacks = await room(free, bounds) if free else {}
            given_back = [id for id in free if lacks[id]]
        except (ServerError, OSError) as error:
            return Response(503, f"{error}\n")
        finally:
            if self._claiming:
                self._claiming.give_back(given_back, wanted, query)
        return as_json({"lacks": lacks, "held": held})

    async def _told_of_ephemeral(self, query: Mapping[str, str]) -> Response:
        """Which ephemeral sessions clients of ``gateway`` have ``open``, and which they have ``left``: ``a,b``."""
        if not (gateway := query.get("gateway")):
            raise BadRequest(400, "gateway must be a name")
        self._ephemeral.told(gateway, listed(query, "open"), listed(query, "left"))
        return as_json({})

    async def _restart(self, _: Mapping[str, str]) -> Response:
        """Ends the CLI for kubelet to start it again. Only an unused one: its shutdown waits for no turn."""
        try:
            count = (await self._look().at_all()).count
            if count.loaded:
                return as_json({"restarted": False, "busy": count.busy, "loaded": count.loaded}, status=409)
            await self._shut_down(self._observer.connection)
        except (ServerError, OSError) as error:
            return as_json({"restarted": False, "message": str(error) or "the CLI goes on"}, status=503)
        return as_json({"restarted": True})

    async def _shut_down(self, cli: Connection) -> None:
        """Raises ServerError and OSError, and TimeoutError when the CLI has agreed and yet goes on."""
        log("cli is told to end")
        if self._settings.is_copilot_runtime:  # shut down, it would stay and refuse everything
            tell_to_end(self._settings.end)
        else:
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
            disk=self._disk(),
            drain=self._orders.drain,
            now=now,
            evicted=self._admission.evicted,
            refused=self._admission.refused,
            wait_for_room=self._admission.slots.waiting(now),
            wait_to_speak=self._arbiter.waiting,
            met_at=self._observer.met_at,
            latency_factor=self._probe.latencies.factor,
            deep=self._deep.reading,
            policy=self._janitor.policy,
            tally=self._janitor.tally,
            erased=self._eraser.done,
            quarantined=quarantined(self._settings.data / QUARANTINE),
            token_serial=read_line(self._settings.data / TOKEN_SERIAL),
            credential_refused=self._paid.refused if self._paid else None,
            largest=self._largest.sessions,
            claims=self._claiming.claims.counts if self._claiming else None,
            ephemeral=self._ephemeral.stored,
            ephemeral_erased=self._ephemeral.erased,
        )

    def _disk(self) -> Disk | None:
        return read_disk(self._settings.volume)

    async def _loaded(self) -> set[str]:
        """Ids of loaded sessions, and of the one that is ours. Raises ServerError."""
        return {self._own_session, *(await self._counted()).standings}

    async def _sessions(self) -> Sessions | None:
        """The sessions; None if they could not be counted."""
        try:
            return await self._counted()
        except ServerError:
            return None

    async def _counted(self) -> Sessions:
        """Raises ServerError."""
        sessions = await self._observer.sessions(max_age_s=_SESSIONS_MAX_AGE_S, timeout_s=_SESSIONS_TIMEOUT_S)
        self._admission.found(sessions)
        return sessions
