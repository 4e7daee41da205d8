"""Rows of the status page: what is written in status, in its own words, and nothing that could be a secret."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.domain.kinds import DEPLOYMENT, POD
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import Health, Reading
from copilot_operator.page.rows import live_row, pool_row, server_row, tenant_row
from tests.support.status_page import SINCE, World, condition

DRAIN = {"cause": "Update", "startTime": SINCE, "deadline": "2030-01-02T12:08:00Z", "busy": 2, "work": {"turn": 2}}


def test_a_tenants_conditions_are_told_as_they_were_written() -> None:
    ready = condition(reason="SecretNotFound", message="Secret x of spec.auth is not there; make it")
    row = tenant_row(World().tenant("alice", ready, phase="Failed", drain=DRAIN))
    assert (row["namespace"], row["name"], row["pool"], row["phase"]) == ("team", "alice", "saas", "Failed")
    assert row["conditions"] == [
        {"type": "Ready", "status": "False", "reason": "SecretNotFound", "message": ready["message"], "since": SINCE}
    ]
    assert row["drain"] == DRAIN | {"cut": None}
    assert row["servers"] == ["copilot-alice"]


def test_a_tenant_of_which_nothing_is_told_has_a_row_too() -> None:
    row = tenant_row({"metadata": {"name": "new", "namespace": "team"}})
    assert (row["phase"], row["conditions"], row["drain"], row["sessions"]) == ("", [], None, None)


def test_a_pool_tells_its_servers_gateways_and_what_scaling_decided() -> None:
    told: dict[str, Any] = {
        "gateway": {"readyReplicas": 1, "replicas": 2},
        "autoscaling": {"replicas": 2, "message": "few are free"},
    }
    row = pool_row(World().pool(**told))
    assert (row["servers"], row["gateways"], row["tenants"], row["scaling"]) == ([1, 2], [1, 2], 2, "few are free")


def test_a_server_tells_its_pods_and_the_drain_in_the_status_of_its_tenant() -> None:
    world = World()
    deployment = world.server("alice", drain_cause="Change", drain_since=SINCE, drain_deadline=SINCE)
    pod = world.cache.get(POD, "team", "copilot-alice-x")
    assert pod
    row = server_row(deployment, [pod], {"drain": DRAIN})
    assert row["drain"]["busy"] == 2
    told = {"name": "copilot-alice-x", "node": "node-1", "phase": "Running", "ready": True, "restarts": 0}
    assert row["pods"] == [told]
    assert server_row(deployment, [], {})["drain"]["cause"] == "Change", "else the intent at the Deployment"


def test_conditions_of_a_seat_are_in_the_row_of_its_server() -> None:
    deployment = World().server("saas/0")
    status = {"conditions": [condition()]}
    assert server_row(deployment, [], status)["conditions"][0]["reason"] == "ServerReady"
    assert server_row(deployment, [], status)["pool"] == "saas"
    assert server_row(World().server("alice"), [], status)["conditions"] == []


def test_a_server_that_was_never_asked_tells_its_health_alone() -> None:
    assert live_row(Reading(Health.UNHEALTHY, "refused"), None) == {"health": "Unhealthy", "message": "refused"}


SECRET = "hunter2-token"
NAMES = st.text("abcdefgh", min_size=1, max_size=6)
PLANTED = st.recursive(
    st.just(SECRET), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2), max_leaves=4
)


@given(where=st.dictionaries(st.sampled_from(["auth", "server", "env", "provider", "template"]), PLANTED))
def test_nothing_of_a_spec_but_names_is_shown(where: dict[str, Any]) -> None:
    """Keys, tokens and environment are in specs and pods; whatever comes there later is not shown either."""

    def planted(obj: Manifest) -> Manifest:
        metadata = obj["metadata"]
        annotations = (metadata.get("annotations") or {}) | {"kubectl.kubernetes.io/last-applied-configuration": SECRET}
        spec = where | (obj.get("spec") or {})
        return obj | {"spec": spec, "data": where, "metadata": metadata | {"annotations": annotations}}

    world = World()
    world.server("alice")
    pod, deployment = (
        world.cache.get(kind, "team", f"copilot-alice{end}") for kind, end in ((POD, "-x"), (DEPLOYMENT, ""))
    )
    assert pod
    assert deployment
    rows = [
        pool_row(planted(world.pool())),
        tenant_row(planted(world.tenant())),
        server_row(planted(deployment), [planted(pod)], {}),
    ]
    assert SECRET not in json.dumps(rows)
