"""What was observed about one tenant or one pool at one moment: the only input of every decision."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from copilot_operator.api.pool import PoolSpec
from copilot_operator.api.references import GitHubApp, UserToken
from copilot_operator.api.tenant import TenantSpec
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import PAUSED_ANNOTATION, pool_sessions
from copilot_operator.domain.tenant_tokens import FIRST_ROTATION, Rotation

NOTE: Final = "erase."  # with which the key of an erasure's note begins; no entry's of a tenant does


@dataclass(frozen=True)
class Finding:
    """Something a person should know: a CamelCase word for programs, a sentence with the way out for people."""

    reason: str
    message: str


@dataclass(frozen=True)
class Settings:
    """What the installation says, the same for all pools."""

    agent_image: str
    operator_namespace: str
    cluster_domain: str = "cluster.local"


@dataclass(frozen=True)
class MintedToken:
    """A token of a GitHub App that the operator was given, without itself; ``serial`` tells it from others, ``source``
    names what it was made from. Times of an installation's are GitHub's, of a person's ours."""

    serial: str
    minted_at: datetime
    expires_at: datetime
    source: str


@dataclass(frozen=True)
class Credential:
    """A GitHub token or, with ``provider``, a model provider's key: key ``key`` of the Secret ``secret``.

    ``provider`` is what the gateway puts into sessions, but for the key: fields of ``session.create``'s provider.
    ``digest`` names the value without telling it; None if the token can't be used, then ``finding`` says why.
    With ``app`` it is an installation's token that we mint, with ``user`` a person's that we renew; ``token`` is the
    present one, ``notice`` tells of it, ``made_from`` names the refresh token that a person's has to descend from.
    """

    secret: str
    key: str
    digest: str | None = None
    finding: Finding | None = None
    provider: Mapping[str, str] | None = None
    app: GitHubApp | None = None
    user: UserToken | None = None
    made_from: str | None = None
    token: MintedToken | None = None
    notice: Finding | None = None


@dataclass(frozen=True)
class Bundle:
    """Certificates of authorities: key ``key`` of the ConfigMap ``config_map``, ``certificates`` many.

    ``digest`` names them all; None if servers can't be started with them, then ``finding`` says why.
    """

    config_map: str
    key: str
    digest: str | None = None
    finding: Finding | None = None
    certificates: int = 0


@dataclass(frozen=True)
class ServerToken:
    """The connection token of a server and the Secret of the pool that keeps it; ``rotation``: see server_tokens.py."""

    value: str = field(repr=False)
    shard: str
    rotation: str = ""


@dataclass(frozen=True)
class Storage:
    """What the cluster says of the storage class that a claim has, or would get. ``grows``: it lets volumes grow.
    ``known`` False: the operator may not ask."""

    access_mode: str = "ReadWriteOnce"
    grows: bool = True
    finding: Finding | None = None
    known: bool = True


@dataclass(frozen=True)
class Pod:
    """A pod of a server, as far as decisions need it. ``waiting``: why a container does not run (kubelet's word).

    ``misfortune``: what befell it, though it may be on its way up again: out of memory, evicted.

    ``started``: its CLI has answered once and runs, so it may have sessions. Unready it is too while it is drained.
    ``protected``: it carries the label that keeps evictions away; ``cordoned``: the one that keeps gateways away.
    """

    name: str
    uid: str
    ip: str | None = None
    ready: bool = False
    started: bool = False
    terminating: bool = False
    protected: bool = False
    node: str | None = None
    waiting: Finding | None = None
    misfortune: Finding | None = None
    unschedulable: str | None = None
    cordoned: bool = False
    unprepared_since: datetime | None = None  # it has a node, and containers can't be started there yet


def server_pod(pods: Iterable[Pod]) -> Pod | None:
    """Of the pods that are not ending the one that serves, or comes nearest to it."""
    return max((pod for pod in pods if not pod.terminating), key=lambda pod: (pod.ready, pod.started), default=None)


class Health(StrEnum):
    """What pings say of a server. Unknown is an answer: nobody has asked yet."""

    UNKNOWN = "Unknown"
    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"


@dataclass(frozen=True)
class Reading:
    """Health of a server's pod after its last pings; ``message`` says why it is unhealthy."""

    health: Health = Health.UNKNOWN
    message: str = ""


class DrainPhase(StrEnum):
    """Where a drain stands, in the agent's words."""

    QUIESCING = "Quiescing"
    FLUSHING = "Flushing"
    DONE = "Done"


@dataclass(frozen=True)
class DrainReading:
    """What the agent of pod ``pod_uid`` last said of the drain that was ordered.

    ``work``: how many of the busy sessions are kept busy by what (``rpc.busy.Work``), those with any.

    ``phase`` is None until it has answered once. ``busy`` contains ``waiting`` (for a person or a client's tool); None:
    not counted yet. ``gave_up`` says why it ended without having closed its sessions: the CLI did not answer.
    """

    pod_uid: str
    phase: DrainPhase | None = None
    busy: int | None = None
    waiting: int | None = None
    work: tuple[tuple[str, int], ...] = ()
    cut: int = 0
    gave_up: str = ""
    unanswered: str = ""  # why the agent could not be asked the last time


@dataclass(frozen=True)
class SessionCounts:
    """Sessions of a tenant: ``active`` ones work or wait, ``loaded`` contains them, ``stored`` are on volumes."""

    active: int
    loaded: int
    stored: int


@dataclass(frozen=True)
class Deletion:
    """The last time that an agent had expired sessions deleted: its end, as the API server writes times."""

    at: str
    sessions: int
    freed_bytes: int


@dataclass(frozen=True)
class ServerState:
    """What the agent of pod ``pod_uid`` said of its server at ``taken_at``. None: it could not say, or is too old to.

    ``busy`` contains ``waiting``, and what could not be counted. ``wait_for_room``: sessions that gateways want to load
    beyond those, and may not yet. ``stalled_s``: the longest time that a busy session
    which waits for nobody has been without any event. ``quiet_s``: since anything was heard of any session.
    ``latency_factor``: median of the latest pings over that of the first. ``deep_failure``: why a session could not be
    created and deleted. ``largest``: ids and bytes of the largest sessions, looked for on a volume above the mark.
    ``expired_kept``: what a dry run would have deleted. ``erased``: sessions by the code of a deleted tenant of which
    nothing is left.
    """

    pod_uid: str
    taken_at: datetime
    answering: bool
    loaded: int | None = None
    busy: int | None = None
    waiting: int | None = None
    stored: int | None = None
    wait_for_room: int | None = None
    quiet_s: float | None = None
    stalled_s: float | None = None
    age_s: float | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    latency_factor: float | None = None
    draining: bool = False
    deep_failure: str = ""
    failure: str = ""  # of the agent's own ping: rpc.ping.Failure
    disk_percent: float | None = None
    read_only: bool = False  # nothing can be stored on the volume
    largest: tuple[tuple[str, int], ...] = ()
    expired_kept: int | None = None
    deletion: Deletion | None = None
    erased: tuple[tuple[str, int], ...] = ()
    quarantined: int = 0  # broken sessions that were set aside, and some of their names
    quarantined_names: tuple[str, ...] = ()
    token_serial: str = ""  # of the minted GitHub token that its CLI was started with
    credential_refused: bool = False  # by GitHub in the latest turn, where no gateway would see it

    @property
    def unused_s(self) -> float | None:
        """For how long no session was heard of; since the CLI was met, if none ever was."""
        return self.age_s if self.quiet_s is None else self.quiet_s

    @property
    def ran_s(self) -> float | None:
        """For how long it has run, where that is to be long enough; ``age_s`` is where it is to be short enough."""
        return self.age_s


@dataclass(frozen=True)
class Children:
    """The live objects of one server that are ours; ``obstacle`` names what has a child's name and is not."""

    deployment: Manifest | None = None
    service: Manifest | None = None
    claim: Manifest | None = None
    connection: Manifest | None = None  # of a Secret the cache holds digests, see ``digests`` of desired/connection.py
    obstacle: Finding | None = None


@dataclass(frozen=True)
class PoolView:
    """A pool as one tenant's server sees it: ``spec`` and ``restarted_at`` are those of ``revision``.

    ``rolling``: the pool is changing to this revision, and has not given it up.
    """

    spec: PoolSpec
    paused: bool = False
    restarted_at: str = ""
    revision: str = ""
    rolling: bool = False


@dataclass(frozen=True)
class TenantSnapshot:
    """``raw`` is the tenant as stored, or a seat of a Shared pool in its shape (seats.py).

    ``spec`` is None when it can't be read, then ``unusable`` says why.

    ``pool`` is None when there is no usable pool; ``unusable`` then names the reason.
    """

    raw: Manifest
    now: datetime
    settings: Settings
    server: str
    owner: Manifest | None = None  # of its children, if that is not the tenant itself
    spec: TenantSpec | None = None
    pool: PoolView | None = None
    unusable: Finding | None = None
    token: ServerToken | None = None
    former_token: ServerToken | None = None  # of its Deployment, until that was drained and names ``token``
    tenant_token: str | None = field(default=None, repr=False)  # what applications get, where there is a gateway
    rotation: Rotation = FIRST_ROTATION  # of that token
    token_told: bool = True  # the gateway, or without one the pool, has the one that is due; until then nothing changes
    gateway_ready: bool = True  # some gateway of the pool is, or it has none
    homes: frozenset[str] = frozenset()  # servers of a Shared pool that store something of the tenant
    sessions: SessionCounts | None = None  # of a tenant of a Shared pool, as its gateways tell
    credential: Credential | None = None
    credential_refused: bool = False  # by the model, or GitHub, the last time that a gateway or agent saw it used
    bundle: Bundle | None = None  # of its server; None: it has none, or no server
    storage: Storage = Storage()
    children: Children = Children()
    pods: tuple[Pod, ...] = ()
    reading: Reading = Reading()
    state: ServerState | None = None  # of the serving pod; None until its agent has been asked
    drain: DrainReading | None = None  # of the serving pod; None if none was ordered since the operator started
    leaving: str = ""  # why the node of the serving pod is being emptied; "": it is not
    sees_nodes: bool = True  # whether Nodes can be read; without that right nothing is ever known to leave
    waits_behind: int | None = None  # it may not be woken yet: so many servers waited before it
    demanded: bool = False  # gateways hold requests for its server, or did until a while ago
    admitted: bool = True  # its pool lets it begin a stop that is no hurry (update, recycle)
    refused: Finding | None = None  # the API server's refusal of an earlier step

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.raw["metadata"]["namespace"])

    @property
    def server_credential(self) -> Credential | None:
        """The GitHub token that a server of its own is started with; what else there is the gateway puts in."""
        for_sessions = self.credential and (self.credential.provider is not None or self.credential.user)
        return None if for_sessions else self.credential

    @property
    def missing(self) -> Finding | None:
        """Why its server can't be started anew, or the tenant be served, for want of what people bring."""
        brought = (self.credential, self.bundle)
        return next((each.finding for each in brought if each and each.finding), None)

    @property
    def is_seat(self) -> bool:
        """Whether this is a server of a Shared pool, which has no endpoint of its own."""
        return self.owner is not None

    @property
    def has_volume(self) -> bool:
        """Whether its sessions lie on a volume, which outlasts its server."""
        return self.pool is None or self.pool.spec.storage.mode != "Ephemeral"

    @property
    def has_server(self) -> bool:
        """Whether this has a server of its own: not a tenant of a Shared pool."""
        return self.is_seat or self.pool is None or self.pool.spec.isolation == "Dedicated"

    @property
    def runs_copilot_runtime(self) -> bool:
        """Whether its server is the one without Node.js."""
        return self.pool is not None and self.pool.spec.server.runtime == "CopilotRuntime"

    @property
    def shares_volume(self) -> bool:
        """Whether its sessions lie on a volume that all servers of its pool have."""
        return self.is_seat and self.pool is not None and self.pool.spec.storage.mode == "Shared"

    @property
    def claim(self) -> str:
        """Name of the claim for the volume of its sessions."""
        return pool_sessions(self.pool_name) if self.shares_volume else self.server

    @property
    def held_down(self) -> str:
        """Why people do not want the server to run; "" if they do."""
        if self.spec is None or not self.spec.suspended:
            return ""
        if not self.is_seat:
            return "spec.suspended is true"
        shared = self.pool.spec.shared if self.pool else None
        return f"{'autoscaling' if shared and shared.autoscaling else 'spec.shared.replicas'} asks for fewer servers"

    @property
    def lacks_token(self) -> bool:
        """Whether its pool has yet to make a token for it, or for its server."""
        gateway = self.pool is not None and self.pool.spec.gateway.enabled
        return (self.has_server and self.token is None) or (gateway and not self.is_seat and self.tenant_token is None)

    @property
    def known_token(self) -> ServerToken | None:
        """The one that its server knows, as long as it is not started anew."""
        return self.former_token or self.token

    @property
    def pool_name(self) -> str:
        assert self.spec
        return self.spec.pool_ref.name

    @property
    def server_pod(self) -> Pod | None:
        """The pod whose CLI has the state directory, else the one that is to have it. None: it ends, or is to come."""
        return server_pod(self.pods)

    @property
    def deleted(self) -> bool:
        return "deletionTimestamp" in self.raw["metadata"]

    @property
    def paused(self) -> Finding | None:
        if is_paused(self.raw):
            return Finding("PausedByAnnotation", f"Remove the annotation {PAUSED_ANNOTATION} to go on")
        if self.pool and self.pool.paused:
            return Finding("PoolPaused", f"The pool carries the annotation {PAUSED_ANNOTATION}")
        return None


@dataclass(frozen=True)
class Server:
    """One server of a pool, for the pool's counts.

    ``revision`` of the pool that it runs, "" if nobody noted that. ``was_ready`` with the template that it has now.
    ``updating``: it is being stopped, or is stopped, for another revision.
    """

    running: bool
    ready: bool
    image: str
    name: str = ""
    revision: str = ""
    was_ready: bool = False
    updating: bool = False
    trouble: Finding | None = None  # what keeps a server of a Shared pool from running
    storage: Finding | None = None  # of a Shared pool: what people should know of its volume
    expired: Mapping[str, Any] | None = None  # of a Shared pool: ``expiredSessions`` of the one server
    stored: int | None = None  # of a Shared pool: sessions that it stored when it was asked last


@dataclass(frozen=True)
class Failing:
    """Why a server has been failing with its pool's new revision for a while.

    ``excused``: it did not work before its turn either, so the revision may be innocent.
    """

    finding: Finding
    excused: bool = False


@dataclass(frozen=True)
class Erasure:
    """``seats`` are the ordinals of the servers that may still store sessions of the deleted ``tenant``, ``since`` when
    it was found deleted (RFC 3339); ``erased``: how many sessions were, so far."""

    code: str
    tenant: str
    seats: tuple[int, ...]
    since: str
    erased: int = 0

    @property
    def key(self) -> str:
        return f"{NOTE}{self.code}"


@dataclass(frozen=True)
class Shown:
    """The certificate at one gateway's TLS port, as it tells: no times if it shows none. ``fault``: why what its Secret
    holds is not used (gateway/certificate.py), "" if it is."""

    not_before: datetime | None = None
    not_after: datetime | None = None
    fault: str = ""


@dataclass(frozen=True)
class GatewayView:
    """What there is of a pool's gateway: ``objects`` that have its name, by kind.

    ``tenant_key`` and ``admin_key`` are as stored, or new. ``tenants`` are its Secrets with tenants, by name, and what
    they hold by server name; ``entries`` what they should hold, and ``homes`` in which Secret, where that matters.
    ``erasures`` are what is to be erased, as they should be stored; ``erased``: done now, to be stored no more.
    """

    objects: Mapping[Kind, Manifest] = field(default_factory=dict)
    tenant_key: str = field(default="", repr=False)
    admin_key: str = field(default="", repr=False)
    key_stored: bool = False
    tenants: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    entries: Mapping[str, str] = field(default_factory=dict, repr=False)
    homes: Mapping[str, str] = field(default_factory=dict)
    erasures: tuple[Erasure, ...] = ()
    erased: tuple[Erasure, ...] = ()
    changes_at: datetime | None = None  # when another entry is due by the passing of time alone
    credential: Mapping[str, Any] | None = field(default=None, repr=False)  # the pool's, as gateways put it in
    pods: tuple[Pod, ...] = ()
    shown: tuple[Shown, ...] = ()  # certificates, by those that have told

    @property
    def trouble(self) -> Finding | None:
        """What kubelet says keeps one of its pods from running."""
        return next((pod.waiting for pod in self.pods if pod.waiting), None)


@dataclass(frozen=True)
class PoolSnapshot:
    """``tokens`` maps a shard's name to its tokens by key (server_tokens.py); ``new_tokens`` are still to be stored,
    ``spent_tokens`` are keys that no server is started with any more; ``shard_of`` names the homes of new ones.

    ``revisions`` are its ControllerRevisions as stored, ``failing`` its servers that fail with a new one.
    """

    raw: Manifest
    now: datetime
    settings: Settings
    spec: PoolSpec | None = None
    unusable: Finding | None = None
    tenants: int = 0
    members: frozenset[str] = frozenset()  # servers that must have a token
    servers: tuple[Server, ...] = ()
    tokens: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    new_tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    spent_tokens: frozenset[str] = frozenset()
    shard_of: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)  # resourceVersion by shard, for optimistic locking
    service_account: Manifest | None = None
    network_policy: Manifest | None = None
    revisions: tuple[Manifest, ...] = ()
    failing: Mapping[str, Failing] = field(default_factory=dict)
    next_verdict_s: float | None = None  # until another server has failed for long enough to be among them
    disruption_budget: Manifest | None = None
    gateway: GatewayView = GatewayView()
    waits: Mapping[str, int] = field(default_factory=dict)  # how many sessions, by which server has to give them up
    obstacle: Finding | None = None
    credential: Credential | None = None
    bundle: Bundle | None = None
    refused: Finding | None = None

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.raw["metadata"]["namespace"])

    @property
    def paused(self) -> bool:
        return is_paused(self.raw)


def is_paused(raw: Manifest) -> bool:
    return annotations_of(raw).get(PAUSED_ANNOTATION) == "true"
