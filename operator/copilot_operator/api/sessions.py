"""What sessions may do, how long they stay loaded and are kept, and how many."""

import re
from typing import Annotated, Final, Literal

from pydantic import Field

from copilot_operator.api.duration import PATTERN, Duration, between, duration_s
from copilot_operator.api.model import Model
from copilot_operator.api.rules import ATOMIC_LIST, Rule

PERSISTENCE_STAYS: Final = Rule(
    "!has(self.persistence) || !has(oldSelf.persistence) || self.persistence == oldSelf.persistence",
    "persistence cannot change, because sessions are stored for the one or the other: create another pool",
    None,
)
TTL_IS_FOR_PERSISTENT: Final = Rule(
    "!has(self.persistence) || self.persistence != 'Ephemeral' || !has(self.ttl)",
    "leave ttl out: with persistence: Ephemeral nothing of a session is kept after its clients have gone",
    lambda spec: spec.persistence != "Ephemeral" or spec.ttl is None,
    field_path=".ttl",
)
TTL_OUTLASTS_IDLE: Final = Rule(
    f"!has(self.ttl) || !self.ttl.matches('{PATTERN}') || !self.idleTimeout.matches('{PATTERN}')"
    " || duration(self.ttl) >= duration(self.idleTimeout)",
    "write a ttl that is not shorter than idleTimeout, such as 168h: until then an idle session may be loaded, "
    "and what is loaded does not expire",
    lambda spec: spec.ttl is None or duration_s(spec.ttl) >= duration_s(spec.idle_timeout),
    field_path=".ttl",
)
ModelName = Annotated[str, Field(min_length=1, max_length=128)]
MaxConcurrent = Annotated[int, Field(strict=True, ge=1, le=10_000)]


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


A_SHARE: Final = Rule(
    "self.matches('^0[.][0-9]{1,4}$')",
    "write a share of the model's context as text, such as '0.8'",
    lambda text: re.fullmatch(r"0[.][0-9]{1,4}", text) is not None,
)
COMPACTS_FIRST: Final = Rule(
    "!has(self.backgroundCompactionThreshold) || !has(self.bufferExhaustionThreshold)"
    " || !self.backgroundCompactionThreshold.matches('^0[.][0-9]{1,4}$')"
    " || !self.bufferExhaustionThreshold.matches('^0[.][0-9]{1,4}$')"
    " || double(self.backgroundCompactionThreshold) < double(self.bufferExhaustionThreshold)",
    "write a backgroundCompactionThreshold below bufferExhaustionThreshold: at that one turns wait",
    lambda spec: (
        spec.background_compaction_threshold is None
        or spec.buffer_exhaustion_threshold is None
        or float(spec.background_compaction_threshold) < float(spec.buffer_exhaustion_threshold)
    ),
)
Share = Annotated[str, Field(max_length=6), A_SHARE]


class InfiniteSpec(Model):
    """How a session goes on when the model's context is full: older messages are summed up (compaction). What is absent
    is the CLI's own choice."""

    rules = (COMPACTS_FIRST,)

    enabled: Annotated[bool, Field(strict=True)] | None = None
    """Whether a conversation that outgrows the model's context goes on, with its older messages summed up. If not, a
    turn fails when the context is full."""
    background_compaction_threshold: Share | None = None
    """How full the context may be, as a share of it, before older messages are summed up while turns go on; the CLI's
    own is 0.8."""
    buffer_exhaustion_threshold: Share | None = None
    """How full the context may be, as a share of it, before turns wait until older messages are summed up; the CLI's
    own is 0.95."""


class SessionsSpec(Model):
    """Sessions, the conversations that clients have: how many are in memory, when idle ones leave it, how long they are
    kept, and what they may do."""

    rules = (PERSISTENCE_STAYS, TTL_IS_FOR_PERSISTENT, TTL_OUTLASTS_IDLE)

    persistence: Literal["Persistent", "Ephemeral"] = "Persistent"
    """Whether what was said is kept. Persistent: it stays on the volume and can be resumed, except that of sessions
    whose id begins with ephemeral-. Ephemeral: nothing of any session is kept, whatever its client asks for: some
    seconds after its turn has ended and the last client has left it, there is no directory, and nothing in the session
    store and in lists (a minute or two later where a gateway was killed). Files that tools wrote stay. Needs a gateway.
    Immutable."""
    idle_timeout: Annotated[Duration, between("5m", "168h", "the CLI looks for idle sessions every 5 minutes")] = "30m"
    """How long a session may be idle before the CLI unloads it, checked every 5 minutes. What was said stays on the
    volume: an unloaded session is resumed by its id. From 5m to 168h."""
    ttl: Annotated[Duration, between("5m", "87600h")] | None = None
    """How long a session is kept after its last event; for ever if absent. From 5m to 87600h, and not shorter than
    idleTimeout. Looked after once an hour by the server, when it runs; a change restarts none. A loaded session stays,
    and one whose client metadata has the key copilot-operator.io/pinned. What was said also lies in the server's
    session-store.db, where no deletion reaches it; sessions made with enableSessionStore: false are not in there."""
    ttl_action: Literal["Delete", "DryRun"] = "Delete"
    """Delete: expired sessions are deleted. DryRun: they are only counted (status.expiredSessions.kept)."""
    max_concurrent: MaxConcurrent | None = None
    """How many sessions a server may have loaded at a time, exact for all gateways together; no limit if absent. One
    that was unloaded for another comes back by itself with its next request."""
    when_full: Literal["EvictOldestIdle", "Reject"] = "EvictOldestIdle"
    """What becomes of a session that is one too many. EvictOldestIdle: an idle one makes room for it, the least
    recently used of the tenant that has most loaded; if none is idle, one whose turn has waited for a person or a
    client's tool for longer than idleTimeout; while all work, it waits. Reject: it is refused with an error that says
    when to try again."""
    infinite: InfiniteSpec | None = None
    """What becomes of conversations that outgrow the model's context, where the client says nothing of it
    (infiniteSessions); the CLI's own choice if absent."""
    policy: SessionPolicy = SessionPolicy()
    """What sessions may do; by default everything. The gateway enforces it."""


class TenantSessions(Model):
    """What differs from the pool for this tenant's sessions."""

    max_concurrent: MaxConcurrent | None = None
    """How many of this tenant's sessions a server may have loaded at a time, within what the pool allows; no limit of
    its own if absent. Where sessions are placed by routing: Sticky, as by default, that is how many it has."""
