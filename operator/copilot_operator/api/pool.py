"""CopilotPool: how servers run."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from copilot_operator.api.conditions import Conditions
from copilot_operator.api.duration import Duration, between
from copilot_operator.api.environment import Args, Env, LogLevel
from copilot_operator.api.invalid import parse
from copilot_operator.api.metadata import Metadata
from copilot_operator.api.model import Model
from copilot_operator.api.names import ObjectName
from copilot_operator.api.network import NetworkPolicySpec
from copilot_operator.api.operations import DrainSpec, HealthSpec, RecycleSpec, UpdateSpec
from copilot_operator.api.quantity import Quantity, at_least
from copilot_operator.api.references import Auth
from copilot_operator.api.resources import ServerResources
from copilot_operator.api.rules import ATOMIC_LIST, Rule, list_map
from copilot_operator.api.scheduling import PodTemplate

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
ISOLATION_STAYS: Final = Rule(
    "self.isolation == oldSelf.isolation",
    "isolation cannot change, because sessions do not move between servers: create another pool",
    None,
)
SHARED_NEEDS_NUMBER: Final = Rule(
    "self.isolation != 'Shared' || (has(self.shared) && has(self.shared.replicas))",
    "write the number of servers, such as shared: {replicas: 3}",
    lambda spec: spec.isolation != "Shared" or (spec.shared is not None and spec.shared.replicas is not None),
)
RETENTION_OF_SHARED: Final = Rule(
    "self.isolation == 'Shared' || !has(self.storage) || !has(self.storage.retention)",
    "leave retention out: with isolation: Dedicated each tenant says by its deletionPolicy what becomes of its volume",
    lambda spec: spec.isolation == "Shared" or spec.storage.retention is None,
    field_path=".storage.retention",
)
PROVIDER_NEEDS_GATEWAY: Final = Rule(
    "self.gateway.enabled || !has(self.auth) || !has(self.auth.provider)",
    "leave provider out, or write gateway: {enabled: true}: without a gateway nobody can put the key into sessions",
    lambda spec: spec.gateway.enabled or spec.auth is None or spec.auth.provider is None,
    field_path=".auth.provider",
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
ModelName = Annotated[str, Field(min_length=1, max_length=128)]

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

    image: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")]
    """Image of the CLI, made by the recipe in operator/images/cli. A tag that says the version, or a digest, makes
    updates visible; a changed image restarts the servers through a drain."""
    resources: ServerResources = ServerResources()
    """CPU, memory and scratch space of each server."""
    args: Args = ()
    """Further flags of the CLI, taken literally. Flags that the operator sets are refused."""
    env: Env = ()
    """Further environment variables of the CLI. Variables that the operator sets are refused."""
    log_level: LogLevel = "info"
    """How much the CLI writes to its log."""
    template: PodTemplate = PodTemplate()
    """What is added to the pods of servers."""


class StorageSpec(Model):
    """The volume that holds the sessions of a server."""

    mode: Literal["PerServer"] = "PerServer"
    """PerServer: every server has a volume of its own."""
    size: Annotated[Quantity, at_least("64Mi", "a session store needs room"), STORAGE_DOES_NOT_SHRINK] = "10Gi"
    """Size of each volume. It can grow where the storage class can, and never shrink."""
    storage_class_name: ObjectName | None = None
    """StorageClass of the volumes; the cluster's default if absent. A change is for volumes that are made from then on:
    a volume keeps its class."""
    retention: Literal["Delete", "Retain"] | None = None
    """What becomes of the volumes of a Shared pool when it is deleted; Retain if absent. In a Dedicated pool each
    tenant says that (deletionPolicy)."""


class SessionPolicy(Model):
    """What sessions may do. The gateway enforces it."""

    models: Annotated[tuple[ModelName, ...], Field(max_length=64), ATOMIC_LIST] = ()
    """Models that sessions may use; one that names none gets the first. Empty: any."""
    host_tools: Annotated[bool, Field(strict=True)] = True
    """Whether sessions may use the CLI's own tools, which read, write and run in the server's pod. Never in a Shared
    pool, whatever this says."""
    mcp_servers: Annotated[bool, Field(strict=True)] = True
    """Whether clients may bring MCP servers, each a process or a connection of the server's pod. Never in a Shared
    pool, whatever this says."""
    max_ai_credits: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    """AI credits that one session may use; no limit if absent."""


class SessionsSpec(Model):
    """How long sessions stay loaded, and what they may do."""

    idle_timeout: Annotated[Duration, between("5m", "168h", "the CLI looks for idle sessions every 5 minutes")] = "30m"
    """How long a session may be idle before the CLI unloads it, checked every 5 minutes. What was said stays on the
    volume: an unloaded session is resumed by its id. From 5m to 168h."""
    policy: SessionPolicy = SessionPolicy()
    """What sessions may do; by default everything. The gateway enforces it."""


class GatewayLimits(Model):
    """What one tenant may ask of one replica of the gateway. What is over it is refused with an error."""

    connections: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1000
    """Connections open at a time."""
    requests_per_second: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 200
    """Requests a second, in the long run."""
    burst: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 400
    """Requests at once, after a while without any."""


class GatewaySpec(Model):
    """The gateway between applications and servers."""

    rules = (GATEWAY_STAYS,)

    enabled: Annotated[bool, Field(strict=True)] = True
    """Whether applications connect through a gateway, which holds their connections while servers stop, move and start.
    false: to their server directly. Immutable."""
    replicas: Annotated[int, Field(strict=True, ge=1, le=50)] = 2
    """Number of gateways. With two or more none of them is missed: they keep each other's running turns."""
    drain_timeout: Annotated[Duration, between("0s", "1h")] = "5m"
    """How long a gateway that is to stop waits for the turns of its clients. From 0s to 1h. Turns that still run then
    go on at another gateway; their clients have to connect again."""
    limits: GatewayLimits = GatewayLimits()
    """What one tenant may ask of one gateway."""


class SharedSpec(Model):
    """Servers that tenants share. The scale subresource writes here."""

    replicas: Annotated[int, Field(strict=True, ge=0, le=1000)] | None = None
    """Number of servers. When it falls, idle ones go first; what is stored on their volumes stays, and a request for it
    starts them again."""
    routing: Literal["Sticky", "RoundRobin", "LeastSessions"] | None = None
    """Where a new session is placed. Sticky (if absent): on its tenant's server, as long as that serves. RoundRobin: on
    the next one. LeastSessions: on the one with the fewest loaded sessions. Stored sessions go where they are."""


class PoolSpec(Model):
    """How the servers of this pool run."""

    rules = (
        ISOLATION_STAYS,
        NOTHING_TO_SCALE,
        SHARED_NEEDS_NUMBER,
        SHARED_NEEDS_GATEWAY,
        RETENTION_OF_SHARED,
        POLICY_NEEDS_GATEWAY,
        PROVIDER_NEEDS_GATEWAY,
    )

    isolation: Literal["Dedicated", "Shared"]
    """Dedicated: every tenant has a server of its own, with process, memory, volume and credentials. Shared: tenants
    share servers; the gateway keeps them apart, and tools that run on the server are off. Immutable."""
    shared: SharedSpec | None = None
    """The servers of a Shared pool; left out with Dedicated."""
    server: ServerSpec
    """The CLI server: its image, flags, environment, resources and pod."""
    storage: StorageSpec = StorageSpec()
    """The volume that holds the sessions of a server."""
    sessions: SessionsSpec = SessionsSpec()
    """How long sessions stay loaded, and what they may do."""
    gateway: GatewaySpec = GatewaySpec()
    """The gateway between applications and servers."""
    auth: Auth | None = None
    """The pool's credential, for tenants without one of their own. Without any, applications pass a credential or a
    provider key when they create a session."""
    health: HealthSpec = HealthSpec()
    """When a server counts as healthy."""
    drain: DrainSpec = DrainSpec()
    """What happens to running turns before a server stops."""
    update: UpdateSpec = UpdateSpec()
    """How a changed pool reaches its servers."""
    recycle: RecycleSpec = RecycleSpec()
    """When an idle server is replaced because it is worn out."""
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
    tenants: Annotated[int, Field(ge=0)] | None = None
    """Number of tenants that name this pool."""
    versions: Annotated[tuple[ImageServers, ...], Field(max_length=16), list_map("image")] = ()
    """Images of the servers, with the number of servers that run each."""
    conditions: Conditions = ()
    """Aspects of the observed state. Ready sums them up."""


class CopilotPool(Model):
    """A pool of GitHub Copilot CLI servers: how they run, for the tenants that name it."""

    metadata: Metadata
    spec: PoolSpec
    """How the servers of this pool run."""
    status: PoolStatus = PoolStatus()
    """What the operator saw. Written by the operator."""


def parse_pool(obj: Mapping[str, Any]) -> CopilotPool:
    """Read a CopilotPool as the API server holds it; raises InvalidResource."""
    return parse(CopilotPool, obj)
