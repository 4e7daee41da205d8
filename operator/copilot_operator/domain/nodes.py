"""Nodes that are being emptied, and the label that keeps evictions away from servers that work.

The pool's PodDisruptionBudget selects the label. It lies on a pod from its first turn until it has been idle for a
while, so that ``kubectl drain`` and autoscalers wait for the drain of a busy server instead of ending its pod.
"""

from dataclasses import dataclass
from math import inf
from typing import Final

from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import DrainPhase, Health, Pod, ServerState, TenantSnapshot

# Taints of nodes that their autoscaler, or their cloud, takes away next. Not among them: what is only considered
# (DeletionCandidateOfClusterAutoscaler), and what has failed already (node.kubernetes.io/out-of-service).
REMOVAL_TAINTS: Final = frozenset(
    {
        "ToBeDeletedByClusterAutoscaler",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",  # before Karpenter 1.0
        "cloud.google.com/impending-node-termination",
        "aws-node-termination-handler/spot-itn",
        "aws-node-termination-handler/scheduled-maintenance",
        "aws-node-termination-handler/asg-lifecycle-termination",
    }
)
KEPT_S: Final = 300.0  # whoever worked so recently goes on with the conversation as a rule
WORTH_S: Final = 60.0  # a label that would fall sooner is not worth its two writes
FRESH_S: Final = 120.0  # an older state tells nothing: agents are asked every 20 s


def leaving(node: Manifest | None) -> str:
    """Why a node (core/v1) is being emptied; "" if it is not, or if nothing is known of it."""
    if node is None:
        return ""
    name, spec = node["metadata"]["name"], node.get("spec") or {}
    for taint in spec.get("taints") or ():
        if taint.get("key") in REMOVAL_TAINTS:
            return f"node {name} is to be removed (taint {taint['key']})"
    return f"node {name} is cordoned" if spec.get("unschedulable") else ""


@dataclass(frozen=True)
class Protection:
    """``label``: whether the pod shall have it from now on, None if it is right as it is.

    ``look_again_s``: when time alone changes that.
    """

    label: bool | None = None
    why: str = ""
    look_again_s: float | None = None


def protection(snapshot: TenantSnapshot, pod: Pod) -> Protection:
    """Whether evictions must leave a pod of the snapshot alone.

    Where Nodes can't be read nobody drains the server when its node is to be emptied: the label falls as soon as the
    server is idle, else it would be in the way of everybody.
    """
    if pod.terminating:
        return Protection()
    if not pod.started:
        return _off(pod, "its CLI does not run")
    drain, state = snapshot.drain, snapshot.state
    if drain and drain.pod_uid == pod.uid and drain.phase == DrainPhase.DONE:
        return _off(pod, "it is drained")
    if state is None or state.pod_uid != pod.uid or not state.answering or _age_s(snapshot, state) > FRESH_S:
        # Nobody knows whether it works. What answers nobody is not waited for either.
        return _off(pod, "it does not answer") if snapshot.reading.health == Health.UNHEALTHY else Protection()
    if state.busy is None:
        return Protection()
    if state.busy:
        return Protection() if pod.protected else Protection(True, "it works")
    kept_s = KEPT_S if snapshot.sees_nodes else 0.0
    left_s = kept_s - _idle_s(snapshot, state)
    if left_s <= 0:
        return _off(pod, "it is idle")
    if pod.protected:
        return Protection(look_again_s=left_s)
    return Protection(True, "it has just worked", left_s) if left_s > WORTH_S else Protection()


def just_worked(state: ServerState) -> bool:
    """A short turn may begin and end between two questions: nobody has seen the server busy, and it needs the label."""
    return state.quiet_s is not None and state.quiet_s < WORTH_S


def unprotected_in_s(snapshot: TenantSnapshot) -> float | None:
    """When, in seconds, the first label falls if nothing happens; None if no label only waits for that."""
    waits = (protection(snapshot, pod).look_again_s for pod in snapshot.pods)
    return min((wait for wait in waits if wait is not None), default=None)


def _off(pod: Pod, why: str) -> Protection:
    return Protection(False, why) if pod.protected else Protection()


def _idle_s(snapshot: TenantSnapshot, state: ServerState) -> float:
    return inf if state.quiet_s is None else state.quiet_s + _age_s(snapshot, state)


def _age_s(snapshot: TenantSnapshot, state: ServerState) -> float:
    return max(0.0, (snapshot.now - state.taken_at).total_seconds())
