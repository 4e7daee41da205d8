"""What a pool's people are told: how many tenants and servers, how far an update is, and whether the pool is usable."""

from collections import Counter
from typing import Final

from copilot_operator.api.conditions import Condition
from copilot_operator.domain.desired.common import pool_labels
from copilot_operator.domain.kinds import DEPLOYMENT
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import gateway_of
from copilot_operator.domain.progress import Progress, progress_of
from copilot_operator.domain.snapshot import Finding, PoolSnapshot
from copilot_operator.domain.status import Event, Report, merged

MAX_MESSAGE: Final = 1024
TRY_AGAIN: Final = "change the pool, or its annotation restarted-at"
WARNINGS: Final = frozenset({"UpdateFailed", "UpdateHalted"})


def pool_report(snapshot: PoolSnapshot) -> Report:
    """The status of a pool; ``sessions`` and the like follow with what counts them."""
    old: Manifest = snapshot.raw.get("status") or {}
    credential = snapshot.credential.finding if snapshot.credential else None
    found = snapshot.unusable or snapshot.obstacle or snapshot.refused or credential or _no_gateway(snapshot)
    found = found or _no_server(snapshot)
    versions = Counter(server.image for server in snapshot.servers if server.running)
    generation = snapshot.raw["metadata"].get("generation", 1)
    progress = progress_of(snapshot) if snapshot.spec else None
    moving, news = _progressing(snapshot, progress) if progress else (False, Finding("NotKnown", "The spec is invalid"))
    conditions = [
        _row("Ready", found is None, found or Finding("PoolReady", "Tenants can use the pool"), generation),
        _row(
            "CredentialsReady",
            credential is None,
            credential or Finding("Usable", "No credential is missing"),
            generation,
        ),
        _row("Progressing", moving, news, generation),
        _row(
            "Paused",
            snapshot.paused,
            Finding("PausedByAnnotation" if snapshot.paused else "NotPaused", ""),
            generation,
        ),
    ]
    status: Manifest = {
        "observedGeneration": generation,
        "tenants": snapshot.tenants,
        "replicas": sum(server.running for server in snapshot.servers),
        "readyReplicas": sum(server.ready for server in snapshot.servers),
        **_gateway(snapshot),
        **(_revisions(old, progress) if progress else _as_before(old)),
        "selector": ",".join(f"{key}={value}" for key, value in sorted(pool_labels(snapshot.name).items())),
        "versions": [{"image": image, "servers": count} for image, count in sorted(versions.items())],
        "conditions": merged(old, conditions, snapshot.now),
    }
    return Report(status if status != old else None, _event(old, found, news))


def changes_course(before: Manifest, after: Manifest) -> bool:
    """Whether tenants must look again: their servers are rendered from another revision, or they can be reached now, or
    can't any more."""
    other = any(before.get(field) != after.get(field) for field in ("currentRevision", "failedRevision"))
    return other or _is_served(before) != _is_served(after)


def _is_served(status: Manifest) -> bool:
    return bool((status.get("gateway") or {}).get("readyReplicas"))


def _no_gateway(snapshot: PoolSnapshot) -> Finding | None:
    """None of its gateways is ready, so no tenant can be reached."""
    if snapshot.spec is None or not snapshot.spec.gateway.enabled or _gateway(snapshot)["gateway"]["readyReplicas"]:
        return None
    why = snapshot.gateway.trouble
    return why or Finding(
        "GatewayNotReady", f"No gateway is ready; see: kubectl describe deploy {gateway_of(snapshot.name)}"
    )


def _no_server(snapshot: PoolSnapshot) -> Finding | None:
    """None of the servers that tenants share is ready."""
    if snapshot.spec is None or snapshot.spec.isolation != "Shared" or any(each.ready for each in snapshot.servers):
        return None
    if snapshot.spec.shared and snapshot.spec.shared.replicas == 0:
        return Finding("NoServers", "spec.shared.replicas is 0: sessions have nowhere to go")
    troubled = next((each for each in snapshot.servers if each.trouble), None)
    if troubled and troubled.trouble:
        return Finding(troubled.trouble.reason, f"Server {troubled.name}: {troubled.trouble.message}")
    return Finding("Starting", "Its servers are starting")


def _gateway(snapshot: PoolSnapshot) -> Manifest:
    if snapshot.spec is None or not snapshot.spec.gateway.enabled:
        return {}
    live = snapshot.gateway.objects.get(DEPLOYMENT) or {}
    ready = live.get("status", {}).get("readyReplicas", 0)
    return {"gateway": {"replicas": snapshot.spec.gateway.replicas, "readyReplicas": ready}}


def _revisions(old: Manifest, progress: Progress) -> Manifest:
    course = progress.course
    arrived = progress.complete or not (course.rolling or course.failed)
    old_name = old.get("currentRevision", "")
    found: Manifest = {
        "currentRevision": course.update.name if arrived else course.current.name if course.current else old_name,
        "updateRevision": course.update.name,
        "updatedReplicas": progress.updated,
    }
    if failed := progress.undone:
        found["failedRevision"] = {
            "revision": course.update.name, "reason": failed.reason, "message": failed.message[:MAX_MESSAGE],
        }  # fmt: skip
    elif course.failed:
        found["failedRevision"] = old["failedRevision"]
    return found


def _as_before(old: Manifest) -> Manifest:
    fields = ("currentRevision", "updateRevision", "updatedReplicas", "failedRevision")
    return {field: old[field] for field in fields if field in old}


def _progressing(snapshot: PoolSnapshot, progress: Progress) -> tuple[bool, Finding]:
    """Whether servers change to another revision, and how far they are."""
    course = progress.course
    name, before = course.update.name, course.current.name if course.current else ""
    moves = course.rolling or course.failed or progress.updated < progress.running
    if progress.complete or not moves:
        return False, Finding("UpToDate", f"Revision {name} is what servers start from")
    if progress.undone or course.failed:
        message = progress.undone.message if progress.undone else snapshot.raw["status"]["failedRevision"]["message"]
        message = f"Revision {name} was given up, servers go back to {before}. To try again, {TRY_AGAIN}. {message}"
        return False, Finding("UpdateFailed", message[:MAX_MESSAGE])
    if progress.halted:
        why = "servers were Ready with it" if progress.proven else "no revision is known to go back to"
        message = f"Revision {name} goes no further, and is not undone, since {why}: {TRY_AGAIN}"
        return False, Finding("UpdateHalted", f"{message}. {progress.halted.message}"[:MAX_MESSAGE])
    if not progress.running:
        return True, Finding("WaitsForServers", f"The next server to start is the first with revision {name}")
    assert snapshot.spec
    message = (
        f"{progress.updated} of {progress.running} servers run revision {name}, {progress.away} are not ready; "
        f"update.maxUnavailable is {snapshot.spec.update.max_unavailable}"
    )
    return True, Finding("RollingUpdate", message)


def _row(name: str, value: bool, finding: Finding, generation: int) -> Condition:
    return Condition(
        type=name, status="True" if value else "False", reason=finding.reason, message=finding.message,
        observed_generation=generation,
    )  # fmt: skip


def _event(old: Manifest, found: Finding | None, news: Finding) -> Event | None:
    """Of what changed for the pool as a whole; if nothing did, of its update."""
    before, after = _reason(old, "Ready", "PoolReady"), found.reason if found else "PoolReady"
    if before != after:
        return (
            Event("Warning", found.reason, found.message)
            if found
            else Event("Normal", "PoolReady", "Tenants can use the pool")
        )
    if _reason(old, "Progressing", "UpToDate") == news.reason or news.reason == "NotKnown":
        return None
    return Event("Warning" if news.reason in WARNINGS else "Normal", news.reason, news.message)


def _reason(status: Manifest, name: str, otherwise: str) -> str:
    conditions = status.get("conditions") or ()
    return str(next((each["reason"] for each in conditions if each["type"] == name), otherwise))
