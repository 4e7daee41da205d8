"""A pod as decisions need it, out of what kubelet says."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from copilot_operator.cluster.pods import pod_view, runs_server
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import Finding, Pod


def a_live_pod(status: Manifest | None = None, **metadata: Any) -> Manifest:
    return {"metadata": {"name": "copilot-alice-1", "uid": "1"} | metadata, "status": status or {}}


def container(waiting: Manifest | None = None, **more: Any) -> Manifest:
    state: Manifest = {"waiting": waiting} if waiting else {"running": {}}
    return {"name": "copilot", "image": "cli:1", "state": state} | more


def waiting(reason: str, **more: Any) -> Manifest:
    return a_live_pod({"containerStatuses": [container({"reason": reason, "message": "said kubelet"}, **more)]})


def trouble(reason: str, message: str) -> Pod:
    return Pod("copilot-alice-1", "1", waiting=Finding(reason, message))


READY = {"type": "Ready", "status": "True"}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-01T12:00:00Z"}
UNPREPARED = {"type": "PodReadyToStartContainers", "status": "False"}
OUT_OF_MEMORY = "Container copilot ran out of memory and is started again; its limit may be too low"
KILLED = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
LOGS = "see: kubectl logs -c copilot --previous"
PLAIN = Pod("copilot-alice-1", "1")
TABLE: dict[str, tuple[Manifest, Pod]] = {
    "its CLI has started": (a_live_pod({"containerStatuses": [container(started=True)]}), replace(PLAIN, started=True)),
    "killed for its memory": (
        a_live_pod({"containerStatuses": [container(started=False, lastState=KILLED)]}),
        replace(PLAIN, misfortune=Finding("OutOfMemory", OUT_OF_MEMORY)),
    ),
    "evicted": (
        a_live_pod({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}),
        replace(PLAIN, misfortune=Finding("PodFailed", "The pod was ended (Evicted): The node was low on memory")),
    ),
    "nothing said yet": (a_live_pod(), PLAIN),
    "no status at all": ({"metadata": {"name": "copilot-alice-1", "uid": "1"}}, PLAIN),
    "nulls": (a_live_pod({"conditions": None, "containerStatuses": None, "initContainerStatuses": None}), PLAIN),
    "ready": (
        a_live_pod({"podIP": "10.0.0.1", "conditions": [READY], "containerStatuses": [container()]}),
        Pod("copilot-alice-1", "1", "10.0.0.1", ready=True),
    ),
    "not ready": (a_live_pod({"conditions": [READY | {"status": "False"}]}), PLAIN),
    "being deleted": (a_live_pod(deletionTimestamp="now"), Pod("copilot-alice-1", "1", terminating=True)),
    "creating": (waiting("ContainerCreating"), PLAIN),
    "initializing": (waiting("PodInitializing"), PLAIN),
    "no node": (a_live_pod({"conditions": [UNSCHEDULABLE]}), Pod("copilot-alice-1", "1", unschedulable="0/1")),
    "its node can't attach its volume": (
        a_live_pod({"conditions": [SCHEDULED, UNPREPARED]}),
        replace(PLAIN, unprepared_since=datetime(2026, 3, 1, 12, tzinfo=UTC)),
    ),
    "prepared": (a_live_pod({"conditions": [SCHEDULED, UNPREPARED | {"status": "True"}]}), PLAIN),
    "an older kubelet does not tell": (a_live_pod({"conditions": [SCHEDULED]}), PLAIN),
    "a pod whose volume is being made is not unschedulable": (
        a_live_pod({"conditions": [UNSCHEDULABLE | {"message": "pod has unbound immediate PersistentVolumeClaims."}]}),
        Pod("copilot-alice-1", "1"),
    ),
    "a gated pod is not unschedulable": (
        a_live_pod({"conditions": [UNSCHEDULABLE | {"reason": "SchedulingGated"}]}),
        PLAIN,
    ),
    "image": (
        waiting("ImagePullBackOff"),
        trouble("ImagePullFailed", "Image cli:1 can't be had (ImagePullBackOff): said kubelet"),
    ),
    "image name": (
        waiting("InvalidImageName"),
        trouble("ImagePullFailed", "Image cli:1 can't be had (InvalidImageName): said kubelet"),
    ),
    "a Secret that went away": (
        waiting("CreateContainerConfigError"),
        trouble("ContainerNotStarted", "Container copilot can't start (CreateContainerConfigError): said kubelet"),
    ),
    "crash loop": (
        waiting("CrashLoopBackOff", lastState=KILLED),
        replace(
            trouble("CrashLooping", f"Container copilot keeps ending (OOMKilled, exit code 137); {LOGS}"),
            misfortune=Finding("OutOfMemory", OUT_OF_MEMORY),
        ),
    ),
    "crash loop of unknown cause": (
        waiting("CrashLoopBackOff"),
        trouble("CrashLooping", f"Container copilot keeps ending (ended, exit code ?); {LOGS}"),
    ),
    "the agent's image comes first": (
        a_live_pod(
            {
                "initContainerStatuses": [container({"reason": "ErrImagePull"}, name="agent", image="operator:1")],
                "containerStatuses": [container({"reason": "PodInitializing"})],
            }
        ),
        trouble("ImagePullFailed", "Image operator:1 can't be had (ErrImagePull): "),
    ),
}


@pytest.mark.parametrize(("live", "expected"), TABLE.values(), ids=TABLE)
def test_the_view_of_a_pod(live: Manifest, expected: Pod) -> None:
    assert pod_view(live) == expected


@pytest.mark.parametrize(
    ("owners", "runs"),
    [
        ([{"kind": "ReplicaSet", "name": "copilot-alice-5d4f"}], True),
        ([{"kind": "ReplicaSet", "name": "copilot-alicia-5d4f"}], False),
        ([{"kind": "Job", "name": "copilot-alice-1"}], False),
        (None, False),
    ],
)
def test_only_pods_of_the_servers_replica_sets_count_whatever_their_labels_say(owners: Any, runs: bool) -> None:
    assert runs_server(a_live_pod(ownerReferences=owners), "copilot-alice") is runs
