"""A node is emptied as administrators do it, with ``kubectl drain``: no turn is lost, and nobody waits for long."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import yaml

from copilot_operator.domain.kinds import DISRUPTION_BUDGET, NODE, Kind
from copilot_operator.domain.naming import PROTECTED_LABEL
from tests.support.installation import BASE, install_rights
from tests.support.kube import Kube, KubeError, Object, conditions
from tests.support.operator import ACCOUNT
from tests.support.place import POOL_NAME, Place

CLUSTER_ROLE: Final = Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
IDLE: Final = [f"idle-{number}" for number in range(8)]
ASKED_S: Final = 40.0  # agents are asked every 20 s; on a loaded machine a cycle takes its time too
DRAINED_S: Final = 15.0  # kubectl asks again every 5 s


def protected(place: Place, tenant: str) -> bool:
    return any(pod["metadata"]["labels"].get(PROTECTED_LABEL) == "true" for pod in place.pods(tenant))


def node_of(place: Place, tenant: str) -> str:
    (pod,) = place.pods(tenant)
    return str(pod["spec"]["nodeName"])


@contextmanager
def uncordoned_after(kube: Kube, node: str) -> Iterator[None]:
    """The cluster has one node, and other tests need it."""
    try:
        yield
    finally:
        kube.merge(NODE, "", node, {"spec": {"unschedulable": None}})


async def drain(place: Place, node: str, *, timeout_s: float) -> float:
    """``kubectl drain`` of the node's servers; returns when, in monotonic seconds, it was done. Raises KubeError."""
    words = ["drain", node, "--pod-selector=app.kubernetes.io/name=copilot", "--delete-emptydir-data",
             "--ignore-daemonsets", f"--timeout={timeout_s:g}s"]  # fmt: skip
    await asyncio.to_thread(place.kube.kubectl, *words, timeout_s=timeout_s + 30)
    return time.monotonic()


async def work(place: Place, tenant: str, provider: Any, word: str, seconds: int) -> float:
    """A turn of so many seconds in the session that is there; returns when it was answered. Raises if it was cut."""
    (answer,) = await place.say(tenant, provider, f"remember NOTE={word} SLEEP={seconds}", resume=True)
    assert answer
    return time.monotonic()


async def begun(place: Place, tenant: str, provider: Any, word: str, seconds: int) -> "asyncio.Task[float]":
    """The same, as soon as it is under way: a drain owes nothing to who connects after it began."""
    turn = asyncio.create_task(work(place, tenant, provider, word, seconds), name=f"turn of {tenant}")
    await place.until(lambda: place.busy(tenant), within_s=40, what=f"{tenant} is in a turn", about=tenant)
    return turn


async def known_to_work(place: Place, provider: Any, *tenants: str) -> None:
    """Have a first turn with each of them, until the operator keeps evictions away."""
    await asyncio.gather(*(place.say(tenant, provider, "remember NOTE=first SLEEP=2") for tenant in tenants))
    for tenant in tenants:
        await until_protected(place, tenant)


async def until_protected(place: Place, tenant: str) -> None:
    await place.until(
        lambda: protected(place, tenant), within_s=ASKED_S, what=f"the pod of {tenant} is protected", about=tenant
    )


async def test_a_node_with_two_of_ten_servers_in_a_turn_is_drained(place: Place, provider: Any) -> None:
    place.pool()
    busy = {"long": 30, "longer": 40}
    for tenant in (*busy, *IDLE):
        place.tenant(tenant)
    for tenant in (*busy, *IDLE):
        await place.until_ready(tenant, within_s=240)
    await known_to_work(place, provider, *busy)
    node = node_of(place, "longer")
    word = f"w{uuid.uuid4().hex[:8]}"
    with uncordoned_after(place.kube, node):
        turns = await asyncio.gather(*(begun(place, tenant, provider, word, s) for tenant, s in busy.items()))
        began = time.monotonic()
        draining = asyncio.create_task(drain(place, node, timeout_s=180))
        condition = await place.until_reason("longer", "Draining")
        assert f"node {node} is cordoned" in condition["message"]
        done_at = await draining
        assert all(turn.done() for turn in turns), "the drain ended before the turns did"
        answered_at = max(await asyncio.gather(*turns))
        overhead_s = done_at - answered_at
        for tenant in (*busy, *IDLE):
            left = [pod for pod in place.pods(tenant) if pod["spec"].get("nodeName")]
            assert left == [], f"{tenant} still runs on the node"
    print(f"node drain: {done_at - began:.1f} s, {overhead_s:.1f} s after the longer turn")
    assert overhead_s < DRAINED_S
    for tenant in (*busy, *IDLE):
        await place.until_ready(tenant, within_s=240)
    for tenant in busy:
        assert await place.say(tenant, provider, "RECALL", resume=True) == [f"notes: first {word}"]


async def test_without_the_operator_the_drain_of_a_node_waits_and_says_for_what(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("una")
    place.tenant("vic")
    for tenant in ("una", "vic"):
        await place.until_ready(tenant)
    await known_to_work(place, provider, "una")
    node = node_of(place, "una")
    word = f"w{uuid.uuid4().hex[:8]}"
    before = place.running("una")
    place.operator.kill()
    with uncordoned_after(place.kube, node):
        turn = await begun(place, "una", provider, word, 30)
        with pytest.raises(KubeError) as waited:
            await drain(place, node, timeout_s=12)
        assert "disruption budget" in waited.value.message
        assert place.running("una") == before, "it was evicted"
        assert not turn.done(), "the turn was over: nothing was tested"
        assert not [p for p in place.pods("vic") if p["spec"].get("nodeName")], "who does not work is let go"
        budget = place.kube.get(DISRUPTION_BUDGET, place.namespace, f"copilotpool-{POOL_NAME}-busy-servers")
        assert (budget["status"]["expectedPods"], budget["status"]["disruptionsAllowed"]) == (1, 0)
        place.operator.start()
        done_at = await drain(place, node, timeout_s=120)
        answered_at = await turn
        print(f"node drain: the operator came back, done {done_at - answered_at:.1f} s after the turn")
        assert answered_at < done_at < answered_at + DRAINED_S
    await place.until_ready("una")
    assert await place.say("una", provider, "RECALL", resume=True) == [f"notes: first {word}"]


async def test_a_node_that_is_uncordoned_again_keeps_its_servers(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant("wim")
    await place.until_ready("wim")
    await known_to_work(place, provider, "wim")
    before, node = place.running("wim"), node_of(place, "wim")
    with uncordoned_after(place.kube, node):
        turn = await begun(place, "wim", provider, "second", 25)
        place.kube.merge(NODE, "", node, {"spec": {"unschedulable": True}})
        await place.until_reason("wim", "Draining")
    await place.until_ready("wim", within_s=10)
    assert not turn.done(), "the turn was over: nothing was tested"
    await turn
    assert place.running("wim") == before
    assert await place.say("wim", provider, "RECALL", resume=True) == ["notes: first second"]


@contextmanager
def without_nodes(place: Place) -> Iterator[None]:
    """As whoever installs the operator for one namespace would have it."""
    role = next(each for each in yaml.safe_load_all((BASE / "rbac.yaml").read_text()) if each["kind"] == "ClusterRole")
    rules = [rule for rule in role["rules"] if "nodes" not in rule["resources"]]
    assert len(rules) == len(role["rules"]) - 1
    place.operator.stop()
    place.kube.merge(CLUSTER_ROLE, "", ACCOUNT, {"rules": rules})
    try:
        place.operator.start()
        yield
    finally:
        place.operator.stop()
        install_rights(place.kube)
        place.operator.start()


async def test_without_the_right_to_read_nodes_an_idle_server_is_nobodys_obstacle(place: Place, provider: Any) -> None:
    place.pool()
    began_at = place.operator.log_file.stat().st_size
    with without_nodes(place):
        place.tenant("xia")
        live: Object = await place.until_ready("xia")
        assert conditions(live)["ServerHealthy"]["status"] == "True"
        entries = place.operator.entries(began_at)
        assert [entry["kind"] for entry in entries if "may not be read" in str(entry.get("message"))] == ["Node"]
        turn = asyncio.create_task(place.say("xia", provider, "remember NOTE=first SLEEP=45"))
        await until_protected(place, "xia")
        assert not turn.done(), "it was idle again: nothing was tested"
        assert await turn
        await place.until(lambda: not protected(place, "xia"), within_s=ASKED_S, what="it is free", about="xia")
        assert [entry for entry in place.operator.entries(began_at) if entry.get("level") == "error"] == []
        node = node_of(place, "xia")
        with uncordoned_after(place.kube, node):
            began = time.monotonic()
            done_at = await drain(place, node, timeout_s=60)
            print(f"node drain: without sight of nodes an idle server was gone after {done_at - began:.1f} s")
        await place.until_ready("xia")
        assert await place.say("xia", provider, "RECALL", resume=True) == ["notes: first"]
