"""Whose servers a pool has, and which seats of a Shared one run: from what the cache holds."""

from typing import Any

from copilot_operator.app import pool_figures
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.members import Members
from copilot_operator.cluster.observe import owner_key
from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.kinds import DEPLOYMENT, POD, POOL, TENANT
from copilot_operator.domain.manifest import Manifest, owner_reference
from copilot_operator.domain.naming import TENANT_LABEL, server_of, slug
from copilot_operator.domain.seats import as_tenant, homes, seat_name
from copilot_operator.domain.snapshot import PoolView, ServerState
from tests.support.snapshots import NAMESPACE, NOW, TOKEN, a_pool_object, a_snapshot, a_tenant, pool_spec

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


def test_where_the_operator_decides_the_number_lives_in_status_and_a_request_makes_the_first_seat() -> None:
    fields = {
        "isolation": "Shared", "shared": {"autoscaling": {"minReplicas": 0, "maxReplicas": 4, "freeSessions": 0}},
        "gateway": {"enabled": True}, "sessions.maxConcurrent": 10,
    }  # fmt: skip
    subject, held = Subject(fields), 0
    subject.members.held = lambda namespace, pool: held
    found = subject.members.scale(NAMESPACE, "saas", pool_spec(fields), NOW)
    assert found
    assert (found.scale.replicas, subject.members.names(NAMESPACE, "saas")) == (0, [])
    held = 11
    found = subject.members.scale(NAMESPACE, "saas", pool_spec(fields), NOW)
    assert found
    assert subject.members.decide(NAMESPACE, "saas") == {"saas/0", "saas/1"}
    stored = a_pool_object(fields=fields, status={"autoscaling": found.scale.document}, resourceVersion="8")
    restarted = Members(subject.cache, lambda *_: None, lambda *_: False, lambda *_: None)
    subject.cache.put(POOL, stored, 0.0)
    assert restarted.decide(NAMESPACE, "saas") == {"saas/0", "saas/1"}, "what status tells goes on"
    fixed = pool_spec(SHARED)
    subject.pool(SHARED, version=9)
    assert subject.members.scale(NAMESPACE, "saas", fixed, NOW) is None
    assert subject.members.names(NAMESPACE, "saas") == ["saas/0", "saas/1"], "people decide again"


def test_sessions_that_need_room_are_told_once_each_ready_server_has_been_counted() -> None:
    subject, states = Subject(SHARED | {"sessions.maxConcurrent": 50}), dict[str, ServerState]()
    members = subject.members
    members.state = lambda _, server: states.get(server)
    members.held = lambda namespace, pool: 3
    assert members.sessions(NAMESPACE, "saas") == {"loaded": 0, "waiting": 0, "held": 3}
    assert members.slots(NAMESPACE, "saas") == 50
    for ordinal in (0, 1):
        live = subject.has(ordinal)
        live["metadata"]["resourceVersion"] = "20"
        subject.cache.put(DEPLOYMENT, live | {"status": {"readyReplicas": 1 - ordinal}}, 0.0)
        subject.cache.put(POD, a_seats_pod(ordinal), 0.0)
    assert members.sessions(NAMESPACE, "saas") is None, "a ready server has not been counted"
    states[server_of("saas/0")] = ServerState("1", NOW, True, loaded=7, busy=1, wait_for_room=2)
    assert members.sessions(NAMESPACE, "saas") == {"loaded": 7, "waiting": 2, "held": 3}, "one that starts holds none"
    dedicated = Subject({"sessions.maxConcurrent": 50}).members
    assert (dedicated.sessions(NAMESPACE, "saas"), dedicated.slots(NAMESPACE, "saas")) == (None, None)
    told = {sample.name: sample for each in pool_figures(members, [(NAMESPACE, "saas")]) for sample in each.samples}
    assert told["copilot_operator_pool_session_slots"].value == 50
    assert told["copilot_operator_pool_sessions"].labels == {
        "pool_namespace": NAMESPACE, "pool": "saas", "state": "waiting",
    }  # fmt: skip


def a_seats_pod(ordinal: int) -> Manifest:
    labels = {"copilot-operator.io/pool": "saas", TENANT_LABEL: slug(f"saas/{ordinal}")}
    name = f"{server_of(f'saas/{ordinal}')}-1"
    return {"metadata": {"name": name, "namespace": NAMESPACE, "uid": name, "resourceVersion": "1", "labels": labels}}


def test_what_belongs_to_a_seat_leads_to_it_and_what_belongs_to_the_pool_to_the_pool() -> None:
    live = seats_deployment(1)
    assert live["metadata"]["ownerReferences"] == [owner_reference(a_pool_object())]
    assert owner_key(DEPLOYMENT, live) == (TENANT, NAMESPACE, "saas/1")
    live["metadata"]["annotations"]["copilot-operator.io/tenant-name"] = "other/1"
    assert owner_key(DEPLOYMENT, live) == (POOL, NAMESPACE, "saas"), "nobody leads it to another pool by a label"


def test_a_tenants_homes_are_what_is_told_and_what_nobody_can_ask_now() -> None:
    assert homes(None, ["a"], ["a"]) == {"a"}, "nobody has said anything yet"
    assert homes(["b"], ["a", "c"], ["b", "c"]) == {"a", "b"}, "c runs, and stores nothing of it"
