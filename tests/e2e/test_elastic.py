"""Servers that stop when nobody uses them: a schedule wakes them in turns, and what keeps one down is told."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from copilot_operator.domain.kinds import POOL, TENANT
from tests.e2e.test_gateway import READY_S, behind_a_gateway, failure
from tests.support.kube import conditions
from tests.support.operator import OperatorProcess
from tests.support.place import POOL_NAME, Place


@pytest.fixture
def one_at_a_time(operator: OperatorProcess) -> Iterator[None]:
    """An operator that wakes no second server while one starts."""
    operator.more = {"COPILOT_OPERATOR_MOST_STARTS": "1"}
    operator.restart()
    yield
    operator.more = {}
    operator.kill()  # the next test starts it


async def test_a_schedule_wakes_servers_in_turns_and_what_keeps_one_down_is_told(
    one_at_a_time: None, place: Place, provider: Any
) -> None:
    behind_a_gateway(place, suspend={"afterIdle": "1m"})
    for name in ("ida", "joe", "kai", "liv"):
        place.tenant(name)
    for name in ("ida", "joe", "kai", "liv"):
        await place.until_ready(name, within_s=READY_S)
    await place.say("ida", provider, "remember NOTE=fir")

    # While the others become idle: a quota that leaves no room for one that is to start.
    place.tenant("liv", suspended=True)
    await place.until_reason("liv", "Suspended", within_s=60)
    place.kube.kubectl("-n", place.namespace, "create", "quota", "full", "--hard=pods=0")
    await place.until(lambda: quota_holds(place), within_s=30, what="the quota holds")
    place.tenant("liv", suspended=False)
    await place.until_reason("liv", "PodRefused", within_s=60)
    said = await failure(place.say("liv", provider, "RECALL"))
    assert "could not be loaded within 50 s" in said
    assert "PodRefused" in said
    assert "exceeded quota: full" in said
    place.kube.delete(TENANT, place.namespace, "liv")
    place.kube.kubectl("-n", place.namespace, "delete", "quota", "full")

    for name in ("ida", "joe", "kai"):
        await place.until_reason(name, "SuspendedWhenIdle", within_s=180)
    now = datetime.now(UTC)
    start, end = now - timedelta(minutes=2), now + timedelta(hours=6)
    hours = [{key: f"{at.minute} {at.hour} * * *" for key, at in (("start", start), ("end", end))}]
    place.kube.merge(POOL, place.namespace, POOL_NAME, {"spec": {"suspend": {"runningHours": hours}}})
    place.kube.delete(TENANT, place.namespace, "kai")  # at the moment that wakes it
    for name in ("ida", "joe"):
        await place.until_ready(name, within_s=READY_S)
        assert conditions(place.get(name))["Needed"]["reason"] == "RunningHours"
    told = {event["reason"] for name in ("ida", "joe") for event in place.kube.events(place.namespace, name)}
    assert "WaitsToStart" in told, "one of them had to"
    assert await place.say("ida", provider, "RECALL", resume=True) == ["notes: fir"]
    await place.until(
        lambda: place.deployment("kai") is None and not place.pods("kai"), within_s=60, what="nothing is left of kai"
    )


def quota_holds(place: Place) -> bool:
    said = place.kube.kubectl("-n", place.namespace, "get", "quota", "full", "-o", "jsonpath={.status.hard.pods}")
    return str(said).strip() == "0"


async def test_a_volume_that_cannot_be_mounted_is_told_of(place: Place) -> None:
    broken = place.namespace  # a name of its own, for what has no namespace
    meta = {"metadata": {"name": broken}}
    storage_class = {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", **meta,
        "provisioner": "kubernetes.io/no-provisioner",
    }  # fmt: skip
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", **meta,
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": broken,
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": f"/no/such/{broken}", "type": "Directory"},
        },
    }  # fmt: skip
    try:
        for each in (storage_class, volume):
            place.kube.kubectl("apply", "-f", "-", stdin=json.dumps(each))
        behind_a_gateway(place, storage={"size": "1Gi", "storageClassName": broken})
        place.tenant("moe")
        await place.until_reason("moe", "PodNotPrepared", within_s=180)
        message = conditions(place.get("moe"))["Ready"]["message"]
        assert "a volume can't be attached or mounted" in message
        assert f"kubectl describe pod {place.pods('moe')[0]['metadata']['name']}" in message
        place.kube.delete(TENANT, place.namespace, "moe")
    finally:
        place.kube.kubectl("delete", "--wait=false", f"storageclass/{broken}", f"pv/{broken}")
