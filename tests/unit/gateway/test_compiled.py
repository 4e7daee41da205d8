"""What a gateway makes of the Secrets and pods that it sees."""

import json
from typing import Any

import pytest

from copilot_operator.gateway.feed.compiled import DRAINING, SERVING, STOPPED, Incomplete, Seen, SeenPod, compiled, seen

SECRET = "do-not-tell"
SHARDS = {"serverTokens": ["t0"], "tenants": ["n0"]}
TENANT = {"tokens": ["a" * 64, "b" * 64], "name": "alice", "code": "", "server": "copilot-alice"}


def known(*pods: SeenPod, **settings: Any) -> Seen:
    values = {
        "pool.json": {"isolation": "Dedicated"},
        "shards.json": SHARDS,
        "pods.json": {"servers": "a=b"},
    } | settings
    return Seen(
        settings={name: json.dumps(value) for name, value in values.items()},
        secrets={"t0": {"copilot-alice": SECRET}, "n0": {"alice": json.dumps(TENANT)}},
        pods={pod.name: pod for pod in pods},
        listed=True,
    )


def servers(of: Seen) -> Any:
    return json.loads(compiled(of)["servers.json"])


def pod(**labels: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "copilot-alice-1-x",
            "labels": {"copilot-operator.io/tenant": "alice"} | labels,
            "ownerReferences": [{"kind": "ReplicaSet", "name": "copilot-alice-1"}],
        },
        "status": {
            "podIP": "127.0.0.9",
            "containerStatuses": [{"name": "copilot", "started": True, "state": {"running": {}}}],
        },
    }


def test_pods_that_were_not_listed_yet_stop_no_server() -> None:
    early = known()
    early.listed = False
    with pytest.raises(Incomplete, match="not been listed"):
        compiled(early)
    early.listed = True
    assert servers(early) == {"copilot-alice": {"state": STOPPED, "token": SECRET}}


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_of_two_pods_of_a_server_the_one_that_serves_counts_then_the_one_that_drains(names: tuple[str, str]) -> None:
    old, new = (SeenPod(names[0], "1", "copilot-alice", DRAINING), SeenPod(names[1], "2", "copilot-alice", SERVING))
    gone = SeenPod("c", "", "copilot-alice", STOPPED)
    assert servers(known(gone, new, old))["copilot-alice"]["host"] == "2"
    assert servers(known(gone, old))["copilot-alice"]["state"] == DRAINING


def test_a_pod_serves_while_its_cli_runs_and_drains_when_it_ends_or_is_cordoned() -> None:
    ending, starting = pod(), pod()
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    starting["status"]["containerStatuses"][0]["started"] = False
    cordoned = pod(**{"copilot-operator.io/cordoned": "true"})
    assert [seen(each).state for each in (pod(), ending, cordoned, starting)] == [SERVING, DRAINING, DRAINING, STOPPED]


def test_a_pod_that_no_deployment_of_the_server_made_is_not_the_servers() -> None:
    foreign = pod()
    foreign["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "copilot-mallory-1"}]
    assert (seen(pod()).server, seen(foreign).server) == ("copilot-alice", "")


def test_several_tokens_of_one_tenant_lead_to_it() -> None:
    assert sorted(json.loads(compiled(known())["tenants.json"])) == ["a" * 64, "b" * 64]


@pytest.mark.parametrize("garbage", ["{", "[]", '{"tokens": 1}'])
def test_garbage_in_a_tenants_entry_is_named_and_its_secrets_are_not(garbage: str) -> None:
    broken = known()
    broken.secrets["n0"] = {"alice": garbage}
    with pytest.raises(Incomplete, match="alice") as raised:
        compiled(broken)
    assert SECRET not in str(raised.value)


def test_a_shard_that_is_named_and_not_read_is_waited_for() -> None:
    with pytest.raises(Incomplete, match="t1"):
        compiled(known(**{"shards.json": {"serverTokens": ["t0", "t1"], "tenants": ["n0"]}}))
