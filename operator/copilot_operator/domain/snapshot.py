"""What was observed about one tenant or one pool at one moment: the only input of every decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from copilot_operator.api.pool import PoolSpec
from copilot_operator.api.tenant import TenantSpec
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import PAUSED_ANNOTATION


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


@dataclass(frozen=True)
class Credential:
    """The GitHub token a server is started with: key ``key`` of the Secret ``secret``.

    ``digest`` names the value without telling it; None if the token can't be used, then ``finding`` says why.
    """

    secret: str
    key: str
    digest: str | None = None
    finding: Finding | None = None


@dataclass(frozen=True)
class ServerToken:
    """The connection token of a server and the Secret of the pool that keeps it."""

    value: str = field(repr=False)
    shard: str


@dataclass(frozen=True)
class Storage:
    """What the cluster says of the storage class a claim would get."""

    access_mode: str = "ReadWriteOnce"
    finding: Finding | None = None


@dataclass(frozen=True)
class Pod:
    """A pod of a server, as far as decisions need it. ``waiting``: why a container does not run (kubelet's word)."""

    name: str
    uid: str
    ip: str | None = None
    ready: bool = False
    terminating: bool = False
    waiting: Finding | None = None
    unschedulable: str | None = None


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
    """A pool as its tenants see it."""

    spec: PoolSpec
    paused: bool = False
    restarted_at: str = ""


@dataclass(frozen=True)
class TenantSnapshot:
    """``raw`` is the tenant as stored; ``spec`` is None when it can't be read, then ``unusable`` says why.

    ``pool`` is None when there is no usable pool; ``unusable`` then names the reason.
    """

    raw: Manifest
    now: datetime
    settings: Settings
    server: str
    spec: TenantSpec | None = None
    pool: PoolView | None = None
    unusable: Finding | None = None
    token: ServerToken | None = None
    credential: Credential | None = None
    storage: Storage = Storage()
    children: Children = Children()
    pods: tuple[Pod, ...] = ()
    reading: Reading = Reading()
    refused: Finding | None = None  # the API server's refusal of an earlier step

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.raw["metadata"]["namespace"])

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
    """One server of a pool, for the pool's counts."""

    running: bool
    ready: bool
    image: str


@dataclass(frozen=True)
class PoolSnapshot:
    """``tokens`` maps a shard's name to its tokens by server; ``new_tokens`` are for servers that have none yet."""

    raw: Manifest
    now: datetime
    settings: Settings
    spec: PoolSpec | None = None
    unusable: Finding | None = None
    members: frozenset[str] = frozenset()  # servers that must have a token
    servers: tuple[Server, ...] = ()
    tokens: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    new_tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    versions: Mapping[str, str] = field(default_factory=dict)  # resourceVersion by shard, for optimistic locking
    service_account: Manifest | None = None
    network_policy: Manifest | None = None
    obstacle: Finding | None = None
    credential: Credential | None = None
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
