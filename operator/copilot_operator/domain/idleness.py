"""Servers that nobody uses stop, and start with the next request for a session (``spec.suspend``)."""

from copilot_operator.api.duration import duration_s
from copilot_operator.api.operations import SuspendSpec
from copilot_operator.domain.drain import Why, intent_of
from copilot_operator.domain.hours import next_change_s, running_hours
from copilot_operator.domain.live import is_up
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import Finding, TenantSnapshot

WANTED = "requests for its sessions were held for it within the last minutes"


def idle(snapshot: TenantSnapshot) -> str:
    """Why a running server may stop; "" if it may not: it is used, or that is not known."""
    pod, state, suspend = snapshot.server_pod, snapshot.state, suspension(snapshot)
    if suspend is None or pod is None or state is None or state.pod_uid != pod.uid or state.busy != 0:
        return ""
    if not snapshot.has_volume and state.stored != 0:
        return ""  # it would forget them
    assert suspend.after_idle
    if (state.unused_s or 0.0) <= duration_s(suspend.after_idle) or wake_up(snapshot) or _is_young(snapshot):
        return ""
    return f"suspend.afterIdle: nobody has used it for {suspend.after_idle}"


def rests(snapshot: TenantSnapshot, live: Manifest) -> str:
    """Why a server that was stopped as idle stays so; "" if it was not, or is wanted."""
    intent = intent_of(live)
    if suspension(snapshot) is None or wake_up(snapshot) or intent is None or intent.why != Why.IDLE:
        return ""
    return "it was idle; the next request for a session starts it"


def wakes(snapshot: TenantSnapshot) -> bool:
    """Whether a server is to start that was stopped because nobody used it, or was too many."""
    live = snapshot.children.deployment
    intent = intent_of(live)
    if live is None or is_up(live) or snapshot.held_down or snapshot.pool is None or intent is None:
        return False
    return intent.why in (Why.IDLE, Why.SCALE_IN) and not rests(snapshot, live)


def wake_up(snapshot: TenantSnapshot) -> str:
    """Why a server runs even if nobody has used it for long; "" if nothing asks for that."""
    if snapshot.demanded:
        return WANTED
    suspend = suspension(snapshot)
    return running_hours(suspend.running_hours, snapshot.now) if suspend else ""


def needed(snapshot: TenantSnapshot) -> Finding:
    """Why a server runs that would stop when idle, as people are told."""
    suspend = suspension(snapshot)
    assert suspend
    if snapshot.demanded:
        return Finding("Wanted", f"It runs because {WANTED}")
    if hours := running_hours(suspend.running_hours, snapshot.now):
        return Finding("RunningHours", f"It runs because of {hours}")
    if _is_young(snapshot):
        return Finding("MinRunning", f"It runs for suspend.minRunning, {suspend.min_running} from its start")
    state = snapshot.state
    if not snapshot.has_volume and state and state.stored:
        return Finding("WouldForget", f"It runs because it has no volume, and would forget {state.stored} sessions")
    return Finding("InUse", f"Something happened in a session within suspend.afterIdle, {suspend.after_idle}")


def hours_change_s(snapshot: TenantSnapshot) -> float | None:
    """Seconds until ``runningHours`` begin or end; None if there are none."""
    suspend = suspension(snapshot)
    return next_change_s(suspend.running_hours, snapshot.now) if suspend else None


def suspension(snapshot: TenantSnapshot) -> SuspendSpec | None:
    """What the pool says of servers that nobody uses; None if they run on."""
    suspend = snapshot.pool.spec.suspend if snapshot.pool and not snapshot.is_seat else None
    return suspend if suspend and suspend.after_idle else None


def _is_young(snapshot: TenantSnapshot) -> bool:
    """Whether it runs for less than it shall at least; also while that is not known."""
    suspend, state = suspension(snapshot), snapshot.state
    if suspend is None or suspend.min_running is None:
        return False
    return state is None or (state.age_s or 0.0) <= duration_s(suspend.min_running)
