"""How far something that was asked for is, from documents alone. Pure; ``follow.py`` looks again and again."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from copilot_operator.domain.manifest import Manifest, labels_of
from copilot_operator.domain.naming import TENANT_LABEL
from copilot_operator.plugin.reasons import UPDATE_WENT_WRONG, condition


@dataclass(frozen=True)
class Progress:
    """``line``: how it stands, for people. ``failed``: why it will not come to anything, "" as long as it may."""

    done: bool
    line: str
    failed: str = ""


def suspended(tenant: Manifest) -> Progress:
    """Its server has stopped."""
    ready = condition(tenant, "Ready")
    return Progress(_is_seen(tenant) and ready.get("reason") == "Suspended", _line(tenant))


def awake(tenant: Manifest) -> Progress:
    """It can be served."""
    return Progress(_is_seen(tenant) and condition(tenant, "Ready").get("status") == "True", _line(tenant))


def paused(obj: Manifest, wanted: bool) -> Progress:
    """The operator has taken its hands off, or back."""
    found = condition(obj, "Paused")
    return Progress((found.get("status") == "True") == wanted, f"Paused is {found.get('status', 'not told yet')}")


def tenant_restarted(tenant: Manifest, pods: Iterable[Manifest], before: Collection[str]) -> Progress:
    """Another pod serves than ``before`` (uids)."""
    pods = list(pods)
    left = sum(pod["metadata"]["uid"] in before for pod in pods)
    fresh = any(is_ready(pod) for pod in pods if pod["metadata"]["uid"] not in before)
    ready = condition(tenant, "Ready").get("status") == "True"
    if left and ready:
        return Progress(False, "its server has yet to stop")
    return Progress(not left and fresh and ready, _line(tenant))


def pool_restarted(pool: Manifest, pods: Iterable[Manifest], before: Mapping[str, str], told_before: str) -> Progress:
    """Another pod serves for every server than ``before`` (uid -> server).

    ``told_before``: the message of Progressing when it was asked for; an update that failed then is not this one.
    The pool's own counts lag by seconds, so they don't tell.
    """
    pods, moving = list(pods), condition(pool, "Progressing")
    left = {server_of_pod(pod) for pod in pods if pod["metadata"]["uid"] in before}
    fresh = {server_of_pod(pod) for pod in pods if pod["metadata"]["uid"] not in before and is_ready(pod)}
    servers = set(before.values())
    done = (fresh & servers) - left
    line = f"{len(done)} of {len(servers)} servers have restarted"
    if moving.get("reason") in UPDATE_WENT_WRONG and moving.get("message", "") != told_before:
        return Progress(False, line, f"{moving['reason']}: {moving['message']}")
    return Progress(done == servers, line)


def server_of_pod(pod: Manifest) -> str:
    """Which server a pod is of."""
    return labels_of(pod).get(TENANT_LABEL, "")


def is_ready(pod: Manifest) -> bool:
    """Whether a pod takes requests, and is not on its way out."""
    if "deletionTimestamp" in pod["metadata"]:
        return False
    return condition(pod, "Ready").get("status") == "True"


def _is_seen(obj: Manifest) -> bool:
    seen = (obj.get("status") or {}).get("observedGeneration") or 0
    return bool(seen >= obj["metadata"].get("generation", 1))


def _line(obj: Manifest) -> str:
    ready = condition(obj, "Ready")
    if not ready:
        return "the operator has told nothing yet"
    if not _is_seen(obj):
        return "the operator has yet to see it"
    return f"{ready['reason']}: {ready.get('message', '')}"
