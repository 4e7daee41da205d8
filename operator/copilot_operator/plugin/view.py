"""What ``status`` shows: documents with stable keys, made from pools, tenants and Deployments. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import TENANT_ANNOTATION
from copilot_operator.domain.seats import pool_of_seat
from copilot_operator.plugin.reasons import condition, drain_document, reasons, troubles

Document = dict[str, Any]


def status_document(
    pools: Iterable[Manifest], tenants: Iterable[Manifest], deployments: Sequence[Manifest], now: datetime
) -> Document:
    """All that is shown. ``deployments``: of servers, as far as they were read."""
    drains = seat_drains(deployments)
    shown = [tenant_document(each, now) for each in tenants]
    for each in shown:
        if each["drain"]:
            place = drains.setdefault((each["namespace"], each["pool"]), [])
            place.append({"server": each["name"], **each["drain"]})
    return {
        "kind": "CopilotStatus",
        "pools": [pool_document(each, drains.get(_key(each), []), now) for each in _sorted(pools)],
        "tenants": sorted(shown, key=lambda each: (each["namespace"], each["name"])),
    }


def pool_document(pool: Manifest, drains: Sequence[Document], now: datetime) -> Document:
    """A pool; ``drains`` of its servers."""
    spec, status = pool.get("spec") or {}, pool.get("status") or {}
    gateway = status.get("gateway")
    progress = condition(pool, "Progressing")
    return _head(pool) | {
        "isolation": spec.get("isolation", ""),
        "tenants": status.get("tenants"),
        "servers": {"ready": status.get("readyReplicas"), "desired": status.get("replicas")},
        "gateway": {"ready": gateway["readyReplicas"], "desired": gateway["replicas"]} if gateway else None,
        "update": {"reason": progress.get("reason", ""), "message": progress.get("message", "")},
        "image": (spec.get("server") or {}).get("image", ""),
        "versions": status.get("versions") or [],
        "drains": list(drains),
        "problems": _problems(pool, now),
    }


def tenant_document(tenant: Manifest, now: datetime) -> Document:
    spec, status = tenant.get("spec") or {}, tenant.get("status") or {}
    endpoint = status.get("endpoint") or {}
    return _head(tenant) | {
        "phase": status.get("phase") or "Starting",
        "pool": (spec.get("poolRef") or {}).get("name", ""),
        "suspended": bool(spec.get("suspended")),
        "server": status.get("server", ""),
        "homes": status.get("homes") or [],
        "host": endpoint.get("host", ""),
        "port": endpoint.get("port"),
        "drain": drain_document(tenant, None),
        "problems": _problems(tenant, now),
    }


def _head(obj: Manifest) -> Document:
    metadata, ready = obj["metadata"], condition(obj, "Ready")
    return {
        "namespace": metadata.get("namespace", ""),
        "name": metadata["name"],
        "created": metadata.get("creationTimestamp", ""),
        "ready": ready.get("status", "Unknown"),
        "reason": ready.get("reason", ""),
        "message": ready.get("message", ""),
        "paused": condition(obj, "Paused").get("status") == "True",
    }


def _problems(obj: Manifest, now: datetime) -> list[Document]:
    return [each.to_document() for each in troubles(reasons(obj, now))]


def seat_drains(deployments: Iterable[Manifest]) -> dict[tuple[str, str], list[Document]]:
    """Drains of servers that belong to pools; of a tenant's own its status tells more."""
    found: dict[tuple[str, str], list[Document]] = {}
    for deployment in deployments:
        seat = annotations_of(deployment).get(TENANT_ANNOTATION, "")
        pool, drain = pool_of_seat(seat), drain_document({}, deployment)
        if pool and drain:
            found.setdefault((deployment["metadata"]["namespace"], pool), []).append({"server": seat, **drain})
    return found


def _key(pool: Mapping[str, Any]) -> tuple[str, str]:
    return pool["metadata"]["namespace"], pool["metadata"]["name"]


def _sorted(objects: Iterable[Manifest]) -> list[Manifest]:
    return sorted(objects, key=_key)
