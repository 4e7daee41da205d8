"""Nodes from the watch to the servers on them, and what is left where the operator may not read Nodes."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from copilot_operator.app import Router
from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.bundles import Bundles
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.credentials import Credentials
from copilot_operator.cluster.errors import Absent, Forbidden
from copilot_operator.cluster.execute import Executor
from copilot_operator.cluster.members import Members
from copilot_operator.cluster.observe import SELECTORS, registry
from copilot_operator.cluster.pools import Pools
from copilot_operator.cluster.resync import Resync
from copilot_operator.cluster.rollouts import Rollouts
from copilot_operator.cluster.storage import StorageClasses
from copilot_operator.cluster.tenants import Tenants
from copilot_operator.domain.kinds import NODE, POD, TENANT, Kind
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import Reading, ServerState, TenantSnapshot
from copilot_operator.domain.steps import Label
from copilot_operator.engine.queue import WorkQueue
from tests.support.snapshots import NAMESPACE, SETTINGS, a_tenant

CORDONED: dict[str, Any] = {"unschedulable": True, "podCIDR": "10.0.0.0/24"}


def a_node(name: str = "n1", *, version: int = 1, **spec: Any) -> Manifest:
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version), "labels": {"zone": "a"}}
    return {"metadata": metadata, "spec": spec, "status": {"images": [{"names": ["x" * 1000]}] * 50}}


def a_pod(tenant: str = "alice", node: str | None = "n1", *, version: int = 1) -> Manifest:
    server = f"copilot-{tenant}"
    metadata = {
        "name": f"{server}-5d4f-x",
        "namespace": NAMESPACE,
        "uid": f"uid-{tenant}",
        "resourceVersion": str(version),
        "labels": {"copilot-operator.io/tenant": tenant},
        "annotations": {"copilot-operator.io/tenant-name": tenant},
        "ownerReferences": [{"kind": "ReplicaSet", "name": f"{server}-5d4f"}],
    }
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {}}


def test_of_a_node_only_is_kept_whether_it_is_being_emptied() -> None:
    cache = Cache()
    taints = [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]
    cache.put(NODE, a_node(taints=taints, **CORDONED), 0.0)
    kept = cache.get(NODE, "", "n1")
    assert kept
    assert kept["spec"] == {"unschedulable": True, "taints": taints}
    assert len(json.dumps(kept)) < 300


def test_tenants_are_found_by_the_node_of_their_pods() -> None:
    cache = Cache()
    for pod in (a_pod("bob"), a_pod("alice"), a_pod("carl", "n2"), a_pod("dora", None)):
        cache.put(POD, pod, 0.0)
    assert cache.tenants_on("n1") == [(NAMESPACE, "alice"), (NAMESPACE, "bob")]
    cache.put(POD, a_pod("dora", "n1", version=2), 0.0)
    cache.drop(POD, a_pod("bob"))
    assert cache.tenants_on("n1") == [(NAMESPACE, "alice"), (NAMESPACE, "dora")]
    assert cache.tenants_on("n3") == []


class Routed:
    """A router over a cluster with one server on each of two nodes."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.queue: WorkQueue[tuple[Kind, str, str]] = WorkQueue()
        self.router = Router(self.cache, self.queue, lambda *_: [])
        for pod in (a_pod("alice"), a_pod("bob", "n2")):
            self.cache.put(POD, pod, 0.0)

    def tells(self, event: str | None, node: Manifest) -> bool:
        """Whether alice, and nobody else, is to look."""
        assert len(self.queue) == 0
        self.router.observed(NODE, event, node)
        if not len(self.queue):
            return False
        assert self.queue.take() == (TENANT, NAMESPACE, "alice")
        self.queue.done((TENANT, NAMESPACE, "alice"))
        assert len(self.queue) == 0
        return True


async def test_servers_hear_when_their_node_begins_or_ceases_to_leave_and_not_of_its_heartbeats() -> None:
    routed = Routed()
    assert not routed.tells(None, a_node(version=1))
    assert routed.tells("MODIFIED", a_node(version=2, **CORDONED))
    assert not routed.tells("MODIFIED", a_node(version=3, **CORDONED)), "a heartbeat"
    assert not routed.tells("MODIFIED", a_node(version=2)), "what is older than what we know"
    assert routed.tells("MODIFIED", a_node(version=4))
    assert routed.tells("MODIFIED", a_node(version=5, **CORDONED))
    assert routed.tells("DELETED", a_node(version=6, **CORDONED))
    assert routed.router.leaving_nodes == {}


# ---- what the API server says


class Api:
    """An API server of these nodes; ``refuses`` are kinds that may not be listed."""

    def __init__(self, *nodes: Manifest, refuses: tuple[Kind, ...] = ()) -> None:
        self.nodes, self.refuses = nodes, refuses
        self.merged: list[tuple[str, Manifest]] = []
        self.gone = False

    async def list_pages(self, kind: Kind, *, namespace: str, selector: str = "") -> AsyncIterator[Manifest]:
        assert namespace == ""
        if kind in self.refuses:
            raise Forbidden(f"list {kind.path()}", 403, "Forbidden", "nodes is forbidden")
        for node in self.nodes if kind == NODE else ():
            yield json.loads(json.dumps(node))

    async def merge(self, kind: Kind, namespace: str, name: str, change: Manifest) -> Manifest:
        if self.gone:
            raise Absent("patch", 404, "NotFound", "")
        self.merged.append((name, change))
        pod = a_pod(version=2)
        pod["metadata"]["labels"] |= change["metadata"]["labels"]
        return pod


async def test_without_the_right_to_read_nodes_everything_else_is_listed() -> None:
    cache = Cache()
    api = Api(a_node(**CORDONED))
    resync = Resync(cast(KubeApi, api), cache, lambda kind, manifest: None)
    await resync.run_once()
    assert (cache.keys(NODE), resync.forbidden) == ([("", "n1")], set())

    api.refuses = (NODE,)
    await resync.run_once()
    assert resync.forbidden == {NODE}
    assert cache.keys(NODE) == [], "what was known is not known any more"
    assert set(resync.missed) == set(SELECTORS)
    assert resync.missed[NODE] == 0, "no watch is to blame"

    api.refuses = ()
    await resync.run_once()
    assert (cache.keys(NODE), resync.forbidden) == ([("", "n1")], set())


async def test_without_the_right_to_read_anything_else_nothing_is_decided() -> None:
    api = Api(refuses=(POD,))
    with pytest.raises(Forbidden):
        await Resync(cast(KubeApi, api), Cache(), lambda kind, manifest: None).run_once()


def test_what_may_not_be_read_is_not_watched() -> None:
    nothing: Any = None

    def watched(**given: Any) -> set[str]:
        handlers = registry(nothing, nothing, nothing, **given)
        return {str(handler.id) for handler in handlers._watching.get_all_handlers()}

    assert watched() - watched(without={NODE}) == {"nodes"}


# ---- the snapshot, and the label


async def gathered(cache: Cache, state: ServerState | None = None, **given: Any) -> TenantSnapshot:
    cache.put(TENANT, a_tenant(), 0.0)
    nothing: Any = None
    rollouts = Rollouts(lambda *_: [], nothing, nothing, lambda: 0.0)
    pools = Pools(
        nothing,
        cache,
        SETTINGS,
        rollouts,
        Members(cache, nothing, lambda *_: False, nothing),
        Credentials(nothing, cache),
        Bundles(nothing, nothing),
    )
    tenants = Tenants(
        nothing, cache, SETTINGS, StorageClasses(nothing), lambda *_: (Reading(), state, None), pools, nothing, **given
    )
    snapshot = await tenants.snapshot(NAMESPACE, "alice")
    assert snapshot
    return snapshot


async def test_a_snapshot_says_why_the_node_of_its_server_is_being_emptied() -> None:
    cache = Cache()
    cache.put(POD, a_pod(), 0.0)
    assert (await gathered(cache)).leaving == "", "nothing is known of its node"
    cache.put(NODE, a_node(), 0.0)
    cache.put(NODE, a_node("n2", **CORDONED), 0.0)
    assert (await gathered(cache)).leaving == ""
    cache.put(NODE, a_node(version=2, **CORDONED), 0.0)
    snapshot = await gathered(cache)
    assert (snapshot.leaving, snapshot.sees_nodes) == ("node n1 is cordoned", True)


async def test_a_pod_without_a_node_leaves_none() -> None:
    cache = Cache()
    cache.put(NODE, a_node(**CORDONED), 0.0)
    cache.put(POD, a_pod(node=None), 0.0)
    assert (await gathered(cache)).leaving == ""


async def test_a_snapshot_says_that_nodes_cannot_be_read() -> None:
    assert not (await gathered(Cache(), unreadable={NODE})).sees_nodes


def nobody(kind: Kind, manifest: Manifest) -> None:
    """Has to hear of it."""


async def test_a_label_is_set_on_the_pod_that_was_meant_and_known_at_once() -> None:
    api, cache = Api(), Cache()
    cache.put(POD, a_pod(), 0.0)
    step = Label(NAMESPACE, "copilot-alice-5d4f-x", "uid-alice", {"copilot-operator.io/protected": "true"}, "it works")
    await Executor(cast(KubeApi, api), Answers(cache, nobody), lambda: True).run((step,))
    change = {"metadata": {"uid": "uid-alice", "labels": {"copilot-operator.io/protected": "true"}}}
    assert api.merged == [("copilot-alice-5d4f-x", change)]
    assert [pod.protected for pod in (await gathered(cache)).pods] == [True]


async def test_a_pod_that_has_gone_needs_no_label() -> None:
    api = Api()
    api.gone = True
    step = Label(NAMESPACE, "copilot-alice-5d4f-x", "uid-alice", {"copilot-operator.io/protected": None}, "it is idle")
    async with asyncio.timeout(5):
        await Executor(cast(KubeApi, api), Answers(Cache(), nobody), lambda: True).run((step,))
