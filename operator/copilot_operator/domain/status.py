"""What people and programs are told: conditions, phase, and the one Event of a transition.

Each chain is a list of small policies; the first that objects decides, so causes come before their effects. A status
is written only when something in it would change, and a tenant on its ordinary way to Ready is written once, when it
arrives (or after ``PATIENCE``): thousands of tenants start without a second write.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from copilot_operator.api.conditions import Condition, merge_conditions, timestamp
from copilot_operator.domain.desired.service import CLI_PORT, host
from copilot_operator.domain.drain import Intent
from copilot_operator.domain.fit import misfit
from copilot_operator.domain.health import degraded
from copilot_operator.domain.lifecycle import Stage, overdue_at
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import gateway_of
from copilot_operator.domain.plan import TenantPlan
from copilot_operator.domain.snapshot import Finding, Health, Reading, TenantSnapshot

PATIENCE: Final = timedelta(minutes=5)  # a first start may take this long, among thousands, before status tells of it
MAX_MESSAGE: Final = 4096  # what the CRD allows a condition
LATE: Final = timedelta(seconds=10)  # what should have come by now is looked after this often
SETTLING: Final = timedelta(seconds=15)  # how long a start may look troubled (volumes, scheduling) before it is

SUSPENDED: Final = Finding("Suspended", "spec.suspended is true; sessions are kept, set it to false to go on")


@dataclass(frozen=True)
class Event:
    """A core/v1 Event to write: ``type`` Normal or Warning."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Report:
    """``status`` to write (None: leave it); ``event`` of a transition; ``look_again_s``: when time alone tells more."""

    status: Manifest | None = None
    event: Event | None = None
    look_again_s: float | None = None


Policy = Callable[[TenantSnapshot, TenantPlan], Finding | None]


def unusable(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    return snapshot.unusable or misfit(snapshot)


def in_the_way(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    return snapshot.children.obstacle


def refused(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    return snapshot.refused


def storage_trouble(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    """The class of a claim can't be had, or the claim lost its volume (PersistentVolumeClaim status.phase)."""
    if snapshot.storage.finding:
        return snapshot.storage.finding
    phase = (snapshot.children.claim or {}).get("status", {}).get("phase")
    return Finding("VolumeLost", f"The volume of claim {snapshot.server} is gone") if phase == "Lost" else None


def cannot_run(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    return plan.move.trouble if plan.move else None


def draining(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    """Cause, sessions left and their kind, deadline; after that what it waits for, and the way out."""
    move = plan.move
    if move is None or move.stage != Stage.DRAINING:
        return None
    if move.intent is None or snapshot.now <= move.intent.deadline:
        until = f", until {timestamp(move.intent.deadline)} at most" if move.intent else ""
        return Finding("Draining", f"The server stops once its turns are done{until} ({move.why}): {_left(snapshot)}")
    message = f"Its turns go on after drain.timeout ({move.why}): {_left(snapshot)}. " + (
        "Answer what they wait for, abort them, or set drain.onTimeout: Abort in the pool"
        if snapshot.pool and snapshot.pool.spec.drain.on_timeout == "Wait"
        else "They are being aborted"
    )
    return Finding("DrainOverdue", message)


WORK: Final = {
    "turn": "in a turn",
    "task": "with a task in the background",
    "queued": "with a queued message",
    "waiting": "waiting for a person or a client's tool",
    "unknown": "that could not be counted",
}


def _left(snapshot: TenantSnapshot) -> str:
    drain = snapshot.drain
    if drain is None or (drain.phase is None and not drain.unanswered):
        return "its agent is being asked"
    if drain.unanswered:
        return f"its agent does not answer: {drain.unanswered}"
    if drain.busy is None:
        return "its sessions are being counted"
    kinds = ", ".join(f"{number} {WORK.get(kind, kind)}" for kind, number in drain.work)
    return f"{drain.busy} sessions left{': ' + kinds if kinds else ''}"


def credential_trouble(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    """A running server goes on with the token it was started with; CredentialsReady tells of it all the same."""
    if plan.move and plan.move.stage in (Stage.SERVING, Stage.DRAINING):
        return None
    return snapshot.credential.finding if snapshot.credential else None


def suspended(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    if plan.move and plan.move.stage == Stage.STOPPED and snapshot.held_down:
        if snapshot.is_seat:
            return Finding("ScaledIn", "It starts when spec.shared.replicas grows, or a request wants what it stores")
        return SUSPENDED
    return None


def stopping(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    if plan.move and plan.move.stage == Stage.STOPPING:
        cut = f"; {snapshot.drain.cut} turns were cut at the deadline" if snapshot.drain and snapshot.drain.cut else ""
        return Finding("Stopping", f"The server stops: {plan.move.why}{cut}")
    return None


def pod_trouble(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    """What kubelet says keeps a container from running: image, configuration, crash."""
    if plan.move and plan.move.stage == Stage.SERVING:
        return None  # the pod in trouble is one that somebody's edit made beside the serving one
    return next((pod.waiting for pod in snapshot.pods if pod.waiting), None)


def not_scheduled(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    if _starting_for(snapshot) < SETTLING or (plan.move and plan.move.stage == Stage.SERVING):
        return None
    found = next((pod.unschedulable for pod in snapshot.pods if pod.unschedulable), None)
    return Finding("Unschedulable", f"No node takes the pod: {found}") if found else None


def pod_refused(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    """The pod can't even be created: a quota, a policy (Deployment condition ReplicaFailure)."""
    for condition in (snapshot.children.deployment or {}).get("status", {}).get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Finding("PodRefused", str(condition.get("message", "")))
    return None


def unhealthy(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    if snapshot.reading.health == Health.UNHEALTHY:
        return Finding("ServerSilent", snapshot.reading.message)
    return None


def not_ready(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    """It starts; Ready waits for kubelet's probe and for our own first ping."""
    if plan.move and plan.move.stage == Stage.SERVING and snapshot.reading.health != Health.UNKNOWN:
        return None
    if snapshot.server_pod is None and any(pod.terminating for pod in snapshot.pods):
        return Finding("Starting", "The former pod ends once its turns are done, and another one takes its place")
    return Finding("Starting", "The server is starting")


def misfortune(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    """What befell its pod, as long as it is not up again: it is no ordinary start."""
    if plan.move and plan.move.stage == Stage.SERVING and snapshot.reading.health != Health.UNKNOWN:
        return None
    pod = snapshot.server_pod
    was_ready = _condition_of(snapshot.raw.get("status") or {}, "Ready").get("status") == "True"
    if not snapshot.pods and was_ready:
        return Finding("PodGone", "Its pod is gone without a trace; Kubernetes makes another one")
    return pod.misfortune if pod else None


def no_gateway(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    if snapshot.gateway_ready:
        return None
    name = gateway_of(snapshot.pool_name)
    return Finding("GatewayNotReady", f"No gateway of the pool is ready; see: kubectl describe deploy {name}")


READY: Final[tuple[Policy, ...]] = (
    unusable,  # nothing can be decided about it
    in_the_way,  # the name of a child is taken
    refused,  # the API server does not take what we make
    storage_trouble,  # a server without its volume can't start
    suspended,  # wanted, so it comes before what else might be wrong
    draining,
    stopping,
    cannot_run,
    credential_trouble,
    pod_trouble,
    pod_refused,
    not_scheduled,
    unhealthy,
    misfortune,
    not_ready,
    no_gateway,
)
PHASES: Final = {
    "Suspended": "Suspended",
    "ScaledIn": "Suspended",
    "Draining": "Draining",
    "DrainOverdue": "Draining",
    "Stopping": "Draining",
    "Starting": "Starting",
    "PodGone": "Starting",
    "PodFailed": "Starting",
    "OutOfMemory": "Starting",
    "GatewayNotReady": "Starting",
}
ORDINARY: Final = frozenset({"Suspended", "ScaledIn", "Draining", "Stopping", "Starting"})  # no warning
WAITING: Final = frozenset({"PoolNotFound", "PreviousRemains"})  # somebody else moves next, so: Pending


def tenant_report(snapshot: TenantSnapshot, plan: TenantPlan) -> Report:
    """The status of a tenant after ``plan`` was carried out, and the Event if Ready changed its word."""
    snapshot = _with_last_reading(snapshot, plan)
    found = next((finding for policy in READY if (finding := policy(snapshot, plan))), None)
    if snapshot.deleted or (plan.move is None and found and found.reason == "Starting" and snapshot.lacks_token):
        return Report()
    old: Manifest = snapshot.raw.get("status") or {}
    if not old and found and found.reason == "Starting":
        left = PATIENCE - _starting_for(snapshot)
        if left > timedelta(0):
            return Report(look_again_s=min(left, SETTLING).total_seconds())
    status = {
        "phase": phase_of(found),
        "observedGeneration": snapshot.raw["metadata"].get("generation", 1),
        "conditions": _conditions(snapshot, plan, found, old),
    }
    if snapshot.children.connection or (plan.steps and plan.move):
        status["server"] = snapshot.server
        status["endpoint"] = {"host": host(snapshot), "port": CLI_PORT, "secretName": snapshot.server}
    elif "endpoint" in old:
        status |= {key: old[key] for key in ("server", "endpoint") if key in old}
    if plan.move and plan.move.intent:
        status["drain"] = _drain(snapshot, plan.move.intent)
    return Report(
        status if status != _comparable(old) else None, event_of(old, status), _again_s(snapshot, plan, found)
    )


def _again_s(snapshot: TenantSnapshot, plan: TenantPlan, found: Finding | None) -> float | None:
    """When the passing of time alone may change something."""
    if plan.move and plan.move.intent and plan.move.stage == Stage.DRAINING:
        due = (plan.move.intent.deadline, overdue_at(plan.move.intent))
        left = [(at - snapshot.now).total_seconds() for at in due if at >= snapshot.now]
        return min(left) + 1 if left else LATE.total_seconds()
    if plan.move and (plan.move.stage == Stage.STOPPING or plan.move.trouble):
        return LATE.total_seconds()
    return SETTLING.total_seconds() if found and found.reason == "Starting" else None


def _drain(snapshot: TenantSnapshot, intent: Intent) -> Manifest:
    drain = snapshot.drain
    counts = {"busy": drain.busy, "work": dict(drain.work) or None, "cut": drain.cut or None} if drain else {}
    times = {"startTime": timestamp(intent.since), "deadline": timestamp(intent.deadline)}
    return {"cause": intent.why.value, **times} | {key: value for key, value in counts.items() if value is not None}


def _with_last_reading(snapshot: TenantSnapshot, plan: TenantPlan) -> TenantSnapshot:
    """After a restart of the operator a serving server is what status says of it, until the first ping says more."""
    if snapshot.reading.health != Health.UNKNOWN or not plan.move or plan.move.stage != Stage.SERVING:
        return snapshot
    last = _condition_of(snapshot.raw.get("status") or {}, "ServerHealthy")
    health = {"True": Health.HEALTHY, "False": Health.UNHEALTHY}.get(last.get("status", ""), Health.UNKNOWN)
    return replace(snapshot, reading=Reading(health, last.get("message", "")))


def _conditions(snapshot: TenantSnapshot, plan: TenantPlan, found: Finding | None, old: Manifest) -> list[Manifest]:
    ready = found is None
    credential, reading = snapshot.credential, snapshot.reading
    trouble = storage_trouble(snapshot, plan)
    stage = plan.move.stage if plan.move else None
    moving = stage in (Stage.STARTING, Stage.DRAINING, Stage.STOPPING)
    paused = snapshot.paused
    running = stage == Stage.SERVING
    # A pod that serves has its volume, even where news of the claim come later: one write less.
    claimed = running or (snapshot.children.claim or {}).get("status", {}).get("phase") == "Bound"
    rows = [
        ("Ready", ready, found or Finding("ServerReady", "The server answers")),
        credentials_row(credential.finding if credential else None, credential is not None),
        _health_row(reading if running or stage == Stage.DRAINING else Reading(), degraded(snapshot)),
        _storage_row(trouble or _claim_deleted(snapshot), claimed),
        ("Progressing", moving and not ready, found if moving and found else _settled(plan)),
        ("Paused", paused is not None, paused or Finding("NotPaused", "The operator acts on it")),
    ]
    generation = snapshot.raw["metadata"].get("generation", 1)
    new = [condition(name, value, finding, generation) for name, value, finding in rows]
    return merged(old, new, snapshot.now)


def merged(old: Manifest, new: list[Condition], now: datetime) -> list[Manifest]:
    """Conditions as the API server speaks them; the times of those that did not change are kept."""
    before = [Condition.model_validate(condition) for condition in old.get("conditions") or ()]
    return [c.model_dump(by_alias=True, exclude_none=True, mode="json") for c in merge_conditions(before, new, now)]


def credentials_row(finding: Finding | None, has_one: bool) -> tuple[str, bool, Finding]:
    if finding:
        return "CredentialsReady", False, finding
    if has_one:
        return "CredentialsReady", True, Finding("TokenFound", "The token or key was found")
    return "CredentialsReady", True, Finding("NotConfigured", "Clients bring their own credentials")


def _storage_row(trouble: Finding | None, bound: bool) -> tuple[str, bool | None, Finding]:
    if trouble:
        return "StorageReady", False, trouble
    if bound:
        return "StorageReady", True, Finding("Bound", "The volume is bound")
    return "StorageReady", None, Finding("NotBound", "The volume is not bound yet")


def _settled(plan: TenantPlan) -> Finding:
    return Finding("Settled", (plan.move.why if plan.move else "") or "Nothing is under way")


def _claim_deleted(snapshot: TenantSnapshot) -> Finding | None:
    claim = snapshot.children.claim
    if claim is None or "deletionTimestamp" not in claim["metadata"]:
        return None
    message = f"Claim {snapshot.server} was deleted: its sessions are lost once the server stops; copy them before"
    return Finding("VolumeBeingDeleted", message)


def _health_row(reading: Reading, trouble: Finding | None) -> tuple[str, bool | None, Finding]:
    if reading.health == Health.UNKNOWN:
        return "ServerHealthy", None, Finding("NotRunning", "No running server to ping")
    if trouble:
        return "ServerHealthy", False, trouble
    if reading.health == Health.HEALTHY:
        return "ServerHealthy", True, Finding("Answers", "The server answers connect and ping")
    return "ServerHealthy", False, Finding("ServerSilent", reading.message)


def condition(name: str, value: bool | None, finding: Finding, generation: int) -> Condition:
    status = "Unknown" if value is None else "True" if value else "False"
    reason, message = finding.reason, finding.message[:MAX_MESSAGE]
    return Condition(type=name, status=status, reason=reason, message=message, observed_generation=generation)


def phase_of(found: Finding | None) -> str:
    if found is None:
        return "Ready"
    if found.reason in WAITING:
        return "Pending"
    return PHASES.get(found.reason, "Failed")


def event_of(old: Manifest, new: Manifest) -> Event | None:
    """An Event when Ready got another status or reason, or what else people should know while it is Ready."""
    for name in ("Ready", "CredentialsReady", "ServerHealthy", "StorageReady"):
        before, after = _condition_of(old, name), _condition_of(new, name)
        same = (before.get("status"), before.get("reason")) == (after.get("status"), after.get("reason"))
        troubled = "False" in (before.get("status"), after.get("status"))
        if not same and (name in ("Ready", "CredentialsReady") or troubled):
            break
    else:
        return None
    ordinary = after["status"] == "True" or after["reason"] in ORDINARY
    return Event("Normal" if ordinary else "Warning", after["reason"], after["message"])


def _condition_of(status: Manifest, name: str) -> Manifest:
    """The condition of that type; empty if it was never written."""
    return next((condition for condition in status.get("conditions") or () if condition["type"] == name), {})


def _comparable(old: Manifest) -> Manifest:
    return {key: value for key, value in old.items() if value is not None}


def _starting_for(snapshot: TenantSnapshot) -> timedelta:
    """Since when the server has not been Ready: the condition's last change, else the tenant's creation."""
    ready = _condition_of(snapshot.raw.get("status") or {}, "Ready")
    since = ready.get("lastTransitionTime") or snapshot.raw["metadata"]["creationTimestamp"]
    return snapshot.now - datetime.fromisoformat(since)
