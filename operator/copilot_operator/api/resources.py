"""CPU, memory and scratch space of a server, as requests and limits."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from copilot_operator.api.model import Model
from copilot_operator.api.quantity import Quantity, quantity_value
from copilot_operator.api.rules import Rule

RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")
LEAST_MEMORY: Final = "16Mi"  # far below what a CLI needs, far above what is written by mistake ("384m", "512")

ONLY_KNOWN_RESOURCES: Final = Rule(
    f"self.all(k, k in {list(RESOURCES)!r})",
    f"write only {', '.join(RESOURCES[:-1])} and {RESOURCES[-1]}",
    lambda quantities: all(name in RESOURCES for name in quantities),
)
MEMORY_IS_PLAUSIBLE: Final = Rule(
    "!('memory' in self) || !isQuantity(string(self['memory']))"
    f" || quantity(string(self['memory'])).compareTo(quantity('{LEAST_MEMORY}')) >= 0",
    f"write memory of {LEAST_MEMORY} or more: it is counted in bytes, 384m is less than one byte, write 384Mi",
    lambda quantities: (
        "memory" not in quantities or quantity_value(quantities["memory"]) >= quantity_value(LEAST_MEMORY)
    ),
)

ResourceList = Annotated[dict[str, Quantity], Field(max_length=3), ONLY_KNOWN_RESOURCES, MEMORY_IS_PLAUSIBLE]


def _requests_within_limits(resources: Any) -> bool:
    requests, limits = resources.requests or {}, resources.limits or {}
    return all(quantity_value(requests[name]) <= quantity_value(limits[name]) for name in requests.keys() & limits)


REQUESTS_WITHIN_LIMITS: Final = Rule(
    "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits)"
    " || !isQuantity(string(self.requests[k])) || !isQuantity(string(self.limits[k]))"
    " || quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
    "a request may not be above the limit of the same resource: lower the request or raise the limit "
    "(where no limit is written the default applies, memory: 2Gi)",
    _requests_within_limits,
    field_path=".requests",
)


class ServerResources(Model):
    """What a server of the pool gets. A map that is written replaces the default map as a whole."""

    rules = (REQUESTS_WITHIN_LIMITS,)

    requests: ResourceList = Field(default={"cpu": "100m", "memory": "384Mi"})
    """What the scheduler reserves for a server: cpu, memory, ephemeral-storage. An idle CLI needs about 240Mi."""
    limits: ResourceList = Field(default={"memory": "2Gi"})
    """What a server may use at most: cpu, memory, ephemeral-storage. The CLI, its tools and their children share it;
    a server that goes above its memory is killed and loses its running turns."""


class ResourceOverrides(Model):
    """What one tenant's server gets instead of the pool's, resource by resource."""

    rules = (REQUESTS_WITHIN_LIMITS,)

    requests: ResourceList | None = None
    """Requests that replace the pool's, each for itself: a resource that is not named keeps the pool's request."""
    limits: ResourceList | None = None
    """Limits that replace the pool's, each for itself: a resource that is not named keeps the pool's limit."""


def overlay(pool: ServerResources, tenant: ResourceOverrides | None) -> ServerResources:
    """The pool's resources with the tenant's on top.

    Raises ValueError when a request ends above its limit, which neither object shows alone.
    """
    if tenant is None:
        return pool
    merged = pool.model_copy(
        update={
            "requests": {**pool.requests, **(tenant.requests or {})},
            "limits": {**pool.limits, **(tenant.limits or {})},
        }
    )
    if not _requests_within_limits(merged):
        raise ValueError(f"with the pool's resources, {_excess(merged.requests, merged.limits)}")
    return merged


def _excess(requests: Mapping[str, str], limits: Mapping[str, str]) -> str:
    """The first resource of which more is requested than allowed, as part of a sentence."""
    return next(
        f"the request of {requests[name]} {name} is above the limit of {limits[name]}"
        for name in RESOURCES
        if name in requests and name in limits and quantity_value(requests[name]) > quantity_value(limits[name])
    )
