"""What people and programs are told of a tenant that shares its servers with others: whether it can connect.

How the servers are is told by the pool, once, and not by each of its thousand tenants.
"""

from typing import Final

from copilot_operator.api.conditions import Condition
from copilot_operator.domain.desired.service import CLI_PORT, host
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.plan import TenantPlan
from copilot_operator.domain.readiness import (
    SUSPENDED,
    Policy,
    in_the_way,
    no_gateway,
    refused,
    something_missing,
    unusable,
)
from copilot_operator.domain.session_counts import told_counts
from copilot_operator.domain.snapshot import Finding, TenantSnapshot
from copilot_operator.domain.status import Report, condition, credentials_row, event_of, merged, phase_of, stalled


def suspended(snapshot: TenantSnapshot, plan: TenantPlan) -> Finding | None:
    """At once: it has no server of its own that would have to stop first."""
    if snapshot.spec and snapshot.spec.suspended:
        return SUSPENDED
    return None


READY: Final[tuple[Policy, ...]] = (unusable, in_the_way, refused, suspended, something_missing, no_gateway)
SHARED: Final = Finding("Shared", "Servers and volumes are the pool's, and so is what is told of them")


def endpoint_report(snapshot: TenantSnapshot, plan: TenantPlan) -> Report:
    """The status of a tenant of a Shared pool after ``plan`` was carried out."""
    if snapshot.deleted or snapshot.lacks_token:
        return Report()
    old: Manifest = snapshot.raw.get("status") or {}
    found = next((finding for policy in READY if (finding := policy(snapshot, plan))), None)
    status: Manifest = {
        "phase": phase_of(found),
        "observedGeneration": snapshot.raw["metadata"].get("generation", 1),
        "conditions": merged(old, _conditions(snapshot, found), snapshot.now),
    }
    status |= told_counts(snapshot.sessions, old, snapshot.now)
    if snapshot.homes:
        status["homes"] = sorted(snapshot.homes)
    if snapshot.children.connection or plan.steps:
        status["endpoint"] = {"host": host(snapshot), "port": CLI_PORT, "secretName": snapshot.server}
    return Report(status if status != old else None, event_of(old, status))


def _conditions(snapshot: TenantSnapshot, found: Finding | None) -> list[Condition]:
    credential, paused = snapshot.credential, snapshot.paused
    rows: list[tuple[str, bool | None, Finding]] = [
        ("Ready", found is None, found or Finding("EndpointReady", "The gateway takes its connections")),
        credentials_row(credential, of_pool=True, refused=snapshot.credential_refused),
        ("ServerHealthy", None, SHARED),
        ("StorageReady", None, SHARED),
        ("Progressing", False, Finding("Settled", "Nothing is under way")),
        ("Paused", paused is not None, paused or Finding("NotPaused", "The operator acts on it")),
        *stalled(found),
    ]
    generation = snapshot.raw["metadata"].get("generation", 1)
    return [condition(name, value, finding, generation) for name, value, finding in rows]
