"""Why a tenant's server is not Ready, as a chain of small policies: the first that objects decides, so causes come
before their effects. None: it is."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from copilot_operator.api.conditions import timestamp
from copilot_operator.domain.drain import Why
from copilot_operator.domain.fit import misfit
from copilot_operator.domain.lifecycle import Stage
from copilot_operator.domain.manifest import condition_of
from copilot_operator.domain.naming import gateway_of
from copilot_operator.domain.plan import TenantPlan
from copilot_operator.domain.snapshot import Finding, Health, TenantSnapshot

SETTLING: Final = timedelta(seconds=15)  # how long a start may look troubled (volumes, scheduling) before it is
PREPARED_WITHIN: Final = timedelta(seconds=30)
RESTING: Final = Finding("SuspendedWhenIdle", "Nobody uses the server; the next request for a session starts it")
SUSPENDED: Final = Finding("Suspended", "spec.suspended is true; sessions are kept, set it to false to go on")

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
    return Finding("VolumeLost", f"The volume of claim {snapshot.claim} is gone") if phase == "Lost" else None


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


def something_missing(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    """A running server goes on with what it was started with; CredentialsReady tells of a token all the same, and the
    pool's CABundleReady of certificates."""
    if plan.move and plan.move.stage in (Stage.SERVING, Stage.DRAINING):
        return None
    return snapshot.missing


def suspended(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    if plan.move and plan.move.stage == Stage.STOPPED and snapshot.held_down:
        if snapshot.is_seat:
            return Finding("ScaledIn", "It starts when its pool has more servers, or a request wants what it stores")
        return SUSPENDED
    if plan.move and plan.move.stage == Stage.STOPPED and plan.move.intent and plan.move.intent.why == Why.IDLE:
        return RESTING
    return None


def waits_to_start(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    """Its place is the one in which it came: one that changed would be written for all that wait."""
    if snapshot.waits_behind is None or plan.move is None or plan.move.stage != Stage.STOPPED:
        return None
    text = f"It is wanted, and as many servers start as may; {snapshot.waits_behind} waited before it when it came"
    return Finding("WaitsToStart", text)


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
    if starting_for(snapshot) < SETTLING or (plan.move and plan.move.stage == Stage.SERVING):
        return None
    found = next((pod.unschedulable for pod in snapshot.pods if pod.unschedulable), None)
    return Finding("Unschedulable", f"No node takes the pod: {found}") if found else None


def not_prepared(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    """Its node can't attach or mount a volume, or give it a network; which, only Events tell."""
    if plan.move and plan.move.stage == Stage.SERVING:
        return None
    for pod in snapshot.pods:
        since = pod.unprepared_since
        if since and not pod.terminating and not pod.started and snapshot.now - since >= PREPARED_WITHIN:
            text = f"Node {pod.node} has not prepared the pod since {timestamp(since)}: a volume can't be attached or "
            text += f"mounted, or it gets no network; the Events tell: kubectl describe pod {pod.name}"
            return Finding("PodNotPrepared", text)
    return None


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
    was_ready = condition_of(snapshot.raw.get("status") or {}, "Ready").get("status") == "True"
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
    waits_to_start,
    suspended,  # wanted, so it comes before what else might be wrong
    draining,
    stopping,
    cannot_run,
    something_missing,
    pod_trouble,
    pod_refused,
    not_scheduled,
    not_prepared,
    unhealthy,
    misfortune,
    not_ready,
    no_gateway,
)


def starting_for(snapshot: TenantSnapshot) -> timedelta:
    """Since when the server has not been Ready: the condition's last change, else the tenant's creation."""
    ready = condition_of(snapshot.raw.get("status") or {}, "Ready")
    since = ready.get("lastTransitionTime") or snapshot.raw["metadata"]["creationTimestamp"]
    return snapshot.now - datetime.fromisoformat(since)
