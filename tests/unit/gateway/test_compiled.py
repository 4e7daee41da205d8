"""From Secrets and pods to a gateway's files: what a server's state is, and what is no configuration."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.gateway.config import Config
from copilot_operator.gateway.config_files import State
from copilot_operator.gateway.feed.compiled import Incomplete, Seen, compiled, seen

SERVER = "copilot-alice"
SETTINGS = {
    "pool.json": json.dumps({"isolation": "Dedicated"}),
    "shards.json": json.dumps({"serverTokens": ["tokens-0"], "tenants": ["tenants-0"]}),
    "pods.json": json.dumps({"servers": "app=copilot"}),
    "admin.key": "the-key",
}
ENTRY = {"tokens": ["a" * 64, "b" * 64], "name": "alice", "server": SERVER}
SECRETS = {"tokens-0": {SERVER: "servers-own"}, "tenants-0": {SERVER: json.dumps(ENTRY)}}


def a_pod(name: str = f"{SERVER}-6f-1", *, ip: str = "10.0.0.1", runs: bool = True, **more: Any) -> dict[str, Any]:
    """A pod of the server, as the API server tells it."""
    labels = {"copilot-operator.io/tenant": "alice"} | more.get("labels", {})
    metadata = {
        "name": name,
        "labels": labels,
        "ownerReferences": [{"kind": more.get("owner", "ReplicaSet"), "name": f"{SERVER}-6f"}],
    }
    metadata |= {"deletionTimestamp": "now"} if more.get("ends") else {}
    started = runs and not more.get("starts")
    container = {"name": "copilot", "started": started, "state": {"running": {}} if runs else {"waiting": {}}}
    status = {
        "podIP": ip,
        "containerStatuses": [{"name": "agent", "started": True, "state": {"running": {}}}, container],
    }
    return {"metadata": metadata, "status": {key: value for key, value in status.items() if value}}


def known(*pods: dict[str, Any]) -> Seen:
    return Seen(dict(SETTINGS), dict(SECRETS), {pod["metadata"]["name"]: seen(pod) for pod in pods}, listed=True)


def read(found: Seen, tmp_path: Any) -> Config:
    for name, content in compiled(found).items():
        (tmp_path / name).write_bytes(content)
    return Config.read(tmp_path)


@pytest.mark.parametrize(
    ("pods", "state", "host"),
    [
        ([a_pod()], State.SERVING, "10.0.0.1"),
        ([], State.STOPPED, ""),
        ([a_pod(ip="")], State.STOPPED, ""),
        ([a_pod(runs=False)], State.STOPPED, ""),
        ([a_pod(ends=True)], State.DRAINING, "10.0.0.1"),
        ([a_pod(labels={"copilot-operator.io/cordoned": "true"})], State.DRAINING, "10.0.0.1"),
        ([a_pod(ends=True), a_pod("new", ip="10.0.0.2", runs=False)], State.DRAINING, "10.0.0.1"),
        ([a_pod(ends=True), a_pod("new", ip="10.0.0.2")], State.SERVING, "10.0.0.2"),
        ([a_pod(owner="Job")], State.STOPPED, ""),
        ([a_pod(starts=True)], State.STARTING, "10.0.0.1"),
        ([a_pod(starts=True, ends=True)], State.STOPPED, ""),
        ([a_pod(starts=True, labels={"copilot-operator.io/cordoned": "true"})], State.STOPPED, ""),
        ([a_pod(ends=True), a_pod("new", ip="10.0.0.2", starts=True)], State.DRAINING, "10.0.0.1"),
    ],
    ids=str,
)
def test_a_server_is_what_its_pods_are(pods: list[Any], state: State, host: str, tmp_path: Any) -> None:
    server = read(known(*pods), tmp_path).servers[SERVER]
    assert (server.state, server.host, server.token) == (state, host, "servers-own")


def test_a_pod_of_somebody_elses_that_has_the_label_gets_no_token(tmp_path: Any) -> None:
    foreign = a_pod("stranger", ip="10.6.6.6")
    foreign["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "copilot-mallory-6f"}]
    assert read(known(foreign), tmp_path).servers[SERVER].state is State.STOPPED


def test_pods_that_were_not_listed_yet_stop_no_server() -> None:
    early = known()
    early.listed = False
    with pytest.raises(Incomplete, match="not been listed"):
        compiled(early)


def test_every_token_of_a_tenant_is_known_and_the_admin_key(tmp_path: Any) -> None:
    config = read(known(), tmp_path)
    assert {digest: tenant.name for digest, tenant in config.tenants.items()} == {"a" * 64: "alice", "b" * 64: "alice"}
    assert config.admin_key == "the-key"


@pytest.mark.parametrize(
    ("settings", "secrets", "says"),
    [
        (None, SECRETS, "settings"),
        ({"shards.json": "[]"}, SECRETS, "shards.json: serverTokens"),
        ({"shards.json": "no"}, SECRETS, "shards.json is no JSON"),
        ({"pool.json": "7"}, SECRETS, "pool.json is no object"),
        ({}, {"tokens-0": {}}, "tenants-0"),
        ({}, SECRETS | {"tenants-0": {"x": "{}"}}, "tenant x: no list of tokens"),
        ({}, SECRETS | {"tenants-0": {"x": "secret{"}}, "x is no JSON"),
    ],
    ids=str,
)
def test_what_is_no_configuration_is_named_and_no_value_told(settings: Any, secrets: Any, says: str) -> None:
    with pytest.raises(Incomplete, match=says) as error:
        compiled(Seen(None if settings is None else SETTINGS | settings, secrets, listed=True))
    assert "secret{" not in str(error.value)


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
def test_the_order_in_which_pods_are_heard_of_does_not_matter(order: list[int], ended: set[int]) -> None:
    pods = {number: a_pod(f"p{number}", ip=f"10.0.0.{number + 1}", ends=number in ended) for number in order}
    ordered = {number: pods[number] for number in sorted(pods)}
    assert compiled(known(*pods.values())) == compiled(known(*ordered.values()))
