"""From the cache to a tenant's snapshot: everything its plan needs, looked up once.

Asks the API server only what no watch tells: whether the name of a child to be made is taken by an object we do not
watch, and what a storage class can do.
"""

import asyncio
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from copilot_operator.api.invalid import InvalidResource
from copilot_operator.api.tenant import parse_tenant
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.look import credential, look
from copilot_operator.cluster.pods import pod_view, runs_server
from copilot_operator.cluster.pools import Pools
from copilot_operator.cluster.storage import StorageClasses
from copilot_operator.domain.kinds import (
    CLAIM,
    DEPLOYMENT,
    NODE,
    POD,
    POOL,
    SECRET,
    SERVICE,
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
    DrainReading,
    Finding,
    PoolView,
    Reading,
    ServerState,
    Settings,
    TenantSnapshot,
    is_paused,
)
from copilot_operator.domain.tenant_tokens import token_of


@dataclass
class Tenants:
    """``view`` tells what is known of a server itself (namespace, server name).

    ``unreadable``: kinds that the operator may not read.
    """

    api: KubeApi
    cache: Cache
    settings: Settings
    storage: StorageClasses
    view: Callable[[str, str], tuple[Reading, ServerState | None, DrainReading | None]]
    pools: Pools
    unreadable: Container[Kind] = ()

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
        auth = None if snapshot.is_seat else spec.auth or pool.spec.auth  # who shares a server brings his own
        snapshot = replace(snapshot, credential=await credential(self.api, self.cache, namespace, auth))
        if snapshot.deleted or snapshot.lacks_token:
            return self._observed(snapshot, {})
        answers = await self._missing_children(snapshot)
        if CLAIM in answers and answers[CLAIM] is None:
            storage = await self.storage.look_up(pool.spec.storage.storage_class_name)
            snapshot = replace(snapshot, storage=storage)
        return self._observed(snapshot, answers)

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
        admitted, token = self.pools.rollouts.admits(namespace, pool, server), self.pools.token(namespace, pool, server)
        snapshot = replace(snapshot, spec=spec, pool=view, admitted=admitted, token=token)
        if not view.spec.gateway.enabled or snapshot.is_seat:
            return snapshot
        key = self.pools.tenant_key(namespace, pool)
        return replace(
            snapshot,
            tenant_token=token_of(key, snapshot.raw["metadata"]["uid"]) if key else None,
            gateway_ready=self.pools.gateway_ready(namespace, pool),
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
        namespace, server = snapshot.namespace, snapshot.server
        missing = [kind for kind in _kinds(snapshot) if self.cache.version(kind, namespace, server) is None]
        answers = await asyncio.gather(*(look(self.api, kind, namespace, server) for kind in missing))
        return dict(zip(missing, answers, strict=True))

    def _observed(self, snapshot: TenantSnapshot, answers: Mapping[Kind, Manifest | None]) -> TenantSnapshot:
        """With the server as it is now; ``answers``: children that were asked for."""
        namespace, server = snapshot.namespace, snapshot.server
        reading, state, drain = self.view(namespace, server)
        snapshot = replace(
            snapshot,
            now=datetime.now(UTC),
            children=_sorted(
                snapshot, {k: self.cache.get(k, namespace, server) or answers.get(k) for k in _kinds(snapshot)}
            ),
            pods=tuple(map(pod_view, self._pods(snapshot))),
            reading=reading,
            state=state,
            drain=drain,
            sees_nodes=NODE not in self.unreadable,
        )
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
        return (DEPLOYMENT, CLAIM)
    return CHILDREN if snapshot.has_server else (SERVICE, SECRET)


def _sorted(snapshot: TenantSnapshot, found: Mapping[Kind, Manifest | None]) -> Children:
    blocked = next((o for kind, live in found.items() if live and (o := obstacle(kind, live, snapshot))), None)
    if blocked:
        return Children(obstacle=blocked)
    return Children(found.get(DEPLOYMENT), found.get(SERVICE), found.get(CLAIM), found.get(SECRET))
