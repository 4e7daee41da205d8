"""Nodes that are being emptied, and the label that keeps evictions away: tables and laws."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.nodes import KEPT_S, WORTH_S, Protection, leaving, protection, unprotected_in_s
from copilot_operator.domain.snapshot import (
    DrainPhase,
    DrainReading,
    Health,
    Pod,
    Reading,
    ServerState,
    TenantSnapshot,
)
from tests.support.snapshots import NOW, a_pod, a_snapshot


def a_node(*taints: str, **spec: Any) -> Manifest:
    found = [{"key": key, "effect": "NoSchedule"} for key in taints]
    return {"metadata": {"name": "n1"}, "spec": spec | ({"taints": found} if found else {})}


NODES: dict[str, tuple[Manifest | None, str]] = {
    "nothing known of it": (None, ""),
    "ordinary": (a_node(), ""),
    "without a spec": ({"metadata": {"name": "n1"}}, ""),
    "spec null": ({"metadata": {"name": "n1"}, "spec": None}, ""),
    "taints null": (a_node(taints=None), ""),
    "uncordoned": (a_node(unschedulable=False), ""),
    "cordoned": (a_node("node.kubernetes.io/unschedulable", unschedulable=True), "node n1 is cordoned"),
    "Cluster Autoscaler": (
        a_node("ToBeDeletedByClusterAutoscaler"),
        "node n1 is to be removed (taint ToBeDeletedByClusterAutoscaler)",
    ),
    "Karpenter": (a_node("karpenter.sh/disrupted"), "node n1 is to be removed (taint karpenter.sh/disrupted)"),
    "Karpenter of old": (a_node("karpenter.sh/disruption"), "node n1 is to be removed (taint karpenter.sh/disruption)"),
    "the removal is said before the cordon": (
        a_node("dedicated", "karpenter.sh/disrupted", unschedulable=True),
        "node n1 is to be removed (taint karpenter.sh/disrupted)",
    ),
    "an autoscaler that only considers it": (a_node("DeletionCandidateOfClusterAutoscaler"), ""),
    "out of service: there is nothing left to drain": (a_node("node.kubernetes.io/out-of-service"), ""),
    "unreachable": (a_node("node.kubernetes.io/unreachable"), ""),
    "for others": (a_node("nvidia.com/gpu", "node-role.kubernetes.io/control-plane"), ""),
}


@pytest.mark.parametrize(("node", "why"), NODES.values(), ids=NODES)
def test_why_a_node_is_being_emptied(node: Manifest | None, why: str) -> None:
    assert leaving(node) == why


# ---- the label


POD, PROTECTED = a_pod(started=True), a_pod(started=True, protected=True)


def seen(
    pod: Pod, *, busy: int | None = 0, quiet_s: float | None = None, ago_s: float = 0.0, **more: Any
) -> TenantSnapshot:
    """A server of which its agent has said this ``ago_s`` ago."""
    state = ServerState(
        more.pop("of", pod.uid), NOW - timedelta(seconds=ago_s), more.pop("answering", True), busy=busy, quiet_s=quiet_s
    )
    return a_snapshot(pods=(pod,), state=state, **more)


def drain(phase: DrainPhase | None, of: str = POD.uid) -> DrainReading:
    return DrainReading(of, phase)


WORKS, WORKED = "it works", "it has just worked"
NOTHING = Protection()
SILENT = Reading(Health.UNHEALTHY, "2 pings in a row failed")
PROTECTIONS: dict[str, tuple[TenantSnapshot, Protection]] = {
    "busy": (seen(POD, busy=1), Protection(True, WORKS)),
    "busy and protected": (seen(PROTECTED, busy=3), NOTHING),
    "busy while it is drained": (seen(POD, busy=1, drain=drain(DrainPhase.QUIESCING)), Protection(True, WORKS)),
    "drained": (seen(PROTECTED, busy=1, drain=drain(DrainPhase.DONE)), Protection(False, "it is drained")),
    "drained and free": (seen(POD, busy=1, drain=drain(DrainPhase.DONE)), NOTHING),
    "its sessions are being closed": (seen(PROTECTED, quiet_s=2.0, drain=drain(DrainPhase.FLUSHING)),
                                      Protection(look_again_s=KEPT_S - 2.0)),
    "another pod was drained": (seen(PROTECTED, busy=1, drain=drain(DrainPhase.DONE, "uid-other")), NOTHING),
    "worked a moment ago, between two questions": (seen(POD, quiet_s=10.0), Protection(True, WORKED, KEPT_S - 10.0)),
    "worked a while ago": (seen(PROTECTED, quiet_s=100.0), Protection(look_again_s=KEPT_S - 100.0)),
    "the label is not worth its writes": (seen(POD, quiet_s=KEPT_S - WORTH_S), NOTHING),
    "the age of the answer counts": (seen(PROTECTED, quiet_s=250.0, ago_s=20.0), Protection(look_again_s=30.0)),
    "idle for long": (seen(PROTECTED, quiet_s=280.0, ago_s=20.0), Protection(False, "it is idle")),
    "never worked": (seen(PROTECTED), Protection(False, "it is idle")),
    "never worked, free": (seen(POD), NOTHING),
    "without sight of nodes: busy": (seen(POD, busy=1, sees_nodes=False), Protection(True, WORKS)),
    "without sight of nodes: idle": (
        seen(PROTECTED, quiet_s=0.0, sees_nodes=False), Protection(False, "it is idle")
    ),
    "without sight of nodes: idle and free": (seen(POD, quiet_s=0.0, sees_nodes=False), NOTHING),
    "nobody has asked it yet": (a_snapshot(pods=(PROTECTED,)), NOTHING),
    "its agent can't say": (seen(PROTECTED, busy=None), NOTHING),
    "its agent can't say either way": (seen(POD, busy=None), NOTHING),
    "the answer is old": (seen(PROTECTED, ago_s=500.0), NOTHING),
    "the answer is another pod's": (seen(PROTECTED, of="uid-other"), NOTHING),
    "its CLI did not answer its agent": (seen(PROTECTED, answering=False), NOTHING),
    "nobody gets an answer": (
        seen(PROTECTED, busy=1, answering=False, reading=SILENT), Protection(False, "it does not answer")
    ),
    "only we get none": (seen(PROTECTED, busy=1, reading=SILENT), NOTHING),
    "its agent is silent as well": (
        a_snapshot(pods=(PROTECTED,), reading=SILENT), Protection(False, "it does not answer")
    ),
    "its CLI does not run": (
        seen(a_pod(protected=True, ready=False), busy=1), Protection(False, "its CLI does not run")
    ),
    "it ends anyway": (seen(a_pod(started=True, protected=True, terminating=True)), NOTHING),
}  # fmt: skip


@pytest.mark.parametrize(("snapshot", "expected"), PROTECTIONS.values(), ids=PROTECTIONS)
def test_the_label_of_a_pod(snapshot: TenantSnapshot, expected: Protection) -> None:
    assert protection(snapshot, snapshot.pods[0]) == expected


def test_the_next_look_is_when_the_first_label_falls() -> None:
    assert unprotected_in_s(seen(PROTECTED, quiet_s=100.0)) == KEPT_S - 100.0
    assert unprotected_in_s(seen(PROTECTED, busy=1)) is None
    assert unprotected_in_s(a_snapshot()) is None


flags = st.booleans()
seconds = st.one_of(st.none(), st.floats(0, 2 * KEPT_S))
pods = st.builds(lambda **given: a_pod(**given), started=flags, protected=flags, terminating=flags, ready=flags)
states = st.one_of(
    st.none(),
    st.builds(
        ServerState,
        pod_uid=st.sampled_from([POD.uid, "uid-other"]),
        taken_at=st.floats(0, 300).map(lambda ago_s: NOW - timedelta(seconds=ago_s)),
        answering=flags,
        busy=st.one_of(st.none(), st.integers(0, 2)),
        quiet_s=seconds,
    ),
)
drains = st.one_of(st.none(), st.builds(drain, st.sampled_from([None, *DrainPhase])))
snapshots = st.builds(
    lambda pod, **given: a_snapshot(pods=(pod,), **given),
    pods,
    state=states,
    drain=drains,
    reading=st.sampled_from([Reading(), Reading(Health.HEALTHY), SILENT]),
    sees_nodes=flags,
)


@given(snapshots)
def test_a_label_that_was_set_or_taken_off_stays_so_at_the_same_sight(snapshot: TenantSnapshot) -> None:
    (pod,) = snapshot.pods
    found = protection(snapshot, pod)
    if found.label is not None:
        assert found.label is not pod.protected, "no write for what is there"
        after = replace(pod, protected=found.label)
        assert protection(replace(snapshot, pods=(after,)), after).label is None


@given(snapshots)
def test_a_server_known_to_work_is_never_without_the_label_before_it_is_drained(snapshot: TenantSnapshot) -> None:
    (pod,), state = snapshot.pods, snapshot.state
    known = state and state.pod_uid == pod.uid and state.answering and (snapshot.now - state.taken_at).seconds < 120
    drained = snapshot.drain and snapshot.drain.phase == DrainPhase.DONE
    if known and state and state.busy and pod.started and not pod.terminating and not drained:
        assert protection(snapshot, pod).label is (None if pod.protected else True)


@given(snapshots)
def test_no_label_stays_for_ever_on_a_server_that_is_idle(snapshot: TenantSnapshot) -> None:
    """Asked again when it said so, with nothing heard meanwhile, it takes the label off."""
    (pod,), state = snapshot.pods, snapshot.state
    found = protection(snapshot, pod)
    if found.look_again_s is not None and state:
        later = snapshot.now + timedelta(seconds=found.look_again_s + 0.001)
        quiet_s = (state.quiet_s or 0.0) + (later - state.taken_at).total_seconds()
        pod = replace(pod, protected=True)
        then = replace(snapshot, now=later, pods=(pod,), state=replace(state, taken_at=later, quiet_s=quiet_s))
        assert protection(then, pod).label is False


@given(quiet_s=st.lists(st.floats(0, 200), min_size=1, max_size=20))
def test_turns_that_follow_each_other_cost_one_write(quiet_s: list[float]) -> None:
    pod, writes = POD, 0
    for each in quiet_s:
        for snapshot in (seen(pod, busy=1), seen(pod, quiet_s=each)):
            found = protection(snapshot, pod)
            if found.label is not None:
                writes, pod = writes + 1, replace(pod, protected=found.label)
    assert (writes, pod.protected) == (1, True)
