"""The lease in virtual time, against an API server in memory that is slow, hangs and fails: two never act at once."""

import asyncio
import copy
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent, Conflict, Unavailable
from copilot_operator.cluster.lease import DURATION_S, RENEW_DEADLINE_S, RETRY_S, Lease, LeaseLost
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest
from tests.support.virtual_time import run_in_virtual_time


class Store:
    """The one Lease, with optimistic locking."""

    def __init__(self) -> None:
        self.lease: Manifest | None = None
        self.version = 0

    def read(self) -> Manifest:
        if self.lease is None:
            raise Absent("get lease", 404, "NotFound", "")
        return copy.deepcopy(self.lease)

    def write(self, manifest: Manifest, *, create: bool) -> Manifest:
        if create != (self.lease is None):
            raise Conflict("write lease", 409, "Conflict", "")
        if self.lease and manifest["metadata"].get("resourceVersion") != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("write lease", 409, "Conflict", "")
        self.version += 1
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return self.read()

    @property
    def holder(self) -> str | None:
        return str(self.lease["spec"].get("holderIdentity")) if self.lease else None


class Api:
    """One candidate's way to the store. ``delays``: seconds before and after a request takes effect, in turn."""

    def __init__(self, store: Store, delays: list[tuple[float, float]]) -> None:
        self.store, self.delays = store, delays
        self.cut = False
        self.hangs = False

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        return cast(Manifest, await self._do(self.store.read))

    async def create(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        return cast(Manifest, await self._do(lambda: self.store.write(manifest, create=True)))

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        return cast(Manifest, await self._do(lambda: self.store.write(manifest, create=False)))

    async def _do(self, action: Any) -> Any:
        if self.cut:
            raise Unavailable("lease", 0, "", "no connection")
        if self.hangs:
            await asyncio.sleep(1000)
        before, after = self.delays.pop(0) if self.delays else (0.0, 0.0)
        sent = asyncio.ensure_future(_later(before, action))
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())
        result = await asyncio.shield(sent)  # what was sent takes effect although its sender gave up waiting
        await asyncio.sleep(after)
        return result


async def _later(seconds: float, action: Any) -> Any:
    await asyncio.sleep(seconds)
    return action()


def candidate(store: Store, name: str, delays: list[tuple[float, float]] | None = None) -> tuple[Lease, Api]:
    api = Api(store, list(delays or ()))
    return Lease(cast(KubeApi, api), "operators", "copilot-operator", name), api


class Leading:
    """What is done while leading: notes when it began and ended."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.until: float | None = None

    async def __call__(self) -> None:
        self.since = now()
        try:
            await asyncio.Event().wait()
        finally:
            self.until = now()


def now() -> float:
    return asyncio.get_running_loop().time()


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, LeaseLost):
        await task


@pytest.mark.looptime
async def test_the_first_candidate_leads_at_once_and_keeps_the_lease() -> None:
    store, leading = Store(), Leading()
    lease, _ = candidate(store, "a")
    assert not lease.valid()
    task = asyncio.create_task(lease.hold(leading))
    await asyncio.sleep(60)
    assert (leading.since, leading.until, store.holder, lease.valid()) == (0.0, None, "a", True)
    assert store.lease
    assert store.lease["spec"]["leaseTransitions"] == 1
    await end(task)


@pytest.mark.looptime
async def test_a_slow_api_server_keeps_nobody_from_leading() -> None:
    store, leading = Store(), Leading()
    lease, _ = candidate(store, "a", [(0.5, 0.5)] * 100)
    task = asyncio.create_task(lease.hold(leading))
    await asyncio.sleep(60)
    assert (leading.until, store.holder, lease.valid()) == (None, "a", True)
    await end(task)


@pytest.mark.looptime
async def test_who_could_not_see_in_time_whether_it_is_alone_has_all_the_time_for_its_next_try() -> None:
    store, leading = Store(), Leading()
    looks = iter([0.0, 6.5])  # as it takes the lease, and afterwards

    async def acting() -> str:
        await asyncio.sleep(next(looks, 0.0))
        return ""

    api = Api(store, [(0.4, 0.4)] * 100)
    lease = Lease(cast(KubeApi, api), "operators", "copilot-operator", "a", acting=acting)
    task = asyncio.create_task(lease.hold(leading))
    await asyncio.sleep(60)
    assert (leading.until, store.holder, lease.valid()) == (None, "a", True)
    await end(task)


@pytest.mark.looptime
async def test_on_a_clean_end_the_lease_is_given_back_and_the_other_takes_over_at_once() -> None:
    store, leading = Store(), Leading()
    first, _ = candidate(store, "a")
    second, _ = candidate(store, "b")
    one = asyncio.create_task(first.hold(Leading()))
    await asyncio.sleep(1)
    two = asyncio.create_task(second.hold(leading))
    await asyncio.sleep(30)
    assert (store.holder, leading.since) == ("a", None)
    await end(one)
    assert (store.holder, first.valid()) == ("", False)
    await asyncio.sleep(RETRY_S * 1.3)
    assert (store.holder, second.valid()) == ("b", True)
    await end(two)


@pytest.mark.looptime
async def test_a_silent_holder_is_followed_after_the_duration_and_not_before() -> None:
    store, leading = Store(), Leading()
    first, api = candidate(store, "a")
    second, _ = candidate(store, "b")
    one = asyncio.create_task(first.hold(Leading()))
    await asyncio.sleep(1)
    two = asyncio.create_task(second.hold(leading))
    await asyncio.sleep(30)
    api.hangs = True
    silent_since = now()
    await end(one)
    await asyncio.sleep(30)
    assert leading.since
    assert DURATION_S - RETRY_S <= leading.since - silent_since <= DURATION_S + 2 * RETRY_S
    await end(two)


@pytest.mark.looptime
@pytest.mark.parametrize("how", ["cut", "hangs"])
async def test_a_holder_that_cannot_renew_stops_acting_before_another_may_start(how: str) -> None:
    store, leading = Store(), Leading()
    lease, api = candidate(store, "a")
    task = asyncio.create_task(lease.hold(leading))
    await asyncio.sleep(20)
    setattr(api, how, True)
    with pytest.raises(LeaseLost):
        await task
    assert leading.until
    assert leading.until - 20 <= RENEW_DEADLINE_S + 0.6
    assert not lease.valid()


@pytest.mark.looptime
async def test_a_holder_whose_requests_hang_is_not_valid_any_more_when_another_takes_over() -> None:
    store, leading = Store(), Leading()
    first, api = candidate(store, "a")
    second, _ = candidate(store, "b")
    one = asyncio.create_task(first.hold(Leading()))
    await asyncio.sleep(1)
    two = asyncio.create_task(second.hold(leading))
    await asyncio.sleep(20)
    api.hangs = True
    while not second.valid():
        valid = first.valid()
        await asyncio.sleep(0.1)
    assert not valid
    assert leading.since
    assert not first.valid()
    await end(one)
    await end(two)


@pytest.mark.looptime
async def test_a_short_outage_is_no_loss() -> None:
    store, leading = Store(), Leading()
    lease, api = candidate(store, "a")
    task = asyncio.create_task(lease.hold(leading))
    await asyncio.sleep(20)
    api.cut = True
    await asyncio.sleep(4)
    api.cut = False
    await asyncio.sleep(20)
    assert (leading.until, lease.valid()) == (None, True)
    await end(task)


@pytest.mark.looptime
async def test_who_sees_another_holder_stops_at_once() -> None:
    store, leading = Store(), Leading()
    lease, _ = candidate(store, "a")
    task = asyncio.create_task(lease.hold(leading))
    await asyncio.sleep(5)
    assert store.lease
    store.write(store.lease | {"spec": store.lease["spec"] | {"holderIdentity": "b"}}, create=False)
    with pytest.raises(LeaseLost):
        await task
    assert leading.until
    assert leading.until <= 5 + RETRY_S
    assert store.holder == "b", "what is another's is not given back"


@pytest.mark.looptime
async def test_what_fails_while_leading_is_raised_and_the_lease_given_back() -> None:
    async def fail() -> None:
        await asyncio.sleep(3)
        raise ValueError("no")

    store = Store()
    lease, _ = candidate(store, "a")
    with pytest.raises(ValueError, match="no"):
        await lease.hold(fail)
    assert store.holder == ""


@pytest.mark.looptime
async def test_the_clock_of_the_other_replica_is_never_compared() -> None:
    store, leading = Store(), Leading()
    lease, _ = candidate(store, "b")
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 10, "renewTime": "1999-01-01T00:00:00.000000Z"}
    store.write({"metadata": {"name": "copilot-operator"}, "spec": spec}, create=True)
    task = asyncio.create_task(lease.hold(leading))
    await asyncio.sleep(30)
    assert leading.since
    assert leading.since >= 10.0, "it may be alive, its clock wrong"
    await end(task)


delay = st.sampled_from([0.0, 0.0, 0.0, 0.1, 1.0, 3.0, 6.0, 9.0, 14.0])
delays = st.lists(st.tuples(delay, delay), max_size=25)


@settings(max_examples=25, deadline=None)
@given(first=delays, second=delays, handover=st.integers(0, 120))
def test_two_candidates_are_never_valid_at_once_however_the_api_server_hangs(
    first: list[tuple[float, float]], second: list[tuple[float, float]], handover: int
) -> None:
    async def scenario() -> None:
        store = Store()
        leases = [candidate(store, name, given)[0] for name, given in zip("ab", (first, second), strict=True)]

        async def compete(lease: Lease) -> None:
            while True:
                with suppress(LeaseLost):
                    await lease.hold(Leading())
                await asyncio.sleep(1.0)

        tasks = [asyncio.create_task(compete(lease)) for lease in leases]
        for moment in range(120):
            await asyncio.sleep(0.45)
            assert sum(lease.valid() for lease in leases) <= 1
            if moment == handover:
                tasks[0].cancel()
        for task in tasks:
            await end(task)

    run_in_virtual_time(scenario())
