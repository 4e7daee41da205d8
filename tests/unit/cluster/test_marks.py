"""Installations that serve some namespaces each, in virtual time: where they meet one acts, elsewhere both do."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent, Ending, Forbidden
from copilot_operator.cluster.lease import RETRY_S, Lease, LeaseLost
from copilot_operator.cluster.rivals import MARK, MARK_S, Marks, Rivals
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest
from tests.support.virtual_time import run_in_virtual_time
from tests.unit.cluster.test_lease import Api, Store, end

NAME = "copilot-operator"
Delays = list[tuple[float, float]]


class Cluster:
    """Leases by namespace and name. ``ending``: take nothing new; ``closed``: where all is forbidden."""

    def __init__(self) -> None:
        self.stores: defaultdict[tuple[str, str], Store] = defaultdict(Store)
        self.ending: set[str] = set()
        self.absent: set[str] = set()
        self.closed: set[str] = set()

    def installation(self, own: str, *watched: str, late: Delays | None = None, replica: int = 1) -> "Installation":
        return Installation(self, own, watched, late, replica)

    def holder(self, namespace: str) -> str | None:
        return self.stores[namespace, MARK].holder


class OfCluster(Api):
    def __init__(self, cluster: Cluster, late: Delays | None) -> None:
        super().__init__(Store(), list(late or ()))
        self.cluster = cluster

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        return cast(Manifest, await self._do(self._at(namespace, lambda: self.cluster.stores[namespace, name].read())))

    async def create(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        if namespace in self.cluster.absent:
            raise Absent("create lease", 404, "NotFound", "there is no such namespace")
        if namespace in self.cluster.ending:
            raise Ending("create lease", 403, "Forbidden", "it is being terminated")
        store = self.cluster.stores[namespace, manifest["metadata"]["name"]]
        return cast(Manifest, await self._do(self._at(namespace, lambda: store.write(manifest, create=True))))

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        metadata = manifest["metadata"]
        store = self.cluster.stores[metadata["namespace"], metadata["name"]]
        action = lambda: store.write(manifest, create=False)  # noqa: E731
        return cast(Manifest, await self._do(self._at(metadata["namespace"], action)))

    async def list_pages(self, kind: Kind, *, fields: str) -> AsyncIterator[Manifest]:
        for (_, name), store in list(self.cluster.stores.items()):
            if store.lease and fields == f"metadata.name={name}":
                yield store.read()

    def _at(self, namespace: str, action: Callable[[], Any]) -> Callable[[], Any]:
        def done() -> Any:
            if namespace in self.cluster.closed:
                raise Forbidden("lease", 403, "Forbidden", f"not in {namespace}")
            return action()

        return done


class Installation:
    """One replica of an installation; it acts as the operator does."""

    def __init__(self, cluster: Cluster, own: str, watched: tuple[str, ...], late: Delays | None, replica: int) -> None:
        self.api = OfCluster(cluster, late)
        kube = cast(KubeApi, self.api)
        self.others = Marks(kube, own, watched) if watched else Rivals(kube, own, NAME)
        self.lease = Lease(kube, own, NAME, f"{own}-{replica}", self.others.acting)
        self.acting = 0

    async def act(self) -> None:
        self.acting += 1
        try:
            while True:
                with suppress(Forbidden):  # which the operator logs
                    self.lease.hears_of(await self.others.keep())
                await asyncio.sleep(self.others.every_s)
        finally:
            self.acting -= 1

    def start(self) -> "asyncio.Task[None]":
        return asyncio.create_task(self.lease.hold(self.act))


@pytest.mark.looptime
async def test_installations_of_different_namespaces_both_act() -> None:
    cluster = Cluster()
    one, two = cluster.installation("x", "a", "b"), cluster.installation("a", "c")  # whose own is not served by it
    tasks = [one.start(), two.start()]
    await asyncio.sleep(120)
    assert [(each.lease.valid(), each.lease.rival) for each in (one, two)] == [(True, ""), (True, "")]
    assert {namespace: cluster.holder(namespace) for namespace in "abc"} == {"a": "x", "b": "x", "c": "a"}
    for task in tasks:
        await end(task)


@pytest.mark.looptime
async def test_where_two_meet_the_second_says_so_waits_and_follows_the_first() -> None:
    cluster = Cluster()
    one, two = cluster.installation("x", "a", "b"), cluster.installation("y", "b", "c")
    first = one.start()
    await asyncio.sleep(1)
    second = two.start()
    await asyncio.sleep(200)
    assert (one.acting, two.acting) == (1, 0)
    assert two.lease.rival == (
        "another copilot-operator acts in namespace b: its Lease is held by x. "
        "Take the namespace from those that one of the two watches"
    )
    assert cluster.holder("b") == "x"
    await end(first)
    await asyncio.sleep(MARK_S + 2 * RETRY_S)
    assert (two.acting, two.lease.rival, cluster.holder("b")) == (1, "", "y")
    await end(second)


@pytest.mark.looptime
async def test_whose_mark_comes_too_late_sees_who_was_faster() -> None:
    cluster = Cluster()
    slow = cluster.installation("y", "a", late=[(0.0, 0.0), (0.0, 0.0), (0.4, 0.0)])  # its third request sets the mark
    fast = cluster.installation("x", "a")
    tasks = [slow.start()]
    await asyncio.sleep(0.1)
    tasks.append(fast.start())
    await asyncio.sleep(60)
    assert (fast.acting, slow.acting, cluster.holder("a")) == (1, 0, "x")
    for task in tasks:
        await end(task)


@pytest.mark.looptime
async def test_who_waits_keeps_nothing_from_a_third() -> None:
    cluster = Cluster()
    one, two, three = (cluster.installation(own, *served) for own, served in (("x", "b"), ("y", "ab"), ("z", "a")))
    tasks = []
    for each in (one, two, three):
        tasks.append(each.start())
        await asyncio.sleep(20)
    assert (one.acting, two.acting, three.acting) == (1, 0, 1)
    for task in tasks:
        await end(task)


@pytest.mark.looptime
async def test_another_replica_of_the_same_installation_follows_at_once() -> None:
    cluster = Cluster()
    one, two = cluster.installation("x", "a"), cluster.installation("x", "a", replica=2)
    first, second = one.start(), two.start()
    await asyncio.sleep(60)
    await end(first)
    await asyncio.sleep(2 * RETRY_S)
    assert (one.acting, two.acting, cluster.holder("a")) == (0, 1, "x")
    await end(second)


@pytest.mark.looptime
async def test_who_serves_all_namespaces_sees_who_serves_some() -> None:
    cluster = Cluster()
    some, all_of_them = cluster.installation("x", "a"), cluster.installation("y")
    first = some.start()
    await asyncio.sleep(5)
    second = all_of_them.start()
    await asyncio.sleep(60)
    assert (some.acting, all_of_them.acting) == (1, 0)
    assert "acts in this cluster, in namespace x." in all_of_them.lease.rival
    await end(first)
    await end(second)


@pytest.mark.looptime
async def test_who_serves_all_namespaces_and_was_first_says_that_another_has_come() -> None:
    cluster = Cluster()
    all_of_them, some = cluster.installation("y"), cluster.installation("x", "a")
    first = all_of_them.start()
    await asyncio.sleep(5)
    second = some.start()
    await asyncio.sleep(all_of_them.others.every_s + 5)
    assert (all_of_them.acting, some.acting) == (1, 1), "who serves some sees no Lease but its own"
    assert "acts in this cluster, in namespace x." in all_of_them.lease.rival
    await end(first)
    await end(second)


@pytest.mark.looptime
async def test_who_takes_a_mark_stops_nobody_who_acts() -> None:
    cluster = Cluster()
    one = cluster.installation("x", "a", "b")
    task = one.start()
    await asyncio.sleep(60)
    store = cluster.stores["a", MARK]
    for number in range(60):
        live = store.read()
        spec = live["spec"] | {"holderIdentity": "mallory", "renewTime": str(number), "leaseDurationSeconds": 3600}
        store.write(live | {"spec": spec}, create=False)
        await asyncio.sleep(5)
    assert (one.acting, one.lease.valid()) == (1, True)
    assert "its Lease is held by mallory" in one.lease.rival
    assert cluster.holder("b") == "x"
    assert cluster.stores["b", MARK].version > 30, "the others are renewed all the same"
    await end(task)


@pytest.mark.looptime
@pytest.mark.parametrize("how", ["ending", "absent"])
async def test_a_namespace_that_is_being_deleted_or_not_there_keeps_nobody_from_the_others(how: str) -> None:
    cluster = Cluster()
    getattr(cluster, how).add("a")
    one = cluster.installation("x", "a", "b")
    task = one.start()
    await asyncio.sleep(60)
    assert (one.acting, cluster.holder("a"), cluster.holder("b")) == (1, None, "x")
    await end(task)


@pytest.mark.looptime
async def test_a_namespace_that_is_lost_while_one_acts_gives_none_of_the_others_away() -> None:
    cluster = Cluster()
    one, two = cluster.installation("x", "a", "b"), cluster.installation("y", "b")
    tasks = [one.start()]
    await asyncio.sleep(20)
    cluster.closed.add("a")
    tasks.append(two.start())
    await asyncio.sleep(4 * MARK_S)
    assert (one.acting, two.acting, cluster.holder("b")) == (1, 0, "x")
    for task in tasks:
        await end(task)


@pytest.mark.looptime
async def test_who_cannot_see_who_serves_a_namespace_does_not_act() -> None:
    cluster = Cluster()
    cluster.closed.add("a")
    one = cluster.installation("x", "a", "b")
    task = one.start()
    await asyncio.sleep(60)
    assert one.acting == 0
    cluster.closed.clear()
    await asyncio.sleep(2 * RETRY_S)
    assert one.acting == 1
    await end(task)


short = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 1.0, 3.0]), st.sampled_from([0.0, 1.0, 3.0])), max_size=8)
names = st.sets(st.sampled_from("abc"), min_size=1)


@settings(max_examples=12, deadline=None)
@given(watched=st.tuples(names, names), late=st.tuples(short, short), later=st.sampled_from([0.0, 0.1, 1.0, 4.0]))
def test_installations_that_meet_never_both_begin_and_one_does_in_the_end(
    watched: tuple[set[str], set[str]], late: tuple[Delays, Delays], later: float
) -> None:
    async def scenario() -> None:
        cluster = Cluster()
        both = [
            cluster.installation(own, *sorted(served), late=delays)
            for own, served, delays in zip("xy", watched, late, strict=True)
        ]
        most = [0]

        async def compete(one: Installation) -> None:
            while True:
                with suppress(LeaseLost):
                    await one.lease.hold(lambda: noted(one.act()))
                await asyncio.sleep(1.0)

        async def noted(acting: Coroutine[Any, Any, None]) -> None:
            task = asyncio.ensure_future(acting)
            await asyncio.sleep(0)
            most[0] = max(most[0], sum(each.acting for each in both))
            await task

        tasks = []
        for one in both:
            tasks.append(asyncio.create_task(compete(one)))
            await asyncio.sleep(later)
        await asyncio.sleep(200)
        meet = bool(watched[0] & watched[1])
        assert sum(each.acting for each in both) == (1 if meet else 2)
        assert most[0] == (1 if meet else 2)
        for task in tasks:
            await end(task)

    run_in_virtual_time(scenario())
