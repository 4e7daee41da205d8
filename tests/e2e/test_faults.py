"""An API server that fails in every way it can: tenants arrive all the same, nothing is written twice, nobody panics.

The operator runs in this process, behind a proxy that injects the faults, with the rights of its real account.
"""

import asyncio
import itertools
import re
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from copilot_operator import app
from copilot_operator.app import LEASE_NAME, Operator
from copilot_operator.cluster.client import KubeApi, load_access
from copilot_operator.cluster.lease import LeaseLost
from copilot_operator.cluster.observe import EndlessBackoff
from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, LEASE, POD, POOL, SECRET, SERVICE, TENANT, Kind
from copilot_operator.ops import web
from copilot_operator.ops.metrics import Metrics
from copilot_operator.rpc.ping import Reading
from copilot_operator.servers import pinger
from copilot_operator.settings import OperatorSettings
from tests.support.eventually import eventually
from tests.support.faulty_api import WRITES, Fault, FaultyApi
from tests.support.installation import OPERATOR_NAMESPACE
from tests.support.kube import NAMESPACE, Kube, Object, is_ready, ready_reason
from tests.support.operator import OperatorProcess

CHILDREN: Final = (DEPLOYMENT, SERVICE, SECRET, CLAIM)
OUTAGE_S: Final = 20.0
STOP_S: Final = 30.0


def pool(namespace: str, name: str = "all") -> Object:
    server = {"image": "copilot-cli:1.0.102", "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}
    metadata = {"name": name, "namespace": namespace}
    spec = {"isolation": "Dedicated", "server": server, "storage": {"size": "1Gi"}, "gateway": {"enabled": False}}
    return {"apiVersion": POOL.api_version, "kind": POOL.kind, "metadata": metadata, "spec": spec}


def tenant(namespace: str, name: str, *, suspended: bool = True) -> Object:
    spec = {"poolRef": {"name": "all"}, "suspended": suspended}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": TENANT.api_version, "kind": TENANT.kind, "metadata": metadata, "spec": spec}


class Replica:
    """The operator, and what kubelet does for it: a new one whenever one ended. ``ended`` says why each did.

    In a thread and a loop of its own: kopf ends whatever else runs in its loop when it ends.
    """

    def __init__(self, kubeconfig: Path, own: OperatorSettings) -> None:
        self.operator: Operator | None = None
        self.ended: list[str] = []
        self._kubeconfig, self._own = kubeconfig, own
        self._url = ""
        self._loop = asyncio.new_event_loop()
        self._closing = False
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="replica", daemon=True)
        self._thread.start()

    @property
    def leads(self) -> bool:
        """May be asked from another loop: all loops have one clock."""
        return self.operator is not None and self.operator.lease.valid()

    async def probe(self, path: str) -> tuple[int, str]:
        """Tries again while one process follows another."""
        timeout = aiohttp.ClientTimeout(total=5)

        async def ask() -> tuple[int, str] | None:
            try:
                async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self._url + path) as answer:
                    return answer.status, await answer.text()
            except aiohttp.ClientConnectionError:
                return None

        found: tuple[int, str] = await eventually(ask, within_s=10, what=f"{path} answers", every_s=0.1)
        return found

    async def stop(self) -> None:
        """Raises what nobody expected the operator to end with."""

        def tell() -> None:
            self._closing = True
            if self._stop:
                self._stop.set()

        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(tell)
        await asyncio.to_thread(self._thread.join, STOP_S)
        assert not self._thread.is_alive(), f"the operator did not stop within {STOP_S:g} s"
        if self._failure:
            raise self._failure

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._run_for_ever())
            except Exception as error:
                self._failure = error

    async def _run_for_ever(self) -> None:
        while not self._closing:
            metrics = Metrics()
            async with KubeApi(await load_access(str(self._kubeconfig))) as api:
                self._stop = stop = asyncio.Event()
                self.operator = operator = Operator(self._own, api, metrics)
                server = await web.serve(0, live=operator.not_live, ready=operator.not_ready, metrics=metrics)
                port = next(port for host, port, *_ in server.addresses if ":" not in host)  # each family has its own
                self._url = f"http://127.0.0.1:{port}"
                try:
                    await operator.run(stop)
                except LeaseLost as error:
                    self.ended.append(str(error))
                finally:
                    await server.cleanup()


@dataclass
class Bed:
    """One namespace of tenants, the proxy and the operator behind it."""

    kube: Kube
    namespace: str
    api: FaultyApi
    replica: Replica

    async def apply(self, *manifests: Object) -> None:
        for manifest in manifests:
            await asyncio.to_thread(self.kube.apply, manifest)

    async def find(self, kind: Kind, name: str) -> Object | None:
        return await asyncio.to_thread(self.kube.find, kind, self.namespace, name)

    async def until(self, name: str, wanted: Callable[[Object | None], bool], within_s: float, what: str) -> None:
        async def look() -> bool:
            return wanted(await self.find(TENANT, name))

        await eventually(look, within_s=within_s, what=what, every_s=0.2)

    async def suspended(self, *names: str, within_s: float = 20.0) -> None:
        for name in names:
            await self.until(name, lambda t: ready_reason(t) == "Suspended", within_s, f"{name} is Suspended")

    async def ready(self, name: str, within_s: float = 60.0) -> None:
        await self.until(name, is_ready, within_s, f"{name} is Ready")

    async def leading(self, within_s: float = 30.0) -> None:
        await eventually(lambda: self.replica.leads, within_s=within_s, what="the operator leads")

    async def children(self, name: str) -> list[Object | None]:
        return [await self.find(kind, f"copilot-{name}") for kind in CHILDREN]

    async def quiet(self, for_s: float = 3.0, within_s: float = 40.0) -> None:
        """Until nothing was written for a while."""
        clock = asyncio.get_running_loop().time
        await eventually(
            lambda: not self.api.writes(clock() - for_s), within_s=within_s, what="the operator is quiet", every_s=0.1
        )


@pytest.fixture(scope="module")
def installed(kube: Kube, running_operator: OperatorProcess) -> Kube:
    """A cluster with everything but an operator: the one of the other tests rests."""
    running_operator.stop()
    return kube


@pytest.fixture
async def bed(installed: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    async with make_bed(installed, tmp_path, monkeypatch) as made:
        await made.leading()
        await made.apply(pool(made.namespace))
        await made.quiet()
        yield made


@asynccontextmanager
async def make_bed(kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    async def answers(*_: Any) -> Reading:
        return Reading(ok=True, latency_s=0.001)

    # This process is outside of the cluster's network, so it can't reach pods. Kubelet asks them all the same.
    monkeypatch.setattr(pinger, "ping", answers)
    monkeypatch.setattr(app, "stop_on_signals", lambda stop: None)  # only a main thread may have handlers
    namespace = f"faults-{uuid.uuid4().hex[:8]}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    await asyncio.to_thread(kube.create, manifest)
    token = await asyncio.to_thread(kube.token_of, OPERATOR_NAMESPACE, "copilot-operator")
    async with FaultyApi(kube.access) as api:
        own = OperatorSettings("copilot-operator:dev", OPERATOR_NAMESPACE, f"faults-{uuid.uuid4().hex[:8]}")
        replica = Replica(api.kubeconfig(tmp_path / "kubeconfig", token), own)
        try:
            yield Bed(kube, namespace, api, replica)
        finally:
            api.heal()
            await asyncio.to_thread(kube.delete, NAMESPACE, "", namespace)
            await replica.stop()


def test_tries_to_watch_have_no_end() -> None:
    """kopf gives up, and the process with it, when its list of delays is used up."""
    delays = list(itertools.islice(EndlessBackoff(), 1000))
    assert delays[0] <= 1
    assert max(delays) <= 15, "the end of an outage would be noticed too late"
    assert delays == sorted(delays)
    assert list(itertools.islice(EndlessBackoff(), 3)) == delays[:3], "each retry begins anew"


async def test_answers_of_429_500_and_409_delay_but_lose_nothing(bed: Bed) -> None:
    faults = [
        Fault(429, every=13, watch=False, headers={"Retry-After": "1"}),
        Fault(500, every=6, method="PATCH"),
        Fault(409, every=7, method="PATCH"),
        Fault(500, every=3, watch=True),
    ]
    names = ["one", "two", "three"]
    with bed.api.suffering(*faults):
        await bed.apply(*(tenant(bed.namespace, name) for name in names))
        await bed.suspended(*names, within_s=90)
    assert all(fault.seen >= fault.every for fault in faults[:3]), "too few requests for these faults to strike"
    for name in names:

        async def complete(name: str = name) -> bool:
            return all(await bed.children(name))

        await eventually(complete, within_s=40, what=f"{name} has all its children", every_s=0.2)
    await bed.quiet()
    writes = {path: count for (_, path), count in bed.api.writes().items() if f"/{bed.namespace}/" in path}
    again = {path: count for path, count in writes.items() if count > 1 and not may_repeat(path)}
    assert not again, "written more than once although the server took the first"
    assert not bed.replica.ended


def may_repeat(path: str) -> bool:
    """Tokens of a pool share a Secret, status follows what was done, Events have one path for all."""
    return bool(re.search(r"-server-tokens-|/copilotpools/|/status$|/events$", path))


async def test_a_lost_answer_makes_no_duplicate(bed: Bed) -> None:
    """The server did what it was asked and the answer got lost: tried again, and found done."""
    faults = [Fault(-1, method=method, times=4, after=True, path=bed.namespace) for method in ("PATCH", "POST")]
    with bed.api.suffering(*faults):
        await bed.apply(tenant(bed.namespace, "one"), tenant(bed.namespace, "two"))
        await bed.suspended("one", "two", within_s=40)
    assert faults[0].over.is_set(), "no answer was lost"
    for kind in CHILDREN:
        found = await asyncio.to_thread(bed.kube.list, kind, bed.namespace, "copilot-operator.io/tenant")
        assert sorted(child["metadata"]["name"] for child in found) == ["copilot-one", "copilot-two"], kind


async def test_a_hanging_request_delays_only_its_tenant(bed: Bed) -> None:
    hanging = Fault(0, method="PATCH", path="services/copilot-slow$")
    with bed.api.suffering(hanging):
        await bed.apply(tenant(bed.namespace, "slow"))
        await eventually(lambda: hanging.seen, within_s=10, what="the request hangs")
        names = [f"quick-{number}" for number in range(5)]
        await bed.apply(*(tenant(bed.namespace, name) for name in names))
        await bed.suspended(*names, within_s=10)
        assert ready_reason(await bed.find(TENANT, "slow")) != "Suspended"
        # The client's deadline is 15 s: given up, and tried again on its own, not only after the fault is gone.
        await eventually(lambda: hanging.seen >= 2, within_s=25, what="the hanging request was given up")
    await bed.suspended("slow", within_s=30)


async def test_watches_that_break_or_expire_lose_nothing(bed: Bed) -> None:
    await bed.apply(tenant(bed.namespace, "before"), tenant(bed.namespace, "goes"))
    await bed.suspended("before", "goes")
    await bed.quiet()
    clock = asyncio.get_running_loop().time
    for number, harm in enumerate((bed.api.cut, bed.api.expire)):
        started = clock()
        assert harm() >= 10, "not all kinds were watched"
        await bed.apply(tenant(bed.namespace, f"during-{number}"))
        await bed.suspended(f"during-{number}", within_s=15)
        await eventually(lambda: bed.api.open_watches() >= 10, within_s=20, what="all kinds are watched again")
        assert len(bed.api.since(started, lambda r: r.method == "GET")) < 120, "a storm of lists and watches"
    await bed.quiet()
    settled = clock()
    await bed.apply(tenant(bed.namespace, "after"))
    await bed.suspended("after", within_s=10)
    repeated = [path for _, path in bed.api.writes(settled) if "before" in path]
    assert not repeated, "an old tenant was written to because of a broken watch"


async def test_what_vanished_while_no_watch_looked_stays_gone(bed: Bed) -> None:
    """A list after an expired watch does not tell what is missing; a deleted tenant's children must not come back."""
    await bed.apply(tenant(bed.namespace, "stays"), tenant(bed.namespace, "ghost"))
    await bed.suspended("stays", "ghost")
    await bed.quiet()
    blind = Fault(503, path="/copilottenants$")
    with bed.api.suffering(blind):
        assert bed.api.expire("/copilottenants$") == 1
        await eventually(lambda: blind.seen, within_s=10, what="the operator tries to list tenants again")
        await asyncio.to_thread(bed.kube.delete, TENANT, bed.namespace, "ghost")
        await eventually(lambda: _gone(bed, "ghost"), within_s=20, what="the garbage collector took the children")
    await eventually(lambda: bed.api.open_watches("/copilottenants$"), within_s=30, what="tenants are watched again")
    started = asyncio.get_running_loop().time()
    await bed.quiet(for_s=5.0, within_s=30)
    assert not any(await bed.children("ghost")), "children of a tenant that is gone came back"
    made = [path for _, path in bed.api.writes() if "copilot-ghost" in path]
    assert len([r for r in bed.api.since(started) if r.method in WRITES and r.path in made]) <= len(CHILDREN)


async def _gone(bed: Bed, name: str) -> bool:
    found = await asyncio.gather(*(bed.find(kind, f"copilot-{name}") for kind in (SERVICE, SECRET)))
    return not any(found)


async def test_an_outage_ends_and_everything_goes_on(bed: Bed) -> None:
    clock = asyncio.get_running_loop().time
    await bed.apply(tenant(bed.namespace, "serving", suspended=False), tenant(bed.namespace, "asleep"))
    await bed.ready("serving")
    await bed.suspended("asleep")
    await bed.quiet()
    pods = await asyncio.to_thread(bed.kube.list, POD, bed.namespace)
    before = [(pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in pods]
    with bed.api.away():
        began = clock()
        await bed.apply(tenant(bed.namespace, "meanwhile"))
        await eventually(
            lambda: clock() - began > OUTAGE_S, within_s=OUTAGE_S + 5, what="the outage lasts", every_s=1.0
        )
        rate = len(bed.api.since(began)) / OUTAGE_S
    assert 0.3 < rate < 20, f"{rate:.1f} requests a second while the API server was away"
    healed = clock()
    await bed.leading(within_s=30)
    await bed.suspended("meanwhile", within_s=30)
    await bed.ready("serving", within_s=30)
    await bed.quiet()
    pods = await asyncio.to_thread(bed.kube.list, POD, bed.namespace)
    after = [(pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in pods]
    assert before == after, "the outage restarted a server"
    touched = [path for _, path in bed.api.writes(healed) if re.search("serving|asleep", path)]
    assert not touched, "something was written to tenants that nothing happened to"


async def test_a_dead_watch_makes_liveness_fail(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await bed.replica.probe("/livez"))[0] == 200
    monkeypatch.setattr(app, "HEARTBEAT_S", 6.0)
    await eventually(lambda: bed.api.open_watches("/leases$"), within_s=10, what="the Lease is watched")
    assert bed.api.mute("/leases$") == 1

    async def why() -> str:
        status, text = await bed.replica.probe("/livez")
        return text if status == 503 else ""

    told = await eventually(why, within_s=15, what="liveness fails", every_s=0.5)
    assert "Lease" in told
    assert bed.replica.leads, "the API server answers, so the Lease must have been renewed"


async def test_an_outage_leaves_liveness_alone(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart cures no API server; and once it is back, the watches need a moment to find out."""
    outage_s = 14.0
    monkeypatch.setattr(app, "HEARTBEAT_S", outage_s - 2)
    await eventually(lambda: bed.api.open_watches("/leases$"), within_s=10, what="the Lease is watched")
    clock = asyncio.get_running_loop().time

    async def live_until(moment: float) -> bool:
        status, text = await bed.replica.probe("/livez")
        assert status == 200, text
        return clock() > moment

    with bed.api.away():
        ends_at = clock() + outage_s
        await eventually(lambda: live_until(ends_at), within_s=outage_s + 5, what="the outage lasts", every_s=0.3)
    ends_at = clock() + 8
    await eventually(lambda: live_until(ends_at), within_s=15, what="some time passes", every_s=0.3)
    await bed.leading()


async def test_not_ready_before_everything_was_listed(
    installed: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_bed(installed, tmp_path, monkeypatch) as bed:
        hanging = bed.api.inject(Fault(0, path="/networkpolicies$", watch=False))
        await eventually(lambda: hanging.seen, within_s=15, what="the first lists are under way")
        assert await bed.replica.probe("/readyz") == (503, "not everything was listed yet\n")
        assert (await bed.replica.probe("/livez"))[0] == 200
        assert not bed.replica.leads, "acts before it has seen everything"
        assert bed.kube.find(LEASE, OPERATOR_NAMESPACE, LEASE_NAME) is None or not bed.api.writes(leases=True)
        bed.api.heal()
        await bed.leading()
        assert (await bed.replica.probe("/readyz"))[0] == 200
