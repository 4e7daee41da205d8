"""What a tenant's cycle tells its pool of the server."""

from dataclasses import replace
from typing import Any

import pytest

from copilot_operator.domain.drain import Cause, Why
from copilot_operator.domain.lifecycle import Move, Stage
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.rollout import ABSENT, Standing, failure, standing_of
from copilot_operator.domain.snapshot import Children, Finding, Health, PoolView, Reading, ServerState, TenantSnapshot
from tests.support.snapshots import NO_BUNDLE, NO_SECRET, NOW, a_pod, a_snapshot, a_tenant, pool_spec

POOL = PoolView(pool_spec(), revision="new", rolling=True)
UPDATE = Cause(Why.UPDATE, "changed: image")
SERVES = Move(Stage.SERVING)
WAITS = Move(Stage.SERVING, waits_for_turn=True, cause=UPDATE)
CRASH = Finding("CrashLooping", "it ends")


def a_deployment(revision: str = "old", **status: Any) -> Manifest:
    metadata = {"generation": 2, "annotations": {"copilot-operator.io/pool-revision": revision}}
    return {"metadata": metadata, "spec": {"replicas": 1}, "status": {"observedGeneration": 2} | status}


def a_server(**more: Any) -> TenantSnapshot:
    """One that runs the old revision of a pool that wants the new one."""
    given: dict[str, Any] = {"pool": POOL, "children": Children(a_deployment()), "pods": (a_pod(),)} | more
    return a_snapshot(**given)


def busy(count: int | None) -> ServerState:
    return ServerState("uid", NOW, True, busy=count)


def test_a_server_that_serves_tells_whether_it_works_and_what_it_runs() -> None:
    assert standing_of(a_server(state=busy(0)), WAITS) == Standing(True, False, False, None, "old")
    assert standing_of(a_server(state=busy(2)), WAITS).busy is True
    assert standing_of(a_server(state=busy(None)), WAITS).busy is None
    assert standing_of(a_server(), WAITS).busy is None, "nobody has asked its agent yet"
    assert standing_of(a_server(), SERVES).revision == "new", "nothing that concerns it has changed"
    assert standing_of(a_server(children=Children(a_deployment(""))), WAITS).revision == "unnamed"
    assert standing_of(a_server(credential=NO_SECRET), SERVES).revision == "old", "it can't be changed now"
    assert standing_of(a_server(bundle=NO_BUNDLE), SERVES).revision == "old", "nor without its certificates"


@pytest.mark.parametrize("move", [Move(Stage.DRAINING, cause=Cause(Why.NODE_DRAIN, "")), Move(Stage.STOPPING), None])
def test_a_server_that_stops_for_another_reason_runs_what_its_deployment_says(move: Move | None) -> None:
    assert standing_of(a_server(), move).revision == "old"
    assert standing_of(a_server(children=Children(a_deployment(""))), move).revision == "new", "as far as is known"


@pytest.mark.parametrize("stage", [Stage.DRAINING, Stage.STOPPING, Stage.STARTING])
def test_a_server_that_does_not_serve_is_not_available(stage: Stage) -> None:
    assert standing_of(a_server(), Move(stage, cause=UPDATE)).unavailable
    assert standing_of(a_server(), Move(stage, cause=UPDATE)).revision == "old"


def test_a_silent_server_is_not_available() -> None:
    assert standing_of(a_server(reading=Reading(Health.UNHEALTHY)), SERVES).unavailable


@pytest.mark.parametrize(
    ("snapshot", "move"),
    [
        (a_server(tenant=a_tenant(fields={"suspended": True})), Move(Stage.DRAINING)),
        (a_server(tenant=a_tenant(deletionTimestamp="now")), SERVES),
        (a_server(), Move(Stage.STOPPED, "Secret github does not exist")),
        (a_server(children=Children()), None),
        (replace(a_server(), pool=None), None),
        (replace(a_server(), spec=None), None),
    ],
)
def test_a_server_that_shall_not_run_does_not_count(snapshot: TenantSnapshot, move: Move | None) -> None:
    assert standing_of(snapshot, move) == ABSENT


def test_without_a_decision_its_pod_says_whether_it_serves() -> None:
    assert not standing_of(a_server(), None).unavailable
    assert standing_of(a_server(pods=()), None).unavailable


def test_a_server_fails_only_with_the_revision_that_its_pool_changes_to() -> None:
    starts = Move(Stage.STARTING)
    updated = a_server(children=Children(a_deployment("new")), pods=(a_pod(ready=False, waiting=CRASH),))
    assert standing_of(updated, starts).failed == CRASH
    assert standing_of(replace(updated, pool=replace(POOL, rolling=False)), starts).failed is None
    assert standing_of(updated, Move(Stage.STARTING, waits_for_turn=True, cause=UPDATE)).failed is None
    assert standing_of(updated, SERVES).failed is None
    old = replace(updated, children=Children(a_deployment("old")))
    assert standing_of(old, Move(Stage.STOPPING, cause=UPDATE)).failed is None, "it is the old one that fails"


def test_a_server_that_the_api_server_does_not_let_start_fails() -> None:
    stopped = a_deployment("old") | {"spec": {"replicas": 0}}
    refused = a_server(children=Children(stopped), pods=(), refused=Finding("Refused", "by a policy"))
    found = standing_of(refused, None)
    assert (found.revision, found.failed, found.unavailable) == ("new", refused.refused, True)


def test_why_a_server_does_not_become_ready() -> None:
    late: dict[str, Any] = {
        "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    }
    starting = a_server(pods=(a_pod(ready=False),))
    assert failure(starting) is None
    assert failure(replace(starting, refused=Finding("Refused", "by a policy"))) == Finding("Refused", "by a policy")
    assert failure(replace(starting, pods=(a_pod(ready=False, waiting=CRASH),))) == CRASH
    assert failure(replace(starting, pods=(a_pod(ready=False, waiting=CRASH, terminating=True),))) is None
    overdue = replace(starting, children=Children(a_deployment(**late)))
    found = failure(overdue)
    assert found
    assert found.reason == "ProgressDeadlineExceeded"
    homeless = failure(replace(overdue, pods=(a_pod(ready=False, unschedulable="0/3 nodes are available"),)))
    assert homeless
    assert "0/3 nodes are available" in homeless.message
    before = Children(a_deployment(**late, observedGeneration=1))
    assert failure(replace(starting, children=before)) is None, "it speaks of another template"
