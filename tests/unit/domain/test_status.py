"""What a tenant's user is told: the cause before its effects, once, and only when it changed."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from copilot_operator.domain.desired.claim import claim
from copilot_operator.domain.desired.connection import connection
from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.desired.service import service
from copilot_operator.domain.drain import Intent, Why
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.plan import plan_tenant
from copilot_operator.domain.secrets import as_observed
from copilot_operator.domain.snapshot import (
    Children,
    Deletion,
    DrainPhase,
    DrainReading,
    Finding,
    Health,
    Reading,
    ServerState,
    Storage,
    TenantSnapshot,
)
from copilot_operator.domain.status import Event, Report, tenant_report
from tests.support.snapshots import CREDENTIAL, NO_SECRET, NOW, NOW_TEXT, a_pod, a_pool, a_snapshot, a_tenant

HEALTHY, SILENT = Reading(Health.HEALTHY), Reading(Health.UNHEALTHY, "2 pings in a row failed: no answer")
SUSPENDED = a_tenant(fields={"suspended": True})
NEW_IMAGE = a_pool({"server.image": "cli:2"})
WAITS = a_pool({"server.image": "cli:2", "drain.onTimeout": "Wait"})
STOPPED = {"replicas": 0, "observedGeneration": 9}


def running(snapshot: TenantSnapshot | None = None, **more: Any) -> TenantSnapshot:
    """A tenant whose server is up and answers."""
    found = snapshot or a_snapshot()
    live = deployment(found)
    live["metadata"] |= {"generation": 1, "uid": "uid-deployment"}
    live["status"] = {"replicas": 1, "readyReplicas": 1, "observedGeneration": 1}
    bound = claim(found) | {"status": {"phase": "Bound"}}
    children = Children(live, service(found), bound, as_observed(connection(found)))
    ordinary: dict[str, Any] = {"children": children, "pods": (a_pod(),), "reading": HEALTHY}
    return replace(found, **(ordinary | more))


def stopped(snapshot: TenantSnapshot) -> TenantSnapshot:
    found = running(snapshot, pods=(), reading=Reading())
    assert found.children.deployment
    found.children.deployment["spec"]["replicas"] = 0
    found.children.deployment["status"] = STOPPED
    return found


def report(snapshot: TenantSnapshot) -> Report:
    return tenant_report(snapshot, plan_tenant(snapshot))


def condition(status: Manifest | None, name: str = "Ready") -> tuple[str, str]:
    assert status
    found = next(each for each in status["conditions"] if each["type"] == name)
    return found["status"], found["reason"]


def later(snapshot: TenantSnapshot, status: Manifest | None, seconds: float = 60) -> TenantSnapshot:
    """The snapshot after ``status`` was written and time went by."""
    moment = snapshot.now + timedelta(seconds=seconds)
    return replace(snapshot, raw=snapshot.raw | {"status": status}, now=moment)


def row(name: str, status: str, reason: str, message: str) -> Manifest:
    return {
        "type": name,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": NOW_TEXT,
    }


def test_the_whole_status_of_a_tenant_whose_server_answers() -> None:
    assert report(running(a_snapshot(credential=CREDENTIAL))) == Report(
        status={
            "phase": "Ready",
            "observedGeneration": 1,
            "server": "copilot-alice",
            "endpoint": {"host": "copilot-alice.apps.svc", "port": 4321, "secretName": "copilot-alice"},
            "conditions": [
                row("Ready", "True", "ServerReady", "The server answers"),
                row("CredentialsReady", "True", "TokenFound", "The token or key was found"),
                row("ServerHealthy", "True", "Answers", "The server answers connect and ping"),
                row("StorageReady", "True", "Bound", "The volume is bound"),
                row("Progressing", "False", "Settled", "Nothing is under way"),
                row("Paused", "False", "NotPaused", "The operator acts on it"),
            ],
        },
        event=Event("Normal", "ServerReady", "The server answers"),
    )


def test_without_a_volume_storage_is_ready_and_said_to_be_forgotten() -> None:
    status = report(running(a_snapshot(pool=a_pool({"storage.mode": "Ephemeral"})))).status
    assert status
    told = next(each for each in status["conditions"] if each["type"] == "StorageReady")
    message = "There is no volume: the server forgets its sessions when its pod ends"
    assert told == row("StorageReady", "True", "Ephemeral", message)


def test_a_volume_that_is_none_cannot_be_retained() -> None:
    tenant = a_tenant(fields={"deletionPolicy": "Retain"})
    status = report(a_snapshot(tenant=tenant, pool=a_pool({"storage.mode": "Ephemeral"}))).status
    assert status
    ready = next(each for each in status["conditions"] if each["type"] == "Ready")
    assert (ready["reason"], ready["message"][:36]) == ("InvalidSpec", "spec.deletionPolicy: leave it out, s")


def stuck(reason: str, **more: Any) -> TenantSnapshot:
    return running(pods=(a_pod(ready=False, waiting=Finding(reason, "kubelet says so")),), reading=Reading(), **more)


def starting_for(seconds: float, **more: Any) -> TenantSnapshot:
    snapshot = running(pods=(a_pod(ready=False, **more),), reading=Reading())
    return replace(snapshot, now=NOW + timedelta(seconds=seconds - 1))  # created a second before NOW


def refusing_pods() -> TenantSnapshot:
    snapshot = running(pods=(), reading=Reading())
    assert snapshot.children.deployment
    snapshot.children.deployment["status"]["conditions"] = [
        {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    ]
    return snapshot


def volume_lost() -> TenantSnapshot:
    snapshot = running()
    assert snapshot.children.claim
    return replace(
        snapshot, children=replace(snapshot.children, claim=snapshot.children.claim | {"status": {"phase": "Lost"}})
    )


def draining(phase: DrainPhase = DrainPhase.QUIESCING, **more: Any) -> TenantSnapshot:
    """A server on its way to a new image, as its agent tells; the intent is noted."""
    snapshot = running(pool=NEW_IMAGE, drain=DrainReading(a_pod().uid, phase, **more))
    assert snapshot.children.deployment
    noted = Intent(Why.UPDATE, NOW, NOW + timedelta(minutes=9)).annotations()
    snapshot.children.deployment["metadata"]["annotations"] |= noted
    return snapshot


def says(**more: Any) -> ServerState:
    return ServerState(a_pod().uid, NOW, more.pop("answering", True), busy=1, **more)


def hung() -> TenantSnapshot:
    """Neither we nor its agent get an answer."""
    return running(reading=SILENT, state=ServerState(a_pod().uid, NOW, answering=False, failure="Silent"))


ALL_AT_ONCE: dict[str, Any] = {  # what is wrong further down the chain must not be told first
    "credential": NO_SECRET,
    "reading": SILENT,
    "pods": (a_pod(ready=False, waiting=Finding("CrashLooping", "x"), unschedulable="no room"),),
}
CHAIN: dict[str, tuple[TenantSnapshot, str, str]] = {
    "a spec that can't be read, before all else": (
        running(unusable=Finding("InvalidSpec", "x"), refused=Finding("Refused", "x"), **ALL_AT_ONCE),
        "InvalidSpec",
        "Failed",
    ),
    "a pool that is missing is waited for": (
        running(unusable=Finding("PoolNotFound", "x"), pool=None),
        "PoolNotFound",
        "Pending",
    ),
    "resources that do not go with the pool's": (
        replace(
            running(**ALL_AT_ONCE),
            spec=a_snapshot(tenant=a_tenant(fields={"server.resources.requests": {"memory": "3Gi"}})).spec,
        ),
        "InvalidSpec",
        "Failed",
    ),
    "a child's name that is taken": (
        running(children=Children(obstacle=Finding("NameTaken", "x")), refused=Finding("Refused", "x"), **ALL_AT_ONCE),
        "NameTaken",
        "Failed",
    ),
    "leftovers of a former tenant are waited for": (
        running(children=Children(obstacle=Finding("PreviousRemains", "x"))),
        "PreviousRemains",
        "Pending",
    ),
    "a step that was refused": (running(refused=Finding("Refused", "x"), **ALL_AT_ONCE), "Refused", "Failed"),
    "a storage class that is missing": (
        running(storage=Storage(finding=Finding("StorageClassNotFound", "x")), **ALL_AT_ONCE),
        "StorageClassNotFound",
        "Failed",
    ),
    "a volume that is lost": (volume_lost(), "VolumeLost", "Failed"),
    "suspended, whatever else is wrong": (
        replace(stopped(a_snapshot(tenant=SUSPENDED)), credential=NO_SECRET, reading=SILENT),
        "Suspended",
        "Suspended",
    ),
    "draining": (draining(), "Draining", "Draining"),
    "turns that go on after the deadline": (
        replace(later(draining(busy=1), None, seconds=541), pool=WAITS),
        "DrainOverdue",
        "Draining",
    ),
    "drained, so it stops": (draining(DrainPhase.DONE), "Stopping", "Draining"),
    "restarts that did not help": (
        replace(hung(), pool=a_pool({"health.maxRestartsPerHour": 0})),
        "RestartBudgetSpent",
        "Failed",
    ),
    "a silent server is being replaced": (hung(), "Stopping", "Draining"),
    "a credential that is missing": (running(**ALL_AT_ONCE), "SecretNotFound", "Failed"),
    "an image that can't be pulled": (stuck("ImagePullFailed"), "ImagePullFailed", "Failed"),
    "a pod that nobody may make": (refusing_pods(), "PodRefused", "Failed"),
    "a pod that no node takes": (starting_for(15, unschedulable="no room"), "Unschedulable", "Failed"),
    "a pod whose volume can't be attached": (
        starting_for(31, unprepared_since=NOW),
        "PodNotPrepared",
        "Starting",
    ),
    "a server that is silent": (running(reading=SILENT), "ServerSilent", "Failed"),
}


@pytest.mark.parametrize(("snapshot", "reason", "phase"), CHAIN.values(), ids=CHAIN)
def test_the_first_cause_is_told(snapshot: TenantSnapshot, reason: str, phase: str) -> None:
    status = report(snapshot).status
    assert status
    assert (condition(status), status["phase"]) == (("False", reason), phase)


def test_a_pod_that_waits_for_its_volume_is_not_in_trouble_yet() -> None:
    assert report(starting_for(14, unschedulable="no room")).status is None


def test_a_volume_has_half_a_minute_to_be_attached() -> None:
    assert report(starting_for(30, unprepared_since=NOW)).status is None


# ---- misfortunes


def test_a_pod_that_is_gone_one_that_ran_out_of_memory_and_one_that_ends_are_told_apart() -> None:
    well = later(running(), report(running()).status)
    oom = Finding("OutOfMemory", "x")
    for pods, reason in (
        ((), "PodGone"),
        ((a_pod(ready=False, misfortune=oom),), "OutOfMemory"),
        ((a_pod(ready=False, terminating=True),), "Starting"),
        ((a_pod(ready=False),), "Starting"),
    ):
        found = report(replace(well, pods=pods, reading=Reading()))
        assert condition(found.status) == ("False", reason)
        assert found.status
        assert found.status["phase"] == "Starting"
        assert found.event
        assert found.event.type == ("Normal" if reason == "Starting" else "Warning")


def test_a_misfortune_is_over_when_the_server_answers_again() -> None:
    snapshot = running(pods=(a_pod(misfortune=Finding("OutOfMemory", "x")),))
    assert condition(report(snapshot).status) == ("True", "ServerReady")


# ---- drains

TOLD: dict[str, tuple[TenantSnapshot, str]] = {
    "at first": (
        running(pool=NEW_IMAGE),
        "The server stops once its turns are done, until 2026-03-01T12:09:00Z at most (changed: image): "
        "its agent is being asked",
    ),
    "not counted": (draining(), "sessions are being counted"),
    "at work": (draining(busy=2), "2 sessions left"),
    "by kind": (
        draining(busy=3, work=(("turn", 2), ("waiting", 1))),
        "3 sessions left: 2 in a turn, 1 waiting for a person or a client's tool",
    ),
    "without its agent": (draining(unanswered="refused"), "its agent does not answer: refused"),
    "cut": (draining(DrainPhase.DONE, cut=3), "The server stops: changed: image; 3 turns were cut at the deadline"),
}


@pytest.mark.parametrize(("snapshot", "message"), TOLD.values(), ids=TOLD)
def test_a_drain_is_explained(snapshot: TenantSnapshot, message: str) -> None:
    status = report(snapshot).status
    assert status
    assert message in status["conditions"][0]["message"]


@pytest.mark.parametrize(
    ("on_timeout", "way_out"), [("Wait", "set drain.onTimeout: Abort"), ("Abort", "being aborted")]
)
def test_turns_that_outlast_the_deadline_are_told_with_the_way_out(on_timeout: str, way_out: str) -> None:
    pool = a_pool({"server.image": "cli:2", "drain.onTimeout": on_timeout})
    status = report(later(replace(draining(busy=1, waiting=1), pool=pool), None, seconds=541)).status
    assert status
    assert way_out in status["conditions"][0]["message"]


def test_a_drain_has_a_place_of_its_own_in_status() -> None:
    status = report(draining(busy=2, work=(("turn", 1), ("waiting", 1)))).status
    assert status
    times = {"startTime": "2026-03-01T12:00:00Z", "deadline": "2026-03-01T12:09:00Z"}
    assert status["drain"] == {"cause": "Update", "busy": 2, "work": {"turn": 1, "waiting": 1}, **times}
    assert (report(running()).status or {}).get("drain") is None


def test_time_alone_is_looked_at_again_at_the_deadline_and_when_the_agent_is_overdue() -> None:
    assert report(draining(busy=1)).look_again_s == 541
    assert report(later(draining(busy=1), None, seconds=541)).look_again_s == 60


WRONG: dict[str, tuple[TenantSnapshot, str]] = {
    "a token that is rejected": (running(state=says(failure="AuthenticationFailed")), "TokenRejected"),
    "a turn that stalls": (running(state=says(stalled_s=901.0)), "TurnStalled"),
    "a slow server": (running(state=says(latency_factor=11.0)), "AnswersSlowly"),
}


@pytest.mark.parametrize(("snapshot", "reason"), WRONG.values(), ids=WRONG)
def test_what_nothing_is_stopped_for_is_told_once_and_the_server_stays_ready(
    snapshot: TenantSnapshot, reason: str
) -> None:
    well = later(running(), report(running()).status)
    found = report(replace(snapshot, raw=well.raw))
    assert found.status
    assert (condition(found.status), condition(found.status, "ServerHealthy")) == (
        ("True", "ServerReady"),
        ("False", reason),
    )
    assert found.event
    assert (found.event.type, found.event.reason) == ("Warning", reason)
    assert report(replace(snapshot, raw=well.raw | {"status": found.status})).status is None


def test_a_claim_that_was_deleted_under_a_running_server_is_a_warning() -> None:
    snapshot = later(running(), report(running()).status)
    assert snapshot.children.claim
    ending = snapshot.children.claim | {"metadata": snapshot.children.claim["metadata"] | {"deletionTimestamp": "x"}}
    found = report(replace(snapshot, children=replace(snapshot.children, claim=ending)))
    assert condition(found.status, "StorageReady") == ("False", "VolumeBeingDeleted")
    assert condition(found.status) == ("True", "ServerReady")


# ---- volumes, and sessions that expire

SIZES = (("a-1", 3 << 30), ("b-2", 1 << 20), ("c-3", 27_000))


def with_state(snapshot: TenantSnapshot, **more: Any) -> TenantSnapshot:
    return replace(snapshot, state=ServerState("uid-pod", NOW, True, **more))


def storage_message(status: Manifest | None) -> str:
    assert status
    return str(next(each["message"] for each in status["conditions"] if each["type"] == "StorageReady"))


def test_a_volume_that_gets_full_is_told_with_its_largest_sessions_and_is_still_ready() -> None:
    well = later(running(), report(running()).status)
    assert report(with_state(well, disk_percent=84.9)).status is None
    found = report(with_state(well, disk_percent=85.0, largest=SIZES))
    assert (condition(found.status, "StorageReady"), condition(found.status)) == (
        ("True", "VolumeAlmostFull"),
        ("True", "ServerReady"),
    )
    assert storage_message(found.status) == (
        "The volume is 85 % full or more (storage.highWaterMarkPercent is 85): let it grow (storage.size), have old "
        "sessions deleted (sessions.ttl), or delete some. "
        "The largest sessions: a-1 (3 GiB), b-2 (1 MiB), c-3 (26.4 KiB)"
    )
    assert found.event == Event("Warning", "VolumeAlmostFull", storage_message(found.status))


def test_a_full_volume_is_told_once_for_each_step_and_is_well_again_only_well_below_the_mark() -> None:
    well = later(running(), report(running()).status)
    full = later(well, report(with_state(well, disk_percent=86.0, largest=SIZES)).status)
    for percent in (85.0, 89.9):
        assert report(with_state(full, disk_percent=percent, largest=SIZES)).status is None
    higher = report(with_state(full, disk_percent=95.0, largest=SIZES))
    assert storage_message(higher.status).startswith("The volume is 95 % full or more")
    assert higher.event is None
    lower = report(with_state(full, disk_percent=80.0, largest=SIZES))
    assert storage_message(lower.status).startswith("The volume is 80 % full or more")
    for unknown in (replace(full, state=None), with_state(full)):
        assert report(unknown).status is None
    gone = report(with_state(full, disk_percent=79.9))
    assert condition(gone.status, "StorageReady") == ("True", "Bound")
    assert gone.event == Event("Normal", "Bound", "The volume is bound")


def test_a_full_volume_is_told_to_be_and_what_still_works() -> None:
    found = report(with_state(running(), disk_percent=99.2))
    assert storage_message(found.status).startswith(
        "The volume is full: messages and new sessions fail until there is room; deleting sessions works."
    )


def test_a_read_only_volume_is_told_with_the_way_out_and_stays_told_while_nobody_can_be_asked() -> None:
    well = later(running(), report(running()).status)
    broken = with_state(well, read_only=True, disk_percent=90.0)
    found = report(broken)
    assert (condition(found.status, "StorageReady"), condition(found.status)) == (
        ("False", "VolumeReadOnly"),
        ("True", "ServerReady"),
    )
    assert storage_message(found.status) == (
        "The volume is read-only: messages and new sessions fail, what is stored can be read, and nothing is deleted. "
        "A file system turns so after an error of its disk: see the node's kernel log, mend the storage, and have it "
        "mounted anew: stop the server (suspended: true, or scale in), and start it when the node has let go of the "
        "volume"
    )
    assert found.event == Event("Warning", "VolumeReadOnly", storage_message(found.status))
    assert report(later(broken, found.status)).status is None
    assert report(later(replace(broken, state=None), found.status)).status is None
    assert condition(report(later(with_state(well), found.status)).status, "StorageReady") == ("True", "Bound")


def test_broken_sessions_are_told_of_and_stay_told_while_nobody_can_be_asked() -> None:
    well = later(running(), report(running()).status)
    broken = with_state(well, quarantined=7, quarantined_names=("a.20260301T110000Z", "b.20260301T100000Z"))
    found = report(broken)
    assert condition(found.status, "StorageReady") == ("True", "SessionsQuarantined")
    assert storage_message(found.status) == (
        "7 broken sessions, or parts of them, are in quarantine (/data/copilot/quarantine of the server), and stay "
        "there until somebody deletes them, or mends them and puts them back: a.20260301T110000Z, b.20260301T100000Z"
    )
    assert found.event == Event("Warning", "SessionsQuarantined", storage_message(found.status))
    assert report(later(replace(broken, state=None), found.status)).status is None
    assert condition(report(later(with_state(well), found.status)).status, "StorageReady") == ("True", "Bound")
    full = with_state(well, quarantined=7, disk_percent=90.0)
    assert condition(report(full).status, "StorageReady") == ("True", "VolumeAlmostFull")


def test_a_volume_that_does_not_grow_is_told_of_and_its_server_runs_on() -> None:
    pool = a_pool({"storage.size": "20Gi"})
    before = running()
    smaller = replace(before, pool=pool, storage=Storage(grows=False))
    found = report(smaller)
    assert (condition(found.status, "StorageReady"), condition(found.status)) == (
        ("True", "VolumeDoesNotGrow"),
        ("True", "ServerReady"),
    )
    assert storage_message(found.status) == (
        "storage.size is 20Gi, and the volume stays at 10Gi: StorageClass '' has no allowVolumeExpansion: true. Set "
        "that, if its provisioner can, or go back to the former size"
    )
    unknown = report(replace(smaller, storage=Storage(grows=False, known=False)))
    assert condition(unknown.status, "StorageReady") == ("True", "VolumeDoesNotGrow")
    assert storage_message(unknown.status) == (
        "storage.size is 20Gi, and the volume stays at 10Gi: the operator may not read whether StorageClass '' lets it "
        "grow. If it does, set spec.resources.requests.storage of claim copilot-alice yourself"
    )
    assert claim(smaller)["spec"]["resources"]["requests"]["storage"] == "10Gi"
    assert claim(replace(smaller, storage=Storage()))["spec"]["resources"]["requests"]["storage"] == "20Gi"


def test_the_mark_is_the_pools_own() -> None:
    found = running(a_snapshot(pool=a_pool({"storage.highWaterMarkPercent": 50})))
    assert condition(report(with_state(found, disk_percent=51.0)).status, "StorageReady")[1] == "VolumeAlmostFull"


def test_a_deletion_is_told_once_by_an_event_of_its_own_beside_another_transition() -> None:
    first = with_state(running(), deletion=Deletion("2026-03-01T11:00:00Z", 12, 5 << 20))
    found = report(first)
    assert found.status
    assert found.status["expiredSessions"] == {"lastDeletionTime": "2026-03-01T11:00:00Z", "lastDeleted": 12}
    assert found.event
    assert found.event.reason == "ServerReady"
    message = "12 sessions deleted that nobody had used for the pool's sessions.ttl; 5 MiB freed"
    assert found.deletion == Event("Normal", "ExpiredSessionsDeleted", message)
    again = report(later(first, found.status))
    assert (again.status, again.deletion) == (None, None)
    for quiet in (replace(first, state=None), with_state(first)):  # another agent, or none
        again = report(later(quiet, found.status))
        assert (again.status, again.deletion) == (None, None)
    more = report(later(with_state(first, deletion=Deletion("2026-03-01T12:00:00Z", 1, 9)), found.status))
    assert more.deletion
    assert more.status
    assert more.status["expiredSessions"]["lastDeleted"] == 1


def test_what_a_seat_has_deleted_before_the_operator_started_is_not_told_again() -> None:
    seat = with_state(replace(running(), owner={}), deletion=Deletion("2026-03-01T11:00:00Z", 12, 5 << 20))
    first = report(seat)
    assert (first.status is not None, first.deletion) == (True, None)
    next_one = report(later(with_state(seat, deletion=Deletion("2026-03-01T12:00:00Z", 1, 9)), first.status))
    assert next_one.deletion


def test_what_a_dry_run_keeps_is_counted_until_it_is_none() -> None:
    dry = running(a_snapshot(pool=a_pool({"sessions.ttl": "168h", "sessions.ttlAction": "DryRun"})))
    found = report(with_state(dry, expired_kept=7))
    assert found.status
    assert (found.status["expiredSessions"], found.deletion) == ({"kept": 7}, None)
    assert report(later(with_state(dry), found.status)).status is None, "its agent has just started"
    ended = report(later(with_state(running()), found.status))
    assert ended.status
    assert "expiredSessions" not in ended.status


# ---- quiet


def test_a_first_start_is_told_once_it_has_arrived() -> None:
    assert report(a_snapshot()) == Report(look_again_s=15.0)
    assert report(starting_for(5)) == Report(look_again_s=15.0)
    arrived = report(running())
    assert condition(arrived.status) == ("True", "ServerReady")
    assert arrived.event == Event("Normal", "ServerReady", "The server answers")


def test_a_first_start_that_takes_too_long_is_told_as_such() -> None:
    assert report(starting_for(299)) == Report(look_again_s=1.0)
    found = report(starting_for(300))
    assert found.status
    assert (condition(found.status), found.status["phase"]) == (("False", "Starting"), "Starting")


def test_ready_waits_for_our_own_first_ping() -> None:
    assert report(running(reading=Reading())).status is None


@pytest.mark.parametrize("snapshot", [snapshot for snapshot, _, _ in CHAIN.values()] + [running()], ids=[*CHAIN, "ok"])
def test_what_was_told_is_not_told_again(snapshot: TenantSnapshot) -> None:
    first = report(snapshot)
    again = report(later(snapshot, first.status))
    assert (again.status, again.event) == (None, None)


def test_a_tenant_that_waits_for_its_token_is_not_spoken_of() -> None:
    assert report(a_snapshot(token=None)) == Report()


def test_nothing_is_written_to_a_tenant_that_is_being_deleted() -> None:
    assert report(running(a_snapshot(tenant=a_tenant(deletionTimestamp=NOW_TEXT)))) == Report()


# ---- transitions


def test_an_event_tells_a_transition_of_ready_and_no_other_change() -> None:
    snapshot = running()
    healthy = later(snapshot, report(snapshot).status)
    silent = report(replace(healthy, reading=SILENT))
    assert silent.event == Event("Warning", "ServerSilent", SILENT.message)
    quiet = replace(later(healthy, silent.status), reading=Reading(Health.UNHEALTHY, "another message"))
    assert (report(quiet).status is not None, report(quiet).event) == (True, None)
    back = report(replace(quiet, reading=HEALTHY))
    assert back.event == Event("Normal", "ServerReady", "The server answers")


def test_times_of_conditions_that_did_not_change_are_kept() -> None:
    snapshot = running()
    silent = report(replace(later(snapshot, report(snapshot).status, 60), reading=SILENT)).status
    assert silent
    times = {each["type"]: each["lastTransitionTime"] for each in silent["conditions"]}
    changed = {name for name, time in times.items() if time != NOW_TEXT}
    assert changed == {"Ready", "ServerHealthy"}
    assert times["Ready"] == "2026-03-01T12:01:00Z"


def test_suspending_and_waking_tell_each_stage_once() -> None:
    told = []
    snapshot = running()
    for stage in (
        snapshot,
        replace(snapshot, spec=a_snapshot(tenant=SUSPENDED).spec),
        replace(draining(DrainPhase.DONE), spec=a_snapshot(tenant=SUSPENDED).spec),
        stopped(a_snapshot(tenant=SUSPENDED)),
        stopped(a_snapshot()),
        starting_for(5),
        running(),
    ):
        found = report(later(stage, snapshot.raw.get("status")))
        if found.status:
            snapshot = later(snapshot, found.status)
            told.append((found.status["phase"], found.event and found.event.type))
    assert told == [
        ("Ready", "Normal"),
        ("Draining", "Normal"),
        ("Draining", "Normal"),
        ("Suspended", "Normal"),
        ("Starting", "Normal"),
        ("Ready", "Normal"),
    ]


def test_the_endpoint_stays_when_the_tenant_can_not_be_served_for_the_moment() -> None:
    snapshot = running()
    first = report(snapshot).status
    assert first
    lost = report(replace(later(snapshot, first), unusable=Finding("PoolNotFound", "x"), children=Children())).status
    assert lost
    assert (lost["endpoint"], lost["server"]) == (first["endpoint"], first["server"])


def test_a_paused_tenant_says_by_whom() -> None:
    own = report(running(a_snapshot(tenant=a_tenant(annotations={"copilot-operator.io/paused": "true"})))).status
    pools = report(running(a_snapshot(pool=a_pool(paused=True)))).status
    assert condition(own, "Paused") == ("True", "PausedByAnnotation")
    assert condition(pools, "Paused") == ("True", "PoolPaused")
    assert condition(own) == ("True", "ServerReady"), "it runs on"


def test_a_missing_credential_shows_in_a_condition_of_its_own() -> None:
    status = report(a_snapshot(credential=NO_SECRET)).status
    assert condition(status, "CredentialsReady") == ("False", "SecretNotFound")
    assert condition(report(running()).status, "CredentialsReady") == ("True", "NotConfigured")


def test_a_long_message_is_cut_at_what_the_crd_takes() -> None:
    status = report(running(refused=Finding("Refused", "x" * 5000))).status
    assert status
    assert len(status["conditions"][0]["message"]) == 4096


def test_a_server_that_serves_is_ready_whatever_a_second_pod_waits_for() -> None:
    """Somebody edited the image of the template; the running pod goes on until the edit is undone."""
    waiting = a_pod("copilot-alice-2", ready=False, waiting=Finding("ImagePullFailed", "x"))
    assert condition(report(running(pods=(a_pod(), waiting))).status) == ("True", "ServerReady")


@pytest.mark.parametrize("stage", ["no pod", "young pod", "ending pod"])
def test_ready_is_never_true_without_a_ready_pod(stage: str) -> None:
    pods = {"no pod": (), "young pod": (a_pod(ready=False),), "ending pod": (a_pod(terminating=True),)}[stage]
    snapshot = running(pods=pods)  # the reading is that of a former pod
    found = report(later(snapshot, report(running()).status))
    assert condition(found.status) == ("False", "PodGone" if stage == "no pod" else "Starting")


@pytest.mark.parametrize("reading", [HEALTHY, SILENT], ids=str)
def test_after_a_restart_of_the_operator_a_serving_server_is_what_was_said_of_it(reading: Reading) -> None:
    snapshot = running(reading=reading)
    restarted = replace(later(snapshot, report(snapshot).status), reading=Reading())
    assert report(restarted) == Report()


def test_a_lost_credential_of_a_running_server_is_told_beside_ready_with_an_event() -> None:
    snapshot = running(a_snapshot(credential=CREDENTIAL))
    lost = report(replace(later(snapshot, report(snapshot).status), credential=NO_SECRET))
    assert condition(lost.status) == ("True", "ServerReady")
    assert condition(lost.status, "CredentialsReady") == ("False", "SecretNotFound")
    assert lost.event == Event("Warning", "SecretNotFound", "Secret github does not exist")


def test_one_that_waits_to_be_woken_says_so_once_and_not_at_each_step_of_the_queue() -> None:
    live = deployment(a_snapshot()) | {"status": {"observedGeneration": 1}}
    live["spec"]["replicas"] = 0
    live["metadata"] |= {
        "generation": 1,
        "annotations": live["metadata"]["annotations"] | Intent(Why.IDLE, NOW, NOW).annotations(),
    }
    idles = a_pool({"gateway.enabled": True, "suspend.afterIdle": "30m"})
    snapshot = a_snapshot(
        pool=idles, children=Children(deployment=live), demanded=True, waits_behind=12, tenant_token="t"
    )
    told = tenant_report(snapshot, plan_tenant(snapshot))
    assert told.status
    assert told.status["phase"] == "Starting"
    assert condition(told.status) == ("False", "WaitsToStart")
    assert condition(told.status, "Needed") == ("True", "Wanted")
    ready = next(each for each in told.status["conditions"] if each["type"] == "Ready")
    assert "12 waited before it when it came" in ready["message"]
    assert told.event
    assert told.event.type == "Normal"


def test_why_a_server_runs_is_told_only_where_it_would_stop_when_idle() -> None:
    idles = a_pool({"gateway.enabled": True, "suspend.afterIdle": "30m"})
    told = report(running(a_snapshot(pool=idles, tenant_token="t"))).status
    assert condition(told, "Needed") == ("True", "InUse")
    plain = report(running()).status
    assert plain
    assert all(each["type"] != "Needed" for each in plain["conditions"])
    down = report(running(a_snapshot(pool=idles, tenant=SUSPENDED, tenant_token="t"))).status
    assert condition(down, "Needed") == ("False", "Suspended")
