"""Why a running server is to stop, if it is: looked for anew in every cycle, in the order of what comes first."""

from collections.abc import Callable
from typing import Final

from copilot_operator.api.duration import duration_s
from copilot_operator.api.operations import RecycleSpec
from copilot_operator.api.quantity import quantity_value
from copilot_operator.domain.desired.common import is_outdated
from copilot_operator.domain.desired.deployment import changed_intent
from copilot_operator.domain.drain import Cause, Ending, Why
from copilot_operator.domain.github_app import restart_at
from copilot_operator.domain.health import cannot_work
from copilot_operator.domain.idleness import idle
from copilot_operator.domain.live import observed_status, progress_reason
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import APPLIED_ANNOTATION, INTENT_ANNOTATION
from copilot_operator.domain.snapshot import ServerState, TenantSnapshot
from copilot_operator.domain.subset import first_difference

# Parts of the intent that people change for one tenant, who need not wait for others; the rest concerns the whole pool.
OWN_PARTS: Final = frozenset({"connectionToken", "ownGitHubToken", "ownResources", "ownRestartedAt"})

KUBELET_FORGETS_S: Final = 600

Finder = Callable[[TenantSnapshot, Manifest, Manifest], Cause | None]  # snapshot, live and wanted Deployment


def causes(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest) -> list[Cause]:
    """All that there are: one that waits for its turn must not hide one that does not."""
    return [cause for find in CAUSES if (cause := find(snapshot, live, wanted))]


def suspended(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest) -> Cause | None:
    why = Why.SCALE_IN if snapshot.is_seat else Why.SUSPENSION
    return Cause(why, snapshot.held_down) if snapshot.held_down else None


def changed(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest) -> Cause | None:
    """People want another server than the one that runs. Without what people bring for that one it could not start, so
    the running one stays.

    A template that an operator of another version renders from the same intent is no cause: it waits.
    """
    if snapshot.missing or not outdated(live, wanted):
        return None
    parts = changed_intent(live, wanted)
    if not parts:
        return None
    noted = INTENT_ANNOTATION in annotations_of(live)
    message = f"changed: {', '.join(parts)}" if noted else f"it differs, and its annotation {INTENT_ANNOTATION} is gone"
    return Cause(Why.UPDATE if OWN_PARTS.isdisjoint(parts) else Why.CHANGE, message)


def edited(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest) -> Cause | None:
    """Fields were added to the template (``kubectl rollout restart``): a second pod waits beside the running one.

    Edits of our own fields are undone before that; only what an apply can't take back gets as far as the deadline.
    """
    status = observed_status(live)
    if snapshot.missing or status is None:
        return None
    second = status.get("replicas", 0) - status.get("updatedReplicas", 0) > 0
    if second and progress_reason(status) == "ProgressDeadlineExceeded":
        return Cause(Why.EDITED, "its pod template was changed by somebody else")
    return None


def node_drain(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest) -> Cause | None:
    if not snapshot.leaving or _tolerates_everything(snapshot):
        return None  # its replacement might come to the same node, and be the next to go
    return Cause(Why.NODE_DRAIN, snapshot.leaving, Ending.REPLACE)


def old_token(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest) -> Cause | None:
    """It was started with a token of the GitHub App that will end, and a new one is there.

    Kubelet waits longer and longer before it starts a container again that ran for less than ten minutes.
    """
    credential, state = snapshot.server_credential, snapshot.state
    token = credential.token if credential else None
    if token is None or state is None or state.token_serial in ("", token.serial):
        return None
    if snapshot.now < restart_at(token, snapshot.server):
        return None
    in_place = state.age_s is not None and state.age_s > KUBELET_FORGETS_S
    return Cause(Why.ROTATION, "a new GitHub token is there", Ending.RESTART if in_place else Ending.REPLACE)


def _tolerates_everything(snapshot: TenantSnapshot) -> bool:
    """Cordons included: they are taints, too (node.kubernetes.io/unschedulable)."""
    assert snapshot.pool
    return any(
        each.operator == "Exists" and each.key in (None, "node.kubernetes.io/unschedulable")
        for each in snapshot.pool.spec.server.template.spec.tolerations
    )


def useless(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest) -> Cause | None:
    """It answers pings, and can't work; its pod is replaced, since what is stuck would not end when asked to."""
    message = cannot_work(snapshot.state)
    return Cause(Why.HEALTH, message, Ending.REPLACE) if message else None


def recycle(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest) -> Cause | None:
    """A worn out server is replaced once it is idle; a new CLI process is enough for that."""
    assert snapshot.pool
    state = snapshot.state
    if state is None or state.busy != 0 or not (message := worn_out(state, snapshot.pool.spec.recycle)):
        return None
    can_restart = state.age_s is not None  # an agent that tells no age is too old to restart its CLI
    return Cause(Why.RECYCLE, message, Ending.RESTART if can_restart else Ending.REPLACE)


def unused(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest) -> Cause | None:
    """Last: what else there is to do is done on the way."""
    message = idle(snapshot)
    return Cause(Why.IDLE, message) if message else None


CAUSES: Final[tuple[Finder, ...]] = (
    suspended,  # wanted by people, and outlasts the others
    changed,
    edited,
    node_drain,
    useless,
    old_token,
    recycle,
    unused,
)


def outdated(live: Manifest, wanted: Manifest) -> bool:
    """We would render it differently today: it was applied before a change, or by an operator of another version.

    Lost annotations on a template that is as wanted are drift, no change of ours.
    """
    return is_outdated(live, wanted) and not _stamps_lost(live, wanted)


def _stamps_lost(live: Manifest, wanted: Manifest) -> bool:
    template = first_difference(wanted["spec"]["template"], live.get("spec", {}).get("template"))
    return APPLIED_ANNOTATION not in annotations_of(live) and template is None


def worn_out(state: ServerState, limits: RecycleSpec) -> str:
    """Which limit of ``recycle`` a server has passed; "" if none, or if its agent can't tell.

    Without the measured number, which would change, and status with it.
    """
    if limits.max_age and (state.age_s or 0) > duration_s(limits.max_age):
        return f"recycle.maxAge: the CLI runs for more than {limits.max_age}"
    if limits.max_memory and (state.memory_bytes or 0) > quantity_value(limits.max_memory):
        return f"recycle.maxMemory: it takes more than {limits.max_memory} of memory"
    if limits.max_processes and (state.processes or 0) > limits.max_processes:
        return f"recycle.maxProcesses: it has more than {limits.max_processes} processes"
    if limits.max_latency_factor and (state.latency_factor or 0) > float(limits.max_latency_factor):
        return f"recycle.maxLatencyFactor: pings take {limits.max_latency_factor} times as long as after its start"
    return ""
