"""How far what was asked for is."""

from typing import Any

import pytest

from copilot_operator.plugin import waits
from copilot_operator.plugin.endpoint import endpoint_of, pod_to_lead_to
from copilot_operator.plugin.errors import PluginError
from tests.unit.plugin.documents import condition, pool, ready, tenant

ENDPOINT = {"host": "copilot-ann.team.svc", "port": 4321, "secretName": "copilot-ann"}


def pod(uid: str, *, ready: bool = True, leaving: bool = False, owner: str = "ann", **labels: str) -> dict[str, Any]:
    labels = {"copilot-operator.io/tenant": owner} | {f"copilot-operator.io/{key}": labels[key] for key in labels}
    metadata: dict[str, Any] = {"uid": uid, "name": f"pod-{uid}", "labels": labels, "creationTimestamp": uid}
    if leaving:
        metadata["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}


def test_a_suspension_is_done_when_the_operator_says_so_of_this_generation() -> None:
    asleep = tenant("ann", ready("Suspended", "..."))
    assert waits.suspended(asleep).done
    asleep["metadata"]["generation"] = 2
    assert not waits.suspended(asleep).done
    assert waits.suspended(asleep).line == "the operator has yet to see it"
    assert waits.suspended(tenant("ann", ready("Draining", "2 left"))).line == "Draining: 2 left"


def test_awake_is_ready() -> None:
    assert waits.awake(tenant("ann", ready())).done
    assert not waits.awake(tenant("ann", ready("Starting", "..."))).done
    assert not waits.awake(tenant("ann")).done


def test_a_tenant_has_restarted_when_another_pod_serves_and_the_former_is_gone() -> None:
    serving = tenant("ann", ready())
    assert not waits.tenant_restarted(serving, [pod("a")], {"a"}).done
    assert not waits.tenant_restarted(serving, [pod("a", leaving=True), pod("b")], {"a"}).done
    assert not waits.tenant_restarted(serving, [pod("b", ready=False)], {"a"}).done
    assert not waits.tenant_restarted(tenant("ann", ready("Starting", "...")), [pod("b")], {"a"}).done
    assert waits.tenant_restarted(serving, [pod("b")], {"a"}).done


def test_a_pool_has_restarted_when_every_server_has() -> None:
    saas = pool("saas", ready("PoolReady"), condition("Progressing", "True", "RollingUpdate", "..."))
    before = {"a": "ann", "b": "bob"}
    half = waits.pool_restarted(saas, [pod("b", owner="bob"), pod("c", owner="ann")], before, "")
    assert (half.done, half.line) == (False, "1 of 2 servers have restarted")
    assert waits.pool_restarted(saas, [pod("c", owner="ann"), pod("d", owner="bob")], before, "").done
    assert not waits.pool_restarted(saas, [pod("c", owner="ann")], before, "").done
    assert waits.pool_restarted(saas, [], {}, "").done


def test_an_update_that_fails_ends_the_wait_but_not_one_that_failed_before() -> None:
    saas = pool(
        "saas", ready("PoolReady"), condition("Progressing", "False", "UpdateFailed", "Revision x was given up")
    )
    assert waits.pool_restarted(saas, [], {"a": "ann"}, "").failed == "UpdateFailed: Revision x was given up"
    assert waits.pool_restarted(saas, [], {"a": "ann"}, "Revision x was given up").failed == ""


def test_a_pause_is_done_when_the_operator_tells_of_it() -> None:
    held = tenant("ann", ready(), condition("Paused", "True", "PausedByAnnotation"))
    assert waits.paused(held, True).done
    assert not waits.paused(held, False).done
    assert not waits.paused(tenant("ann"), True).done


# Where the endpoint leads


def test_an_endpoint_leads_to_the_pools_gateway_else_to_the_server() -> None:
    ann = tenant("ann", ready(), endpoint=ENDPOINT)
    behind = endpoint_of(ann, pool("saas"))
    assert behind.labels == "app.kubernetes.io/name=copilot-gateway,copilot-operator.io/pool=saas"
    direct = pool("saas")
    direct["spec"]["gateway"] = {"enabled": False}
    assert endpoint_of(ann, direct).labels == "app.kubernetes.io/name=copilot,copilot-operator.io/tenant=ann"
    assert (behind.secret, behind.port, behind.notice) == ("copilot-ann", 4321, "")


def test_why_there_is_no_endpoint_is_said() -> None:
    with pytest.raises(PluginError, match=r"no endpoint yet.*PoolNotFound: Pool saas does not exist"):
        endpoint_of(tenant("ann", ready("PoolNotFound", "Pool saas does not exist")), None)
    with pytest.raises(PluginError, match="names the pool saas, which is not there"):
        endpoint_of(tenant("ann", ready(), endpoint=ENDPOINT), None)


def test_only_pods_that_are_ready_stay_and_are_not_drained_are_led_to() -> None:
    endpoint = endpoint_of(tenant("ann", ready("Starting", "It starts"), endpoint=ENDPOINT), pool("saas"))
    pods = [pod("1"), pod("2"), pod("3", ready=False), pod("4", leaving=True), pod("5", cordoned="true")]
    assert pod_to_lead_to(endpoint, pods) == "pod-2"
    with pytest.raises(PluginError, match=r"no pod of it is ready \(Starting: It starts\)"):
        pod_to_lead_to(endpoint, pods[2:])
