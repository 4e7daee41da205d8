"""How servers are stopped, replaced and judged: drain, update, recycle, health."""

import re
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from copilot_operator.api import cron
from copilot_operator.api.duration import PATTERN, Duration, between, duration_s
from copilot_operator.api.model import Model
from copilot_operator.api.quantity import Quantity, at_least
from copilot_operator.api.rules import ATOMIC_LIST, Rule

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


def as_text(value: object) -> object:
    """``maxUnavailable: 2`` in YAML is a number; the API server takes it, and so do we."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


IntOrPercent = Annotated[
    str,
    BeforeValidator(as_text),
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


A_TIME: Final = Rule(
    f"self.matches('{cron.PATTERN}')",
    "write five fields of cron, minute, hour, day of the month, month and day of the week, such as 0 8 * * MON-FRI",
    cron.has_shape,
)


def _readable(text: str) -> str:
    """What the API server lets pass and nobody can read; raises what pydantic makes an error of."""
    try:
        cron.cron(text)
    except ValueError as error:
        raise _refusal(str(error)) from None
    return text


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no such file, no path of one, or a directory
        raise _refusal("write the name of a time zone as in the tz database, such as Europe/Berlin or UTC") from None
    return name


def _refusal(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{sentence}", {"sentence": sentence})


CronTime = Annotated[str, Field(max_length=cron.MAX_LENGTH), A_TIME, AfterValidator(_readable)]
A_ZONE: Final = Rule(
    "self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')",
    "write the name of a time zone as in the tz database, such as Europe/Berlin or UTC",
    lambda text: re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", text) is not None,
)


class RunningHours(Model):
    """From when until when servers run though nobody uses them."""

    start: CronTime
    """When they begin to: five fields of cron, such as 0 8 * * MON-FRI. Servers that stopped as idle start then."""
    end: CronTime
    """When they cease to: five fields of cron, such as 0 18 * * MON-FRI. From then on an idle server may stop."""
    time_zone: Annotated[str, Field(max_length=64), A_ZONE, AfterValidator(_known_zone)] = "UTC"
    """Time zone of both, as in the tz database: Europe/Berlin. What falls into the hour that is skipped in spring
    happens at its end; what falls into the one that comes twice in autumn happens the first time."""

    @model_validator(mode="after")
    def _ever(self) -> Self:
        if not cron.ever_without(self.start, self.end):
            never = f"start {self.start!r} never comes, or only together with end: no server would ever run for it"
            raise _refusal(f"{never}; write a time that comes, such as 0 8 * * MON-FRI")
        if not cron.ever_without(self.end):
            raise _refusal(
                f"end {self.end!r} never comes: no server would ever stop; write a time that does, or leave suspend out"
            )
        return self


MIN_RUNNING_OUTLASTS_IDLE: Final = Rule(
    "!has(self.minRunning) || (has(self.afterIdle)"
    f" && (!self.minRunning.matches('{PATTERN}') || !self.afterIdle.matches('{PATTERN}')"
    " || duration(self.minRunning) > duration(self.afterIdle)))",
    "write an afterIdle that is shorter than minRunning, or leave minRunning out: a server runs for afterIdle anyway",
    lambda spec: (
        spec.min_running is None
        or (spec.after_idle is not None and duration_s(spec.min_running) > duration_s(spec.after_idle))
    ),
    field_path=".minRunning",
)
HOURS_NEED_IDLE: Final = Rule(
    "!has(self.runningHours) || self.runningHours.size() == 0 || has(self.afterIdle)",
    "write afterIdle, too, such as 30m: without it servers never stop, and need no runningHours",
    lambda spec: not spec.running_hours or spec.after_idle is not None,
    field_path=".runningHours",
)


class SuspendSpec(Model):
    """When a server that nobody uses is stopped until somebody does."""

    rules = (MIN_RUNNING_OUTLASTS_IDLE, HOURS_NEED_IDLE)

    after_idle: Annotated[Duration, between("1m", "168h", "a server takes some seconds to come back")] | None = None
    """How long nothing may have happened in any session. Then the server stops through a drain and keeps its volume;
    the next request for a session starts it, and waits for it. Open connections alone keep no server running. From 1m
    to 168h; never if absent."""
    min_running: Annotated[Duration, between("1m", "168h")] | None = None
    """How long a server runs after a start before it may be stopped as idle, where that is to be longer than afterIdle.
    From 1m to 168h."""
    running_hours: Annotated[tuple[RunningHours, ...], Field(max_length=16), ATOMIC_LIST] = ()
    """When servers run whether anybody uses them or not, such as office hours. At other times they stop after
    afterIdle, and requests start them. What people suspended stays so."""


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
            BeforeValidator(as_text),
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
