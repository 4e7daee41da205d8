"""How servers are stopped, replaced and judged: drain, update, recycle, health."""

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from copilot_operator.api.duration import Duration, between
from copilot_operator.api.model import Model
from copilot_operator.api.quantity import Quantity, at_least
from copilot_operator.api.rules import Rule

_SHARE = re.compile(r"(?:100|[1-9]?[0-9])%\Z|[0-9]{1,6}\Z", re.ASCII)

NOT_NOTHING: Final = Rule(
    "string(self).matches('^([1-9][0-9]{0,5}|([1-9][0-9]?|100)%)$')",
    "write a number of servers from 1, or a share from 1% to 100%",
    lambda text: bool(_SHARE.match(text)) and text.rstrip("%").lstrip("0") != "",
)
A_FACTOR: Final = Rule(
    "string(self).matches('^[0-9]{1,4}([.][0-9]{1,3})?$') && double(string(self)) >= 1.5",
    "write a number from 1.5, such as 5",
    lambda text: re.fullmatch(r"[0-9]{1,4}([.][0-9]{1,3})?", text) is not None and float(text) >= 1.5,
)


def _as_text(value: object) -> object:
    """``maxUnavailable: 2`` in YAML is a number; the API server takes it, and so do we."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


IntOrPercent = Annotated[
    str,
    BeforeValidator(_as_text),
    Field(max_length=6),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 6}),
]
"""A number of servers, or a share of them such as 25%."""


class DrainSpec(Model):
    """What happens to running turns before a server stops, whatever stops it."""

    timeout: Annotated[Duration, between("0s", "24h")] = "9m"
    """How long running turns may go on once a server is to stop. From 0s to 24h. The grace period of its pods is this
    and one minute; a change reaches running pods at their next start, and drains under way at once."""
    on_timeout: Literal["Abort", "Wait"] = "Abort"
    """What becomes of turns that still run then. Abort: they are cancelled, and their clients told. Wait: they may go
    on for ever, as long as nobody else ends the pod."""


class UpdateSpec(Model):
    """How a changed pool reaches its servers."""

    max_unavailable: Annotated[IntOrPercent, NOT_NOTHING] = "25%"
    """How many servers may be drained, stopped or starting at a time because the pool changed or because they are worn
    out: a number, or a share of the pool's servers (rounded down, at least 1). Idle servers come first."""


class RecycleSpec(Model):
    """When an idle server is replaced because it is worn out. What is absent is not looked at."""

    max_age: Annotated[Duration, between("10m", "8760h")] | None = None
    """How long a CLI process may run. From 10m to 8760h."""
    max_memory: Annotated[Quantity, at_least("256Mi", "an idle CLI takes about 240Mi")] | None = None
    """Resident memory of the CLI and its tools."""
    max_processes: Annotated[int, Field(strict=True, ge=5, le=100_000)] | None = None
    """Number of processes of the CLI and its tools."""
    max_latency_factor: (
        Annotated[
            str,
            BeforeValidator(_as_text),
            Field(max_length=8),
            WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 8}),
            A_FACTOR,
        ]
        | None
    ) = None
    """How many times slower than after its start a CLI may answer pings, by the medians of both."""


class HealthSpec(Model):
    """When a server counts as healthy. The operator pings every server over the CLI's own protocol."""

    interval: Annotated[Duration, between("1s", "5m")] = "5s"
    """Time between two pings of a server. From 1s to 5m."""
    timeout: Annotated[Duration, between("100ms", "1m")] = "3s"
    """How long a ping may take before it counts as failed. From 100ms to 1m."""
    failure_threshold: Annotated[int, Field(strict=True, ge=1, le=20)] = 2
    """How many pings in a row must fail before a server counts as unhealthy. From 1 to 20."""
    max_restarts_per_hour: Annotated[int, Field(strict=True, ge=0, le=60)] = 4
    """How often in an hour the operator may replace a server that does not answer. After that it stays as it is, and
    status says so. 0: never."""
    stalled_turn: Annotated[Duration, between("1m", "24h")] = "15m"
    """After how long without any event a busy session that waits for nobody counts as stalled. From 1m to 24h. It is
    reported, and nothing is stopped for it."""
