"""What people and programs are told: conditions, phase, and the one Event of a transition.

Why a server is not Ready says ``readiness``. A status is written only when something in it would change, and a tenant
on its ordinary way to Ready is written once, when it arrives (or after ``PATIENCE``): thousands of tenants start
without a second write.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from copilot_operator.api.conditions import Condition, merge_conditions, timestamp
from copilot_operator.domain.desired.claim import size_of
from copilot_operator.domain.desired.service import CLI_PORT, host
from copilot_operator.domain.drain import Intent, Why
from copilot_operator.domain.github_app import REFRESH_FAILS, restart_at
from copilot_operator.domain.health import degraded
from copilot_operator.domain.idleness import hours_change_s, needed, suspension
from copilot_operator.domain.lifecycle import Stage, overdue_at
from copilot_operator.domain.manifest import Manifest, condition_of
from copilot_operator.domain.plan import TenantPlan
from copilot_operator.domain.readiness import READY, RESTING, SETTLING, SUSPENDED, starting_for, storage_trouble
from copilot_operator.domain.retention import (
    DOES_NOT_GROW,
    TO_BE_TOLD,
    Retention,
    almost_full,
    expired_sessions,
    in_quarantine,
    read_only,
    retention_of,
    size_text,
)
from copilot_operator.domain.session_counts import counts_of, told_counts
from copilot_operator.domain.snapshot import Credential, Finding, Health, Reading, TenantSnapshot

PATIENCE: Final = timedelta(minutes=5)  # a first start may take this long, among thousands, before status tells of it
MAX_MESSAGE: Final = 4096  # what the CRD allows a condition
LATE: Final = timedelta(seconds=10)  # what should have come by now is looked after this often


@dataclass(frozen=True)
class Event:
    """A core/v1 Event to write: ``type`` Normal or Warning."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Report:
    """``status`` to write (None: leave it); ``event`` of a transition; ``deletion``: the Event of expired sessions;
    ``scaling``: that of another number of servers; ``certificate``: that of the TLS port's.
    ``look_again_s``: when time alone tells more.
    """

    status: Manifest | None = None
    event: Event | None = None
    deletion: Event | None = None
    scaling: Event | None = None
    certificate: Event | None = None
    look_again_s: float | None = None


PHASES: Final = {
    "Suspended": "Suspended",
    "SuspendedWhenIdle": "Suspended",
    "ScaledIn": "Suspended",
    "Draining": "Draining",
    "DrainOverdue": "Draining",
    "Stopping": "Draining",
    "Starting": "Starting",
    "WaitsToStart": "Starting",
    "TokenPending": "Starting",
    "PodGone": "Starting",
    "PodNotPrepared": "Starting",
    "PodFailed": "Starting",
    "OutOfMemory": "Starting",
    "GatewayNotReady": "Starting",
}
ORDINARY: Final = frozenset(
    {"Suspended", "SuspendedWhenIdle", "ScaledIn", "Draining", "Stopping", "Starting", "WaitsToStart", "TokenPending"}
)  # no warning
AS_ASKED_FOR: Final = frozenset({"NoServers"})  # not Ready because people want it so, though they may not know
MAY_PASS: Final = frozenset({"PodNotPrepared", "ServerSilent", "Unschedulable"})  # it is replaced; nodes are added
WAITING: Final = frozenset({"PoolNotFound", "PreviousRemains"})  # somebody else moves next, so: Pending


def tenant_report(snapshot: TenantSnapshot, plan: TenantPlan) -> Report:
    """The status of a tenant after ``plan`` was carried out, and the Event if Ready changed its word."""
    snapshot = _with_last_reading(snapshot, plan)
    found = next((finding for policy in READY if (finding := policy(snapshot, plan))), None)
    if snapshot.deleted or (plan.move is None and found and found.reason == "Starting" and snapshot.lacks_token):
        return Report()
    old: Manifest = snapshot.raw.get("status") or {}
    if not old.get("conditions") and found and found.reason == "Starting":
        left = PATIENCE - starting_for(snapshot)
        if left > timedelta(0):
            return Report(look_again_s=min(left, SETTLING).total_seconds())
    status = {
        "phase": phase_of(found),
        "observedGeneration": snapshot.raw["metadata"].get("generation", 1),
        "conditions": _conditions(snapshot, plan, found, old),
    }
    if snapshot.children.connection or (plan.steps and plan.move):
        status["server"] = snapshot.server
        status["endpoint"] = {"host": host(snapshot), "port": CLI_PORT, "secretName": snapshot.server}
    elif "endpoint" in old:
        status |= {key: old[key] for key in ("server", "endpoint") if key in old}
    if plan.move and plan.move.intent:
        status["drain"] = _drain(snapshot, plan.move.intent)
    retention = retention_of(snapshot.pool.spec) if snapshot.pool else Retention()
    if told := expired_sessions(snapshot.state, retention, old.get("expiredSessions")):
        status["expiredSessions"] = told
    status |= told_counts(counts_of(snapshot.state), old, snapshot.now)
    return Report(
        status if status != _comparable(old) else None,
        event_of(old, status),
        deletion_event(snapshot, old, status),
        look_again_s=min(
            (s for s in (_again_s(snapshot, plan, found), hours_change_s(snapshot)) if s is not None), default=None
        ),
    )


def deletion_event(snapshot: TenantSnapshot, old: Manifest, new: Manifest) -> Event | None:
    """That sessions were deleted, once. Statuses of seats are not stored: what is seen first may have been told."""
    before, after = ((status.get("expiredSessions") or {}).get("lastDeletionTime") for status in (old, new))
    deletion = snapshot.state.deletion if snapshot.state else None
    if deletion is None or before == after or (snapshot.is_seat and not old):
        return None
    freed = size_text(deletion.freed_bytes)
    message = f"{deletion.sessions} sessions deleted that nobody had used for the pool's sessions.ttl; {freed} freed"
    return Event("Normal", "ExpiredSessionsDeleted", message)


def _again_s(snapshot: TenantSnapshot, plan: TenantPlan, found: Finding | None) -> float | None:
    """When the passing of time alone may change something."""
    if plan.move and plan.move.intent and plan.move.stage == Stage.DRAINING:
        due = (plan.move.intent.deadline, overdue_at(plan.move.intent))
        left = [(at - snapshot.now).total_seconds() for at in due if at >= snapshot.now]
        return min(left) + 1 if left else LATE.total_seconds()
    if plan.move and (plan.move.stage == Stage.STOPPING or plan.move.trouble):
        return LATE.total_seconds()
    if found and found.reason == "Starting":
        return SETTLING.total_seconds()
    return _new_token_in_s(snapshot)


def _new_token_in_s(snapshot: TenantSnapshot) -> float | None:
    """Until a server that was started with an older token is to take the new one."""
    credential, state = snapshot.server_credential, snapshot.state
    if not (credential and credential.token and state) or state.token_serial in ("", credential.token.serial):
        return None
    left = (restart_at(credential.token, snapshot.server) - snapshot.now).total_seconds()
    return left + 1 if left >= 0 else None


def _drain(snapshot: TenantSnapshot, intent: Intent) -> Manifest:
    drain = snapshot.drain
    counts = {"busy": drain.busy, "work": dict(drain.work) or None, "cut": drain.cut or None} if drain else {}
    times = {"startTime": timestamp(intent.since), "deadline": timestamp(intent.deadline)}
    return {"cause": intent.why.value, **times} | {key: value for key, value in counts.items() if value is not None}


def _with_last_reading(snapshot: TenantSnapshot, plan: TenantPlan) -> TenantSnapshot:
    """After a restart of the operator a serving server is what status says of it, until the first ping says more."""
    if snapshot.reading.health != Health.UNKNOWN or not plan.move or plan.move.stage != Stage.SERVING:
        return snapshot
    last = condition_of(snapshot.raw.get("status") or {}, "ServerHealthy")
    health = {"True": Health.HEALTHY, "False": Health.UNHEALTHY}.get(last.get("status", ""), Health.UNKNOWN)
    return replace(snapshot, reading=Reading(health, last.get("message", "")))


def _conditions(snapshot: TenantSnapshot, plan: TenantPlan, found: Finding | None, old: Manifest) -> list[Manifest]:
    ready = found is None
    credential, reading = snapshot.credential, snapshot.reading
    trouble = storage_trouble(snapshot, plan)
    stage = plan.move.stage if plan.move else None
    moving = stage in (Stage.STARTING, Stage.DRAINING, Stage.STOPPING)
    paused = snapshot.paused
    running = stage == Stage.SERVING
    # A pod that serves has its volume, even where news of the claim come later: one write less.
    claimed = running or (snapshot.children.claim or {}).get("status", {}).get("phase") == "Bound"
    rows = [
        ("Ready", ready, found or Finding("ServerReady", "The server answers")),
        credentials_row(
            credential,
            of_pool=snapshot.spec is not None and snapshot.spec.auth is None,
            refused=snapshot.credential_refused,
        ),
        _health_row(reading if running or stage == Stage.DRAINING else Reading(), degraded(snapshot)),
        _storage_row(
            trouble or _claim_deleted(snapshot) or read_only(snapshot.state, condition_of(old, "StorageReady")),
            claimed,
            _to_be_told(snapshot, old),
        )
        if snapshot.has_volume
        else ("StorageReady", True, FORGETS),
        ("Progressing", moving and not ready, found if moving and found else _settled(plan)),
        *_needed(snapshot, plan),
        ("Paused", paused is not None, paused or Finding("NotPaused", "The operator acts on it")),
        *stalled(found),
    ]
    generation = snapshot.raw["metadata"].get("generation", 1)
    new = [condition(name, value, finding, generation) for name, value, finding in rows]
    return merged(old, new, snapshot.now)


def merged(old: Manifest, new: list[Condition], now: datetime) -> list[Manifest]:
    """Conditions as the API server speaks them; the times of those that did not change are kept."""
    before = [Condition.model_validate(condition) for condition in old.get("conditions") or ()]
    return [c.model_dump(by_alias=True, exclude_none=True, mode="json") for c in merge_conditions(before, new, now)]


def credentials_row(
    credential: Credential | None, *, of_pool: bool, refused: bool = False
) -> tuple[str, bool, Finding]:
    """Until when the pool's token holds the pool tells, once."""
    if credential and credential.finding:
        return "CredentialsReady", False, credential.finding
    if credential and refused:
        way_out = f"put a valid one into Secret {credential.secret}"
        if credential.app:
            way_out = "check the App's permissions"
        elif credential.user:
            way_out = f"put a new refresh token into Secret {credential.user.secret_ref.name}"
        message = f"It was refused in the latest turn (HTTP 401); {way_out}"
        return "CredentialsReady", False, Finding("CredentialRefused", message)
    if credential and credential.notice and not of_pool:
        return "CredentialsReady", True, credential.notice
    if credential:
        return "CredentialsReady", True, Finding("TokenFound", "The token or key was found")
    return "CredentialsReady", True, Finding("NotConfigured", "Clients bring their own credentials")


FORGETS: Final = Finding("Ephemeral", "There is no volume: the server forgets its sessions when its pod ends")


def _storage_row(trouble: Finding | None, bound: bool, full: Finding | None) -> tuple[str, bool | None, Finding]:
    if trouble:
        return "StorageReady", False, trouble
    if bound:
        return "StorageReady", True, full or Finding("Bound", "The volume is bound")
    return "StorageReady", None, Finding("NotBound", "The volume is not bound yet")


def _needed(snapshot: TenantSnapshot, plan: TenantPlan) -> list[tuple[str, bool | None, Finding]]:
    """Why its server is to run, or is not, where servers stop when idle. Others run, and nobody has to be told of each.

    What is to run in a Shared pool its pool tells (``Scaled``).
    """
    move = plan.move
    if move is None or suspension(snapshot) is None:
        return []
    if snapshot.held_down:
        return [("Needed", False, SUSPENDED)]
    if snapshot.waits_behind is not None:
        return [("Needed", True, needed(snapshot))]
    cause = move.cause.why if move.cause else move.intent.why if move.intent and move.stage == Stage.STOPPED else None
    return [("Needed", False, RESTING) if cause == Why.IDLE else ("Needed", True, needed(snapshot))]


def _settled(plan: TenantPlan) -> Finding:
    return Finding("Settled", (plan.move.why if plan.move else "") or "Nothing is under way")


def _getting_full(snapshot: TenantSnapshot, old: Manifest) -> Finding | None:
    mark = snapshot.pool.spec.storage.high_water_mark_percent if snapshot.pool else 100
    return almost_full(snapshot.state, mark, condition_of(old, "StorageReady"))


def _to_be_told(snapshot: TenantSnapshot, old: Manifest) -> Finding | None:
    """Of a volume that is ready."""
    row = condition_of(old, "StorageReady")
    return _getting_full(snapshot, old) or in_quarantine(snapshot.state, row) or _does_not_grow(snapshot)


def _does_not_grow(snapshot: TenantSnapshot) -> Finding | None:
    claim = snapshot.children.claim
    if snapshot.pool is None or claim is None or snapshot.storage.grows:
        return None
    size, name = snapshot.pool.spec.storage.size, claim["spec"].get("storageClassName", "")
    if snapshot.storage.known:
        why = (
            f"StorageClass {name!r} has no allowVolumeExpansion: true. Set that, if its provisioner can, or go back to "
            "the former size"
        )
    else:
        why = (
            f"the operator may not read whether StorageClass {name!r} lets it grow. If it does, set "
            f"spec.resources.requests.storage of claim {snapshot.claim} yourself"
        )
    return Finding(DOES_NOT_GROW, f"storage.size is {size}, and the volume stays at {size_of(claim)}: {why}")


def _claim_deleted(snapshot: TenantSnapshot) -> Finding | None:
    claim = snapshot.children.claim
    if claim is None or "deletionTimestamp" not in claim["metadata"]:
        return None
    message = f"Claim {snapshot.claim} was deleted: its sessions are lost once the server stops; copy them before"
    return Finding("VolumeBeingDeleted", message)


def _health_row(reading: Reading, trouble: Finding | None) -> tuple[str, bool | None, Finding]:
    if reading.health == Health.UNKNOWN:
        return "ServerHealthy", None, Finding("NotRunning", "No running server to ping")
    if trouble:
        return "ServerHealthy", False, trouble
    if reading.health == Health.HEALTHY:
        return "ServerHealthy", True, Finding("Answers", "The server answers connect and ping")
    return "ServerHealthy", False, Finding("ServerSilent", reading.message)


def stalled(found: Finding | None) -> list[tuple[str, bool, Finding]]:
    """The condition by which kstatus knows that waiting is in vain. It is only there while it is True."""
    in_vain = found is not None and phase_of(found) == "Failed" and found.reason not in AS_ASKED_FOR | MAY_PASS
    return [("Stalled", True, found)] if found and in_vain else []


def condition(name: str, value: bool | None, finding: Finding, generation: int) -> Condition:
    status = "Unknown" if value is None else "True" if value else "False"
    reason, message = finding.reason, finding.message[:MAX_MESSAGE]
    return Condition(type=name, status=status, reason=reason, message=message, observed_generation=generation)


def phase_of(found: Finding | None) -> str:
    if found is None:
        return "Ready"
    if found.reason in WAITING:
        return "Pending"
    return PHASES.get(found.reason, "Failed")


def event_of(old: Manifest, new: Manifest) -> Event | None:
    """An Event when Ready got another status or reason, or what else people should know while it is Ready."""
    for name in ("Ready", "CredentialsReady", "ServerHealthy", "StorageReady"):
        before, after = condition_of(old, name), condition_of(new, name)
        same = (before.get("status"), before.get("reason")) == (after.get("status"), after.get("reason"))
        troubled = "False" in (before.get("status"), after.get("status"))
        troubled = troubled or not TO_BE_TOLD.isdisjoint((before.get("reason"), after.get("reason")))
        if not same and (name in ("Ready", "CredentialsReady") or troubled):
            break
    else:
        return None
    ordinary = (after["status"] == "True" and after["reason"] not in NO_GOOD_NEWS) or after["reason"] in ORDINARY
    return Event("Normal" if ordinary else "Warning", after["reason"], after["message"])


NO_GOOD_NEWS: Final = TO_BE_TOLD | {REFRESH_FAILS}  # though the status is True


def _comparable(old: Manifest) -> Manifest:
    return {key: value for key, value in old.items() if value is not None}
