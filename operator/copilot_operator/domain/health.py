"""From single pings to a verdict, and from verdicts to what is done about a server."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from copilot_operator.api.duration import duration_s
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import HEALTH_RESTARTS_ANNOTATION
from copilot_operator.domain.retention import FULL_PERCENT
from copilot_operator.domain.snapshot import Finding, Health, Pod, Reading, ServerState, TenantSnapshot

HOUR: Final = timedelta(hours=1)
SLOW_FACTOR: Final = 10
REJECTED: Final = "AuthenticationFailed"  # rpc.ping.Failure: it answers, and does not take our token


@dataclass(frozen=True)
class Watched:
    """What is remembered of one pod's pings; ``failures`` counts those since the last good one.

    One good answer is health, ``failure_threshold`` bad ones in a row are not.
    """

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


def unresponsive(snapshot: TenantSnapshot, pod: Pod) -> str:
    """Why a server must be replaced: our pings fail, and its own agent, beside it, gets no answer either. "" if not so.

    Our pings alone could be the network's fault, or ours: no reason to stop anything.
    """
    state, reading = snapshot.state, snapshot.reading
    if reading.health != Health.UNHEALTHY or not pod.started:
        return ""
    if state is None or state.pod_uid != pod.uid or state.answering or state.failure == REJECTED:
        return ""
    return f"the server does not answer: {reading.message}"


def cannot_work(state: ServerState | None) -> str:
    """Why a server that answers pings is of no use; "" if nothing is known against it. Never said of a busy one, nor of
    one whose volume is full or read-only: another pod would have the same, and could not even start on the latter."""
    full = state is not None and (state.disk_percent or 0) >= FULL_PERCENT
    if state is None or not state.answering or state.busy or full or state.read_only:
        return ""
    return state.deep_failure


def degraded(snapshot: TenantSnapshot) -> Finding | None:
    """What is wrong with a server that nothing is stopped for; people should know."""
    state = snapshot.state
    if state is None or snapshot.pool is None:
        return None
    if state.failure == REJECTED:
        message = "The server does not take the token it was started with; restart it: annotation restarted-at"
        return Finding("TokenRejected", message)
    limit = snapshot.pool.spec.health.stalled_turn
    if state.stalled_s is not None and state.stalled_s > duration_s(limit):
        return Finding("TurnStalled", f"A turn has shown no event for more than {limit} (health.stalledTurn)")
    if state.latency_factor is not None and state.latency_factor > SLOW_FACTOR:
        message = f"Pings take more than {SLOW_FACTOR} times as long as after its start; see recycle.maxLatencyFactor"
        return Finding("AnswersSlowly", message)
    return None


@dataclass(frozen=True)
class Restarts:
    """The replacements of a silent server's pod, as its Deployment remembers them: (when, first part of the UID)."""

    entries: tuple[tuple[datetime, str], ...] = ()

    @classmethod
    def of(cls, deployment: Manifest) -> "Restarts":
        """Entries that somebody made unreadable are dropped."""
        found = []
        for entry in annotations_of(deployment).get(HEALTH_RESTARTS_ANNOTATION, "").split():
            at, _, pod = entry.partition("/")
            try:
                found.append((datetime.fromisoformat(at), pod))
            except ValueError:
                continue
        return cls(tuple(entry for entry in found if entry[0].tzinfo))

    def within_an_hour(self, now: datetime) -> "Restarts":
        return Restarts(tuple(entry for entry in self.entries if now - entry[0] < HOUR))

    def counts(self, pod: Pod) -> bool:
        """Whether this pod's replacement was decided already: a crash between the note and the deed costs no second."""
        return any(uid == _short(pod) for _, uid in self.entries)

    def with_one_more(self, pod: Pod, now: datetime) -> "Restarts":
        return self if self.counts(pod) else Restarts((*self.entries, (now.replace(microsecond=0), _short(pod))))

    def annotations(self) -> dict[str, str]:
        line = " ".join(f"{at.isoformat()}/{pod}" for at, pod in self.entries)
        return {HEALTH_RESTARTS_ANNOTATION: line} if line else {}

    def spent(self, why: str) -> Finding:
        again = f"; the next is at {(self.entries[0][0] + HOUR).isoformat()}" if self.entries else ""
        times = f"It was replaced {len(self.entries)} times in an hour (health.maxRestartsPerHour){again}: {why}"
        return Finding("RestartBudgetSpent", times)


def _short(pod: Pod) -> str:
    return pod.uid[:8]
