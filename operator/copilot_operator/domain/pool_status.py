"""What a pool's people are told: how many tenants and servers, how far an update is, and whether the pool is usable."""

from collections import Counter
from typing import Final

from copilot_operator.api.conditions import Condition
from copilot_operator.domain.certificate import CONDITION, certificate_row
from copilot_operator.domain.desired.common import pool_labels
from copilot_operator.domain.erasure import pending
from copilot_operator.domain.kinds import DEPLOYMENT
from copilot_operator.domain.manifest import Manifest, condition_of
from copilot_operator.domain.naming import gateway_of
from copilot_operator.domain.progress import Progress, progress_of
from copilot_operator.domain.retention import TO_BE_TOLD
from copilot_operator.domain.scaling import Decision
from copilot_operator.domain.sharing import missing, shared_sessions
from copilot_operator.domain.snapshot import Finding, PoolSnapshot
from copilot_operator.domain.status import FORGETS, Event, Report, merged, stalled

MAX_MESSAGE: Final = 1024
MOST_PARKED: Final = 20
TRY_AGAIN: Final = "change the pool, or its annotation restarted-at"
WARNINGS: Final = frozenset({"UpdateFailed", "UpdateHalted"})


def pool_report(snapshot: PoolSnapshot, scaled: Decision | None = None) -> Report:
    """The status of a pool; ``scaled`` what was decided about its number of servers, if that is ours to decide."""
    old: Manifest = snapshot.raw.get("status") or {}
    credential = snapshot.credential.finding if snapshot.credential else None
    notice = snapshot.credential.notice if snapshot.credential else None
    unusable = snapshot.bundle.finding if snapshot.bundle else None
    found = snapshot.unusable or snapshot.obstacle or snapshot.refused or credential or unusable
    found = found or _no_gateway(snapshot) or _no_server(snapshot)
    versions = Counter(server.image for server in snapshot.servers if server.running)
    generation = snapshot.raw["metadata"].get("generation", 1)
    progress = progress_of(snapshot) if snapshot.spec else None
    moving, news = _progressing(snapshot, progress) if progress else (False, Finding("NotKnown", "The spec is invalid"))
    conditions = [
        _row("Ready", found is None, found or Finding("PoolReady", "Tenants can use the pool"), generation),
        _row(
            "CredentialsReady",
            credential is None,
            credential or notice or Finding("Usable", "No credential is missing"),
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
    conditions += _storage(snapshot, generation) + _held(snapshot, generation) + _bundle(snapshot, generation)
    if scaled:
        conditions.append(_row("Scaled", scaled.as_needed, scaled.finding, generation))
    conditions += _certificate(snapshot, old, generation)
    conditions += [_row(name, value, finding, generation) for name, value, finding in stalled(found)]
    if shared_sessions(snapshot):
        absent = missing(snapshot)
        if absent:
            absent = Finding(absent.reason, absent.message[:MAX_MESSAGE])
        all_there = Finding("AllFound", "All members of shared sessions are tenants")
        conditions.append(_row("MembersFound", absent is None, absent or all_there, generation))
    status: Manifest = {
        "observedGeneration": generation,
        "tenants": snapshot.tenants,
        "replicas": sum(server.running for server in snapshot.servers),
        "readyReplicas": sum(server.ready for server in snapshot.servers),
        **_scale(snapshot, old, scaled),
        **_gateway(snapshot),
        **_expired(snapshot),
        **pending(snapshot.name, snapshot.gateway.erasures),
        **_parked(snapshot, old),
        **(_revisions(old, progress) if progress else _as_before(old)),
        "selector": ",".join(f"{key}={value}" for key, value in sorted(pool_labels(snapshot.name).items())),
        "versions": [{"image": image, "servers": count} for image, count in sorted(versions.items())],
        "conditions": merged(old, conditions, snapshot.now),
    }
    return Report(
        status if status != old else None,
        _event(old, found, news),
        deletion=_erased(snapshot),
        scaling=_scaling_event(old, scaled),
        certificate=_certificate_event(old, conditions),
    )


def _scale(snapshot: PoolSnapshot, old: Manifest, scaled: Decision | None) -> Manifest:
    """Kept while a pool is paused, or can't be read: it is what was decided last."""
    if scaled:
        return {"autoscaling": scaled.scale.document}
    asked = snapshot.spec is None or (snapshot.spec.shared and snapshot.spec.shared.autoscaling)
    return {"autoscaling": old["autoscaling"]} if asked and "autoscaling" in old else {}


def _scaling_event(old: Manifest, scaled: Decision | None) -> Event | None:
    if scaled is None:
        return None
    if scaled.changed:
        word = "ScaledOut" if scaled.scale.replicas > scaled.before else "ScaledIn"
        return Event("Normal", word, f"From {scaled.before} to {scaled.scale.replicas} servers: {scaled.scale.message}")
    news = scaled.finding
    if news.reason == "AtMaximum" != _reason(old, "Scaled", ""):
        return Event("Warning", news.reason, news.message)
    return None


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
    if snapshot.spec.shared and snapshot.spec.shared.autoscaling and not any(s.running for s in snapshot.servers):
        return None  # the next request starts one
    if snapshot.spec.shared and snapshot.spec.shared.replicas == 0:
        return Finding("NoServers", "spec.shared.replicas is 0: sessions have nowhere to go")
    troubled = next((each for each in snapshot.servers if each.trouble), None)
    if troubled and troubled.trouble:
        return Finding(troubled.trouble.reason, f"Server {troubled.name}: {troubled.trouble.message}")
    return Finding("Starting", "Its servers are starting")


def _storage(snapshot: PoolSnapshot, generation: int) -> list[Condition]:
    """The volumes of servers that tenants share; other tenants tell of their own."""
    if snapshot.spec is None or snapshot.spec.isolation != "Shared":
        return []
    found = [(server.name, server.storage) for server in snapshot.servers if server.storage]
    lost = next(((name, finding) for name, finding in found if finding.reason not in TO_BE_TOLD), None)
    if told := lost or next(iter(found), None):
        name, finding = told
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        finding = Finding(finding.reason, f"Server {name}{more}: {finding.message}"[:MAX_MESSAGE])
        return [_row("StorageReady", lost is None, finding, generation)]
    well = Finding("VolumesInOrder", "Nothing is to be told of its volumes")
    return [_row("StorageReady", True, FORGETS if snapshot.spec.storage.mode == "Ephemeral" else well, generation)]


def _bundle(snapshot: PoolSnapshot, generation: int) -> list[Condition]:
    """Whether servers can be started with the certificates that the pool names, if it names any."""
    if (bundle := snapshot.bundle) is None:
        return []
    where = f"in key {bundle.key} of ConfigMap {bundle.config_map}"
    found = bundle.finding or Finding("CertificatesFound", f"Certificates {where}: {bundle.certificates}")
    return [_row("CABundleReady", bundle.finding is None, found, generation)]


def _held(snapshot: PoolSnapshot, generation: int) -> list[Condition]:
    """Whether requests wait for sessions on the shared volume that a server has which can't be asked."""
    if snapshot.spec is None or snapshot.spec.storage.mode != "Shared":
        return []
    if not snapshot.waits:
        free = Finding("NothingIsHeld", "No request waits for a session that a server which leaves, or is lost, has")
        return [_row("SessionsAvailable", True, free, generation)]
    said = "; ".join(f"{count} held by {why}" for why, count in sorted(snapshot.waits.items()))
    finding = Finding("SessionsHeld", f"Sessions that requests wait for: {said}"[:MAX_MESSAGE])
    return [_row("SessionsAvailable", False, finding, generation)]


def _certificate(snapshot: PoolSnapshot, old: Manifest, generation: int) -> list[Condition]:
    tls = snapshot.spec.gateway.tls if snapshot.spec else None
    if tls is None:
        return []
    before = condition_of(old, CONDITION)
    known = Condition.model_validate(before) if before else None
    return [certificate_row(tls.secret_name, snapshot.gateway.shown, snapshot.now, generation, known)]


def _certificate_event(old: Manifest, conditions: list[Condition]) -> Event | None:
    row = next((each for each in conditions if each.type == CONDITION), None)
    if row is None or row.status == "Unknown" or row.reason == _reason(old, CONDITION, ""):
        return None
    return Event("Normal" if row.reason == "CertificateShown" else "Warning", row.reason, row.message)


def _expired(snapshot: PoolSnapshot) -> Manifest:
    """Of all its servers: the last deletion, and what is kept because it is a dry run."""
    told = [server.expired for server in snapshot.servers if server.expired]
    last = max(
        (each for each in told if "lastDeletionTime" in each), key=lambda e: str(e["lastDeletionTime"]), default={}
    )
    kept = [each["kept"] for each in told if "kept" in each]
    found: Manifest = {key: value for key, value in last.items() if key != "kept"}
    if kept:
        found["kept"] = sum(kept)
    return {"expiredSessions": found} if found else {}


def _parked(snapshot: PoolSnapshot, old: Manifest) -> Manifest:
    """Servers that do not run and store sessions. Nobody can ask them: what was told before stays."""
    if snapshot.spec is None or snapshot.spec.isolation != "Shared" or snapshot.spec.storage.mode == "Shared":
        return {}
    before = {each["server"]: each["sessions"] for each in (old.get("parkedServers") or {}).get("most", ())}
    known = {
        server.name: before.get(server.name, 0) if server.stored is None else server.stored
        for server in snapshot.servers
        if not server.running
    }
    found = sorted(((number, name) for name, number in known.items() if number), key=lambda each: (-each[0], each[1]))
    if not found:
        return {}
    most = [{"server": name, "sessions": number} for number, name in found[:MOST_PARKED]]
    return {"parkedServers": {"count": len(found), "sessions": sum(number for number, _ in found), "most": most}}


def _erased(snapshot: PoolSnapshot) -> Event | None:
    """That nothing is left of deleted tenants."""
    done = snapshot.gateway.erased
    if not done:
        return None
    names = ", ".join(each.tenant for each in done)
    message = f"{sum(each.erased for each in done)} sessions of deleted tenants are erased: {names}"
    return Event("Normal", "TenantErased", message[:MAX_MESSAGE])


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
    return str(condition_of(status, name).get("reason", otherwise))
