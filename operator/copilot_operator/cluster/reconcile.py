"""One cycle for one key: snapshot → plan → execute → status. What fails is said in status or tried again."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.bundles import look_again_s
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.credentials import in_the_way
from copilot_operator.cluster.errors import Absent, Conflict, Ending, Refused
from copilot_operator.cluster.events import write_event
from copilot_operator.cluster.execute import Executor, NotLeading
from copilot_operator.cluster.pools import Pools, name_taken
from copilot_operator.cluster.tenants import Tenants
from copilot_operator.domain.endpoint_status import endpoint_report
from copilot_operator.domain.kinds import POOL, SECRET, TENANT, Kind
from copilot_operator.domain.lifecycle import Move
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.nodes import unprotected_in_s
from copilot_operator.domain.plan import plan_tenant
from copilot_operator.domain.pool_plan import plan_pool
from copilot_operator.domain.pool_status import changes_course, pool_report
from copilot_operator.domain.seats import pool_of_seat
from copilot_operator.domain.snapshot import Finding, PoolSnapshot, TenantSnapshot
from copilot_operator.domain.status import Event, Report, tenant_report
from copilot_operator.domain.steps import Apply, Step
from copilot_operator.domain.tenant_tokens import changes_at

log = logging.getLogger(__name__)

WorkKey = tuple[Kind, str, str]  # kind, namespace, name
REFUSED_AGAIN_S = 30.0  # a refusal stays until somebody changes something; we would hear of most, not of all
TOKEN_AGAIN_S = 0.5  # its pool makes the tenant's new token, or tells the gateway of it
WAITING_AGAIN_S = 5.0  # for what no watch tells: foreign objects, missing storage classes


@dataclass
class Reconciler:
    """``follow`` hears every snapshot of a tenant (None: gone) and what was decided, once that was carried out;
    ``after_pool`` of each pool that was written, ``new_course`` of one whose servers are to run another revision.

    ``noted`` hears every Event that is written.

    ``follow_pool`` hears every snapshot of a pool, ``seats_changed`` which seats of a Shared pool are to run or not any
    more, ``after_seat`` that something was found of one. ``doubtful`` keys are asked for before anything is done for
    them.
    """

    api: KubeApi
    cache: Cache
    answers: Answers
    tenants: Tenants
    pools: Pools
    executor: Executor
    may_write: Callable[[], bool]
    follow: Callable[[str, str, TenantSnapshot | None, Move | None], None]
    after_pool: Callable[[PoolSnapshot], None]
    new_course: Callable[[str, str], None]
    follow_pool: Callable[[str, str, PoolSnapshot | None], None]
    seats_changed: Callable[[str, Iterable[str]], None]
    after_seat: Callable[[str, str], None]
    doubtful: set[WorkKey] = field(default_factory=set)
    noted: Callable[[Manifest, Event, datetime], None] = lambda regarding, event, now: None
    refused: dict[WorkKey, Finding] = field(default_factory=dict)

    async def __call__(self, key: WorkKey) -> float | None:
        """Seconds after which to look again, None if only an event can change the answer."""
        kind, namespace, name = key
        if key in self.doubtful:
            await self._confirm(key)
        return await (self._tenant(key, namespace, name) if kind == TENANT else self._pool(key, namespace, name))

    async def _confirm(self, key: WorkKey) -> None:
        """A watch that had to list anew does not tell what is gone. The garbage collector does: it takes the children.

        Without this question they would be made again, for it to take, until the next resync.
        """
        kind, namespace, name = key
        kind, name = (POOL, pool) if (pool := pool_of_seat(name)) else (kind, name)
        try:
            live = await self.api.get(kind, namespace, name)
        except Absent:
            if ghost := self.cache.get(kind, namespace, name):
                self.cache.drop(kind, ghost, for_good=True)
        else:
            self.answers.learn(kind, live)
        self.doubtful.discard(key)

    async def _tenant(self, key: WorkKey, namespace: str, name: str) -> float | None:
        snapshot = await self.tenants.snapshot(namespace, name)
        if snapshot is None:
            self.refused.pop(key, None)
            self.follow(namespace, name, None, None)
            return None
        plan = plan_tenant(snapshot)
        failure = await self._execute(key, plan.steps)
        snapshot = replace(snapshot, refused=self.refused.get(key))
        self.follow(namespace, name, snapshot, None if failure or snapshot.refused else plan.move)
        report = tenant_report(snapshot, plan) if snapshot.has_server else endpoint_report(snapshot, plan)
        await (self._note(snapshot, report) if snapshot.is_seat else self._say(TENANT, snapshot.raw, report, snapshot))
        if failure:
            raise failure
        waits = snapshot.unusable or snapshot.children.obstacle or snapshot.storage.finding
        if waits or snapshot.refused:
            return REFUSED_AGAIN_S if snapshot.refused else WAITING_AGAIN_S
        if snapshot.pool and snapshot.lacks_token and not snapshot.deleted:
            return WAITING_AGAIN_S  # its pool wakes it, unless the answer to the pool's write got lost
        if not snapshot.token_told and not snapshot.paused:
            return TOKEN_AGAIN_S
        wanted = snapshot.spec.connection_token if snapshot.spec else None
        rotates_s = _until(changes_at(snapshot.rotation, wanted, snapshot.now), snapshot.now)
        due_s = (report.look_again_s, unprotected_in_s(snapshot), rotates_s)
        return min((s for s in due_s if s is not None), default=None)

    async def _pool(self, key: WorkKey, namespace: str, name: str) -> float | None:
        scaled = self.pools.scale(namespace, name)
        self.seats_changed(namespace, self.pools.members.decide(namespace, name))
        snapshot = await self.pools.snapshot(namespace, name)
        if snapshot is None:
            self.refused.pop(key, None)
            self.pools.members.forget(namespace, name)
            self.follow_pool(namespace, name, None)
            return None
        self.follow_pool(namespace, name, snapshot)
        steps = plan_pool(snapshot)
        if taken := await self._in_the_way(snapshot, steps):
            snapshot, steps = replace(snapshot, obstacle=taken), ()
        failure = await self._execute(key, steps)
        if steps and not failure:
            self.after_pool(snapshot)
        snapshot = replace(snapshot, refused=self.refused.get(key))
        report = pool_report(snapshot, scaled)
        await self._say(POOL, snapshot.raw, report, snapshot)
        if report.status is not None and changes_course(snapshot.raw.get("status") or {}, report.status):
            self.new_course(namespace, name)
        if failure:
            raise failure
        if snapshot.refused or snapshot.obstacle:
            return REFUSED_AGAIN_S
        if scaled or self.pools.members.surplus(namespace, name):
            return WAITING_AGAIN_S
        rotates_s = _until(snapshot.gateway.changes_at, snapshot.now)
        due_s = (snapshot.next_verdict_s, rotates_s, look_again_s(snapshot.bundle))
        return min((s for s in due_s if s is not None), default=None)

    async def _in_the_way(self, pool: PoolSnapshot, steps: tuple[Step, ...]) -> Finding | None:
        """What has the name of a pool's Secret to be made, and is somebody else's: an apply would make it ours, with
        all that he put there. Other objects are looked at before they are planned."""
        for step in steps:
            if isinstance(step, Apply) and step.kind == SECRET and "resourceVersion" not in step.manifest["metadata"]:
                name = step.manifest["metadata"]["name"]
                if await in_the_way(self.api, pool.namespace, name, pool.raw["metadata"]["uid"]):
                    return name_taken(SECRET, name)
        return None

    async def _note(self, seat: TenantSnapshot, report: Report) -> None:
        """What is found of a server of a Shared pool is told in the status of the pool; trouble as an Event, too."""
        if report.status is None:
            return
        assert seat.owner
        self.pools.members.statuses[seat.namespace, seat.name] = report.status
        self.after_seat(seat.namespace, seat.pool_name)
        troubles = [report.event] if report.event and report.event.type == "Warning" else []
        for event in (*troubles, *([report.deletion] if report.deletion else [])):
            if self.may_write():
                told = replace(event, message=f"Server {seat.server}: {event.message}")
                await self._event(seat.owner, told, seat.now)

    async def _execute(self, key: WorkKey, steps: tuple[Step, ...]) -> Exception | None:
        """A refusal becomes a finding; what may pass by itself is returned, to be raised once status is told."""
        try:
            await self.executor.run(steps)
        except Ending:
            return None  # everything in it goes; there is nobody to tell
        except Refused as error:
            self.refused[key] = Finding("Refused", f"The API server refuses to {error.what}: {error.message}"[:1000])
            log.warning("refused", extra={"key": str(key), "error": str(error)})
            return None
        except (Conflict, NotLeading) as error:
            return error
        self.refused.pop(key, None)
        return None

    async def _say(self, kind: Kind, raw: Manifest, report: Report, snapshot: TenantSnapshot | PoolSnapshot) -> None:
        if report.status is None:
            return
        if not self.may_write():
            raise NotLeading  # tried again: the lease may be ours once more, and no event would remind us
        metadata = {key: raw["metadata"][key] for key in ("name", "namespace", "uid")}
        status = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "status": report.status}
        try:
            live = await self.api.apply(kind, status, subresource="status")
        except Absent:
            return  # deleted meanwhile
        except Conflict:
            # The uid keeps us from writing to, or making, a namesake. The same object is only a matter of a second try.
            if self.cache.uid(kind, raw["metadata"]["namespace"], raw["metadata"]["name"]) == raw["metadata"]["uid"]:
                raise
            return
        self.answers.keep(kind, live, of_status=True)
        for event in (report.event, report.deletion, report.scaling, report.certificate):
            if event:
                await self._event(raw, event, snapshot.now)

    async def _event(self, regarding: Manifest, event: Event, now: datetime) -> None:
        self.noted(regarding, event, now)
        await write_event(self.api, regarding, event, now)


def _until(at: datetime | None, now: datetime) -> float | None:
    """Seconds until then, and a little more."""
    return None if at is None else max(0.0, (at - now).total_seconds()) + 0.1
