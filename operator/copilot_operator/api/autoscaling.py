"""How many servers a Shared pool has, where the operator decides."""

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from copilot_operator.api.duration import Duration, between
from copilot_operator.api.model import Model
from copilot_operator.api.operations import NOT_NOTHING, IntOrPercent, as_text
from copilot_operator.api.rules import Rule

FREE: Final = Rule(
    "string(self).matches('^([0-9]{1,6}|([0-9]|[1-8][0-9]|90)%)$')",
    "write a number of sessions, or a share of all slots from 0% to 90%",
    lambda text: re.fullmatch(r"[0-9]{1,6}|([0-9]|[1-8][0-9]|90)%", text) is not None,
)
LEAST_BELOW_MOST: Final = Rule(
    "self.minReplicas <= self.maxReplicas",
    "write a minReplicas that is not above maxReplicas",
    lambda spec: spec.min_replicas <= spec.max_replicas,
    field_path=".minReplicas",
)


class AutoscalingSpec(Model):
    """How many servers run, by the sessions that they have loaded of those that they may have
    (sessions.maxConcurrent)."""

    rules = (LEAST_BELOW_MOST,)

    min_replicas: Annotated[int, Field(strict=True, ge=0, le=1000)] = 1
    """Least number of servers. With 0 none runs while no session is loaded; the next request starts one, and waits for
    it."""
    max_replicas: Annotated[int, Field(strict=True, ge=1, le=1000)]
    """Most number of servers. Beyond it a session waits, or is refused, as sessions.whenFull says. Servers that are
    started for what they store run beside it."""
    free_sessions: Annotated[
        str,
        BeforeValidator(as_text),
        Field(max_length=6),
        WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 6}),
        FREE,
    ] = "20%"
    """How many more sessions could be loaded at once: a number, or a share of all that may be, such as 20%."""
    scale_in_delay: Annotated[Duration, between("0s", "24h")] = "5m"
    """How long fewer servers must have been enough before one goes. It is also the pause between changes: a server that
    has come stays for so long, and after one has gone none comes, unless less than half of freeSessions is left. From
    0s to 24h."""
    step: Annotated[IntOrPercent, NOT_NOTHING] | None = None
    """How many servers may come at once, the next ones when these are ready, and how many may go within scaleInDelay: a
    number, or a share of those that run (rounded up). As many as needed if absent."""


Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class AutoscalingStatus(Model):
    """What was decided last, and why."""

    replicas: Annotated[int, Field(ge=0)]
    """Number of servers that shall run."""
    last_scale_out_time: Moment | None = None
    """When it last grew."""
    last_scale_in_time: Moment | None = None
    """When it last fell."""
    direction: Literal["Out", "In"] | None = None
    """Which of the two was last."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why it is what it is, with the numbers of the moment in which it was decided."""
