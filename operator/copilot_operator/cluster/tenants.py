"""From the cache to a tenant's snapshot: everything its plan needs, looked up once.

Asks the API server only what no watch tells: whether the name of a child to be made is taken by an object we do not
watch, and what a storage class can do.
"""

import asyncio
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from copilot_operator.api.invalid import InvalidResource
from copilot_operator.api.tenant import TenantSpec, parse_tenant
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.look import look
from copilot_operator.cluster.pods import pod_view, runs_server
from copilot_operator.cluster.pools import Pools
from copilot_operator.cluster.starts import Starts
from copilot_operator.cluster.storage import StorageClasses
from copilot_operator.domain.desired.claim import is_smaller
from copilot_operator.domain.idleness import wakes
from copilot_operator.domain.kinds import (
    CLAIM,
    DEPLOYMENT,
    NODE,
    POD,
    POOL,
    SECRET,
    SERVICE,
    TENANT,
    Kind,
)
from copilot_operator.domain.live import has_no_pods, is_up
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import (
    TENANT_LABEL,
    server_of,
    slug,
)
from copilot_operator.domain.nodes import leaving
from copilot_operator.domain.ownership import obstacle
from copilot_operator.domain.revisions import revision_for, view_of
from copilot_operator.domain.snapshot import (
    Children,
    Credential,
    DrainReading,
    Finding,
    PoolView,
    Reading,
    ServerState,
    Settings,
    TenantSnapshot,
    is_paused,
)
from copilot_operator.domain.tenant_tokens import rotated, rotation_of, token_of


@dataclass
class Tenants:
    """``view`` tells what is known of a server itself (namespace, server name).

    ``refused``: whether a tenant's credential was, the last time. ``unreadable``: kinds that the operator may not read.
    """

    api: KubeApi
    cache: Cache
    settings: Settings
    storage: StorageClasses
    view: Callable[[str, str], tuple[Reading, ServerState | None, DrainReading | None]]
    pools: Pools
    starts: Starts
    unreadable: Container[Kind] = ()
    refused: Callable[[str, str], bool] = lambda namespace, tenant: False

    async def snapshot(self, namespace: str, name: str) -> TenantSnapshot | None:
        """None if there is no such tenant (any more).

        The server is looked at after the last question was answered, in one moment: a pod may start while we wait.
        """
        found = self.pools.members.raw(namespace, name)
        if found is None:
            return None
        raw, owner = found
        snapshot = self._wishes(TenantSnapshot(raw, datetime.now(UTC), self.settings, server_of(name), owner))
        await self._bury_ghosts(snapshot)
        spec, pool = snapshot.spec, snapshot.pool
        if spec is None or pool is None:
            return self._observed(snapshot, {})
        snapshot = replace(snapshot, credential=await self._credential(snapshot, spec, pool))
        if snapshot.has_server:
            ref = pool.spec.server.ca_bundle_config_map_ref
            bundle = await self.pools.bundles.find(namespace, snapshot.pool_name, ref)
            snapshot = replace(snapshot, bundle=bundle)
        if snapshot.deleted or snapshot.lacks_token:
            return self._observed(snapshot, {})
        answers = await self._missing_children(snapshot)
        if CLAIM in answers and answers[CLAIM] is None:
            storage = await self.storage.look_up(pool.spec.storage.storage_class_name)
            snapshot = replace(snapshot, storage=storage)
        elif (live := self.cache.get(CLAIM, namespace, snapshot.server)) and is_smaller(live, pool.spec.storage.size):
            snapshot = replace(snapshot, storage=await self.storage.of(live))
        return self._observed(snapshot, answers)

    async def _credential(self, snapshot: TenantSnapshot, spec: TenantSpec, pool: PoolView) -> Credential | None:
        """Who shares a server brings his own; only what a GitHub App's installation is given lies in the server."""
        of_pool = (POOL, snapshot.namespace, spec.pool_ref.name)
        if snapshot.is_seat:
            own_app = pool.spec.auth if pool.spec.auth and pool.spec.auth.app else None
            return await self.pools.credentials.find(own_app, of_pool)
        if spec.auth:
            return await self.pools.credentials.find(spec.auth, (TENANT, snapshot.namespace, snapshot.name))
        return await self.pools.credentials.find(pool.spec.auth, of_pool)

    def _wishes(self, snapshot: TenantSnapshot) -> TenantSnapshot:
        """With what people want, and whether it can be read."""
        try:
            spec = parse_tenant(snapshot.raw).spec
        except InvalidResource as error:
            return replace(snapshot, unusable=Finding("InvalidSpec", str(error)))
        namespace, pool, server = snapshot.namespace, spec.pool_ref.name, snapshot.server
        view = self._pool_of(namespace, pool, server, spec.suspended)
        if isinstance(view, Finding):
            return replace(snapshot, spec=spec, unusable=view)
        admitted = self.pools.rollouts.admits(namespace, pool, server)
        tokens = self.pools.tokens_of(namespace, pool, server)
        current, due = self.pools.rotations(namespace, server, tokens, view.spec, spec.connection_token)
        token, before = tokens.get(due), tokens.get(current)
        snapshot = replace(snapshot, spec=spec, pool=view, admitted=admitted, token=token or before)
        if not view.spec.gateway.enabled or snapshot.is_seat:
            former = before if token and due != current else None
            return replace(snapshot, former_token=former, token_told=token is not None)
        key, uid = self.pools.tenant_key(namespace, pool), snapshot.raw["metadata"]["uid"]
        held = rotation_of(self.cache.get(SECRET, namespace, server), uid)
        wanted = rotated(held, spec.connection_token, snapshot.now)
        told = wanted == held or (
            key is not None and self.pools.has_told(namespace, pool, server, token_of(key, uid, wanted.current))
        )
        if told:
            held = wanted
        return replace(
            snapshot,
            tenant_token=token_of(key, uid, held.current) if key else None,
            rotation=held,
            token_told=told,
            gateway_ready=self.pools.gateway_ready(namespace, pool),
            sessions=self.pools.members.told_sessions(namespace, snapshot.name),
            homes=frozenset()
            if view.spec.isolation == "Dedicated"
            else self.pools.members.homes(namespace, pool, snapshot.raw),
        )

    async def _bury_ghosts(self, snapshot: TenantSnapshot) -> None:
        """A watch that had to list anew does not tell what is gone; a ghost would keep its server from starting."""
        live = self.cache.get(DEPLOYMENT, snapshot.namespace, snapshot.server)
        if live is None or is_up(live) or not has_no_pods(live):
            return
        for pod in self._pods(snapshot):
            found = await look(self.api, POD, snapshot.namespace, pod["metadata"]["name"])
            if found is None or found["metadata"]["uid"] != pod["metadata"]["uid"]:
                self.cache.drop(POD, pod, for_good=True)

    async def _missing_children(self, snapshot: TenantSnapshot) -> dict[Kind, Manifest | None]:
        """An object that lost our label left the watch and may still be there: what is missing is asked for once."""
        namespace = snapshot.namespace
        names = {kind: _name(kind, snapshot) for kind in _kinds(snapshot)}
        missing = [kind for kind, name in names.items() if self.cache.version(kind, namespace, name) is None]
        answers = await asyncio.gather(*(look(self.api, kind, namespace, names[kind]) for kind in missing))
        return dict(zip(missing, answers, strict=True))

    def _observed(self, snapshot: TenantSnapshot, answers: Mapping[Kind, Manifest | None]) -> TenantSnapshot:
        """With the server as it is now; ``answers``: children that were asked for."""
        namespace, server = snapshot.namespace, snapshot.server
        reading, state, drain = self.view(namespace, server)
        snapshot = replace(
            snapshot,
            now=datetime.now(UTC),
            children=_sorted(
                snapshot,
                {
                    kind: self.cache.get(kind, namespace, _name(kind, snapshot)) or answers.get(kind)
                    for kind in _kinds(snapshot)
                },
            ),
            pods=tuple(map(pod_view, self._pods(snapshot))),
            reading=reading,
            state=state,
            drain=drain,
            sees_nodes=NODE not in self.unreadable,
            credential_refused=self.refused(namespace, snapshot.name) or bool(state and state.credential_refused),
            demanded=self.pools.members.demanded(namespace, server),
        )
        if wakes(snapshot):
            pool = (namespace, snapshot.pool_name)
            snapshot = replace(snapshot, waits_behind=self.starts.ask((namespace, server), pool))
        pod = snapshot.server_pod
        node = self.cache.get(NODE, "", pod.node) if pod and pod.node else None
        return replace(snapshot, leaving=leaving(node))

    def _pods(self, snapshot: TenantSnapshot) -> list[Manifest]:
        labelled = self.cache.labelled(POD, snapshot.namespace, TENANT_LABEL, slug(snapshot.name))
        return [pod for pod in labelled if runs_server(pod, snapshot.server)]

    def _pool_of(self, namespace: str, name: str, server: str, suspended: bool) -> PoolView | Finding:
        raw = self.cache.get(POOL, namespace, name)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            message = f"spec.poolRef.name: CopilotPool {name!r} does not exist in namespace {namespace}; create it"
            return Finding("PoolNotFound", message)
        try:
            spec = self.pools.spec(raw)
        except InvalidResource as error:
            return Finding("PoolInvalid", str(error))
        self.pools.rollouts.allows(namespace, name, spec.update.max_unavailable)
        course = self.pools.course(raw, spec)
        if not course.rolling or course.update.proven:
            return view_of(spec, is_paused(raw), course, course.target)
        live = self.cache.get(DEPLOYMENT, namespace, server)
        starts = not suspended and not is_up(live)
        ask = self.pools.rollouts.takes_turn if starts else self.pools.rollouts.admits
        return view_of(spec, is_paused(raw), course, revision_for(course, live, ask(namespace, name, server)))


CHILDREN = (DEPLOYMENT, SERVICE, CLAIM, SECRET)


def _kinds(snapshot: TenantSnapshot) -> tuple[Kind, ...]:
    """What it has, or is to have."""
    if snapshot.is_seat:
        kinds: tuple[Kind, ...] = (DEPLOYMENT, CLAIM)
    else:
        kinds = CHILDREN if snapshot.has_server else (SERVICE, SECRET)
    return kinds if snapshot.has_volume else tuple(kind for kind in kinds if kind != CLAIM)


def _name(kind: Kind, snapshot: TenantSnapshot) -> str:
    return snapshot.claim if kind == CLAIM and snapshot.spec else snapshot.server


def _sorted(snapshot: TenantSnapshot, found: Mapping[Kind, Manifest | None]) -> Children:
    blocked = next((o for kind, live in found.items() if live and (o := obstacle(kind, live, snapshot))), None)
    if blocked:
        return Children(obstacle=blocked)
    return Children(found.get(DEPLOYMENT), found.get(SERVICE), found.get(CLAIM), found.get(SECRET))
