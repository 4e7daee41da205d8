"""What the page shows of each object: rows of plain values, taken from status as it was written. Pure.

Nothing is judged a second time: conditions, reasons and messages are the plan's own. Of a spec only names are shown,
so no field that could hold a secret comes near the page.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from copilot_operator.domain.drain import intent_of
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import PAUSED_ANNOTATION, TENANT_ANNOTATION
from copilot_operator.domain.seats import pool_of_seat
from copilot_operator.domain.snapshot import Reading, ServerState

Row: TypeAlias = dict[str, Any]


def pool_row(pool: Manifest) -> Row:
    """A CopilotPool."""
    spec, status = pool.get("spec") or {}, pool.get("status") or {}
    gateway, scaling = status.get("gateway") or {}, status.get("autoscaling") or {}
    return _head(pool) | {
        "isolation": spec.get("isolation", ""),
        "tenants": status.get("tenants"),
        "servers": [status.get("readyReplicas"), status.get("replicas")],
        "gateways": [gateway.get("readyReplicas"), gateway.get("replicas")] if gateway else None,
        "scaling": scaling.get("message", ""),
        "conditions": conditions_of(status),
    }


def tenant_row(tenant: Manifest) -> Row:
    """A CopilotTenant."""
    spec, status = tenant.get("spec") or {}, tenant.get("status") or {}
    return _head(tenant) | {
        "pool": (spec.get("poolRef") or {}).get("name", ""),
        "phase": status.get("phase", ""),
        "servers": [status["server"]] if status.get("server") else list(status.get("homes") or ()),
        "sessions": _counts(status.get("sessions")),
        "drain": drain_of(status, None),
        "conditions": conditions_of(status),
    }


def server_row(deployment: Manifest, pods: Iterable[Manifest], status: Mapping[str, Any]) -> Row:
    """A server, by its Deployment. ``status``: of its tenant, or what the leader found of its seat."""
    metadata, annotations = deployment["metadata"], annotations_of(deployment)
    owner = annotations.get(TENANT_ANNOTATION, "")
    counted = deployment.get("status") or {}
    return {
        "namespace": metadata.get("namespace", ""),
        "name": metadata["name"],
        "of": owner,
        "pool": pool_of_seat(owner) or "",
        "replicas": [counted.get("readyReplicas") or 0, (deployment.get("spec") or {}).get("replicas") or 0],
        "pods": [_pod(pod) for pod in pods],
        "drain": drain_of(status, deployment),
        "conditions": conditions_of(status) if pool_of_seat(owner) else [],  # a tenant's own are in its row
    }


def live_row(reading: Reading, state: ServerState | None) -> Row:
    """What the leader heard of a server last: pings, and its agent."""
    found: Row = {"health": reading.health.value, "message": reading.message}
    if state:
        found |= {"busy": state.busy, "waiting": state.waiting, "loaded": state.loaded, "stored": state.stored}
        found |= {"memoryBytes": state.memory_bytes, "diskPercent": state.disk_percent}
    return found


def conditions_of(status: Mapping[str, Any]) -> list[Row]:
    """All conditions in their order, as written."""
    return [
        {
            "type": each.get("type", ""),
            "status": each.get("status", ""),
            "reason": each.get("reason", ""),
            "message": each.get("message", ""),
            "since": each.get("lastTransitionTime", ""),
        }
        for each in status.get("conditions") or ()
    ]


def drain_of(status: Mapping[str, Any], deployment: Manifest | None) -> Row | None:
    """The drain in a status, else the intent at a Deployment; None if there is none."""
    if drain := status.get("drain"):
        names = ("cause", "startTime", "deadline", "busy", "work", "cut")
        return {name: drain.get(name) for name in names}
    if intent := intent_of(deployment):
        times = {"startTime": intent.since.isoformat(), "deadline": intent.deadline.isoformat()}
        return {"cause": intent.why.value, **times, "busy": None, "work": None, "cut": None}
    return None


def _head(obj: Manifest) -> Row:
    metadata = obj["metadata"]
    return {
        "namespace": metadata.get("namespace", ""),
        "name": metadata["name"],
        "created": metadata.get("creationTimestamp", ""),
        "deleting": "deletionTimestamp" in metadata,
        "paused": annotations_of(obj).get(PAUSED_ANNOTATION) == "true",
    }


def _pod(pod: Manifest) -> Row:
    status = pod.get("status") or {}
    containers = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions") or ())
    return {
        "name": pod["metadata"]["name"],
        "node": (pod.get("spec") or {}).get("nodeName") or "",
        "phase": "Terminating" if "deletionTimestamp" in pod["metadata"] else status.get("phase", ""),
        "ready": ready,
        "restarts": sum(each.get("restartCount") or 0 for each in containers),
    }


def _counts(sessions: Mapping[str, Any] | None) -> Row | None:
    return {name: sessions.get(name) for name in ("active", "loaded", "stored", "time")} if sessions else None
