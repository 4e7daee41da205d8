"""``copilot-operator run``: puts the parts together. Every replica observes, the holder of the Lease acts.

kopf's watches ─► Router ─► cache, queue ─► workers: snapshot → plan → execute → status
                                ▲   ▲
                         resync ┘   └ pings (a changed verdict)
"""

import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import kopf
from kopf._core.engines.peering import Identity  # else kopf asks for our user's name, and our user has none
from prometheus_client.core import Metric

from copilot_operator.api.duration import duration_s
from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.bundles import Bundles
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import AccessError, KubeApi, load_access
from copilot_operator.cluster.credentials import Credentials
from copilot_operator.cluster.errors import Absent, ApiError
from copilot_operator.cluster.execute import Executor
from copilot_operator.cluster.fitness import Fitness
from copilot_operator.cluster.lease import SILENCE_S, Lease, LeaseLost
from copilot_operator.cluster.members import Members
from copilot_operator.cluster.observe import owner_key, record, registry, settings
from copilot_operator.cluster.pools import Pools
from copilot_operator.cluster.reach import Reach, ReachChanged
from copilot_operator.cluster.reconcile import Reconciler, WorkKey
from copilot_operator.cluster.resync import PERIOD_S, Resync
from copilot_operator.cluster.rivals import MARK, Marks, Others, Rivals
from copilot_operator.cluster.rollouts import Rollouts
from copilot_operator.cluster.starts import Starts
from copilot_operator.cluster.storage import StorageClasses
from copilot_operator.cluster.tenants import Tenants
from copilot_operator.cluster.vault import SecretVault
from copilot_operator.credentials.github import GitHub
from copilot_operator.credentials.minter import Minter, Owner, Wanted
from copilot_operator.domain.erasure import codes_of, noted, orders
from copilot_operator.domain.kinds import DEPLOYMENT, NODE, POD, POOL, SECRET, TENANT, Kind
from copilot_operator.domain.lifecycle import Move, Stage, outcome
from copilot_operator.domain.manifest import Manifest, annotations_of, labels_of
from copilot_operator.domain.naming import (
    PAUSED_ANNOTATION,
    RESTARTED_AT_ANNOTATION,
    USABLE_LABEL,
    minted_token,
    server_of,
)
from copilot_operator.domain.nodes import leaving
from copilot_operator.domain.rollout import standing_of
from copilot_operator.domain.seats import pool_of_seat
from copilot_operator.domain.server_tokens import parts_of
from copilot_operator.domain.snapshot import Finding, GatewayView, PoolSnapshot, ServerState, Settings, TenantSnapshot
from copilot_operator.engine.queue import WorkQueue
from copilot_operator.engine.workers import Workers
from copilot_operator.ops import logs, web
from copilot_operator.ops.metrics import Metrics, counter, gauge, labelled
from copilot_operator.page import web as page
from copilot_operator.page.recent import Recent
from copilot_operator.page.rows import Row, live_row
from copilot_operator.page.snapshot import Snapshots
from copilot_operator.servers.fleet import Fleet
from copilot_operator.servers.gateways import Gateways
from copilot_operator.settings import OperatorSettings, SettingsError

log = logging.getLogger(__name__)

LEASE_NAME: Final = "copilot-operator"
POOL_STATUS_S: Final = 5.0  # a pool's counts may lag; its tenants come and go by the thousand
NEW_TENANTS_S: Final = 0.1  # tenants that come together get their tokens in one write
CHILD_NEWS_S: Final = 0.2  # children change in bursts: a dozen times on the way to Ready
FAN_OUT_PER_S: Final = 200.0  # a changed pool wakes its tenants at this rate
HEARTBEAT_S: Final = 90.0  # the Lease is renewed every 1.5 s; so long a silence of its watch is no accident
WATCH_LAG_S: Final = 60.0


@dataclass
class Router:
    """From an object that changed to the keys that must look again.

    ``members`` lists who has a server in a pool (namespace, name); ``asked`` hears of each pool whose tenants must all
    look again; ``secret_news`` of each pool or tenant whose Secret with a token or key has changed.
    """

    cache: Cache
    queue: WorkQueue[WorkKey]
    members: Callable[[str, str], list[str]]
    asked: Callable[[str, str], None] = lambda namespace, pool: None
    secret_news: Callable[[WorkKey], None] = lambda owner: None
    told_at: dict[Kind, float] = field(default_factory=dict)  # last watch event, by kind
    decided: dict[WorkKey, tuple[object, ...]] = field(default_factory=dict)  # what of a pool its tenants depend on
    doubtful: set[WorkKey] = field(default_factory=set)  # may be gone themselves, since a child of theirs vanished
    leaving_nodes: dict[str, str] = field(default_factory=dict)  # that are being emptied, and why

    def observed(self, kind: Kind, event: str | None, manifest: Manifest) -> None:
        """A watch event; ``event`` is None for the objects of the first list."""
        self.told_at[kind] = asyncio.get_running_loop().time()
        if record(self.cache, kind, event, manifest):
            self.changed(kind, manifest, gone=event == "DELETED")

    def changed(self, kind: Kind, manifest: Manifest, *, gone: bool = False) -> None:
        if key := owner_key(kind, manifest):
            self.queue.add_after(key, 0.0 if kind == key[0] else CHILD_NEWS_S)
            if gone and kind not in (key[0], POD):
                self.doubtful.add(key)
        namespace = manifest["metadata"].get("namespace", "")
        if kind == TENANT:
            self.tenant_changed(namespace, manifest)
        elif kind == POOL and self._decides_anew(manifest, gone):
            self.wake_tenants(namespace, manifest["metadata"]["name"])
        elif kind == SECRET and labels_of(manifest).get(USABLE_LABEL) == "true":
            self.secret_changed(namespace, manifest["metadata"]["name"])
        elif kind == SECRET and key and manifest["metadata"]["name"] == minted_token(key[0], key[2]):
            if key[0] == POOL:
                self.wake_tenants(namespace, key[2])  # their servers must start again to have it
            else:
                self.told_by_pool(namespace, key[2])
        elif kind == DEPLOYMENT and key and key[0] == TENANT:
            self.counts_changed(namespace, key[2])
        elif kind == NODE:
            self.node_changed(manifest["metadata"]["name"])

    def node_changed(self, name: str) -> None:
        """Kubelet reports every few minutes; servers must know only when their node begins, or ceases, to leave."""
        why = leaving(self.cache.get(NODE, "", name))
        if why == self.leaving_nodes.get(name, ""):
            return
        if why:
            self.leaving_nodes[name] = why
        else:
            del self.leaving_nodes[name]
        for namespace, tenant in self.cache.tenants_on(name):
            self.queue.add((TENANT, namespace, tenant))

    def tenant_changed(self, namespace: str, manifest: Manifest) -> None:
        if pool := pool_named(manifest):
            seen = (manifest.get("status") or {}).get("observedGeneration")
            changed = seen != manifest["metadata"].get("generation")  # by people: the gateway must know, too
            self.queue.add_after((POOL, namespace, pool), NEW_TENANTS_S if changed else POOL_STATUS_S)

    def told_by_pool(self, namespace: str, tenant: str) -> None:
        """A person's new token, which is all that holds now, reaches sessions by what the pool tells its gateways."""
        if owner := self.cache.get(TENANT, namespace, tenant):
            self.queue.add_after((POOL, namespace, pool_named(owner)), NEW_TENANTS_S)

    def counts_changed(self, namespace: str, tenant: str) -> None:
        if pool := pool_of_seat(tenant):
            self.queue.add_after((POOL, namespace, pool), POOL_STATUS_S)
        elif owner := self.cache.get(TENANT, namespace, tenant):
            self.queue.add_after((POOL, namespace, owner["spec"]["poolRef"]["name"]), POOL_STATUS_S)

    def secret_changed(self, namespace: str, secret: str) -> None:
        for tenant in self.cache.users_of(TENANT, namespace, secret):
            self.secret_news((TENANT, namespace, tenant))
            self.queue.add((TENANT, namespace, tenant))
            self.counts_changed(namespace, tenant)  # its pool tells the gateway
        for pool in self.cache.users_of(POOL, namespace, secret):
            self.secret_news((POOL, namespace, pool))
            self.queue.add((POOL, namespace, pool))
            self.wake_tenants(namespace, pool)

    def wake_tenants(self, namespace: str, pool: str) -> None:
        self.asked(namespace, pool)
        for place, tenant in enumerate(self.everybody(namespace, pool)):
            self.queue.add_after((TENANT, namespace, tenant), place / FAN_OUT_PER_S)

    def wake_all(self, spread_s: float = 0.0) -> None:
        keys: list[WorkKey] = [(kind, *key) for kind in (POOL, TENANT) for key in self.cache.keys(kind)]
        for namespace, pool in self.cache.keys(POOL):
            keys += [(TENANT, namespace, name) for name in self.members(namespace, pool) if pool_of_seat(name)]
        for place, key in enumerate(keys):
            self.queue.add_after(key, spread_s * place / len(keys))

    def everybody(self, namespace: str, pool: str) -> list[str]:
        """Tenants and seats."""
        return sorted({*self.cache.tenants_of(namespace, pool), *self.members(namespace, pool)})

    def _decides_anew(self, pool: Manifest, gone: bool) -> bool:
        """Whether anything changed that tenants depend on: not the status, which we write ourselves."""
        metadata, annotations = pool["metadata"], annotations_of(pool)
        key = (POOL, metadata.get("namespace", ""), metadata["name"])
        asked = (annotations.get(PAUSED_ANNOTATION), annotations.get(RESTARTED_AT_ANNOTATION))
        mark = (metadata["uid"], metadata.get("generation"), gone, metadata.get("deletionTimestamp"), asked)
        before, self.decided[key] = self.decided.get(key), mark
        return before != mark


def pool_named(tenant: Manifest) -> str:
    """Name of the pool in a tenant as stored, which need not be valid."""
    return str(((tenant.get("spec") or {}).get("poolRef") or {}).get("name", ""))


def own_app(snapshot: TenantSnapshot | None) -> Wanted | None:
    """The tenant's own GitHub App, or person's token; that of its pool is the pool's business."""
    if snapshot is None or snapshot.spec is None or snapshot.spec.auth is None or snapshot.pool is None:
        return None
    found, uid = snapshot.credential, snapshot.raw["metadata"]["uid"]
    if found and found.user and snapshot.pool.spec.gateway.enabled:
        return Wanted(found.user, uid, 0.0, found.token, found.made_from)
    if found is None or found.app is None or not snapshot.has_server:
        return None
    return Wanted(found.app, uid, duration_s(snapshot.pool.spec.drain.timeout), found.token)


def app_of(pool: PoolSnapshot | None) -> Wanted | None:
    """The pool's GitHub App, or person's token."""
    if pool is None or pool.spec is None or pool.credential is None:
        return None
    found, uid = pool.credential, pool.raw["metadata"]["uid"]
    if found.user:
        return Wanted(found.user, uid, 0.0, found.token, found.made_from)
    if found.app is None:
        return None
    return Wanted(found.app, uid, duration_s(pool.spec.drain.timeout), found.token)


class KindGone(Exception):
    """The API server does not know a kind any more that is watched."""

    def __init__(self) -> None:
        super().__init__("a watched kind is gone: were the CRDs uninstalled? Apply crds/; the next start waits for it")


class Operator:
    """One replica. ``run`` returns when told to stop; raises LeaseLost, KindGone or ReachChanged when it must stop."""

    def __init__(self, own: OperatorSettings, api: KubeApi, metrics: Metrics) -> None:
        self.own, self.api, self.metrics = own, api, metrics
        self.cache = Cache()
        self.queue: WorkQueue[WorkKey] = WorkQueue()
        clock = asyncio.get_running_loop().time
        self.rollouts = Rollouts(self._servers_of, self._servers_due, self._pool_due, clock)
        self.gateways = Gateways(self._demand_changed, self._told_of, self._pool_due)
        self.members = Members(
            self.cache,
            self._state_of,
            self.gateways.demanded,
            self.gateways.homes,
            self._stored_of,
            self.gateways.sessions,
            self.gateways.held,
            self.gateways.waits,
        )
        self.router = Router(self.cache, self.queue, self.members.names, self.rollouts.asked)
        self.reach = Reach(api, own.watch_namespaces)
        clusterwide = not own.watch_namespaces
        self.marks = Marks(api.apart(), own.namespace, own.watch_namespaces)
        self.others: Others = Rivals(api.apart(), own.namespace, LEASE_NAME) if clusterwide else self.marks
        self.lease = Lease(api.apart(), own.namespace, LEASE_NAME, own.identity, self.others.acting)
        self.fitness = Fitness(api, sees_crds=clusterwide)
        self.fleet = Fleet(self._told_of, metrics.measured_ping, self.gateways.cordoned)
        self.starts = Starts(own.most_starts, self._may_start, asyncio.get_running_loop().call_later, clock)
        self.resync = Resync(api, self.cache, self.router.changed, own.watch_namespaces)
        installation = Settings(own.agent_image, own.namespace, own.cluster_domain)
        failures: dict[Owner, Finding] = {}
        credentials = Credentials(api, self.cache, failures)
        bundles = Bundles(api, self._bundle_changed)
        pools = Pools(
            api, self.cache, installation, self.rollouts, self.members, credentials, bundles, self.gateways.shown
        )
        tenants = Tenants(
            api,
            self.cache,
            installation,
            StorageClasses(api, readable=clusterwide),
            self.fleet.view,
            pools,
            self.starts,
            unreadable=self.resync.forbidden,
            refused=self.gateways.refused,
        )
        answers = Answers(self.cache, self.router.changed)
        executor = Executor(api, answers, self.lease.valid)
        recent = Recent()
        self.snapshots = Snapshots(self.cache, self._replica, recent.events, self._seat_status, self._live)
        self.reconciler = Reconciler(
            api, self.cache, answers, tenants, pools, executor, self.lease.valid, self._follow, self._tokens_written,
            self.router.wake_tenants, self._follow_pool, self._seats_changed, self._pool_due_soon, self.router.doubtful,
            recent.note,
        )  # fmt: skip
        vault = SecretVault(api, self.cache, answers)
        self.minter = Minter(GitHub(), vault, failures, self._token_failed, self.lease.valid, works=self._works)
        self.router.secret_news = self.minter.try_now
        self.workers = Workers(self.queue, self.reconciler, own.workers, on_result=self._reconciled)
        self.synced_at: float | None = None
        self.heartbeat_at = asyncio.get_running_loop().time()
        metrics.read(self._figures)

    async def run(self, stop: asyncio.Event) -> None:
        """Observe, and act while leading, until ``stop``."""
        await self._first_resync(stop)
        if stop.is_set():
            return
        handlers = registry(
            self.router.observed, self._heartbeat, self.api.access, without=frozenset(self.resync.forbidden)
        )
        unwatch = asyncio.Event()
        watching = asyncio.create_task(self._watch(handlers, stop, unwatch), name="watching")
        reaching = asyncio.create_task(self.reach.follow(), name="reach")
        leading = asyncio.create_task(self.lease.hold(self._lead), name="lease")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({watching, reaching, leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        reaching.cancel()
        leading.cancel()
        led = await asyncio.gather(leading, return_exceptions=True)
        unwatch.set()  # not before: kopf's end cancels every task that is younger than it, the Lease's release too
        results = [*led, *await asyncio.gather(watching, reaching, return_exceptions=True)]
        stopping.cancel()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _watch(self, handlers: kopf.OperatorRegistry, stop: asyncio.Event, unwatch: asyncio.Event) -> None:
        """Run kopf until ``unwatch``, or until it ends by itself."""
        others, watched = asyncio.all_tasks(), self.resync.namespaces
        tasks = await kopf.spawn_tasks(
            registry=handlers, settings=settings(MARK if watched else LEASE_NAME),
            clusterwide=not watched, namespaces=watched, standalone=True, stop_flag=unwatch,
            identity=Identity(self.own.identity),
        )  # fmt: skip
        stop_on_signals(stop)  # kopf has just taken them for itself, and would end before the Lease is released
        try:
            await kopf.run_tasks(tasks, ignored=others)
        except Exception as error:
            status = getattr(error, "status", None)  # kopf's own classes for it are private
            if status == HTTPStatus.NOT_FOUND:
                raise KindGone from error
            if status == HTTPStatus.FORBIDDEN:
                raise ReachChanged(f"a watch is not allowed any more: {error}") from error
            raise

    async def _first_resync(self, stop: asyncio.Event) -> None:
        """Nothing is decided before everything was seen. Waits for the API server and CRDs of this version."""
        while not stop.is_set():
            try:
                if fit := await self.fitness.look() and await self._reach():
                    await self.resync.run_once()
            except Absent as error:
                log.warning("the CRDs are missing, apply crds/", extra={"error": str(error)})
            except ApiError as error:
                log.warning("the API server can't be read yet", extra={"error": str(error)})
            else:
                if fit:
                    self.resync.missed.clear()
                    self.synced_at = asyncio.get_running_loop().time()
                    return
            try:
                async with asyncio.timeout(2.0):
                    await stop.wait()
            except TimeoutError:
                continue

    async def _reach(self) -> bool:
        """Whether there is a namespace to work in."""
        if not await self.reach.look():
            return False
        self.resync.namespaces = self.marks.watched = self.reach.served
        return True

    async def _follow_others(self) -> None:
        """Say so if another installation has begun to act; it can't always know of us."""
        while True:
            try:
                self.lease.hears_of(await self.others.keep())
            except ApiError as error:
                log.warning("can't see whether another installation acts", extra={"error": str(error)})
            await asyncio.sleep(self.others.every_s)

    async def _lead(self) -> None:
        if self.synced_at and asyncio.get_running_loop().time() - self.synced_at > WATCH_LAG_S:
            await self._resync_once()  # who stood by had only its watches, which don't tell of all that vanished
        self.router.wake_all()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.workers.run(), name="workers")
            group.create_task(self.fleet.run(), name="fleet")
            group.create_task(self.gateways.run(), name="gateways")
            group.create_task(self.minter.run(), name="minter")
            group.create_task(self._resync_for_ever(), name="resync")
            group.create_task(self._follow_others(), name="others")

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            if await self._resync_once():
                self.router.wake_all(spread_s=PERIOD_S / 2)

    async def _resync_once(self) -> bool:
        try:
            await self.resync.run_once()
        except ApiError as error:
            log.warning("resync failed, the next one will do", extra={"error": str(error)})
            return False
        self.synced_at = asyncio.get_running_loop().time()
        return True

    def _follow(self, namespace: str, name: str, snapshot: TenantSnapshot | None, move: Move | None) -> None:
        """Carry the decision to the server; a tenant without a token has its pool make one."""
        if snapshot and move and move.ends:
            cause = move.cause.why.value if move.cause else "Silence"
            self.metrics.stopped(cause, outcome(snapshot), snapshot.drain.cut if snapshot.drain else 0)
        self.fleet.follow(namespace, name, snapshot, move)
        self._follow_start(namespace, name, snapshot, move)
        if not pool_of_seat(name):
            self.minter.follow((TENANT, namespace, name), own_app(snapshot))
        if snapshot is None:
            self.rollouts.forget(namespace, server_of(name))
        elif snapshot.has_server:
            self.rollouts.report(namespace, pool_named(snapshot.raw), snapshot.server, standing_of(snapshot, move))
        if snapshot and snapshot.pool and snapshot.spec and (snapshot.lacks_token or not snapshot.token_told):
            self.queue.add_after((POOL, namespace, snapshot.spec.pool_ref.name), NEW_TENANTS_S)

    def _follow_start(self, namespace: str, name: str, snapshot: TenantSnapshot | None, move: Move | None) -> None:
        server = (namespace, server_of(name))
        if snapshot is None or (move and move.stage is not Stage.STARTING and snapshot.waits_behind is None):
            self.starts.is_done(server)

    def _may_start(self, server: tuple[str, str]) -> None:
        namespace, name = server
        live = self.cache.get(DEPLOYMENT, namespace, name)
        if live and (key := owner_key(DEPLOYMENT, live)):
            self.queue.add(key)

    def _told_of(self, namespace: str, name: str) -> None:
        self.queue.add((TENANT, namespace, name))
        server, pool = (namespace, server_of(name)), pool_of_seat(name)
        state = self._state_of(*server)
        if pool and (server in self.fleet.inventory.erasing() or (state and state.wait_for_room)):
            self._pool_due(namespace, pool)  # which may need another server

    def _tokens_written(self, snapshot: PoolSnapshot) -> None:
        if [*snapshot.gateway.erasures] != noted(snapshot.gateway.tenants):
            self._pool_due_soon(snapshot.namespace, snapshot.name)  # servers are told of what is noted, not before
        first = bool(snapshot.spec and snapshot.spec.gateway.enabled and not snapshot.gateway.key_stored)
        served = {parts_of(key)[0] for key in snapshot.new_tokens}
        for tenant in self.router.everybody(snapshot.namespace, snapshot.name):
            if first or server_of(tenant) in served:
                self.queue.add((TENANT, snapshot.namespace, tenant))

    def _servers_of(self, namespace: str, pool: str) -> list[str]:
        return [server_of(name) for name in self.members.names(namespace, pool)]

    def _state_of(self, namespace: str, server: str) -> ServerState | None:
        return self.fleet.inventory.state(namespace, server)

    def _stored_of(self, namespace: str, server: str) -> int | None:
        return self.fleet.inventory.stored(namespace, server)

    def _replica(self) -> dict[str, object]:
        """Who we are and who leads, by the names of pods."""
        names = [identity.rpartition("-")[0] for identity in (self.lease.identity, self.lease.holder)]
        return {"name": names[0], "leads": self.lease.valid(), "leader": names[1], "synced": self.synced_at is not None}

    def _seat_status(self, namespace: str, seat: str) -> Manifest:
        return self.members.statuses.get((namespace, seat), {})

    def _live(self, namespace: str, server: str) -> Row | None:
        reading, state, _ = self.fleet.view(namespace, server)
        return live_row(reading, state) if self.lease.valid() else None

    def _follow_pool(self, namespace: str, pool: str, snapshot: PoolSnapshot | None) -> None:
        """Ask its gateways whom they want, and keep the token of its GitHub App fresh."""
        self.minter.follow((POOL, namespace, pool), app_of(snapshot))
        view = snapshot.gateway if snapshot else GatewayView()
        pods = {pod.name: pod.ip for pod in view.pods if pod.ip and pod.ready and not pod.terminating}
        others = [pod.ip for pod in view.pods if pod.ip and pod.name not in pods]
        self.gateways.follow(namespace, pool, pods, view.admin_key, others)
        stored = [] if snapshot is None or snapshot.paused else noted(view.tenants)
        self.fleet.inventory.erase(namespace, pool, orders(pool, stored, codes_of(view.entries)))

    def _token_failed(self, owner: Owner) -> None:
        kind, namespace, name = owner
        self.queue.add(owner)
        if kind == POOL:
            self.router.wake_tenants(namespace, name)

    def _bundle_changed(self, namespace: str, pool: str) -> None:
        self._pool_due(namespace, pool)
        self.router.wake_tenants(namespace, pool)

    async def _works(self, owner: Owner) -> bool:
        """Whether a session is in a turn that a pool, or tenant, pays for."""
        kind, namespace, name = owner
        if kind == POOL:
            return await self.gateways.work(namespace, name)
        raw = self.cache.get(TENANT, namespace, name)
        return raw is not None and await self.gateways.work(namespace, pool_named(raw), name)

    def _seats_changed(self, namespace: str, seats: Iterable[str]) -> None:
        for seat in seats:
            self.queue.add((TENANT, namespace, seat))

    def _pool_due_soon(self, namespace: str, pool: str) -> None:
        self.queue.add_after((POOL, namespace, pool), POOL_STATUS_S)

    def _servers_due(self, namespace: str, pool: str, servers: frozenset[str]) -> None:
        for name in self.members.names(namespace, pool):
            if server_of(name) in servers:
                self.queue.add((TENANT, namespace, name))

    def _demand_changed(self, namespace: str, pool: str, server: str) -> None:
        self._pool_due(namespace, pool)
        self._servers_due(namespace, pool, frozenset({server}))

    def _pool_due(self, namespace: str, pool: str) -> None:
        self.queue.add((POOL, namespace, pool))

    def _reconciled(self, key: WorkKey, seconds: float, error: BaseException | None) -> None:
        kind, namespace, name = key
        if error and kind == TENANT and (found := self.members.raw(namespace, name)):
            self.rollouts.could_not_tell(namespace, pool_named(found[0]), server_of(name))
        self.metrics.measured_reconcile(key[0].kind, seconds, error)

    def _heartbeat(self) -> None:
        self.heartbeat_at = asyncio.get_running_loop().time()

    def not_live(self) -> str:
        """Why this process should be restarted: a watch that died and did not notice; "" if all is well."""
        now = asyncio.get_running_loop().time()
        answers = now - self.lease.answered_at < SILENCE_S
        silent_s = now - max(self.heartbeat_at, self.lease.answering_since)  # watches, too, need time after an outage
        if self.synced_at and answers and silent_s > HEARTBEAT_S:
            return f"no event of the Lease's watch for {silent_s:.0f} s although the API server answers"
        for kind, missed in self.resync.missed.items():
            told, synced_at = self.router.told_at.get(kind, 0.0), self.synced_at or now
            if missed and told < synced_at - WATCH_LAG_S and now > synced_at + WATCH_LAG_S:
                return f"the watch of {kind} did not tell of {missed} objects that a list found"
        return ""

    def not_ready(self) -> str:
        if not self.synced_at:
            return self.fitness.why_not or self.reach.why_not or "not everything was listed yet"
        return self.lease.rival or self.not_live()

    def _figures(self) -> Iterator[Metric]:
        requests = self.api.requests.items()
        yield counter("copilot_operator_api_requests", "Requests to the API server", requests, ["verb", "resource"])
        yield gauge("copilot_operator_leading", "1 if this replica acts", float(self.lease.valid()))
        yield gauge("copilot_operator_queue_length", "Objects that wait for a worker", float(len(self.queue)))
        yield gauge("copilot_operator_tenants", "Tenants known", float(len(self.cache.keys(TENANT))))
        yield gauge("copilot_operator_servers", "Pinged servers by health", self.fleet.pinger.counts(), "health")
        yield gauge("copilot_operator_drains", "Drains under way by phase", self.fleet.drains.counts(), "phase")
        activity = self.fleet.inventory.counts()
        yield gauge("copilot_operator_server_activity", "Servers by what their agents say", activity, "activity")
        yield gauge("copilot_operator_starts", "Servers that start, and that wait to", self.starts.counts(), "state")
        yield gauge("copilot_operator_wanted_servers", "Servers for which requests are held", self.gateways.count())
        pending = {
            (namespace, code) for (namespace, _), codes in self.fleet.inventory.erasing().items() for code in codes
        }
        yield gauge(
            "copilot_operator_pending_erasures", "Deleted tenants whose sessions are not all erased", len(pending)
        )
        yield gauge("copilot_operator_sessions", "Sessions by state", self.fleet.inventory.sessions(), "state")
        yield from pool_figures(self.members, self.cache.keys(POOL) if self.lease.valid() else ())


def pool_figures(members: Members, pools: Iterable[tuple[str, str]]) -> Iterator[Metric]:
    """What a HorizontalPodAutoscaler or KEDA scales Shared pools by (docs/scaling.md); the leader alone knows."""
    known = {key: found for key in pools if (found := members.sessions(*key)) is not None}
    slots = [(key, float(most)) for key in known if (most := members.slots(*key)) is not None]
    sessions = [((*key, state), float(count)) for key, found in known.items() for state, count in found.items()]
    yield labelled(
        "copilot_operator_pool_sessions",
        "Sessions of a Shared pool that need room: loaded, waiting for it at their server, held because no server "
        "takes them. Of the leader alone; left out while a ready server has not been counted",
        sessions,
        ["pool_namespace", "pool", "state"],
    )
    yield labelled(
        "copilot_operator_pool_session_slots",
        "Sessions that each server of a Shared pool may have loaded (sessions.maxConcurrent)",
        slots,
        ["pool_namespace", "pool"],
    )


def stop_on_signals(stop: asyncio.Event) -> None:
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)


def raise_file_limit() -> None:
    """As many connections as may be: with 1,024, a thousand hung servers would make healthy ones look dead."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def run(own: OperatorSettings) -> int:
    logs.set_up(own.log_level)
    raise_file_limit()
    stop = asyncio.Event()
    metrics = Metrics()
    try:
        access = await load_access()
    except AccessError as error:
        log.error("no way to the API server: give $KUBECONFIG, or run in a pod", extra={"error": str(error)})
        return 2
    async with KubeApi(access) as api:
        operator = Operator(own, api, metrics)
        served = [await web.serve(own.port, live=operator.not_live, ready=operator.not_ready, metrics=metrics)]
        if own.page_port is not None:
            try:
                served.append(await page.serve(own.page_port, operator.snapshots))
            except OSError as error:  # nothing else hangs on it
                log.error("no status page: its port can't be had", extra={"port": own.page_port, "error": str(error)})
        stop_on_signals(stop)
        try:
            await operator.run(stop)
        except (LeaseLost, KindGone, ReachChanged) as error:
            log.error("stops acting", extra={"error": str(error)})
            return 1
        finally:
            for each in served:
                await each.cleanup()
    return 0


def main(argv: list[str]) -> int:
    """Exit code 0 when told to stop, 1 when it must begin anew (a lost lease, CRDs that are gone, other
    namespaces that may be read), 2 for wrong settings."""
    if argv:
        print(f"copilot-operator run takes no arguments, found: {' '.join(argv)}", file=sys.stderr)
        return 2
    try:
        own = OperatorSettings.from_environment()
    except SettingsError as error:
        print(f"copilot-operator: {error}", file=sys.stderr)
        return 2
    return asyncio.run(run(own))
