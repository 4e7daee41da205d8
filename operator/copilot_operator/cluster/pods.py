"""A pod as decisions need it, out of kubelet's many words (core/v1 PodStatus)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from copilot_operator.domain.manifest import Manifest, labels_of
from copilot_operator.domain.naming import CORDONED_LABEL, PROTECTED_LABEL
from copilot_operator.domain.snapshot import Finding, Pod

IMAGE_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
# What the scheduler says of a pod whose volume is still being made; a thousand at once take minutes. No node's fault.
VOLUME_PENDING: Final = "unbound immediate PersistentVolumeClaims"
CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


def runs_server(pod: Manifest, server: str) -> bool:
    """Whether a pod found by its label was made for the server's Deployment: anybody may write labels."""
    return replica_set_of(pod, server) is not None


def replica_set_of(pod: Manifest, server: str) -> str | None:
    """Name of the ReplicaSet of the server's Deployment that made the pod; None if none did."""
    references = pod["metadata"].get("ownerReferences") or ()
    names = (r["name"] for r in references if r.get("kind") == "ReplicaSet")
    return next((name for name in names if name.rpartition("-")[0] == server), None)


def pod_view(pod: Manifest) -> Pod:
    metadata, status = pod["metadata"], pod.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    refused = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    message = str(scheduled.get("message", ""))
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        ip=status.get("podIP"),
        ready=conditions.get("Ready", {}).get("status") == "True",
        started=any(each.get("started") and "running" in each.get("state", {}) for each in _servers(status)),
        terminating="deletionTimestamp" in metadata,
        protected=labels_of(pod).get(PROTECTED_LABEL) == "true",
        cordoned=labels_of(pod).get(CORDONED_LABEL) == "true",
        node=(pod.get("spec") or {}).get("nodeName"),
        waiting=_waiting(status),
        misfortune=_misfortune(status),
        unschedulable=message if refused and VOLUME_PENDING not in message else None,
        unprepared_since=_unprepared_since(conditions),
    )


def _unprepared_since(conditions: Mapping[str, Manifest]) -> datetime | None:
    """Since when its node prepares it (PodScheduled, PodReadyToStartContainers): a volume to attach, a network."""
    scheduled, prepared = conditions.get("PodScheduled", {}), conditions.get("PodReadyToStartContainers", {})
    if scheduled.get("status") != "True" or prepared.get("status") != "False":
        return None
    since = scheduled.get("lastTransitionTime")
    return datetime.fromisoformat(since) if since else None


def _servers(status: Manifest) -> list[Manifest]:
    return list(status.get("containerStatuses") or ())  # the agent is an init container: a sidecar


def _waiting(status: Manifest) -> Finding | None:
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in IMAGE_REASONS:
            return Finding("ImagePullFailed", f"Image {container.get('image')} can't be had ({reason}): {message}")
        if reason in CONFIG_REASONS:
            return Finding("ContainerNotStarted", f"Container {container['name']} can't start ({reason}): {message}")
        if reason == "CrashLoopBackOff":
            return Finding("CrashLooping", _crash(container))
    return None


def _misfortune(status: Manifest) -> Finding | None:
    """The kernel's OOM killer, or an end of the whole pod: an eviction, a node that shut down (PodStatus.phase)."""
    if status.get("phase") == "Failed":
        how = status.get("reason") or "Failed"
        return Finding("PodFailed", f"The pod was ended ({how}): {status.get('message', '')}".rstrip(": "))
    for container in _servers(status):
        last = (container.get("lastState") or {}).get("terminated") or (container.get("state") or {}).get("terminated")
        if last and last.get("reason") == "OOMKilled":
            at = f" at {last['finishedAt']}" if last.get("finishedAt") else ""
            message = (
                f"Container {container['name']} ran out of memory{at} and is started again; its limit may be too low"
            )
            return Finding("OutOfMemory", message)
    return None


def _crash(container: Manifest) -> str:
    last = (container.get("lastState") or {}).get("terminated") or {}
    how = f"{last.get('reason', 'ended')}, exit code {last.get('exitCode', '?')}"
    return f"Container {container['name']} keeps ending ({how}); see: kubectl logs -c {container['name']} --previous"
