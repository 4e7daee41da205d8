"""Whose servers a pool has, and which seats of a Shared one run: from what the cache holds."""

from typing import Any

from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.members import Members
from copilot_operator.cluster.observe import owner_key
from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.kinds import DEPLOYMENT, POOL, TENANT
from copilot_operator.domain.manifest import Manifest, owner_reference
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.seats import as_tenant, homes, seat_name
from copilot_operator.domain.snapshot import PoolView
from tests.support.snapshots import NAMESPACE, TOKEN, a_pool_object, a_snapshot, a_tenant, pool_spec

SHARED = {"isolation": "Shared", "shared": {"replicas": 2}, "gateway": {"enabled": True}}


class Subject:
    def __init__(self, fields: dict[str, Any]) -> None:
        self.cache = Cache()
        self.wanted: set[str] = set()
        self.pool(fields)
        self.members = Members(self.cache, lambda *_: None, lambda _, server: server in self.wanted, lambda *_: None)

    def pool(self, fields: dict[str, Any], version: int = 7) -> None:
        self.cache.put(POOL, a_pool_object(fields=fields, resourceVersion=str(version)), 0.0)

    def has(self, ordinal: int, replicas: int = 1) -> Manifest:
        """A Deployment of a seat."""
        live = seats_deployment(ordinal)
        live["spec"]["replicas"] = replicas
        live["metadata"] |= {"uid": f"uid-{ordinal}", "resourceVersion": str(10 + replicas)}
        self.cache.put(DEPLOYMENT, live, 0.0)
        return live


def seats_deployment(ordinal: int) -> Manifest:
    pool = a_pool_object(fields=SHARED)
    seat = as_tenant(pool, seat_name("saas", ordinal), runs=True, retained=True, status=None)
    return deployment(a_snapshot(tenant=seat, owner=pool, pool=PoolView(pool_spec(SHARED)), token=TOKEN))


def test_servers_of_a_dedicated_pool_are_its_tenants() -> None:
    subject = Subject({})
    subject.cache.put(TENANT, a_tenant(), 0.0)
    assert subject.members.names(NAMESPACE, "saas") == ["alice"]
    assert subject.members.raw(NAMESPACE, "alice") == (subject.cache.get(TENANT, NAMESPACE, "alice"), None)
    assert not subject.members.surplus(NAMESPACE, "saas")


def test_seats_run_as_the_pool_says_and_those_that_stopped_are_not_forgotten() -> None:
    subject = Subject(SHARED)
    assert subject.members.names(NAMESPACE, "saas") == ["saas/0", "saas/1"]
    assert subject.members.decide(NAMESPACE, "saas") == {"saas/0", "saas/1"}
    subject.has(0)
    subject.has(4, replicas=0)
    subject.pool(SHARED | {"shared": {"replicas": 1}}, version=8)
    assert subject.members.names(NAMESPACE, "saas") == ["saas/0", "saas/4"]
    assert subject.members.decide(NAMESPACE, "saas") == {"saas/1"}, "told of the one for which it has changed"
    seat = subject.members.raw(NAMESPACE, "saas/4")
    assert seat
    assert (seat[0]["spec"]["suspended"], seat[1] is not None) == (True, True)
    assert subject.members.raw(NAMESPACE, "saas/1") is None, "there is no such seat any more"


def test_a_seat_that_is_wanted_runs_beside_the_others() -> None:
    subject = Subject(SHARED)
    for ordinal, replicas in enumerate((1, 1, 0)):
        subject.has(ordinal, replicas)
    assert subject.members.running(NAMESPACE, "saas") == {"saas/0", "saas/1"}
    subject.wanted = {server_of("saas/2")}
    assert subject.members.decide(NAMESPACE, "saas") == {"saas/2"}
    assert subject.members.surplus(NAMESPACE, "saas")


def test_what_belongs_to_a_seat_leads_to_it_and_what_belongs_to_the_pool_to_the_pool() -> None:
    live = seats_deployment(1)
    assert live["metadata"]["ownerReferences"] == [owner_reference(a_pool_object())]
    assert owner_key(DEPLOYMENT, live) == (TENANT, NAMESPACE, "saas/1")
    live["metadata"]["annotations"]["copilot-operator.io/tenant-name"] = "other/1"
    assert owner_key(DEPLOYMENT, live) == (POOL, NAMESPACE, "saas"), "nobody leads it to another pool by a label"


def test_a_tenants_homes_are_what_is_told_and_what_nobody_can_ask_now() -> None:
    assert homes(None, ["a"], ["a"]) == {"a"}, "nobody has said anything yet"
    assert homes(["b"], ["a", "c"], ["b", "c"]) == {"a", "b"}, "c runs, and stores nothing of it"
