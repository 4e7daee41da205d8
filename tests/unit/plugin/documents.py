"""Objects as the API server holds them, for tests of what is shown of them."""

from datetime import UTC, datetime
from typing import Any, Final

Object = dict[str, Any]
NOW: Final = datetime(2030, 1, 2, 12, 0, tzinfo=UTC)
API: Final = "copilot-operator.io/v1alpha1"


def condition(name: str, status: str, reason: str, message: str = "") -> Object:
    return {"type": name, "status": status, "reason": reason, "message": message}


def ready(reason: str = "ServerReady", message: str = "The server answers") -> Object:
    return condition("Ready", "True" if reason in ("ServerReady", "PoolReady") else "False", reason, message)


def tenant(name: str = "alice", *conditions: Object, spec: Object | None = None, **status: Any) -> Object:
    return {
        "apiVersion": API,
        "kind": "CopilotTenant",
        "metadata": {
            "name": name, "namespace": "team", "uid": name, "generation": 1,
            "creationTimestamp": "2030-01-02T11:00:00Z",
        },
        "spec": {"poolRef": {"name": "saas"}} | (spec or {}),
        "status": {"observedGeneration": 1, "conditions": list(conditions)} | status if conditions else {},
    }  # fmt: skip


def pool(name: str = "saas", *conditions: Object, isolation: str = "Dedicated", **status: Any) -> Object:
    made = tenant(name, *conditions, **status)
    return made | {"kind": "CopilotPool", "spec": {"isolation": isolation, "server": {"image": "cli:1"}}}


def deployment(owner: str, *, cause: str = "", name: str = "copilot-x") -> Object:
    """Of the server of a tenant, or of a seat ``POOL/ORDINAL``; ``cause``: of its drain."""
    annotations = {"copilot-operator.io/tenant-name": owner}
    if cause:
        annotations |= {
            "copilot-operator.io/drain-cause": cause,
            "copilot-operator.io/drain-since": "2030-01-02T11:59:00+00:00",
            "copilot-operator.io/drain-deadline": "2030-01-02T12:08:00+00:00",
        }
    return {"metadata": {"name": name, "namespace": "team", "annotations": annotations}}
