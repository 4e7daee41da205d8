"""What is known of pools: their specs, revisions and tokens, each read once per version, and a pool's snapshot."""

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from pydantic import ValidationError

from copilot_operator.api.conditions import timestamp
from copilot_operator.api.invalid import InvalidResource
from copilot_operator.api.pool import PoolSpec, parse_pool
from copilot_operator.api.references import Auth
from copilot_operator.api.sharing import SharedSession
from copilot_operator.api.tenant import ConnectionToken
from copilot_operator.cluster.bundles import Bundles
from copilot_operator.cluster.cache import Cache, Record
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.credentials import Credentials
from copilot_operator.cluster.errors import Absent
from copilot_operator.cluster.look import look
from copilot_operator.cluster.members import Members
from copilot_operator.cluster.pods import pod_view, replica_set_of
from copilot_operator.cluster.rollouts import Rollouts
from copilot_operator.credentials.minter import Owner
from copilot_operator.domain import erasure
from copilot_operator.domain.desired.deployment import token_source
from copilot_operator.domain.desired.tenant_entry import Payment, gateway_entry, paid_with
from copilot_operator.domain.drain import Why, intent_of
from copilot_operator.domain.fit import APP_WITHOUT_SERVER
from copilot_operator.domain.kinds import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    POD,
    POOL,
    REVISION,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    TENANT,
    Kind,
)
from copilot_operator.domain.live import is_up
from copilot_operator.domain.manifest import Manifest, annotations_of, controller_uid, labels_of
from copilot_operator.domain.naming import (
    POOL_LABEL,
    POOL_REVISION_ANNOTATION,
    RESTARTED_AT_ANNOTATION,
    TENANT_LABEL,
    busy_servers,
    gateway_of,
    pool_object,
    server_of,
    slug,
    tenant_key,
    tenant_shards,
    token_shards,
)
from copilot_operator.domain.progress import known_revisions
from copilot_operator.domain.revisions import Course, course_of, was_ready
from copilot_operator.domain.scaling import Decision
from copilot_operator.domain.secrets import decoded
from copilot_operator.domain.server_tokens import key_of, parts_of, rotations
from copilot_operator.domain.sharing import shares
from copilot_operator.domain.snapshot import (
    Erasure,
    Finding,
    GatewayView,
    Pod,
    PoolSnapshot,
    Server,
    ServerToken,
    Settings,
    Shown,
    is_paused,
)
from copilot_operator.domain.tenant_tokens import changes_at, code_of, fingerprint, latest, rotated, rotation_of

MOST_REMEMBERED = 1000
T = TypeVar("T")
ServerTokens = dict[str, dict[str, ServerToken]]  # by server and rotation


@dataclass(frozen=True)
class _Entry:
    """``entry`` of a tenant for gateways; with a credential of its own it may change without the tenant."""

    entry: str = field(repr=False)
    has_credential: bool
    changes_at: datetime | None = None  # by the passing of time alone

    def lasts(self, now: datetime) -> bool:
        return not self.has_credential and (self.changes_at is None or now < self.changes_at)


@dataclass
class Pools:
    """``rollouts`` tells what each server of a pool said of its revision."""

    api: KubeApi
    cache: Cache
    settings: Settings
    rollouts: Rollouts
    members: Members
    credentials: Credentials
    bundles: Bundles
    shown: Callable[[str, str], tuple[Shown, ...]] = lambda namespace, pool: ()  # certificates, by its gateways
    specs: dict[str, tuple[str, PoolSpec]] = field(default_factory=dict)  # by UID and resourceVersion
    courses: dict[str, tuple[object, Course]] = field(default_factory=dict)
    tokens: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict, repr=False)  # of a shard
    server_tokens: dict[str, tuple[str, ServerTokens]] = field(default_factory=dict, repr=False)  # of a shard
    entries: "dict[str, tuple[object, _Entry]]" = field(default_factory=dict, repr=False)  # of a tenant
    values: dict[object, str] = field(default_factory=dict, repr=False)  # of users' Secrets, by what names them

    def spec(self, raw: Manifest) -> PoolSpec:
        """Raises InvalidResource. Parsed once per version: thousands of tenants share it."""
        uid, version = raw["metadata"]["uid"], raw["metadata"]["resourceVersion"]
        if (known := self.specs.get(uid)) and known[0] == version:
            return known[1]
        spec = parse_pool(raw).spec
        _remember(self.specs, uid, (version, spec))
        return spec

    def course(self, raw: Manifest, spec: PoolSpec) -> Course:
        """Found once per version of the pool and of its revisions: thousands of tenants share it."""
        metadata = raw["metadata"]
        stored = self._revisions(metadata["namespace"], metadata["name"])
        mark = (metadata["resourceVersion"], [(record.uid, record.version) for record in stored])
        if (known := self.courses.get(metadata["uid"])) and known[0] == mark:
            return known[1]
        restarted_at = annotations_of(raw).get(RESTARTED_AT_ANNOTATION, "")
        revisions = known_revisions(record.manifest for record in stored)
        course = course_of(metadata["name"], spec, restarted_at, raw.get("status") or {}, revisions)
        _remember(self.courses, metadata["uid"], (mark, course))
        return course

    def _revisions(self, namespace: str, pool: str) -> list[Record]:
        """The pool's own ControllerRevisions."""
        uid = self.cache.uid(POOL, namespace, pool)
        found = self.cache.records(REVISION, namespace, POOL_LABEL, slug(pool))
        return [record for _, record in found if record.controller == uid]

    def tenant_key(self, namespace: str, pool: str) -> str | None:
        """The key that tokens of the pool's tenants are made from; None before its gateway is made."""
        return self._own_secret(namespace, pool, tenant_key(pool)).get("key")

    def has_told(self, namespace: str, pool: str, server: str, token: str) -> bool:
        """Whether gateways have been told of a tenant's token; ``server``: the key of its entry."""
        for name, _, entries in self._secrets(namespace, pool):
            if name.startswith(tenant_shards(pool)) and server in entries:
                return fingerprint(token) in entries[server]
        return False

    def gateway_ready(self, namespace: str, pool: str) -> bool:
        live = self.cache.get(DEPLOYMENT, namespace, gateway_of(pool))
        return bool(live and live.get("status", {}).get("readyReplicas"))

    def _own_secret(self, namespace: str, pool: str, name: str) -> dict[str, str]:
        """What a Secret of the pool holds, {} if it is not there or not the pool's own."""
        return next((held for found, _, held in self._secrets(namespace, pool) if found == name), {})

    def tokens_of(self, namespace: str, pool: str, server: str) -> dict[str, ServerToken]:
        """The tokens of a server that are stored, by their rotation."""
        found: dict[str, ServerToken] = {}
        for name, version, tokens in self._secrets(namespace, pool):
            if name.startswith(token_shards(pool)):
                found |= self._by_server(namespace, name, version, tokens).get(server, {})
        return found

    def _by_server(self, namespace: str, name: str, version: str, tokens: Mapping[str, str]) -> ServerTokens:
        """A shard's tokens by server and rotation, sorted out once per version."""
        shard = f"{namespace}/{name}"
        if (known := self.server_tokens.get(shard)) and known[0] == version:
            return known[1]
        made: ServerTokens = {}
        for key, token in tokens.items():
            server, rotation = parts_of(key)
            made.setdefault(server, {})[rotation] = ServerToken(token, name, rotation)
        _remember(self.server_tokens, shard, (version, made))
        return made

    def rotations(
        self, namespace: str, server: str, held: Collection[str], spec: PoolSpec, wanted: ConnectionToken | None
    ) -> tuple[str, str]:
        """Which token a server has, and which it shall have: see ``server_tokens.rotations``. Behind a gateway it is
        the tenant's token that rotates, not its server's."""
        if spec.gateway.enabled:
            return "", ""
        due = latest(wanted, datetime.now(UTC)) if wanted else ""
        if not due and len(held) == 1:
            return next(iter(held)), next(iter(held))  # of most: no need to look at their Deployments
        return rotations(held, self._named(namespace, server), due)

    def _secrets(self, namespace: str, pool: str) -> list[tuple[str, str, dict[str, str]]]:
        """Name, resourceVersion and values of the pool's own Secrets; one that merely has the label is none of them."""
        uid = self.cache.uid(POOL, namespace, pool)
        if uid is None:
            return []
        return [
            (name, shard.version, self._held(shard))
            for name, shard in self.cache.records(SECRET, namespace, POOL_LABEL, slug(pool))
            if shard.controller == uid
        ]

    def _held(self, shard: Record) -> dict[str, str]:
        """Values of a Secret. Every tenant asks for its token, so hundreds are decoded once per version."""
        if (known := self.tokens.get(shard.uid)) and known[0] == shard.version:
            return known[1]
        tokens = _values(shard.manifest)
        _remember(self.tokens, shard.uid, (shard.version, tokens))
        return tokens

    def scale(self, namespace: str, name: str) -> Decision | None:
        """Decide how many servers a pool shall have; None if people do, or if it can't be read or is paused."""
        raw = self.cache.get(POOL, namespace, name)
        if raw is None or is_paused(raw):
            return None
        try:
            return self.members.scale(namespace, name, self.spec(raw), datetime.now(UTC))
        except InvalidResource:
            return None

    async def snapshot(self, namespace: str, name: str) -> PoolSnapshot | None:
        """None if there is no such pool (any more)."""
        raw = self.cache.get(POOL, namespace, name)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            return None
        tenants = self.members.names(namespace, name)
        held = self._secrets(namespace, name)
        members = frozenset(server_of(tenant) for tenant in tenants)
        snapshot = PoolSnapshot(
            raw,
            datetime.now(UTC),
            self.settings,
            tenants=len(self.cache.tenants_of(namespace, name)),
            members=members,
            servers=tuple(self._servers(namespace, name, tenants)),
            revisions=tuple(record.manifest for record in self._revisions(namespace, name)),
            failing=self.rollouts.failing(namespace, name),
            next_verdict_s=self.rollouts.next_verdict_s(namespace, name),
            tokens={shard: tokens for shard, _, tokens in held if shard.startswith(token_shards(name))},
            versions={secret: version for secret, version, _ in held},
        )
        try:
            spec = self.spec(raw)
        except InvalidResource as error:
            return replace(snapshot, unusable=Finding("InvalidSpec", str(error)))
        new, spent = await self._new_tokens(namespace, name, spec, tenants, snapshot.tokens)
        objects = {kind: await self._pool_object(kind, namespace, name) for kind in POOL_OBJECTS}
        uid = raw["metadata"]["uid"]
        gateway = await self._gateway(namespace, name, spec)
        named = [(kind, POOL_OBJECTS[kind](name), live) for kind, live in objects.items()]
        named += [(kind, gateway_of(name), live) for kind, live in gateway.objects.items()]
        taken = next(((kind, of) for kind, of, live in named if live and controller_uid(live) != uid), None)
        return replace(
            snapshot,
            spec=spec,
            new_tokens=new,
            spent_tokens=spent,
            shard_of={key: shard for key in new if (shard := self._shard_of(namespace, parts_of(key)[0], name))},
            service_account=objects[SERVICE_ACCOUNT],
            network_policy=objects[NETWORK_POLICY],
            disruption_budget=objects[DISRUPTION_BUDGET],
            gateway=gateway,
            waits=self.members.waits(namespace, name),
            obstacle=name_taken(*taken) if taken else None,
            credential=await self.credentials.find(spec.auth, (POOL, namespace, name)),
            bundle=await self.bundles.find(namespace, name, spec.server.ca_bundle_config_map_ref),
        )

    async def _gateway(self, namespace: str, pool: str, spec: PoolSpec) -> GatewayView:
        if not spec.gateway.enabled:
            return GatewayView()
        name = gateway_of(pool)
        objects = {
            kind: self.cache.get(kind, namespace, name) or await look(self.api, kind, namespace, name)
            for kind in GATEWAY_OBJECTS
        }
        stored = self.tenant_key(namespace, pool)
        own = await self._payment((POOL, namespace, pool), spec.auth, shared=spec.isolation == "Shared")
        key = stored or secrets.token_urlsafe(32)
        sharing = spec.shared.shared_sessions if spec.shared else ()
        entries = {
            (server := server_of(name)): await self._entry(
                namespace, key, server, tenant, shared=spec.isolation == "Shared", sharing=sharing
            )
            for name, tenant in list(self.cache.records(TENANT, namespace, "poolRef", pool))
        }
        view = GatewayView(
            objects={kind: live for kind, live in objects.items() if live},
            tenant_key=key,
            admin_key=self._own_secret(namespace, pool, name).get("admin.key") or secrets.token_urlsafe(32),
            key_stored=stored is not None,
            tenants={n: held for n, _, held in self._secrets(namespace, pool) if n.startswith(tenant_shards(pool))},
            entries={server: made.entry for server, made in entries.items()},
            changes_at=min((made.changes_at for made in entries.values() if made.changes_at), default=None),
            credential=None if isinstance(own, Finding) else own,
            pods=tuple(self._gateway_pods(namespace, pool)),
            shown=self.shown(namespace, pool),
        )
        if spec.isolation == "Dedicated":
            return view
        return await self._with_erasures(namespace, pool, view, one_volume=spec.storage.mode == "Shared")

    async def _with_erasures(self, namespace: str, pool: str, view: GatewayView, *, one_volume: bool) -> GatewayView:
        """With notes of what deleted tenants have left. Who is taken for deleted the API server itself is asked for:
        what is erased is not there again."""
        names = self.members.names(namespace, pool)
        notes, homes, entries = erasure.noted(view.tenants), dict[str, str](), dict(view.entries)
        for gone in erasure.departed(view.tenants, view.entries, key_stored=view.key_stored):
            live = await look(self.api, TENANT, namespace, gone.tenant)
            if live and code_of(view.tenant_key, live["metadata"]["uid"]) == gone.code:
                entries[gone.key] = view.tenants[gone.shard][gone.key]
            elif seats := erasure.seats_with(pool, names, gone.homes):
                made = Erasure(gone.code, gone.tenant, seats, timestamp(datetime.now(UTC)))
                notes.append(made)
                homes[made.key] = gone.shard
        alive = erasure.codes_of(entries)
        notes = [each for each in notes if each.code not in alive]
        notes = [self.members.advanced(namespace, pool, each, one_volume=one_volume) for each in notes]
        pending = tuple(each for each in notes if each.seats)
        entries |= {each.key: erasure.note(each) for each in pending}
        done = tuple(each for each in notes if not each.seats)
        return replace(view, entries=entries, homes=homes, erasures=pending, erased=done)

    def _gateway_pods(self, namespace: str, pool: str) -> Iterator[Pod]:
        for pod in self.cache.labelled(POD, namespace, POOL_LABEL, slug(pool)):
            if replica_set_of(pod, gateway_of(pool)):
                yield pod_view(pod)

    async def _entry(
        self, namespace: str, key: str, server: str, tenant: Record, *, shared: bool, sharing: Sequence[SharedSession]
    ) -> _Entry:
        """What the gateway is to know of the tenant. Made once per version of a tenant and its credential."""
        known, now = self.entries.get(tenant.uid), datetime.now(UTC)
        mark = (tenant.version, key, sharing, self.cache.version(SECRET, namespace, server))
        if known and known[0] == mark and known[1].lasts(now):
            return known[1]
        raw = tenant.manifest
        auth = _auth_of(raw)
        held, wanted = rotation_of(self.cache.get(SECRET, namespace, server), tenant.uid), _connection_token_of(raw)
        then = rotated(held, wanted, now)
        own = await self._payment((TENANT, namespace, raw["metadata"]["name"]), auth, shared=shared)
        # also the one that its Secret holds still: applications get the new one only after gateways know it
        rotations = tuple(dict.fromkeys((*then.valid, held.current) if then.current != held.current else then.valid))
        entry = gateway_entry(raw, key, shared=shared, credential=own, shares=shares(sharing, raw), rotations=rotations)
        made = _Entry(entry, auth is not None, changes_at(then, wanted, now))
        _remember(self.entries, tenant.uid, (mark, made))
        return made

    async def _payment(self, owner: Owner, auth: Auth | None, *, shared: bool) -> Payment | None:
        """What gateways put into sessions; a server of its own is started with its GitHub token, and any server with
        the token of its pool's GitHub App."""
        kind, namespace, _ = owner
        if auth is None or not (auth.is_for_sessions or (shared and not (auth.app and kind == POOL))):
            return None
        if auth.app:
            return APP_WITHOUT_SERVER
        found = await self.credentials.find(auth, owner)
        assert found
        if found.finding:
            return found.finding
        mark = (namespace, found.secret, found.key, found.digest)
        if mark not in self.values:
            value = await self.credentials.value(namespace, found)
            if value is None:
                return Finding("SecretNotFound", f"Secret {found.secret} does not exist")
            if len(self.values) >= MOST_REMEMBERED:
                self.values.clear()
            self.values[mark] = value
        return paid_with(found, self.values[mark])

    async def _new_tokens(
        self, namespace: str, pool: str, spec: PoolSpec, tenants: list[str], stored: Mapping[str, Mapping[str, str]]
    ) -> tuple[dict[str, str], frozenset[str]]:
        """Tokens to be stored, by key, and keys of those that no server is started with any more."""
        held: dict[str, set[str]] = {}
        for server, rotation in (parts_of(key) for tokens in stored.values() for key in tokens):
            held.setdefault(server, set()).add(rotation)
        wishes = {} if spec.gateway.enabled else self._connection_tokens(namespace, pool)
        new, spent = dict[str, str](), set[str]()
        for tenant in tenants:
            server = server_of(tenant)
            known = held.get(server, set())
            current, wanted = self.rotations(namespace, server, known, spec, wishes.get(tenant))
            if current not in known:
                new[key_of(server, current)] = await self._adopt_or_mint(namespace, tenant, spec)
            if wanted not in {current, *known}:
                new[key_of(server, wanted)] = secrets.token_urlsafe(32)
            if others := known - {current, wanted}:
                spent |= {key_of(server, rotation) for rotation in others - {self._named(namespace, server)}}
        return new, frozenset(spent)

    def _connection_tokens(self, namespace: str, pool: str) -> dict[str, ConnectionToken]:
        """Of the tenants that have their token rotated, by name; of thousands that do not nothing is read."""
        found = (
            (name, _connection_token_of(tenant.manifest))
            for name, tenant in self.cache.records(TENANT, namespace, "poolRef", pool)
            if b'"connectionToken"' in tenant.body
        )
        return {name: wanted for name, wanted in found if wanted}

    def _token_source(self, namespace: str, server: str) -> tuple[str, str] | None:
        """The shard and the key that a server's Deployment takes its token from, if the key is its own."""
        live = self.cache.get(DEPLOYMENT, namespace, server)
        source = token_source(live) if live else None
        return source if source and parts_of(source[1])[0] == server else None

    def _named(self, namespace: str, server: str) -> str | None:
        """The rotation whose token its Deployment names: a container may start with it again at any moment."""
        source = self._token_source(namespace, server)
        return parts_of(source[1])[1] if source else None

    def _shard_of(self, namespace: str, server: str, pool: str) -> str | None:
        """The shard that a Deployment takes its token from; only one that this pool may have made."""
        source = self._token_source(namespace, server)
        return source[0] if source and source[0].startswith(token_shards(pool)) else None

    async def _pool_object(self, kind: Kind, namespace: str, pool: str) -> Manifest | None:
        name = POOL_OBJECTS[kind](pool)
        return self.cache.get(kind, namespace, name) or await look(self.api, kind, namespace, name)

    async def _adopt_or_mint(self, namespace: str, tenant: str, spec: PoolSpec) -> str:
        """A lost token is taken from the connection Secret made from it, so that a running server stays valid.

        Only from the tenant's own: else whoever may make Secrets could choose the token of somebody's server. Behind a
        gateway it holds the application's token, which must never be a server's.
        """
        server, uid = server_of(tenant), self.cache.uid(TENANT, namespace, tenant)
        known = None if spec.gateway.enabled else self.cache.get(SECRET, namespace, server)
        if known and uid and controller_uid(known) == uid:
            try:
                live = await self.api.get(SECRET, namespace, server)
            except Absent:
                live = {}
            if token := decoded((live.get("data") or {}).get("token", "")):
                return token
        return secrets.token_urlsafe(32)

    def _servers(self, namespace: str, pool: str, tenants: list[str]) -> list[Server]:
        found = []
        for name in tenants:
            server = server_of(name)
            if live := self.cache.get(DEPLOYMENT, namespace, server):
                told = self.rollouts.revision(namespace, pool, server)
                made = _server(live, told, partial(self._replica_sets, namespace, live))
                found.append(
                    replace(
                        made,
                        trouble=self.members.trouble(namespace, name),
                        storage=self.members.storage(namespace, name),
                        expired=self.members.expired(namespace, name),
                        stored=self.members.stored(namespace, name),
                    )
                )
        return found

    def _replica_sets(self, namespace: str, deployment: Manifest) -> set[str]:
        """Names of the ReplicaSets that the Deployment's pods are of."""
        pods = self.cache.labelled(POD, namespace, TENANT_LABEL, labels_of(deployment).get(TENANT_LABEL, ""))
        return {name for pod in pods if (name := replica_set_of(pod, deployment["metadata"]["name"]))}


GATEWAY_OBJECTS = (
    SECRET,
    SERVICE_ACCOUNT,
    ROLE,
    ROLE_BINDING,
    NETWORK_POLICY,
    DISRUPTION_BUDGET,
    SERVICE,
    DEPLOYMENT,
)
POOL_OBJECTS = {SERVICE_ACCOUNT: pool_object, NETWORK_POLICY: pool_object, DISRUPTION_BUDGET: busy_servers}


def _connection_token_of(tenant: Manifest) -> ConnectionToken | None:
    """Of a tenant as stored; None if it has none, or one that can't be read."""
    raw = (tenant.get("spec") or {}).get("connectionToken")
    try:
        return ConnectionToken.model_validate(raw) if raw else None
    except ValidationError:
        return None


def _auth_of(tenant: Manifest) -> Auth | None:
    """Of a tenant as stored; None if it has none, or one that can't be read (which its condition tells)."""
    raw = (tenant.get("spec") or {}).get("auth")
    try:
        return Auth.model_validate(raw) if raw else None
    except ValidationError:
        return None


def _remember(memory: dict[str, T], uid: str, value: T) -> None:
    if len(memory) >= MOST_REMEMBERED:
        memory.clear()  # of objects that are gone, mostly
    memory[uid] = value


def _server(live: Manifest, told: str, replica_sets: Callable[[], Collection[str]]) -> Server:
    """``told``: the revision that its tenant's last cycle found; until there was one its Deployment's note counts."""
    intent = intent_of(live)
    return Server(
        running=is_up(live),
        ready=bool(live.get("status", {}).get("readyReplicas")),
        image=live["spec"]["template"]["spec"]["containers"][0]["image"],
        name=live["metadata"]["name"],
        revision=told or annotations_of(live).get(POOL_REVISION_ANNOTATION, ""),
        was_ready=was_ready(live, replica_sets),
        updating=intent is not None and intent.why == Why.UPDATE,
    )


def _values(secret: Manifest) -> dict[str, str]:
    return {key: decoded(value) for key, value in (secret.get("data") or {}).items()}


def name_taken(kind: Kind, name: str) -> Finding:
    return Finding("NameTaken", f"{kind} {name} exists and does not belong to this pool: delete or rename it")
