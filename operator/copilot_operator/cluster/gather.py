"""From the cache to a snapshot: everything a plan needs, looked up once. Asks the API server only what no watch tells.

That is: whether the name of a child to be made is taken by an object we do not watch, and what a storage class can do.
"""

import asyncio
import secrets
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from copilot_operator.api.invalid import InvalidResource
from copilot_operator.api.pool import PoolSpec, parse_pool
from copilot_operator.api.references import SecretKeyRef
from copilot_operator.api.tenant import parse_tenant
from copilot_operator.cluster.cache import Cache, Record
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent
from copilot_operator.cluster.pods import pod_view, runs_server
from copilot_operator.cluster.rollouts import Rollouts
from copilot_operator.cluster.storage import StorageClasses
from copilot_operator.domain.credentials import check_credential
from copilot_operator.domain.desired.deployment import token_source
from copilot_operator.domain.drain import Why, intent_of
from copilot_operator.domain.kinds import (
    CLAIM,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    NODE,
    POD,
    POOL,
    REVISION,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    TENANT,
    Kind,
)
from copilot_operator.domain.manifest import Manifest, annotations_of, controller_uid, labels_of
from copilot_operator.domain.naming import (
    POOL_LABEL,
    POOL_REVISION_ANNOTATION,
    RESTARTED_AT_ANNOTATION,
    TENANT_LABEL,
    busy_servers,
    pool_object,
    server_of,
    slug,
)
from copilot_operator.domain.nodes import leaving
from copilot_operator.domain.ownership import obstacle
from copilot_operator.domain.progress import known_revisions
from copilot_operator.domain.revisions import Course, course_of, revision_for, view_of, was_ready
from copilot_operator.domain.secrets import as_observed, decoded
from copilot_operator.domain.snapshot import (
    Children,
    Credential,
    DrainReading,
    Finding,
    PoolSnapshot,
    PoolView,
    Reading,
    Server,
    ServerState,
    ServerToken,
    Settings,
    TenantSnapshot,
    is_paused,
)

MOST_REMEMBERED = 1000
T = TypeVar("T")


@dataclass
class Gatherer:
    """``view`` tells what is known of a server itself (namespace, server name).

    ``unreadable``: kinds that the operator may not read.
    """

    api: KubeApi
    cache: Cache
    settings: Settings
    storage: StorageClasses
    view: Callable[[str, str], tuple[Reading, ServerState | None, DrainReading | None]]
    rollouts: Rollouts
    unreadable: Container[Kind] = ()
    specs: dict[str, tuple[str, PoolSpec]] = field(default_factory=dict)  # by UID and resourceVersion: parsed once
    courses: dict[str, tuple[object, Course]] = field(default_factory=dict)  # of a pool, likewise
    tokens: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict, repr=False)  # of a shard, likewise

    async def tenant(self, namespace: str, name: str) -> TenantSnapshot | None:
        """None if there is no such tenant (any more)."""
        raw = self.cache.get(TENANT, namespace, name)
        if raw is None:
            return None
        server = server_of(name)
        snapshot = TenantSnapshot(raw, datetime.now(UTC), self.settings, server)
        labelled = self.cache.labelled(POD, namespace, TENANT_LABEL, slug(name))
        servers = [pod for pod in labelled if runs_server(pod, server)]
        if servers and _without_pods(self.cache.get(DEPLOYMENT, namespace, server)):
            servers = [pod for pod in servers if await self._is_there(pod)]
        pods = tuple(map(pod_view, servers))
        reading, state, drain = self.view(namespace, server)
        snapshot = replace(snapshot, pods=pods, reading=reading, state=state, drain=drain)
        snapshot = replace(snapshot, leaving=self._leaving(snapshot), sees_nodes=NODE not in self.unreadable)
        try:
            snapshot = replace(snapshot, spec=parse_tenant(raw).spec)
        except InvalidResource as error:
            return replace(snapshot, unusable=Finding("InvalidSpec", str(error)), children=self._cached(snapshot))
        assert snapshot.spec
        view = self._pool_of(namespace, snapshot.spec.pool_ref.name, server, snapshot.spec.suspended)
        if isinstance(view, Finding):
            return replace(snapshot, unusable=view, children=self._cached(snapshot))
        auth = snapshot.spec.auth or view.spec.auth
        snapshot = replace(
            snapshot,
            pool=view,
            admitted=self.rollouts.admits(namespace, snapshot.spec.pool_ref.name, server),
            token=self._token(namespace, snapshot.spec.pool_ref.name, server),
            credential=await self._credential(namespace, auth.git_hub.token_secret_ref if auth else None),
        )
        if snapshot.deleted or snapshot.token is None:
            return replace(snapshot, children=self._cached(snapshot))
        snapshot = replace(snapshot, children=await self._children(snapshot))
        if snapshot.children.claim is None:
            snapshot = replace(snapshot, storage=await self.storage.look_up(view.spec.storage.storage_class_name))
        return snapshot

    async def _is_there(self, pod: Manifest) -> bool:
        """A watch that had to list anew does not tell what is gone; a ghost would keep its server from starting."""
        metadata = pod["metadata"]
        try:
            found = await self.api.get(POD, metadata["namespace"], metadata["name"])
        except Absent:
            found = None
        there = found is not None and found["metadata"]["uid"] == metadata["uid"]
        if not there:
            self.cache.drop(POD, pod)
        return there

    def _leaving(self, snapshot: TenantSnapshot) -> str:
        pod = snapshot.server_pod
        return leaving(self.cache.get(NODE, "", pod.node)) if pod and pod.node else ""

    def _cached(self, snapshot: TenantSnapshot) -> Children:
        found = {kind: self.cache.get(kind, snapshot.namespace, snapshot.server) for kind in CHILDREN}
        return self._sorted(snapshot, found)

    async def _children(self, snapshot: TenantSnapshot) -> Children:
        """An object that lost our label left the watch and may still be there: what is missing is asked for once."""
        found = {kind: self.cache.get(kind, snapshot.namespace, snapshot.server) for kind in CHILDREN}
        missing = [kind for kind, live in found.items() if live is None]
        answers = await asyncio.gather(*(self._look(kind, snapshot.namespace, snapshot.server) for kind in missing))
        return self._sorted(snapshot, found | dict(zip(missing, answers, strict=True)))

    async def _look(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        try:
            live = await self.api.get(kind, namespace, name)
        except Absent:
            return None
        return as_observed(live) if kind == SECRET else live

    def _sorted(self, snapshot: TenantSnapshot, found: dict[Kind, Manifest | None]) -> Children:
        blocked = next((o for kind, live in found.items() if live and (o := obstacle(kind, live, snapshot))), None)
        if blocked:
            return Children(obstacle=blocked)
        return Children(found[DEPLOYMENT], found[SERVICE], found[CLAIM], found[SECRET])

    def _pool_of(self, namespace: str, name: str, server: str, suspended: bool) -> PoolView | Finding:
        raw = self.cache.get(POOL, namespace, name)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            message = f"spec.poolRef.name: CopilotPool {name!r} does not exist in namespace {namespace}; create it"
            return Finding("PoolNotFound", message)
        try:
            spec = self._pool_spec(raw)
        except InvalidResource as error:
            return Finding("PoolInvalid", str(error))
        self.rollouts.allows(namespace, name, spec.update.max_unavailable)
        course = self._course(raw, spec)
        if not course.rolling or course.update.proven:
            return view_of(spec, is_paused(raw), course, course.target)
        live = self.cache.get(DEPLOYMENT, namespace, server)
        starts = not suspended and (live is None or not live["spec"].get("replicas", 1))
        ask = self.rollouts.takes_turn if starts else self.rollouts.admits
        return view_of(spec, is_paused(raw), course, revision_for(course, live, ask(namespace, name, server)))

    def _course(self, raw: Manifest, spec: PoolSpec) -> Course:
        """Found once per version of the pool and of its revisions: thousands of tenants share it."""
        metadata = raw["metadata"]
        stored = self._revisions(metadata["namespace"], metadata["name"])
        mark = (metadata["resourceVersion"], [(record.uid, record.version) for record in stored])
        if (known := self.courses.get(metadata["uid"])) and known[0] == mark:
            return known[1]
        restarted_at = annotations_of(raw).get(RESTARTED_AT_ANNOTATION, "")
        revisions = known_revisions(record.manifest for record in stored)
        course = course_of(metadata["name"], spec, restarted_at, raw.get("status") or {}, revisions)
        self.courses[metadata["uid"]] = (mark, course)
        return course

    def _revisions(self, namespace: str, pool: str) -> list[Record]:
        """The pool's own ControllerRevisions."""
        uid = self.cache.uid(POOL, namespace, pool)
        found = self.cache.records(REVISION, namespace, POOL_LABEL, slug(pool))
        return [record for _, record in found if record.controller == uid]

    def _pool_spec(self, raw: Manifest) -> PoolSpec:
        """Raises InvalidResource. Parsed once per version: thousands of tenants share it."""
        uid, version = raw["metadata"]["uid"], raw["metadata"]["resourceVersion"]
        if (known := self.specs.get(uid)) and known[0] == version:
            return known[1]
        spec = parse_pool(raw).spec
        _remember(self.specs, uid, (version, spec))
        return spec

    def _token(self, namespace: str, pool: str, server: str) -> ServerToken | None:
        for name, _, tokens in self._shards(namespace, pool):
            if server in tokens:
                return ServerToken(tokens[server], name)
        return None

    def _shards(self, namespace: str, pool: str) -> list[tuple[str, str, dict[str, str]]]:
        """Name, resourceVersion and tokens of the pool's own Secrets; a Secret that merely has the label is not one."""
        uid = self.cache.uid(POOL, namespace, pool)
        if uid is None:
            return []
        return [
            (name, shard.version, self._held(shard))
            for name, shard in self.cache.records(SECRET, namespace, POOL_LABEL, slug(pool))
            if shard.controller == uid
        ]

    def _held(self, shard: Record) -> dict[str, str]:
        """Tokens of a shard by server. Every tenant asks for its own, so hundreds are decoded once per version."""
        if (known := self.tokens.get(shard.uid)) and known[0] == shard.version:
            return known[1]
        tokens = _tokens(shard.manifest)
        _remember(self.tokens, shard.uid, (shard.version, tokens))
        return tokens

    async def _credential(self, namespace: str, reference: SecretKeyRef | None) -> Credential | None:
        if reference is None:
            return None
        name, key = reference.name, reference.key
        secret = self.cache.get(SECRET, namespace, name)
        exists = secret is not None or await self._look(SECRET, namespace, name) is not None
        return check_credential(name, key, secret, exists)

    async def pool(self, namespace: str, name: str) -> PoolSnapshot | None:
        """None if there is no such pool (any more)."""
        raw = self.cache.get(POOL, namespace, name)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            return None
        tenants = self.cache.tenants_of(namespace, name)
        shards = self._shards(namespace, name)
        members = frozenset(server_of(tenant) for tenant in tenants)
        snapshot = PoolSnapshot(
            raw,
            datetime.now(UTC),
            self.settings,
            members=members,
            servers=tuple(self._servers(namespace, name, tenants)),
            revisions=tuple(record.manifest for record in self._revisions(namespace, name)),
            failing=self.rollouts.failing(namespace, name),
            next_verdict_s=self.rollouts.next_verdict_s(namespace, name),
            tokens={shard: tokens for shard, _, tokens in shards},
            versions={shard: version for shard, version, _ in shards},
        )
        try:
            spec = self._pool_spec(raw)
        except InvalidResource as error:
            return replace(snapshot, unusable=Finding("InvalidSpec", str(error)))
        known = {server for tokens in snapshot.tokens.values() for server in tokens}
        new = {server: await self._adopt_or_mint(namespace, server) for server in sorted(members - known)}
        auth = spec.auth
        objects = {kind: await self._pool_object(kind, namespace, name) for kind in POOL_OBJECTS}
        uid = raw["metadata"]["uid"]
        taken = next((kind for kind, live in objects.items() if live and controller_uid(live) != uid), None)
        return replace(
            snapshot,
            spec=spec,
            new_tokens=new,
            shard_of={server: shard for server in new if (shard := self._shard_of(namespace, server, name))},
            service_account=objects[SERVICE_ACCOUNT],
            network_policy=objects[NETWORK_POLICY],
            disruption_budget=objects[DISRUPTION_BUDGET],
            obstacle=_taken(taken, POOL_OBJECTS[taken](name)) if taken else None,
            credential=await self._credential(namespace, auth.git_hub.token_secret_ref if auth else None),
        )

    def _shard_of(self, namespace: str, server: str, pool: str) -> str | None:
        """The shard that a Deployment takes its token from; only one that this pool may have made."""
        live = self.cache.get(DEPLOYMENT, namespace, server)
        named = token_source(live) if live else None
        return named if named and named.startswith(f"{pool_object(pool)}-server-tokens-") else None

    async def _pool_object(self, kind: Kind, namespace: str, pool: str) -> Manifest | None:
        name = POOL_OBJECTS[kind](pool)
        return self.cache.get(kind, namespace, name) or await self._look(kind, namespace, name)

    async def _adopt_or_mint(self, namespace: str, server: str) -> str:
        """A lost token is taken from the connection Secret made from it, so that a running server stays valid."""
        known = self.cache.get(SECRET, namespace, server)
        if known and TENANT_LABEL in labels_of(known) and controller_uid(known):
            try:
                live = await self.api.get(SECRET, namespace, server)
            except Absent:
                live = {}
            if token := decoded((live.get("data") or {}).get("token", "")):
                return token
        return secrets.token_urlsafe(32)

    def _servers(self, namespace: str, pool: str, tenants: list[str]) -> list[Server]:
        found = []
        for server in map(server_of, tenants):
            if live := self.cache.get(DEPLOYMENT, namespace, server):
                told = self.rollouts.revision(namespace, pool, server)
                found.append(_server(live, told))
        return found


def _without_pods(deployment: Manifest | None) -> bool:
    """Whether the Deployment's controller says that no pod is left; before Kubernetes 1.35 it does not count those that
    end."""
    if deployment is None:
        return False
    status = deployment.get("status", {})
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    counted = status.get("replicas") or status.get("terminatingReplicas")
    return deployment["spec"].get("replicas", 1) == 0 and seen and not counted


CHILDREN = (DEPLOYMENT, SERVICE, CLAIM, SECRET)
POOL_OBJECTS = {SERVICE_ACCOUNT: pool_object, NETWORK_POLICY: pool_object, DISRUPTION_BUDGET: busy_servers}


def _remember(memory: dict[str, T], uid: str, value: T) -> None:
    if len(memory) >= MOST_REMEMBERED:
        memory.clear()  # of objects that are gone, mostly
    memory[uid] = value


def _server(live: Manifest, told: str) -> Server:
    """``told``: the revision that its tenant's last cycle found; until there was one its Deployment's note counts."""
    intent = intent_of(live)
    return Server(
        running=live["spec"].get("replicas", 1) > 0,
        ready=bool(live.get("status", {}).get("readyReplicas")),
        image=live["spec"]["template"]["spec"]["containers"][0]["image"],
        name=live["metadata"]["name"],
        revision=told or annotations_of(live).get(POOL_REVISION_ANNOTATION, ""),
        was_ready=was_ready(live),
        updating=intent is not None and intent.why == Why.UPDATE,
    )


def _tokens(shard: Manifest) -> dict[str, str]:
    return {server: decoded(value) for server, value in (shard.get("data") or {}).items()}


def _taken(kind: Kind, name: str) -> Finding:
    return Finding("NameTaken", f"{kind} {name} exists and does not belong to this pool: delete or rename it")
