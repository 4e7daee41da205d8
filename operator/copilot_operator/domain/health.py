"""From single pings to a verdict: one good answer is health, ``failure_threshold`` bad ones in a row are not."""

from dataclasses import dataclass, field

from copilot_operator.domain.snapshot import Health, Reading


@dataclass(frozen=True)
class Watched:
    """What is remembered of one pod's pings. ``failures`` counts those since the last good one."""

    failures: int = 0
    reading: Reading = field(default_factory=Reading)


def after_answer(before: Watched) -> Watched:
    return Watched(0, Reading(Health.HEALTHY)) if before.failures or before.reading.health != Health.HEALTHY else before


def after_failure(before: Watched, threshold: int, message: str) -> Watched:
    """Below the threshold the former verdict stands: one lost ping is no news."""
    failures = before.failures + 1
    if failures < threshold:
        return Watched(failures, before.reading)
    if before.reading.health == Health.UNHEALTHY:
        return Watched(failures, before.reading)  # the first message stays: a status is not rewritten at every ping
    return Watched(failures, Reading(Health.UNHEALTHY, f"{failures} pings in a row failed: {message}"))


def next_ping_s(watched: Watched, interval_s: float, threshold: int) -> float:
    """Seconds to the next ping: soon while a failure awaits confirmation."""
    return min(1.0, interval_s) if 0 < watched.failures < threshold else interval_s
