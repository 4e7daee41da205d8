"""Conditions of a status, shaped as in the Kubernetes API conventions. Shapes only: reasons live in domain/."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from copilot_operator.api.model import Model
from copilot_operator.api.rules import list_map

ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(Model):
    """One aspect of the observed state."""

    model_config = ConfigDict(
        json_schema_extra={"required": ["type", "status", "reason", "message", "lastTransitionTime"]}
    )

    type: Annotated[str, Field(min_length=1, max_length=64)]
    """Aspect that the condition is about, such as Ready."""
    status: ConditionStatus
    """True, False, or Unknown when it could not be determined."""
    reason: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$")]
    """Why, as one word for programs."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Why, as a sentence for people."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the object that the condition was computed from."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When status last changed."""


Conditions = Annotated[tuple[Condition, ...], Field(max_length=16), list_map("type")]


def merge_conditions(old: Iterable[Condition], new: Iterable[Condition], now: datetime) -> tuple[Condition, ...]:
    """``new`` in its order, each with the time at which its status last changed.

    That time is the old one while the status stays, whatever becomes of reason and message, else ``now``. Conditions
    that are only in ``old`` are gone: a type that is no longer computed would stay true for ever.
    """
    before = {condition.type: condition for condition in old}
    return tuple(
        condition.model_copy(update={"last_transition_time": _since(before.get(condition.type), condition, now)})
        for condition in new
    )


def timestamp(moment: datetime) -> str:
    """``moment`` as the API writes times: UTC, whole seconds, ``Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _since(old: Condition | None, new: Condition, now: datetime) -> str:
    if old is not None and old.status == new.status and old.last_transition_time:
        return old.last_transition_time
    return timestamp(now)
