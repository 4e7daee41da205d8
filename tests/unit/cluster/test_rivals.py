"""Two installations in one cluster, in virtual time: one acts, the other says why it does not, and takes over later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Unavailable
from copilot_operator.cluster.lease import DURATION_S, RETRY_S, Lease, LeaseLost
from copilot_operator.cluster.rivals import Rivals
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest
from tests.support.virtual_time import run_in_virtual_time
from tests.unit.cluster.test_lease import Api, Leading, Store, end

NAME = "copilot-operator"


def told_of(namespace: str) -> str:
    return (
        f"another copilot-operator acts in this cluster, in namespace {namespace}. Keep one of the two, or give each "
        f"namespaces of its own to watch: this one serves all of them"
    )


class Cluster:
    """Leases of one name in several namespaces."""

    def __init__(self, *namespaces: str) -> None:
        self.stores = {namespace: Store() for namespace in namespaces}

    def installation(self, namespace: str, late: list[tuple[float, float]] | None = None) -> tuple[Lease, "Listing"]:
        api = Listing(self, namespace, list(late or ()))
        kube = cast(KubeApi, api)
        return Lease(kube, namespace, NAME, f"{namespace}-1", Rivals(kube, namespace, NAME).acting), api


class Listing(Api):
    def __init__(self, cluster: Cluster, namespace: str, late: list[tuple[float, float]]) -> None:
        super().__init__(cluster.stores[namespace], late)
        self.cluster, self.blind = cluster, False

    async def list_pages(self, kind: Kind, *, fields: str) -> AsyncIterator[Manifest]:
        assert (kind.plural, fields) == ("leases", f"metadata.name={NAME}")
        if self.blind:
            raise Unavailable("list leases", 0, "", "no answer")

        def found() -> list[Any]:
            return [
                lease | {"metadata": lease["metadata"] | {"namespace": namespace}}
                for namespace, store in self.cluster.stores.items()
                if (lease := store.lease)
            ]

        for lease in await self._do(found):
            yield lease


@pytest.mark.looptime
async def test_the_second_installation_waits_says_why_and_takes_over_when_the_first_has_gone() -> None:
    cluster, leading = Cluster("a", "b"), Leading()
    (first, _), (second, _) = cluster.installation("a"), cluster.installation("b")
    one = asyncio.create_task(first.hold(Leading()))
    await asyncio.sleep(1)
    two = asyncio.create_task(second.hold(leading))
    await asyncio.sleep(60)
    assert (first.valid(), first.rival, second.valid(), second.rival) == (True, "", False, told_of("a"))
    assert cluster.stores["b"].lease is None, "it writes nothing"
    await end(one)
    await asyncio.sleep(2 * RETRY_S)
    assert (second.valid(), second.rival) == (True, "")
    await end(two)


@pytest.mark.looptime
async def test_one_that_was_killed_is_followed_once_its_lease_is_old() -> None:
    cluster, leading = Cluster("a", "b"), Leading()
    (first, api), (second, _) = cluster.installation("a"), cluster.installation("b")
    one = asyncio.create_task(first.hold(Leading()))
    await asyncio.sleep(5)
    two = asyncio.create_task(second.hold(leading))
    await asyncio.sleep(5)
    api.cut = True
    await end(one)
    await asyncio.sleep(DURATION_S + 2 * RETRY_S)
    assert second.valid()
    assert leading.since
    assert leading.since >= 5 + DURATION_S - RETRY_S
    await end(two)


@pytest.mark.looptime
async def test_who_can_not_see_the_others_does_not_act() -> None:
    cluster = Cluster("a")
    lease, api = cluster.installation("a")
    api.blind = True
    task = asyncio.create_task(lease.hold(Leading()))
    await asyncio.sleep(30)
    assert not lease.valid()
    api.blind = False
    await asyncio.sleep(2 * RETRY_S)
    assert lease.valid()
    await end(task)


class Noted(Leading):
    """How many act at the same time."""

    def __init__(self, acting: list[int]) -> None:
        super().__init__()
        self.acting = acting

    async def __call__(self) -> None:
        self.acting.append(self.acting[-1] + 1)
        try:
            await super().__call__()
        finally:
            self.acting.append(self.acting[-1] - 1)


short = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 1.0, 3.0, 9.0]), st.sampled_from([0.0, 1.0, 5.0])), max_size=8)


@settings(max_examples=15, deadline=None)
@given(first=short, second=short, later=st.sampled_from([0.0, 0.1, 1.0, 4.0]))
def test_installations_that_start_together_never_both_act_and_one_does_in_the_end(
    first: list[tuple[float, float]], second: list[tuple[float, float]], later: float
) -> None:
    async def scenario() -> None:
        cluster, acting = Cluster("a", "b"), [0]
        leases = [cluster.installation(name, late)[0] for name, late in (("a", first), ("b", second))]

        async def compete(lease: Lease) -> None:
            while True:
                with suppress(LeaseLost):
                    await lease.hold(Noted(acting))
                await asyncio.sleep(1.0)

        tasks = []
        for lease in leases:
            tasks.append(asyncio.create_task(compete(lease)))
            await asyncio.sleep(later)
        await asyncio.sleep(200)
        assert max(acting) == 1, "one acts, and never two"
        assert acting[-1] == 1
        for task in tasks:
            await end(task)

    run_in_virtual_time(scenario())
