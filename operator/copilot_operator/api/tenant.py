"""CopilotTenant: who uses the servers of a pool."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from copilot_operator.api.conditions import Conditions
from copilot_operator.api.duration import PATTERN, Duration, between, duration_s
from copilot_operator.api.expired import ExpiredSessions
from copilot_operator.api.invalid import parse
from copilot_operator.api.metadata import Metadata
from copilot_operator.api.model import Model
from copilot_operator.api.names import ObjectName
from copilot_operator.api.references import Auth
from copilot_operator.api.resources import ResourceOverrides
from copilot_operator.api.rules import ATOMIC_LIST, Rule
from copilot_operator.api.sessions import TenantSessions

DeletionPolicy = Literal["Delete", "Retain"]
Phase = Literal["Pending", "Starting", "Ready", "Draining", "Suspended", "Failed"]
ConditionType = Literal[
    "Ready", "CredentialsReady", "ServerHealthy", "StorageReady", "Progressing", "Paused", "Stalled"
]

IMMUTABLE_POOL: Final = Rule(
    "self.name == oldSelf.name",
    "poolRef cannot change, because sessions do not move between pools: create another tenant in the other pool",
    None,
)


class PoolRef(Model):
    """The pool that serves a tenant."""

    rules = (IMMUTABLE_POOL,)

    name: ObjectName
    """Name of a CopilotPool in the same namespace."""


class TenantServerSpec(Model):
    """What differs from the pool for this tenant's server."""

    resources: ResourceOverrides | None = None
    """CPU, memory and scratch space that replace the pool's; absent means the pool's."""


def _is_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


OVERLAP_WITHIN_PERIOD: Final = Rule(
    f"!has(self.every) || !has(self.overlap) || !self.every.matches('{PATTERN}') || !self.overlap.matches('{PATTERN}')"
    " || duration(self.overlap) <= duration(self.every)",
    "write an overlap that is not longer than every: only two tokens are taken at a time",
    lambda spec: not (spec.every and spec.overlap) or duration_s(spec.overlap) <= duration_s(spec.every),
    field_path=".overlap",
)


class ConnectionToken(Model):
    """When the token of the tenant's applications is exchanged for another one. Without a gateway it is the server's
    own: the server is drained and started again with the new one."""

    rules = (OVERLAP_WITHIN_PERIOD,)

    rotate_at: Annotated[
        str,
        Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", json_schema_extra={"format": "date-time"}),
        AfterValidator(_is_time),
    ]
    """When there is a new token, in UTC, such as 2026-11-24T04:00:00Z; the tenant's Secret holds it then, or as soon as
    the server was drained. Each later time that is written here is another rotation. Let it stand afterwards."""
    every: Annotated[Duration, between("1h", "8760h")] | None = None
    """Rotate again each time that so much has passed since rotateAt, such as 720h; absent: once. Of rotations that were
    missed there is one."""
    overlap: Annotated[Duration, between("0s", "168h")] | None = None
    """For how long the old token is taken as well; 10m if absent. After that connections that were opened with it are
    closed. Without a gateway there is no overlap: leave it out, or write 0s."""


class TenantSpec(Model):
    """Who this tenant is and what it may have."""

    pool_ref: PoolRef
    """The pool that serves this tenant. Immutable."""
    auth: Auth | None = None
    """The tenant's own credential; absent means the pool's."""
    suspended: Annotated[bool, Field(strict=True)] = False
    """true stops the server through a drain and keeps its volume; false starts it again with its sessions."""
    server: TenantServerSpec | None = None
    """What differs from the pool for this tenant's server."""
    sessions: TenantSessions | None = None
    """What differs from the pool for this tenant's sessions."""
    connection_token: ConnectionToken | None = None
    """When the token of the tenant's applications is exchanged for another one."""
    deletion_policy: DeletionPolicy = "Delete"
    """What becomes of the volume when the tenant is deleted. Delete: it goes, with every session. Retain: it stays, and
    a tenant of the same name in the same pool gets it back."""


class Endpoint(Model):
    """Where the application connects."""

    host: Annotated[str, Field(max_length=512)]
    """Host name, to be resolved inside the cluster."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """TCP port."""
    secret_name: Annotated[str, Field(max_length=253)]
    """Secret with host, port, cliUrl (host:port) and token for the SDK."""


class DrainStatus(Model):
    """A drain under way."""

    cause: Annotated[str, Field(max_length=64)]
    """Why the server is to stop, in one word: Suspension, Change, Update, Edited, NodeDrain, Rotation, Recycle or
    Health."""
    start_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it began."""
    deadline: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When turns that still run are aborted, or go on, as the pool's drain.onTimeout says."""
    busy: Annotated[int, Field(ge=0)] | None = None
    """Sessions that still work or wait; absent until they were counted."""
    work: Annotated[dict[str, Annotated[int, Field(ge=0)]], Field(max_length=8)] = Field(default_factory=dict)
    """What keeps how many of them busy: turn, task (in the background), queued (a message), waiting (for a person or a
    client's tool), unknown (the server did not say)."""
    cut: Annotated[int, Field(ge=0)] | None = None
    """Turns that were aborted at the deadline."""


class SessionsStatus(Model):
    """Sessions of a tenant, as they were counted last. Coarse: told 5 minutes after it was told before at the
    earliest."""

    active: Annotated[int, Field(ge=0)]
    """Sessions that work, or wait for a person or a client's tool."""
    loaded: Annotated[int, Field(ge=0)]
    """Sessions that are loaded on a server, the active ones among them."""
    stored: Annotated[int, Field(ge=0)]
    """Sessions on volumes."""
    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When they were counted."""


class TenantStatus(Model):
    """What the operator saw."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the tenant that this status was computed from."""
    phase: Phase | None = None
    """The state in one word, for people; programs read conditions."""
    endpoint: Endpoint | None = None
    """Where the application connects."""
    server: Annotated[str, Field(max_length=253)] | None = None
    """Name of the server (its Deployment, Service and volume)."""
    drain: DrainStatus | None = None
    """The drain of its server, while one is under way."""
    expired_sessions: ExpiredSessions | None = None
    """Sessions that nobody had used for spec.sessions.ttl of the pool."""
    sessions: SessionsStatus | None = None
    """How many sessions it has; absent before it had any."""
    homes: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=1000), ATOMIC_LIST] = ()
    """Servers of a Shared pool that store sessions of this tenant."""
    conditions: Conditions = ()
    """Aspects of the observed state: Ready (the summary), CredentialsReady, ServerHealthy, StorageReady, Progressing,
    Paused, and Stalled while waiting for Ready is in vain."""


class CopilotTenant(Model):
    """A user or a team of an application: one tenant of a CopilotPool, with a connection of its own."""

    metadata: Metadata
    spec: TenantSpec
    """Who this tenant is and what it may have."""
    status: TenantStatus = TenantStatus()
    """What the operator saw. Written by the operator."""


def parse_tenant(obj: Mapping[str, Any]) -> CopilotTenant:
    """Read a CopilotTenant as the API server holds it; raises InvalidResource."""
    return parse(CopilotTenant, obj)
