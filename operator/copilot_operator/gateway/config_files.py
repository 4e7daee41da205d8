"""The shape of a gateway's configuration files; ``config`` reads them. Unknown fields and wrong types are errors."""

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from copilot_operator.gateway.placement import Strategy
from copilot_operator.gateway.rules.methods import Isolation
from copilot_operator.gateway.rules.policy import Credential

_Name = Annotated[str, Meta(min_length=1, max_length=253)]
_Count = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[float, Meta(gt=0)]


class State(StrEnum):
    """What may be done with a server."""

    SERVING = "Serving"
    STARTING = "Starting"  # it is not known yet whether it answers
    DRAINING = "Draining"  # nothing new; what is idle leaves
    STOPPED = "Stopped"


class _Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A typing error is an error, not a default."""


class Server(_Strict, frozen=True, kw_only=True):
    """One CLI server; ``token`` is its own connection token, which no client gets."""

    state: State
    token: str | None
    host: Annotated[str, Meta(max_length=253)] = ""  # may be empty as long as it is Stopped
    port: Annotated[int, Meta(ge=1, le=65535)] = 4321
    agent_port: Annotated[int, Meta(ge=1, le=65535)] = 4322
    pod: str = ""  # UID of its pod

    def __repr__(self) -> str:
        return f"Server({self.host}:{self.port}, {self.state})"

    @property
    def address(self) -> tuple[str, int, str | None, str]:
        """Who has to be reached and with what: another one is another server, though its name be the same."""
        return self.host, self.port, self.token, self.pod


class CredentialFile(_Strict, frozen=True, kw_only=True):
    """Exactly one of the two: a GitHub token, or ``provider`` as ``session.create`` takes it."""

    git_hub_token: str | None = None
    provider: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if (self.git_hub_token is None) == (self.provider is None):
            raise ValueError("expected exactly one of gitHubToken and provider")

    def __repr__(self) -> str:
        return "CredentialFile(...)"

    def made(self) -> Credential:
        return Credential(git_hub_token=self.git_hub_token, provider=self.provider)


class Limits(_Strict, frozen=True, kw_only=True):
    """Of one tenant on this gateway."""

    connections: _Count = 1000
    requests_per_second: Annotated[float, Meta(gt=0)] = 200.0
    burst: Annotated[float, Meta(ge=1)] = 400.0
    held_requests: _Count = 64  # a session
    held_s: Annotated[float, Meta(gt=0, le=55)] = 50.0  # below the SDKs' own 60 s


class TenantLimits(_Strict, frozen=True, kw_only=True):
    """What a tenant has of its own; None: as the pool."""

    connections: _Count | None = None
    requests_per_second: Annotated[float, Meta(gt=0)] | None = None
    burst: Annotated[float, Meta(ge=1)] | None = None
    sessions: _Count | None = None  # loaded on one server; None: no bound of its own


class Sessions(_Strict, frozen=True, kw_only=True):
    """How many sessions a server may have loaded, what becomes of another one then, and what of them stays.

    ``most`` None: any number.
    """

    most: _Count | None = None
    evict: bool = True  # the least recently used idle one; else the other is refused
    ephemeral: bool = False  # nothing of any session stays once no client has it open
    shared: bool = False  # all servers have the same ones, on one volume: agents claim what they load


class Idle(_Strict, frozen=True, kw_only=True):
    """When what is not used is let go, in seconds. ``session_s`` None: never."""

    session_s: _Seconds | None = 1800.0
    linger_s: _Seconds = 1800.0  # for a turn whose client has left
    moves_s: _Seconds = 60.0  # then it may move to a server that has fewer sessions, if they share them


class PolicyFile(_Strict, frozen=True, kw_only=True):
    """``spec.sessions.policy`` of the pool."""

    models: list[str] | None = None
    host_tools: bool = False
    mcp_servers: bool = False
    max_ai_credits: _Count | None = None
    infinite: dict[str, Any] | None = None


class SharedSession(_Strict, frozen=True, kw_only=True):
    """A session that tenants share; who they are they say themselves (``TenantFile.shares``)."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,63}$")]
    code: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
    queues: bool = False  # who may not speak waits; else it is refused


class PoolFile(_Strict, frozen=True, kw_only=True):
    """``pool.json``. ``defaults`` are fields that the pool sets in create and resume."""

    isolation: Isolation
    routing: Strategy = Strategy.STICKY
    policy: PolicyFile = PolicyFile()
    limits: Limits = Limits()
    idle: Idle = Idle()
    sessions: Sessions = Sessions()
    defaults: dict[str, Any] = {}
    credential: CredentialFile | None = None
    forgets: bool = False  # a server forgets what it stores when it stops
    gateways: _Count = 1  # of this pool; from two on each keeps the others' turns
    shared_sessions: list[SharedSession] = []
    admin_key: str | None = None  # of the admin port's pages that are not for everybody; None: they are for nobody
    trouble: str = ""  # what keeps its servers from starting

    def __repr__(self) -> str:
        return f"PoolFile({self.isolation})"


class TenantFile(_Strict, frozen=True, kw_only=True):
    """One entry of ``tenants.json``; ``server`` in a Dedicated pool, ``code`` in a Shared one."""

    name: _Name
    code: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_-]*$")] = ""
    server: _Name | None = None
    credential: CredentialFile | None = None
    limits: TenantLimits = TenantLimits()
    homes: list[str] = []
    shares: list[str] = []  # names of shared sessions; those that the pool has not are not looked at
    suspended: bool = False  # its sessions are kept, and every request for one is refused
    message: str = ""  # why, and the way out
    trouble: str = ""  # what keeps its server from starting

    def __repr__(self) -> str:
        return f"TenantFile({self.name})"
