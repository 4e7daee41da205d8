"""How far an update is, what becomes of a failed one, and what people are told of it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from copilot_operator.domain.kinds import REVISION
from copilot_operator.domain.pool_plan import plan_pool
from copilot_operator.domain.pool_status import changes_course, pool_report
from copilot_operator.domain.progress import progress_of
from copilot_operator.domain.snapshot import Failing, Finding, PoolSnapshot, Server
from copilot_operator.domain.steps import Apply, Delete
from tests.support.snapshots import a_pool_object, a_pool_snapshot, a_revision

OLD_POOL, NEW_POOL = a_pool_object(), a_pool_object(fields={"server.image": "cli:2"})
OLD, NEW = a_revision(OLD_POOL), a_revision(NEW_POOL, number=2)
O, N = (each["metadata"]["name"] for each in (OLD, NEW))  # noqa: E741
PULL = Finding("ImagePullFailed", "Image cli:2 can't be had")


def server(name: str, revision: str, *, ready: bool = True, was: bool | None = None, **more: Any) -> Server:
    return Server(True, ready, "cli", name, revision, ready if was is None else was, **more)


def updating(*servers: Server, status: dict[str, Any] | None = None, **more: Any) -> PoolSnapshot:
    """A pool whose image has changed, with its old status."""
    raw = NEW_POOL | {"status": {"currentRevision": O, "updateRevision": N} | (status or {})}
    given = {"revisions": (OLD, NEW), "members": frozenset(each.name for each in servers)} | more
    return a_pool_snapshot(raw=raw, servers=servers, **given)


def told(snapshot: PoolSnapshot) -> tuple[dict[str, Any], Any, Any]:
    """Status, the condition Progressing and the Event."""
    report = pool_report(snapshot)
    assert report.status
    rows = {each["type"]: each for each in report.status["conditions"]}
    return report.status, rows["Progressing"], report.event


def written(snapshot: PoolSnapshot) -> list[tuple[str, str]]:
    steps = [step for step in plan_pool(snapshot) if isinstance(step, Apply | Delete) and step.kind == REVISION]
    return [
        ("apply", step.manifest["metadata"]["name"]) if isinstance(step, Apply) else ("delete", step.name)
        for step in steps
    ]


def test_an_update_on_its_way_is_counted() -> None:
    snapshot = updating(server("a", N), server("b", N, ready=False), server("c", O), server("d", O))
    status, row, event = told(snapshot)
    assert (status["currentRevision"], status["updateRevision"], status["updatedReplicas"]) == (O, N, 2)
    assert (row["status"], row["reason"]) == ("True", "RollingUpdate")
    assert row["message"].startswith(f"2 of 4 servers run revision {N}, 1 are not ready")
    assert event.reason == "RollingUpdate"


def test_a_new_revision_is_kept_before_anything_else_is_done_and_proven_once() -> None:
    first = updating(server("a", O), revisions=(OLD,))
    step = plan_pool(first)[0]
    assert isinstance(step, Apply)
    assert (step.kind, step.manifest["metadata"]["name"], step.manifest["revision"]) == (REVISION, N, 2)
    assert written(updating(server("a", N, ready=False), server("b", O))) == []
    ready = updating(server("a", N), server("b", O))
    assert written(ready) == [("apply", N)]
    proven = a_revision(NEW_POOL, number=2, proven=True)
    assert written(replace(ready, revisions=(OLD, proven))) == []
    assert written(replace(ready, revisions=(OLD, proven), servers=(server("b", O),))) == [], "and for ever"


def test_an_update_has_arrived_when_all_run_it_and_the_old_revision_goes() -> None:
    snapshot = updating(server("a", N), server("b", N))
    status, row, event = told(snapshot)
    assert (status["currentRevision"], status["updatedReplicas"]) == (N, 2)
    assert (row["status"], row["reason"], event) == ("False", "UpToDate", None), "nothing was said of its beginning"
    assert written(snapshot) == [("delete", O)]
    assert changes_course(snapshot.raw["status"], status)
    after = replace(snapshot, raw=NEW_POOL | {"status": status}, revisions=(NEW,))
    assert (pool_report(after).status, written(after)) == (None, [])


def test_it_has_not_arrived_while_one_is_on_its_way() -> None:
    for last in (server("b", N, ready=False), server("b", N, updating=True), server("b", O)):
        assert not progress_of(updating(server("a", N), last)).complete, last
    stopped = replace(server("b", "", ready=False, updating=True), running=False)
    assert not progress_of(updating(server("a", N), stopped)).complete


def test_one_that_is_broken_anyway_does_not_keep_it_from_arriving() -> None:
    snapshot = updating(server("a", N), server("b", N, ready=False), failing={"b": Failing(PULL, excused=True)})
    assert progress_of(snapshot).complete


def test_a_revision_that_never_worked_is_undone_and_remembered() -> None:
    snapshot = updating(server("a", N, ready=False), server("b", O), failing={"a": Failing(PULL)})
    status, row, event = told(snapshot)
    message = "Server a does not become Ready: Image cli:2 can't be had"
    assert status["failedRevision"] == {"revision": N, "reason": "ImagePullFailed", "message": message}
    assert (status["currentRevision"], status["updateRevision"]) == (O, N)
    assert (row["status"], row["reason"]) == ("False", "UpdateFailed")
    assert message in row["message"]
    assert (event.type, event.reason) == ("Warning", "UpdateFailed")
    assert changes_course(snapshot.raw["status"], status)

    later = replace(snapshot, raw=NEW_POOL | {"status": status}, now=snapshot.now + timedelta(minutes=1), failing={})
    later = replace(later, servers=(server("a", O), server("b", O)))
    again, row, event = told(later)
    assert (again["failedRevision"], again["updatedReplicas"], event) == (status["failedRevision"], 0, None)
    assert row["reason"] == "UpdateFailed"
    quiet = replace(later, raw=NEW_POOL | {"status": again})
    assert (pool_report(quiet).status, written(quiet)) == (None, [])

    newer = a_pool_object(fields={"server.image": "cli:3"}) | {"status": again}
    retried = replace(quiet, raw=newer, spec=a_pool_snapshot(raw=newer).spec)
    status, row, _ = told(retried)
    assert ("failedRevision" in status, row["reason"]) == (False, "RollingUpdate")
    assert [what for what, _ in written(retried)] == ["apply", "delete"], "of the failed one nobody needs the content"


def test_nothing_is_undone_while_another_may_still_become_ready() -> None:
    failing = {"a": Failing(PULL)}
    starting = updating(server("a", N, ready=False), server("b", N, ready=False), failing=failing)
    assert progress_of(starting).undone is None
    assert progress_of(replace(starting, failing={"a": Failing(PULL), "b": Failing(PULL)})).undone


def test_after_a_server_was_ready_with_it_only_people_undo() -> None:
    failing = {"a": Failing(PULL)}
    for other, revisions in (
        (server("b", N), (OLD, NEW)),
        (server("b", N, ready=False, was=True), (OLD, NEW)),
        (server("b", O), (OLD, a_revision(NEW_POOL, number=2, proven=True))),
    ):
        both = {"a": Failing(PULL), "b": Failing(PULL)} if not other.ready else failing
        snapshot = updating(server("a", N, ready=False), other, server("c", O), failing=both, revisions=revisions)
        status, row, event = told(snapshot)
        assert "failedRevision" not in status
        assert (row["status"], row["reason"], event.type) == ("False", "UpdateHalted", "Warning")
        assert "servers were Ready with it" in row["message"]


def test_without_the_former_revision_there_is_no_way_back() -> None:
    snapshot = updating(server("a", N, ready=False), failing={"a": Failing(PULL)}, revisions=(NEW,))
    assert "no revision is known to go back to" in told(snapshot)[1]["message"]


def test_a_server_that_was_broken_before_is_no_reason_to_undo() -> None:
    snapshot = updating(server("a", N, ready=False), server("b", O), failing={"a": Failing(PULL, excused=True)})
    progress = progress_of(snapshot)
    assert (progress.undone, progress.halted, progress.complete) == (None, None, False)


def test_without_servers_it_waits_for_the_first_and_without_tenants_for_nobody() -> None:
    status, row, _ = told(updating(members=frozenset({"a"})))
    assert (status["currentRevision"], row["reason"]) == (O, "WaitsForServers")
    assert told(updating())[0]["currentRevision"] == N


def test_servers_of_a_time_before_revisions_are_up_to_date() -> None:
    """The upgrade of the operator: no status, no notes on Deployments, and nobody restarts."""
    old = a_pool_snapshot(servers=(server("a", ""), server("b", "")), members=frozenset("ab"), revisions=())
    status, row, _ = told(old)
    assert (status["updatedReplicas"], row["reason"]) == (2, "UpToDate")
    assert written(old) == [("apply", O)]


def test_a_revision_of_somebody_else_that_cannot_be_read_goes_unless_it_is_current() -> None:
    strange = OLD | {"metadata": OLD["metadata"] | {"name": "strange", "uid": "x"}, "data": {}}
    assert written(updating(server("a", O), revisions=(OLD, NEW, strange))) == [("delete", "strange")]
    kept = updating(server("a", "strange"), revisions=(NEW, strange), status={"currentRevision": "strange"})
    assert written(kept) == []


def test_a_pool_that_cannot_be_read_keeps_what_is_known() -> None:
    snapshot = replace(updating(server("a", O)), spec=None, unusable=Finding("InvalidSpec", "x"))
    failed = {"failedRevision": {"revision": N, "reason": "x", "message": ""}, "updatedReplicas": 1}
    raw = snapshot.raw | {"status": snapshot.raw["status"] | failed}
    status, row, event = told(replace(snapshot, raw=raw))
    assert {key: status[key] for key in raw["status"]} == raw["status"]
    assert (row["status"], row["reason"], event.reason) == ("False", "NotKnown", "InvalidSpec")
