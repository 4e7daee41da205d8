"""What a pool's people are told: how many tenants and servers, and whether the pool itself is usable."""

from collections import Counter

from copilot_operator.api.conditions import Condition
from copilot_operator.domain.desired.common import pool_labels
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import Finding, PoolSnapshot
from copilot_operator.domain.status import Event, Report, merged


def pool_report(snapshot: PoolSnapshot) -> Report:
    """The status of a pool; ``sessions`` and the like follow with what counts them."""
    old: Manifest = snapshot.raw.get("status") or {}
    credential = snapshot.credential.finding if snapshot.credential else None
    found = snapshot.unusable or snapshot.obstacle or snapshot.refused or credential
    versions = Counter(server.image for server in snapshot.servers if server.running)
    generation = snapshot.raw["metadata"].get("generation", 1)
    conditions = [
        _row("Ready", found is None, found or Finding("PoolReady", "Tenants can use the pool"), generation),
        _row(
            "CredentialsReady",
            credential is None,
            credential or Finding("Usable", "No credential is missing"),
            generation,
        ),
        _row(
            "Paused",
            snapshot.paused,
            Finding("PausedByAnnotation" if snapshot.paused else "NotPaused", ""),
            generation,
        ),
    ]
    status: Manifest = {
        "observedGeneration": generation,
        "tenants": len(snapshot.members),
        "replicas": sum(server.running for server in snapshot.servers),
        "readyReplicas": sum(server.ready for server in snapshot.servers),
        "selector": ",".join(f"{key}={value}" for key, value in sorted(pool_labels(snapshot.name).items())),
        "versions": [{"image": image, "servers": count} for image, count in sorted(versions.items())],
        "conditions": merged(old, conditions, snapshot.now),
    }
    return Report(status if status != old else None, _event(old, found))


def _row(name: str, value: bool, finding: Finding, generation: int) -> Condition:
    return Condition(
        type=name, status="True" if value else "False", reason=finding.reason, message=finding.message,
        observed_generation=generation,
    )  # fmt: skip


def _event(old: Manifest, found: Finding | None) -> Event | None:
    before = next((c["reason"] for c in old.get("conditions") or () if c["type"] == "Ready"), "PoolReady")
    after = found.reason if found else "PoolReady"
    if before == after:
        return None
    return (
        Event("Warning", found.reason, found.message)
        if found
        else Event("Normal", "PoolReady", "Tenants can use the pool")
    )
