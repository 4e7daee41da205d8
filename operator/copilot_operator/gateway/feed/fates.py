"""Whether a pod is gone for good, asked of the API server itself: what a watch has told may be of another time."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from copilot_operator.gateway.holders import Pod

ENDED: Final = frozenset({"Succeeded", "Failed"})


class Reader(Protocol):
    """See ``KubeReader.pod``."""

    async def pod(self, name: str) -> dict[str, Any] | None: ...


class Fates:
    """UIDs never come back: a pod that is not there, or has another one, is gone."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def why_there(self, pod: Pod) -> str:
        found = await self._reader.pod(pod.name)
        if found is None:
            return ""
        if not (uid := found["metadata"].get("uid")):
            raise ValueError("a pod without a UID")
        return "" if uid != pod.uid or has_ended(found.get("status") or {}) else _said(found)


def has_ended(status: Mapping[str, Any]) -> bool:
    """All its containers have; they are not started again."""
    containers = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    return status.get("phase") in ENDED and not any("running" in (each.get("state") or {}) for each in containers)


def _said(pod: Mapping[str, Any]) -> str:
    node = (pod.get("spec") or {}).get("nodeName") or "no node yet"
    phase = (pod.get("status") or {}).get("phase", "of unknown phase")
    ends = ", which is to be deleted," if "deletionTimestamp" in pod["metadata"] else ""
    return f"({phase}){ends} on node {node}: what it has loaded is free when it ends, or its pod is deleted for good"
