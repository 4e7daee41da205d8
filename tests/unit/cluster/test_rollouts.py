"""Which revision of its pool a server is rendered from, as it is gathered from the cache."""

from dataclasses import replace
from typing import Any, cast

import pytest

from copilot_operator.app import Router
from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.bundles import Bundles
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.credentials import Credentials
from copilot_operator.cluster.execute import Executor
from copilot_operator.cluster.members import Members
from copilot_operator.cluster.pools import Pools
from copilot_operator.cluster.reconcile import Reconciler, WorkKey
from copilot_operator.cluster.rollouts import Rollouts
from copilot_operator.cluster.storage import StorageClasses
from copilot_operator.cluster.tenants import Tenants
from copilot_operator.domain.kinds import DEPLOYMENT, POOL, REVISION, TENANT, Kind
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.rollout import ABSENT, Standing
from copilot_operator.domain.snapshot import Failing, Finding, PoolSnapshot, PoolView, Server
from copilot_operator.engine.queue import WorkQueue
from tests.support.snapshots import IMAGE, NAMESPACE, SETTINGS, a_pool_object, a_pool_snapshot, a_revision, a_tenant

OLD = a_revision()
NEW_POOL = a_pool_object(fields={"server.image": "cli:2"})
NEW = a_revision(NEW_POOL, number=2)
OLD_NAME, NEW_NAME = OLD["metadata"]["name"], NEW["metadata"]["name"]
CURRENT = {"currentRevision": OLD_NAME, "updateRevision": NEW_NAME}
ALICE = server_of("alice")


class Gathered:
    """A pool that changes from OLD to NEW, with the tenant alice; nothing is asked of an API server."""

    def __init__(self, status: Manifest, *, proven: bool = False, suspended: bool = False) -> None:
        self.cache = Cache()
        nothing: Any = lambda *_: None  # noqa: E731
        self.rollouts = Rollouts(lambda *_: [ALICE], nothing, nothing, lambda: 0.0)
        pools = Pools(
            nothing,
            self.cache,
            SETTINGS,
            self.rollouts,
            Members(self.cache, nothing, nothing, nothing),
            Credentials(nothing, self.cache),
            Bundles(nothing, nothing),
        )
        self.tenants = Tenants(nothing, self.cache, SETTINGS, StorageClasses(nothing), nothing, pools, nothing)
        self.cache.put(POOL, NEW_POOL | {"status": status}, 0.0)
        self.cache.put(TENANT, a_tenant(fields={"suspended": suspended}), 0.0)
        for manifest in (OLD, a_revision(NEW_POOL, number=2, proven=proven)):
            self.cache.put(REVISION, manifest, 0.0)
        self.suspended = suspended

    def runs(self, replicas: int, revision: str = OLD_NAME) -> None:
        metadata = {"name": ALICE, "namespace": NAMESPACE, "uid": "1", "resourceVersion": "1"}
        annotations = {"copilot-operator.io/pool-revision": revision}
        template = {"spec": {"containers": [{"image": "cli"}]}}
        spec = {"replicas": replicas, "template": template}
        manifest = {"metadata": metadata | {"annotations": annotations}, "spec": spec}
        self.cache.put(DEPLOYMENT, manifest, 0.0)

    def view(self) -> PoolView:
        found = self.tenants._pool_of(NAMESPACE, "saas", ALICE, self.suspended)
        assert isinstance(found, PoolView)
        return found


def test_a_running_server_is_compared_with_what_people_want() -> None:
    gathered = Gathered(CURRENT)
    gathered.runs(1)
    view = gathered.view()
    assert (view.revision, view.spec.server.image, view.rolling) == (NEW_NAME, "cli:2", True)


@pytest.mark.parametrize("suspended", [True, False])
def test_a_stopped_server_gets_a_revision_that_works(suspended: bool) -> None:
    gathered = Gathered(CURRENT, suspended=suspended)
    gathered.runs(0)
    gathered.rollouts.report(NAMESPACE, "saas", "copilot-other", Standing(unavailable=True, revision=NEW_NAME))
    assert gathered.view().spec.server.image == IMAGE, "another is about to find out"
    proven = Gathered(CURRENT, proven=True, suspended=suspended)
    proven.runs(0)
    assert proven.view().spec.server.image == "cli:2"


def test_the_first_to_start_finds_out_whether_it_works_but_not_one_that_is_suspended() -> None:
    gathered = Gathered(CURRENT)
    assert gathered.view().spec.server.image == "cli:2"
    assert gathered.rollouts.admits(NAMESPACE, "saas", ALICE)
    gathered.rollouts.report(NAMESPACE, "saas", ALICE, ABSENT)
    gathered.suspended = True
    assert gathered.view().spec.server.image == IMAGE
    assert not gathered.rollouts.admits(NAMESPACE, "saas", ALICE)


def test_of_a_failed_revision_everybody_goes_back() -> None:
    gathered = Gathered(CURRENT | {"failedRevision": {"revision": NEW_NAME}})
    for replicas in (0, 1):
        gathered.runs(replicas, NEW_NAME)
        view = gathered.view()
        assert (view.revision, view.spec.server.image, view.rolling) == (OLD_NAME, IMAGE, False)


def test_what_is_no_part_of_a_revision_is_always_the_pools_own() -> None:
    pool = a_pool_object(fields={"server.image": "cli:2", "drain.timeout": "1m"})
    gathered = Gathered(CURRENT | {"failedRevision": {"revision": NEW_NAME}})
    gathered.cache.put(POOL, replace_version(pool, "8") | {"status": CURRENT}, 0.0)
    assert gathered.view().spec.drain.timeout == "1m"


def test_revisions_of_another_pool_of_this_name_do_not_count() -> None:
    gathered = Gathered(CURRENT)
    foreign = replace_version(a_pool_object(uid="uid-of-another", fields={"server.image": "cli:2"}), "8")
    gathered.cache.put(POOL, foreign | {"status": CURRENT}, 0.0)
    gathered.runs(0)
    assert gathered.view().spec.server.image == "cli:2", "there is no way back"


async def test_a_pool_counts_its_servers_by_what_they_told_and_else_by_their_notes() -> None:
    gathered = Gathered(CURRENT)
    gathered.runs(1, OLD_NAME)
    (server,) = gathered.tenants.pools._servers(NAMESPACE, "saas", ["alice"])
    assert (server.name, server.revision) == (ALICE, OLD_NAME)
    gathered.rollouts.report(NAMESPACE, "saas", ALICE, Standing(revision=NEW_NAME))
    (server,) = gathered.tenants.pools._servers(NAMESPACE, "saas", ["alice"])
    assert server == replace(server, revision=NEW_NAME)


def replace_version(manifest: Manifest, version: str) -> Manifest:
    return manifest | {"metadata": manifest["metadata"] | {"resourceVersion": version}}


class Api:
    """An API server that stores what it is given."""

    async def apply(self, kind: Kind, manifest: Manifest, *, subresource: str = "") -> Manifest:
        return replace_version(NEW_POOL, "9") | {"status": manifest["status"]}

    async def create(self, kind: Kind, namespace: str, manifest: Manifest) -> None:
        """Events."""


class Seen:
    """A gatherer that has seen just this pool."""

    def __init__(self, snapshot: PoolSnapshot) -> None:
        self.found = snapshot
        nothing: Any = lambda *_: None  # noqa: E731
        self.members, self.scale = Members(Cache(), nothing, nothing, nothing), nothing

    async def snapshot(self, namespace: str, name: str) -> PoolSnapshot:
        return self.found


@pytest.mark.parametrize(
    ("failing", "woken"), [({"a": Failing(Finding("Crash", "x"))}, [(NAMESPACE, "saas")]), ({}, [])]
)
async def test_all_tenants_look_again_when_their_pool_turns_back(failing: dict[str, Failing], woken: list[Any]) -> None:
    paused = a_pool_object(fields={"server.image": "cli:2"}, annotations={"copilot-operator.io/paused": "true"})
    server = Server(running=True, ready=False, image="cli:2", name="a", revision=NEW_NAME)
    snapshot = a_pool_snapshot(
        raw=paused | {"status": CURRENT}, revisions=(OLD, NEW), members=frozenset("a"), servers=(server,),
        failing=failing, next_verdict_s=12.0,
    )  # fmt: skip
    api, cache, told = cast(KubeApi, Api()), Cache(), list[tuple[str, str]]()
    nothing: Any = lambda *_: None  # noqa: E731
    answers = Answers(cache, nothing)
    reconciler = Reconciler(
        api, cache, answers, nothing, cast(Pools, Seen(snapshot)), Executor(api, answers, lambda: True), lambda: True,
        nothing, nothing,
        lambda namespace, name: told.append((namespace, name)),
        nothing, nothing, nothing,
    )  # fmt: skip
    assert await reconciler((POOL, NAMESPACE, "saas")) == 12.0, "and the pool when the next verdict is due"
    assert told == woken


def test_whoever_is_woken_with_a_whole_pool_must_tell_again() -> None:
    asked = list[tuple[str, str]]()
    cache, queue = Cache(), WorkQueue[WorkKey](lambda: 0.0)
    cache.put(TENANT, a_tenant(), 0.0)
    router = Router(cache, queue, lambda *_: [], lambda namespace, name: asked.append((namespace, name)))
    router.wake_tenants(NAMESPACE, "saas")
    assert (asked, queue.take()) == ([(NAMESPACE, "saas")], (TENANT, NAMESPACE, "alice"))
