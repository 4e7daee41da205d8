"""What a pool's people are told."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from copilot_operator.domain.pool_status import pool_report
from copilot_operator.domain.snapshot import Finding, PoolSnapshot, Server
from copilot_operator.domain.status import Event
from tests.support.snapshots import NO_SECRET, NOW_TEXT, a_pool_object, a_pool_snapshot, a_revision

REVISION = a_revision()["metadata"]["name"]


def row(name: str, status: str, reason: str, message: str) -> dict[str, Any]:
    return {
        "type": name,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": NOW_TEXT,
    }


def test_the_whole_status_of_a_pool() -> None:
    new, young, stopped = Server(True, True, "cli:2"), Server(True, False, "cli:1"), Server(False, False, "cli:0")
    servers = (new, young, new, stopped)
    found = pool_report(a_pool_snapshot(tenants=5, members=frozenset("abcde"), servers=servers))
    assert found.status == {
        "observedGeneration": 1,
        "tenants": 5,
        "replicas": 3,
        "readyReplicas": 2,
        "currentRevision": REVISION,
        "updateRevision": REVISION,
        "updatedReplicas": 3,
        "selector": (
            "app.kubernetes.io/managed-by=copilot-operator,app.kubernetes.io/name=copilot,copilot-operator.io/pool=saas"
        ),
        "versions": [{"image": "cli:1", "servers": 1}, {"image": "cli:2", "servers": 2}],
        "conditions": [
            row("Ready", "True", "PoolReady", "Tenants can use the pool"),
            row("CredentialsReady", "True", "Usable", "No credential is missing"),
            row("Progressing", "False", "UpToDate", f"Revision {REVISION} is what servers start from"),
            row("Paused", "False", "NotPaused", ""),
        ],
    }
    assert found.event is None, "a pool that is well from the start is no news"


def later(snapshot: PoolSnapshot, status: Any) -> PoolSnapshot:
    return replace(snapshot, raw=snapshot.raw | {"status": status}, now=snapshot.now + timedelta(minutes=1))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"unusable": Finding("InvalidSpec", "x"), "credential": NO_SECRET}, "InvalidSpec"),
        ({"obstacle": Finding("NameTaken", "x"), "refused": Finding("Refused", "x")}, "NameTaken"),
        ({"refused": Finding("Refused", "x"), "credential": NO_SECRET}, "Refused"),
        ({"credential": NO_SECRET}, "SecretNotFound"),
    ],
)
def test_a_pool_in_trouble_tells_the_first_cause_once_and_its_end_once(more: dict[str, Any], reason: str) -> None:
    snapshot = a_pool_snapshot(**more)
    first = pool_report(snapshot)
    assert first.status
    assert first.status["conditions"][0]["reason"] == reason
    assert first.event
    assert (first.event.type, first.event.reason) == ("Warning", reason)
    again = pool_report(later(snapshot, first.status))
    assert (again.status, again.event) == (None, None)
    mended = pool_report(later(a_pool_snapshot(), first.status))
    assert mended.event == Event("Normal", "PoolReady", "Tenants can use the pool")


def test_a_paused_pool_says_so() -> None:
    found = pool_report(a_pool_snapshot(raw=a_pool_object(annotations={"copilot-operator.io/paused": "true"})))
    assert found.status
    assert {each["type"]: each["status"] for each in found.status["conditions"]}["Paused"] == "True"
