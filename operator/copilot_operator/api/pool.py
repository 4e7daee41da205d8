"""CopilotPool: how servers run."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from copilot_operator.api.autoscaling import AutoscalingSpec, AutoscalingStatus
from copilot_operator.api.conditions import Conditions
from copilot_operator.api.duration import Duration, between
from copilot_operator.api.environment import Args, Env, LogLevel
from copilot_operator.api.erasures import ParkedServers, PendingErasures
from copilot_operator.api.expired import ExpiredSessions
from copilot_operator.api.invalid import parse
from copilot_operator.api.metadata import Metadata
from copilot_operator.api.model import Model
from copilot_operator.api.names import ObjectName
from copilot_operator.api.network import NetworkPolicySpec
from copilot_operator.api.operations import DrainSpec, HealthSpec, RecycleSpec, SuspendSpec, UpdateSpec
from copilot_operator.api.outside import ONE_SOURCE_OF_CA, ONE_SOURCE_OF_PROXY, CABundleRef, ProxySpec
from copilot_operator.api.quantity import Quantity, at_least
from copilot_operator.api.references import Auth
from copilot_operator.api.resources import ServerResources
from copilot_operator.api.rules import Rule, list_map
from copilot_operator.api.runtime import (
    BOUND_FOR_RUNTIME,
    GATEWAY_FOR_RUNTIME,
    NO_APP_FOR_RUNTIME,
    NO_ARGS_FOR_RUNTIME,
    Runtime,
)
from copilot_operator.api.scheduling import PodTemplate
from copilot_operator.api.sessions import SessionPolicy, SessionsSpec
from copilot_operator.api.sharing import SharedSessions

STORAGE_MODE_STAYS: Final = Rule(
    "!has(self.mode) || !has(oldSelf.mode) || self.mode == oldSelf.mode",
    "storage.mode cannot change, because sessions do not move from one storage to another: create another pool",
    None,
)
CLASS_NEEDS_VOLUMES: Final = Rule(
    "!has(self.mode) || self.mode != 'Ephemeral' || !has(self.storageClassName)",
    "leave storageClassName out: with mode: Ephemeral servers have no volumes that a class could make",
    lambda storage: storage.mode != "Ephemeral" or storage.storage_class_name is None,
    field_path=".storageClassName",
)
RETENTION_NEEDS_VOLUMES: Final = Rule(
    "!has(self.mode) || self.mode != 'Ephemeral' || !has(self.retention)",
    "leave retention out: with mode: Ephemeral servers have no volumes that could outlast them",
    lambda storage: storage.mode != "Ephemeral" or storage.retention is None,
    field_path=".retention",
)
STORAGE_DOES_NOT_SHRINK: Final = Rule(
    "!isQuantity(string(self)) || !isQuantity(string(oldSelf))"
    " || quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",
    "storage cannot shrink, because volumes cannot: write the former size or more, or create another pool",
    None,
)
GATEWAY_STAYS: Final = Rule(
    "!has(self.enabled) || !has(oldSelf.enabled) || self.enabled == oldSelf.enabled",  # the default {} is judged, too
    "gateway.enabled cannot change, because applications hold tokens of one kind or the other: create another pool",
    None,
)
TLS_NEEDS_GATEWAY: Final = Rule(
    "!has(self.tls) || !has(self.enabled) || self.enabled",
    "leave tls out, or write enabled: true: it is the gateway that speaks TLS",
    lambda gateway: gateway.tls is None or gateway.enabled,
    field_path=".tls",
)
ISOLATION_STAYS: Final = Rule(
    "self.isolation == oldSelf.isolation",
    "isolation cannot change, because sessions do not move between servers: create another pool",
    None,
)
SHARED_NEEDS_NUMBER: Final = Rule(
    "self.isolation != 'Shared' || (has(self.shared) && (has(self.shared.replicas) || has(self.shared.autoscaling)))",
    "write the number of servers, such as shared: {replicas: 3}, or shared.autoscaling",
    lambda spec: (
        spec.isolation != "Shared"
        or (spec.shared is not None and (spec.shared.replicas is not None or spec.shared.autoscaling is not None))
    ),
)
# Without this rule `kubectl scale`, or an HPA, would say "scaled", and nothing would happen.
ONE_NUMBER: Final = Rule(
    "!has(self.replicas) || !has(self.autoscaling)",
    "leave replicas out and do not scale this pool: with autoscaling the operator decides the number, "
    "from minReplicas to maxReplicas",
    lambda shared: shared.replicas is None or shared.autoscaling is None,
    field_path=".replicas",
)
AUTOSCALING_NEEDS_SLOTS: Final = Rule(
    "!has(self.shared) || !has(self.shared.autoscaling) || has(self.sessions.maxConcurrent)",
    "write sessions.maxConcurrent, too, such as 50: without it servers have no number of slots that could be free",
    lambda spec: spec.shared is None or spec.shared.autoscaling is None or spec.sessions.max_concurrent is not None,
    field_path=".shared.autoscaling",
)
RETENTION_OF_SHARED: Final = Rule(
    "self.isolation == 'Shared' || !has(self.storage) || !has(self.storage.retention)",
    "leave retention out: with isolation: Dedicated each tenant says by its deletionPolicy what becomes of its volume",
    lambda spec: spec.isolation == "Shared" or spec.storage.retention is None,
    field_path=".storage.retention",
)


def _needs_gateway(parent: str, name: str, why: str, given: Callable[[Any], Any]) -> Rule:
    """A field, ``given`` or None, of no use in a pool without a gateway, and why."""
    return Rule(
        f"self.gateway.enabled || !has(self.{parent}) || !has(self.{parent}.{name})",
        f"leave {name} out, or write gateway: {{enabled: true}}: without a gateway {why}",
        lambda spec: spec.gateway.enabled or given(spec) is None,
        field_path=f".{parent}.{name}",
    )


PROVIDER_NEEDS_GATEWAY: Final = _needs_gateway(
    "auth", "provider", "nobody can put the key into sessions", lambda spec: spec.auth and spec.auth.provider
)
USER_TOKEN_NEEDS_GATEWAY: Final = Rule(
    "self.gateway.enabled || !has(self.auth) || !has(self.auth.gitHub) || !has(self.auth.gitHub.userToken)",
    "write tokenSecretRef instead, or gateway: {enabled: true}: without a gateway nobody can put it into sessions",
    lambda spec: spec.gateway.enabled or spec.auth is None or spec.auth.user_token is None,
    field_path=".auth.gitHub.userToken",
)
SUSPEND_NEEDS_GATEWAY: Final = _needs_gateway(
    "suspend", "afterIdle", "nobody is there for the request that shall start the server again",
    lambda spec: spec.suspend.after_idle,
)  # fmt: skip
INFINITE_NEEDS_GATEWAY: Final = _needs_gateway(
    "sessions", "infinite", "nobody stands between a client and its server who could say it for the client",
    lambda spec: spec.sessions.infinite,
)  # fmt: skip
MAX_CONCURRENT_NEEDS_GATEWAY: Final = _needs_gateway(
    "sessions", "maxConcurrent", "nobody stands between a client and its server who could count",
    lambda spec: spec.sessions.max_concurrent,
)  # fmt: skip
EPHEMERAL_NEEDS_GATEWAY: Final = Rule(
    "self.gateway.enabled || !has(self.sessions) || !has(self.sessions.persistence)"
    " || self.sessions.persistence != 'Ephemeral'",
    "leave persistence out, or write gateway: {enabled: true}: without a gateway nobody keeps what is said out of the "
    "session store, and nobody knows which sessions clients have open",
    lambda spec: spec.gateway.enabled or spec.sessions.persistence != "Ephemeral",
    field_path=".sessions.persistence",
)
SHARED_NEEDS_GATEWAY: Final = Rule(
    "self.isolation != 'Shared' || self.gateway.enabled",
    "write gateway: {enabled: true}: without a gateway nothing keeps the tenants of a Shared pool apart",
    lambda spec: spec.isolation != "Shared" or spec.gateway.enabled,
    field_path=".gateway",
)
POLICY_NEEDS_GATEWAY: Final = Rule(
    "self.gateway.enabled || (self.sessions.policy.hostTools && self.sessions.policy.mcpServers"
    " && (!has(self.sessions.policy.models) || self.sessions.policy.models.size() == 0)"
    " && !has(self.sessions.policy.maxAiCredits))",
    "leave policy out, or write gateway: {enabled: true}: without a gateway nothing stands between a client and its "
    "server that could enforce it",
    lambda spec: spec.gateway.enabled or spec.sessions.policy == SessionPolicy(),
    field_path=".sessions.policy",
)
SHARED_SESSIONS_NEED_AUTH: Final = Rule(
    "!has(self.shared) || !has(self.shared.sharedSessions) || self.shared.sharedSessions.size() == 0 || has(self.auth)",
    "write auth, or leave sharedSessions out: shared sessions run on the pool's credential, never on a member's",
    lambda spec: spec.shared is None or not spec.shared.shared_sessions or spec.auth is not None,
    field_path=".shared.sharedSessions",
)
SHARED_STORAGE_IS_FOR_SHARED: Final = Rule(
    "self.isolation == 'Shared' || !has(self.storage) || !has(self.storage.mode) || self.storage.mode != 'Shared'",
    "write mode: PerServer: with isolation: Dedicated a tenant's sessions are for its own server alone",
    lambda spec: spec.isolation == "Shared" or spec.storage.mode != "Shared",
    field_path=".storage.mode",
)
SUSPEND_IS_FOR_DEDICATED: Final = Rule(
    "self.isolation == 'Dedicated' || !has(self.suspend) || !has(self.suspend.afterIdle)",
    "leave afterIdle out: with isolation: Shared the number of servers is shared.replicas",
    lambda spec: spec.isolation == "Dedicated" or spec.suspend.after_idle is None,
    field_path=".suspend.afterIdle",
)

# Without this rule `kubectl scale` would say "scaled", and nothing would happen.
NOTHING_TO_SCALE: Final = Rule(
    "!has(self.shared) || self.isolation == 'Shared'",
    "leave shared out and do not scale this pool: with isolation: Dedicated each tenant has one server, "
    "so create or delete tenants, or suspend them",
    lambda spec: spec.shared is None or spec.isolation == "Shared",
    field_path=".shared",
)


class ServerSpec(Model):
    """The CLI server: its image, flags, environment, resources and pod."""

    rules = (NO_ARGS_FOR_RUNTIME, ONE_SOURCE_OF_PROXY, ONE_SOURCE_OF_CA)

    image: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")]
    """Image of the CLI, made by the recipe in operator/images/cli. A tag that says the version, or a digest, makes
    updates visible; a changed image restarts the servers through a drain."""
    runtime: Runtime = "CLI"
    """Which server of the image is run. CLI: the CLI itself. CopilotRuntime: copilot-runtime, the server without
    Node.js in the same package, which starts in a fraction of the time and takes less memory. It needs a gateway and
    sessions.maxConcurrent, and takes no args and no GitHub App. A change restarts the servers through a drain."""
    resources: ServerResources = ServerResources()
    """CPU, memory and scratch space of each server."""
    args: Args = ()
    """Further flags of the CLI, taken literally. Flags that the operator sets are refused."""
    env: Env = ()
    """Further environment variables of the CLI. Variables that the operator sets are refused."""
    proxy: ProxySpec | None = None
    """The proxy that the CLI asks models and GitHub through, and its tools what they ask for. Let servers get to it:
    networkPolicy.egressCIDRs. A change restarts the servers through a drain."""
    ca_bundle_config_map_ref: CABundleRef | None = None
    """The ConfigMap with certificates of authorities (PEM) that the CLI trusts besides those it knows. Its tools know
    the file by NODE_EXTRA_CA_CERTS. Changed certificates restart the servers through a drain; while there are none, or
    one can't be read (condition CABundleReady), servers go on with what they were started with, and none starts."""
    log_level: LogLevel = "info"
    """How much the CLI writes to its log."""
    template: PodTemplate = PodTemplate()
    """What is added to the pods of servers: labels, annotations, placement, pull secrets."""


class StorageSpec(Model):
    """What holds the sessions of a server."""

    rules = (STORAGE_MODE_STAYS, CLASS_NEEDS_VOLUMES, RETENTION_NEEDS_VOLUMES)

    mode: Literal["PerServer", "Shared", "Ephemeral"] = "PerServer"
    """PerServer: every server has a volume of its own (a PersistentVolumeClaim), and a session stays with its server.
    Shared: the servers of a Shared pool have one volume (ReadWriteMany), and any of them goes on with any session, one
    at a time. Ephemeral: a server has space of its node (emptyDir), and forgets its sessions, home and workspace
    whenever its pod ends: with every update, restart and suspension, and also for clients that are connected;
    suspend.afterIdle stops it only while it stores no session. What a session leaves while the server runs says
    sessions.persistence. Immutable."""
    size: Annotated[Quantity, at_least("64Mi", "a session store needs room"), STORAGE_DOES_NOT_SHRINK] = "10Gi"
    """Size of each volume. It can grow where the storage class can, and never shrink. With mode Ephemeral: what a
    server may use of its node; kubelet evicts one that uses more. A change is for servers that start from then on."""
    storage_class_name: ObjectName | None = None
    """StorageClass of the volumes; the cluster's default if absent. A change is for volumes that are made from then on:
    a volume keeps its class."""
    high_water_mark_percent: Annotated[int, Field(strict=True, ge=1, le=100)] = 85
    """How full a volume may be, in percent, before the condition StorageReady warns of it (reason VolumeAlmostFull) and
    names the largest sessions. From 1 to 100. A change restarts no server. With mode Ephemeral there is no warning."""
    retention: Literal["Delete", "Retain"] | None = None
    """What becomes of the volumes of a Shared pool when it is deleted; Retain if absent. In a Dedicated pool each
    tenant says that (deletionPolicy)."""


class GatewayLimits(Model):
    """What one tenant may ask of one replica of the gateway. What is over it is refused with an error."""

    connections: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1000
    """Connections that one tenant may have open to one gateway at a time."""
    requests_per_second: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 200
    """Requests a second that one tenant may send to one gateway, in the long run."""
    burst: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 400
    """Requests that may come at once after a while without any, above requestsPerSecond."""


class GatewayTls(Model):
    """TLS at a port of its own, 4443, beside the one without, which the SDKs need."""

    secret_name: ObjectName
    """Name of a Secret of the pool's namespace with tls.crt and tls.key (type kubernetes.io/tls), as cert-manager makes
    it. The certificate must be for NAME.NAMESPACE.svc, NAME being that of the gateway's Service. A change reaches new
    connections in a minute or two, without a restart; what can't be used takes the place of nothing that can, and the
    condition CertificateReady tells of it."""


class GatewaySpec(Model):
    """The gateway between applications and servers."""

    rules = (GATEWAY_STAYS, TLS_NEEDS_GATEWAY)

    enabled: Annotated[bool, Field(strict=True)] = True
    """Whether applications connect through a gateway, which holds their connections while servers stop, move and start.
    false: to their server directly. Immutable."""
    replicas: Annotated[int, Field(strict=True, ge=1, le=50)] = 2
    """Number of gateways. With two or more none of them is missed: they keep each other's running turns."""
    drain_timeout: Annotated[Duration, between("0s", "1h")] = "5m"
    """How long a gateway that is to stop waits for the turns of its clients. From 0s to 1h. Turns that still run then
    go on at another gateway; their clients have to connect again."""
    limits: GatewayLimits = GatewayLimits()
    """What one tenant may ask of one gateway; what is above is refused with an error."""
    tls: GatewayTls | None = None
    """Has gateways listen with TLS, too: for kubectl copilot connect --server, and for meshes."""


class SharedSpec(Model):
    """Servers that tenants share. The scale subresource writes here."""

    rules = (ONE_NUMBER,)

    autoscaling: AutoscalingSpec | None = None
    """Has the operator decide the number of servers, instead of replicas."""
    replicas: Annotated[int, Field(strict=True, ge=0, le=1000)] | None = None
    """Number of servers, for people and HorizontalPodAutoscalers; left out with autoscaling. When it falls, idle ones
    go first; what is stored on their volumes stays, and a request for it starts them again."""
    routing: Literal["Sticky", "RoundRobin", "LeastSessions"] | None = None
    """Where a new session is placed. Sticky (if absent): on its tenant's server, as long as that serves. RoundRobin: on
    the next one. LeastSessions: on the one with the fewest loaded sessions. Stored sessions go where they are."""
    shared_sessions: SharedSessions = ()
    """Sessions that several tenants share. Who is a member changes at once, on open connections, too."""


class PoolSpec(Model):
    """How the servers of this pool run."""

    rules = (
        ISOLATION_STAYS,
        NOTHING_TO_SCALE,
        SHARED_NEEDS_NUMBER,
        AUTOSCALING_NEEDS_SLOTS,
        SHARED_NEEDS_GATEWAY,
        RETENTION_OF_SHARED,
        SHARED_STORAGE_IS_FOR_SHARED,
        POLICY_NEEDS_GATEWAY,
        MAX_CONCURRENT_NEEDS_GATEWAY,
        EPHEMERAL_NEEDS_GATEWAY,
        INFINITE_NEEDS_GATEWAY,
        PROVIDER_NEEDS_GATEWAY,
        USER_TOKEN_NEEDS_GATEWAY,
        SHARED_SESSIONS_NEED_AUTH,
        SUSPEND_NEEDS_GATEWAY,
        SUSPEND_IS_FOR_DEDICATED,
        GATEWAY_FOR_RUNTIME,
        BOUND_FOR_RUNTIME,
        NO_APP_FOR_RUNTIME,
    )

    isolation: Literal["Dedicated", "Shared"]
    """Dedicated: every tenant has a server of its own, with process, memory, volume and credentials. Shared: tenants
    share servers; the gateway keeps them apart, and tools that run on the server are off. Immutable."""
    shared: SharedSpec | None = None
    """The servers of a Shared pool; left out with Dedicated."""
    server: ServerSpec
    """The CLI server: its image, flags, environment, resources and pod."""
    storage: StorageSpec = StorageSpec()
    """Where sessions are stored: on a volume for each server, on one for all, or nowhere."""
    sessions: SessionsSpec = SessionsSpec()
    """How long sessions stay loaded, how long they are kept, and what they may do."""
    gateway: GatewaySpec = GatewaySpec()
    """The gateway that applications connect to: how many there are, and what each tenant may ask of them."""
    auth: Auth | None = None
    """The pool's credential, for tenants without one of their own. Without any, applications pass a credential or a
    provider key when they create a session."""
    health: HealthSpec = HealthSpec()
    """How servers are pinged, and when one that does not answer is replaced."""
    drain: DrainSpec = DrainSpec()
    """How long a server that is to stop waits for its running turns, and what becomes of them then."""
    update: UpdateSpec = UpdateSpec()
    """How a changed pool reaches its servers: how many may be away at a time."""
    recycle: RecycleSpec = RecycleSpec()
    """When a server is started again, once idle, because its process is old, large or slow."""
    suspend: SuspendSpec = SuspendSpec()
    """When a server that nobody uses is stopped; the next request starts it, and waits for it."""
    network_policy: NetworkPolicySpec = NetworkPolicySpec()
    """Who may connect to servers, and where servers may connect to."""


class ImageServers(Model):
    """How many servers run an image."""

    image: Annotated[str, Field(max_length=1024)]
    """Image of the CLI."""
    servers: Annotated[int, Field(ge=0)]
    """Number of servers that run it."""


class FailedRevision(Model):
    """A revision that was given up."""

    revision: Annotated[str, Field(max_length=253)]
    """Name of its ControllerRevision."""
    reason: Annotated[str, Field(max_length=128)]
    """Why, as one word for programs."""
    message: Annotated[str, Field(max_length=4096)]
    """Why, as a sentence for people."""


class GatewayStatus(Model):
    """The pool's gateways."""

    replicas: Annotated[int, Field(ge=0)]
    """Number of gateways that should run."""
    ready_replicas: Annotated[int, Field(ge=0)]
    """Number of gateways that are ready."""


class PoolStatus(Model):
    """What the operator saw."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the pool that this status was computed from."""
    replicas: Annotated[int, Field(ge=0)] | None = None
    """Number of servers that should run: in a Dedicated pool one for each tenant that is not suspended."""
    ready_replicas: Annotated[int, Field(ge=0)] | None = None
    """Number of servers that are ready."""
    autoscaling: AutoscalingStatus | None = None
    """What was decided with spec.shared.autoscaling; absent without."""
    current_revision: Annotated[str, Field(max_length=253)] | None = None
    """ControllerRevision that all servers ran last. While an update goes on, servers go back to it if that fails."""
    update_revision: Annotated[str, Field(max_length=253)] | None = None
    """ControllerRevision of what spec.server and spec.sessions.idleTimeout say now."""
    updated_replicas: Annotated[int, Field(ge=0)] | None = None
    """Number of servers that run updateRevision."""
    failed_revision: FailedRevision | None = None
    """Set when updateRevision was given up, because no server became ready with it. It is not tried again until the
    pool's spec or its annotation copilot-operator.io/restarted-at changes."""
    selector: Annotated[str, Field(max_length=1024)] | None = None
    """Label selector of the servers' pods, in text form, for the scale subresource."""
    gateway: GatewayStatus | None = None
    """The pool's gateways; absent without."""
    expired_sessions: ExpiredSessions | None = None
    """In a Shared pool: expired sessions of all its servers; in a Dedicated pool tenants tell that."""
    pending_erasures: PendingErasures | None = None
    """Deleted tenants of a Shared pool whose sessions are not yet erased everywhere; absent without any."""
    parked_servers: ParkedServers | None = None
    """Servers of a Shared pool that do not run, and store sessions; absent without any."""
    tenants: Annotated[int, Field(ge=0)] | None = None
    """Number of tenants that name this pool."""
    versions: Annotated[tuple[ImageServers, ...], Field(max_length=16), list_map("image")] = ()
    """Images of the servers, with the number of servers that run each."""
    conditions: Conditions = ()
    """Aspects of the observed state. Ready sums them up; Stalled is there while waiting for it is in vain."""


class CopilotPool(Model):
    """A pool of GitHub Copilot CLI servers: how they run, for the tenants that name it."""

    metadata: Metadata
    spec: PoolSpec
    """How the servers of this pool run, and what those who use them may do."""
    status: PoolStatus = PoolStatus()
    """What the operator saw. Written by the operator."""


def parse_pool(obj: Mapping[str, Any]) -> CopilotPool:
    """Read a CopilotPool as the API server holds it; raises InvalidResource."""
    return parse(CopilotPool, obj)
