"""What a pool's people are told."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from copilot_operator.api.autoscaling import AutoscalingSpec
from copilot_operator.domain.kinds import DEPLOYMENT
from copilot_operator.domain.manifest import condition_of
from copilot_operator.domain.pool_status import pool_report
from copilot_operator.domain.scaling import Load, Scale, decide, scale_of
from copilot_operator.domain.snapshot import Finding, GatewayView, PoolSnapshot, Server
from copilot_operator.domain.status import Event
from tests.support.snapshots import (
    BUNDLE,
    NO_BUNDLE,
    NO_SECRET,
    NOW,
    NOW_TEXT,
    a_pool_object,
    a_pool_snapshot,
    a_revision,
)

AUTOSCALED = {
    "isolation": "Shared", "shared": {"autoscaling": {"minReplicas": 0, "maxReplicas": 4}},
    "gateway": {"enabled": True}, "sessions.maxConcurrent": 10,
}  # fmt: skip
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
        ({"credential": NO_SECRET, "bundle": NO_BUNDLE}, "SecretNotFound"),
        ({"bundle": NO_BUNDLE}, "ConfigMapNotFound"),
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


def test_certificates_have_a_condition_where_the_pool_names_some() -> None:
    rows = [
        condition_of(pool_report(a_pool_snapshot(bundle=each)).status or {}, "CABundleReady")
        for each in (None, BUNDLE, NO_BUNDLE)
    ]
    assert rows == [
        {},
        row("CABundleReady", "True", "CertificatesFound", "Certificates in key ca.crt of ConfigMap ca: 2"),
        row("CABundleReady", "False", "ConfigMapNotFound", "ConfigMap ca does not exist"),
    ]


def test_a_paused_pool_says_so() -> None:
    found = pool_report(a_pool_snapshot(raw=a_pool_object(annotations={"copilot-operator.io/paused": "true"})))
    assert found.status
    assert {each["type"]: each["status"] for each in found.status["conditions"]}["Paused"] == "True"


# ---- what the servers of a Shared pool have on their volumes

SHARED = {"isolation": "Shared", "shared": {"replicas": 3}, "gateway": {"enabled": True}}
FULL = Finding("VolumeAlmostFull", "The volume is 85 % full or more")
GONE = Finding("VolumeBeingDeleted", "Claim copilot-1 was deleted")


def shared(*servers: Server) -> Any:
    return pool_report(a_pool_snapshot(fields=SHARED, servers=servers)).status


def a_server(name: str, **more: Any) -> Server:
    return Server(True, True, "cli:1", name=name, **more)


@pytest.mark.parametrize(
    ("servers", "told"),
    [
        ([a_server("a")], ("True", "VolumesInOrder", "Nothing is to be told of its volumes")),
        ([a_server("a"), a_server("b", storage=FULL)], ("True", "VolumeAlmostFull", f"Server b: {FULL.message}")),
        (
            [a_server("a", storage=FULL), a_server("b", storage=GONE)],
            ("False", "VolumeBeingDeleted", f"Server b (and 1 more): {GONE.message}"),
        ),
    ],
)
def test_a_shared_pool_tells_of_the_volumes_of_its_servers(servers: list[Server], told: tuple[str, str, str]) -> None:
    found = next(each for each in shared(*servers)["conditions"] if each["type"] == "StorageReady")
    assert (found["status"], found["reason"], found["message"]) == told


def test_servers_that_do_not_run_and_store_sessions_are_told_of_the_fullest_first() -> None:
    def parked(name: str, stored: int | None) -> Server:
        return Server(False, False, "cli:1", name=name, stored=stored)

    status = shared(a_server("runs", stored=9), parked("b", 2), parked("a", 2), parked("c", 5), parked("empty", 0))
    told = {
        "count": 3,
        "sessions": 9,
        "most": [{"server": name, "sessions": number} for name, number in (("c", 5), ("a", 2), ("b", 2))],
    }
    assert status["parkedServers"] == told
    # a restarted operator can't ask them
    unknown = a_pool_snapshot(fields=SHARED, servers=(parked("a", None), parked("new", None)))
    again = pool_report(later(unknown, status))
    assert again.status
    assert again.status["parkedServers"] == {"count": 1, "sessions": 2, "most": [{"server": "a", "sessions": 2}]}
    assert "parkedServers" not in shared(a_server("runs", stored=9), parked("empty", 0))
    many = shared(*(parked(f"s{n}", 1) for n in range(50)))["parkedServers"]
    assert (many["count"], many["sessions"], len(many["most"])) == (50, 50, 20)


def test_a_shared_pool_adds_up_the_expired_sessions_of_its_servers() -> None:
    assert "expiredSessions" not in shared(a_server("a"))
    early = {"lastDeletionTime": "2026-03-01T10:00:00Z", "lastDeleted": 5, "kept": 2}
    late = {"lastDeletionTime": "2026-03-01T11:00:00Z", "lastDeleted": 1}
    told = shared(a_server("a", expired=late), a_server("b", expired=early), a_server("c", expired={"kept": 3}))
    assert told["expiredSessions"] == late | {"kept": 5}
    assert shared(a_server("c", expired={"kept": 0}))["expiredSessions"] == {"kept": 0}


def test_what_was_decided_about_the_number_of_servers_is_told_and_kept() -> None:
    snapshot, spec = a_pool_snapshot(fields=AUTOSCALED), AutoscalingSpec(min_replicas=0, max_replicas=4)
    found = decide(spec, 10, Scale(0), Load(held=9), None, NOW)
    report = pool_report(snapshot, found)
    assert report.status
    assert report.status["autoscaling"] == {
        "replicas": 2,
        "lastScaleOutTime": NOW_TEXT,
        "direction": "Out",
        "message": "0 loaded sessions and 9 that wait for a server need 2 servers of 10 slots; freeSessions is 20%",
    }
    assert report.scaling
    assert (report.scaling.type, report.scaling.reason) == ("Normal", "ScaledOut")
    assert report.scaling.message.startswith("From 0 to 2 servers: 0 loaded sessions and 9 that wait")
    later = replace(snapshot, raw=snapshot.raw | {"status": report.status})
    again = decide(spec, 10, scale_of(report.status, 0, spec), Load(9), None, NOW)
    assert pool_report(later, again).scaling is None
    paused = pool_report(later).status or report.status
    assert paused["autoscaling"] == report.status["autoscaling"], "a pool that is paused keeps it"
    most = decide(spec, 10, Scale(4), Load(90), None, NOW)
    told = pool_report(later, most)
    assert told.scaling
    assert (told.scaling.type, told.scaling.reason) == ("Warning", "AtMaximum")


def test_a_pool_that_needs_no_server_is_ready() -> None:
    served = {"status": {"readyReplicas": 1}}
    snapshot = a_pool_snapshot(fields=AUTOSCALED, gateway=GatewayView(objects={DEPLOYMENT: served}))
    status = pool_report(snapshot).status
    assert status
    ready = next(each for each in status["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "PoolReady")


def test_a_pool_with_shared_storage_says_which_sessions_wait_for_whom() -> None:
    fields = SHARED | {"storage": {"mode": "Shared"}}
    waits = {"pod copilot-a-1 (Running) on node n1": 3, "pod copilot-b-1 whose server leaves": 1}
    for told, status, reason in ((waits, "False", "SessionsHeld"), ({}, "True", "NothingIsHeld")):
        report = pool_report(a_pool_snapshot(fields=fields, waits=told))
        assert report.status
        row = condition_of(report.status, "SessionsAvailable")
        assert (row["status"], row["reason"]) == (status, reason)
        assert all(f"{count} held by {why}" in row["message"] for why, count in told.items())
    report = pool_report(a_pool_snapshot(fields=SHARED, waits={}))
    assert report.status
    assert not condition_of(report.status, "SessionsAvailable")
