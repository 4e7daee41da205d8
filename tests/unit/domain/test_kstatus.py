"""What Flux, kpt and others conclude of our statuses: they follow the rules of kstatus, and know nothing of ours."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.plan import plan_tenant
from copilot_operator.domain.pool_status import pool_report
from copilot_operator.domain.snapshot import Finding, PoolSnapshot, TenantSnapshot
from copilot_operator.domain.status import AS_ASKED_FOR, MAY_PASS, tenant_report
from tests.chart.generate import CRDS
from tests.support.snapshots import a_pool_object, a_pool_snapshot, a_tenant
from tests.unit.domain.test_status import CHAIN, running


def kstatus(obj: Manifest) -> str:
    """Terminating, InProgress, Failed or Current: the rules for kinds that kstatus does not know by name."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return "InProgress"
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    for name, verdict in (("Reconciling", "InProgress"), ("Stalled", "Failed")):
        if conditions.get(name) == "True":
            return verdict
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"


def reported(snapshot: TenantSnapshot) -> Manifest:
    """The tenant with the status that is written for it."""
    status = tenant_report(snapshot, plan_tenant(snapshot)).status
    assert status
    return snapshot.raw | {"status": status}


def as_read(kind: str, obj: Manifest) -> Manifest:
    """With the defaults that the API server puts in."""
    version = yaml.safe_load(CRDS[kind].read_text())["spec"]["versions"][0]
    return obj | {"status": version["schema"]["openAPIV3Schema"]["properties"]["status"]["default"]}


@pytest.mark.parametrize(("kind", "obj"), [("tenant", a_tenant()), ("pool", a_pool_object())])
def test_what_no_operator_has_seen_is_not_done(kind: str, obj: Manifest) -> None:
    assert kstatus(obj) == "Current", "without the default it would be taken for done"
    assert kstatus(as_read(kind, obj)) == "InProgress"


def test_a_default_status_is_no_news() -> None:
    """It must not look as if a tenant had been told of before."""
    bare, read = running(), running()
    read = replace(read, raw=as_read("tenant", read.raw))
    assert tenant_report(read, plan_tenant(read)) == tenant_report(bare, plan_tenant(bare))


def test_a_server_that_answers_is_current_until_somebody_changes_it() -> None:
    obj = reported(running())
    assert kstatus(obj) == "Current"
    assert kstatus(obj | {"metadata": obj["metadata"] | {"generation": 2}}) == "InProgress"
    assert kstatus(obj | {"metadata": obj["metadata"] | {"deletionTimestamp": "2026-03-01T12:00:00Z"}}) == "Terminating"


@pytest.mark.parametrize(("snapshot", "reason", "phase"), CHAIN.values(), ids=CHAIN)
def test_only_what_waiting_does_not_help_is_failed(snapshot: TenantSnapshot, reason: str, phase: str) -> None:
    obj = reported(snapshot)
    assert kstatus(obj) == ("Failed" if phase == "Failed" and reason not in MAY_PASS else "InProgress")
    for condition in obj["status"]["conditions"]:
        assert condition["observedGeneration"] == obj["metadata"]["generation"]
        assert (condition["type"], condition["status"]) != ("Stalled", "False"), "it is there while it is True"
    ready, *others = obj["status"]["conditions"]
    stalled = [each for each in others if each["type"] == "Stalled"]
    assert all((each["reason"], each["message"]) == (ready["reason"], ready["message"]) for each in stalled)


SHARED: dict[str, Any] = {"isolation": "Shared", "shared": {"replicas": 0}, "gateway.enabled": True}


@pytest.mark.parametrize(
    ("snapshot", "verdict"),
    [
        (a_pool_snapshot(), "Current"),
        (a_pool_snapshot(unusable=Finding("InvalidSpec", "x")), "Failed"),
        (a_pool_snapshot(obstacle=Finding("NameTaken", "x")), "Failed"),
        (a_pool_snapshot(fields={"gateway.enabled": True}), "InProgress"),
        (a_pool_snapshot(fields=SHARED), "InProgress"),
    ],
    ids=["ready", "invalid", "name taken", "no gateway yet", "no servers wanted"],
)
def test_pools(snapshot: PoolSnapshot, verdict: str) -> None:
    status = pool_report(snapshot).status
    assert status
    assert kstatus(snapshot.raw | {"status": status}) == verdict


def test_what_people_asked_for_is_not_stalled() -> None:
    assert not AS_ASKED_FOR & MAY_PASS
