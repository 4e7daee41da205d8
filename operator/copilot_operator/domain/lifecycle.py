"""When a server runs, stops and starts: one machine for every cause.

                 ┌────────── cause to stop ──────────┐
                 │                                   ▼
    Stopped ─► Starting ─► Serving             Stopping (replicas 0, its pod still there)
       ▲                                             │
       └────────── no pod left ◄─────────────────────┘

Where a server stands is derived from its Deployment and pods, never remembered. The template of a Deployment changes
only in *Stopped*, so that no change of ours can start a second process beside a running one or cut a turn short:
the agent's preStop waits for running turns while the pod is *Stopping*.
"""

from dataclasses import dataclass
from enum import StrEnum

from copilot_operator.domain.desired.deployment import changed_intent
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import APPLIED_ANNOTATION
from copilot_operator.domain.snapshot import TenantSnapshot
from copilot_operator.domain.subset import first_difference


class Stage(StrEnum):
    """Where a server stands."""

    STOPPED = "Stopped"
    STARTING = "Starting"
    SERVING = "Serving"
    STOPPING = "Stopping"


@dataclass(frozen=True)
class Move:
    """What to do with the Deployment: ``apply`` a manifest, ``stop`` (replicas 0), or leave it (both empty)."""

    stage: Stage
    why: str = ""
    apply: Manifest | None = None
    stop: bool = False


def next_move(snapshot: TenantSnapshot, wanted: Manifest) -> Move:
    """The next step of the server whose Deployment shall be ``wanted`` (as rendered, replicas 1)."""
    assert snapshot.spec
    live = snapshot.children.deployment
    suspended = snapshot.spec.suspended
    unusable = snapshot.credential.finding if snapshot.credential else None
    hold = "spec.suspended is true" if suspended else unusable.message if unusable else ""
    if live is None:
        if unusable and not suspended:
            return Move(Stage.STOPPED, unusable.message)  # a pod without its Secret would only crash
        return Move(Stage.STOPPED if hold else Stage.STARTING, hold or "first start", _sized(wanted, not hold))
    if _replicas(live) > 0:
        return _running(snapshot, live, wanted, suspended)
    if not _is_down(snapshot, live):
        return Move(Stage.STOPPING, hold or "waits for its pod to end")
    if not hold:
        return Move(Stage.STARTING, "starts", _sized(wanted, True))
    if unusable or not (_ours_changed(live, wanted) or first_difference(_sized(wanted, False), live)):
        return Move(Stage.STOPPED, hold)
    return Move(Stage.STOPPED, hold, _sized(wanted, False))


def _running(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest, suspended: bool) -> Move:
    serving = Stage.SERVING if any(pod.ready and not pod.terminating for pod in snapshot.pods) else Stage.STARTING
    if suspended:
        return Move(Stage.STOPPING, "spec.suspended is true", stop=True)
    if snapshot.credential and snapshot.credential.finding:
        return Move(serving, "goes on with the credential it was started with")
    outdated = _ours_changed(live, wanted) and not _stamps_lost(live, wanted)
    if outdated and (changed := changed_intent(live, wanted)):
        return Move(Stage.STOPPING, f"changed: {', '.join(changed)}", stop=True)
    if _edited_by_others(live):
        return Move(Stage.STOPPING, "its pod template was changed by somebody else", stop=True)
    if outdated:
        return Move(serving, "a newer pod template waits for the next stop")
    if difference := first_difference(wanted, live):
        return Move(serving, f"repairs {difference}", wanted)
    return Move(serving)


def _replicas(live: Manifest) -> int:
    return int(live.get("spec", {}).get("replicas", 1))


def _is_down(snapshot: TenantSnapshot, live: Manifest) -> bool:
    """No pod is left, terminating ones included; until the controller has seen the last change we don't know."""
    status = live.get("status", {})
    seen = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    return bool(seen and not status.get("replicas") and not status.get("terminatingReplicas") and not snapshot.pods)


def _ours_changed(live: Manifest, wanted: Manifest) -> bool:
    """We would render it differently today: it was applied by an operator of another version, or before a change."""
    return annotations_of(live).get(APPLIED_ANNOTATION) != annotations_of(wanted).get(APPLIED_ANNOTATION)


def _stamps_lost(live: Manifest, wanted: Manifest) -> bool:
    """Somebody removed our annotations. If the template is as wanted all the same, that is drift, no change of ours."""
    template = first_difference(wanted["spec"]["template"], live.get("spec", {}).get("template"))
    return APPLIED_ANNOTATION not in annotations_of(live) and template is None


def _edited_by_others(live: Manifest) -> bool:
    """Fields were added to the template (``kubectl rollout restart``): a second pod waits beside the running one.

    Edits of our own fields are undone before that; only what an apply can't take back gets as far as the deadline.
    """
    status = live.get("status", {})
    if status.get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return False
    outdated = status.get("replicas", 0) - status.get("updatedReplicas", 0) > 0
    reasons = {condition["type"]: condition.get("reason") for condition in status.get("conditions") or ()}
    return outdated and reasons.get("Progressing") == "ProgressDeadlineExceeded"


def _sized(wanted: Manifest, run: bool) -> Manifest:
    return wanted | {"spec": wanted["spec"] | {"replicas": 1 if run else 0}}
