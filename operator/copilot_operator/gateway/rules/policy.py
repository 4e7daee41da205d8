"""What the clients of a pool may do, and how a request that asks for more is refused. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from copilot_operator.gateway.rules.methods import Isolation
from copilot_operator.rpc.ephemeral import Ephemeral

INVALID_PARAMS: Final = -32602
METHOD_NOT_FOUND: Final = -32601

_SHOWN_LENGTH: Final = 60  # characters of a refused value


class Refused(Exception):
    """A request that the pool's policy does not allow; ``code`` and ``message`` are the error reply."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True, slots=True)
class Policy:
    """``spec.isolation``, ``spec.sessions.policy`` and ``spec.sessions.persistence`` of a pool."""

    isolation: Isolation = Isolation.SHARED
    models: tuple[str, ...] | None = None  # None: any; a session without a choice gets the first
    host_tools: bool = False
    mcp_servers: bool = False
    max_ai_credits: int | None = None  # a session
    infinite: Mapping[str, Any] | None = None  # infiniteSessions where the client says nothing of it
    ephemeral: Ephemeral = field(default_factory=Ephemeral)  # by the clients' ids

    @property
    def is_shared(self) -> bool:
        return self.isolation is Isolation.SHARED

    @property
    def opens_host(self) -> bool:
        """Host tools; never in a Shared pool, whose tenants share a user and a file system."""
        return self.host_tools and not self.is_shared

    @property
    def opens_mcp(self) -> bool:
        """MCP servers; never in a Shared pool, for one is a process or a connection of the shared server."""
        return self.mcp_servers and not self.is_shared


@dataclass(frozen=True, slots=True)
class Credential:
    """What a session pays its model with: a GitHub token or a provider object, not both. Its repr is empty."""

    git_hub_token: str | None = field(default=None, repr=False)
    provider: Mapping[str, Any] | None = field(default=None, repr=False)

    def fields(self) -> dict[str, Any]:
        """As parameters of ``session.create`` and ``session.resume``."""
        if self.provider is not None:
            return {"provider": dict(self.provider)}
        return {} if self.git_hub_token is None else {"gitHubToken": self.git_hub_token}


def refused(name: str, value: Any, why: str) -> Refused:
    """The refusal of a field; ``why`` ends with what to do. Objects and lists may hold secrets and are not shown."""
    match value:
        case bool():
            shown = f" {str(value).lower()}"
        case int() | float():
            shown = f" {value}"
        case str() if "token" not in name.lower():
            shown = f" '{value[:_SHOWN_LENGTH]}'"
        case _:
            shown = ""
    return Refused(INVALID_PARAMS, f"{name}{shown}: {why}")


def of_type(name: str, value: Any, kind: type) -> Any:
    """The value, if it is of its JSON type; raises Refused. A wrong type may mean to the CLI that all is allowed."""
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise refused(name, value, f"expected {_JSON_TYPES[kind]}, found {_JSON_TYPES.get(type(value), 'null')}")


_JSON_TYPES: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def check_model(name: str, model: Any, policy: Policy) -> None:
    """Raise Refused unless the pool allows this model."""
    of_type(name, model, str)
    if policy.models is not None and model not in policy.models:
        raise refused(name, model, f"this pool has not this model; choose one of {', '.join(policy.models)}")
