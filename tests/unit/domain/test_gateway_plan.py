"""A pool's gateway and its tenants: what is made, what each of them is told, and what keeps gateways off a server."""

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.domain.desired import gateway, pool
from copilot_operator.domain.desired.connection import connection
from copilot_operator.domain.desired.service import service
from copilot_operator.domain.desired.tenant_entry import gateway_entry
from copilot_operator.domain.drain import Intent, Why
from copilot_operator.domain.endpoint_status import endpoint_report
from copilot_operator.domain.kinds import DEPLOYMENT, NETWORK_POLICY, ROLE, SECRET, SERVICE, Kind
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import gateway_of
from copilot_operator.domain.plan import plan_tenant
from copilot_operator.domain.pool_plan import PER_SHARD, plan_pool, sharded
from copilot_operator.domain.pool_status import changes_course, pool_report
from copilot_operator.domain.snapshot import Finding, GatewayView, Health, PoolSnapshot, Reading, Server, TenantSnapshot
from copilot_operator.domain.status import tenant_report
from copilot_operator.domain.steps import Apply, Delete, Label
from copilot_operator.domain.tenant_tokens import CODE_LENGTH, code_of, fingerprint, token_of
from copilot_operator.gateway.config_files import PoolFile
from tests.support.snapshots import (
    NO_SECRET,
    NOW,
    a_pod,
    a_pool,
    a_pool_object,
    a_pool_snapshot,
    a_snapshot,
    a_tenant,
)
from tests.unit.domain.test_plan import settled

BEHIND_ONE = {"gateway": {"enabled": True}}
KEY = "the-pools-key"
TOKENS = {"copilotpool-saas-server-tokens-0": {"copilot-alice": "servers-own"}}
ENTRY = gateway_entry(a_tenant(), KEY, shared=False)


def a_gateways_pool(view: GatewayView | None = None, fields: dict[str, Any] | None = None) -> PoolSnapshot:
    """A pool with one tenant, whose own objects are all there; ``view`` is what there is of its gateway."""
    found = a_pool_snapshot(
        raw=a_pool_object(fields=BEHIND_ONE | (fields or {})),
        members=frozenset({"copilot-alice"}),
        tokens=TOKENS,
        gateway=view or GatewayView(tenant_key=KEY, admin_key="p", entries={"copilot-alice": ENTRY}),
    )
    return replace(
        found,
        service_account=pool.service_account(found),
        network_policy=pool.network_policy(found),
        disruption_budget=pool.disruption_budget(found),
    )


def as_planned(snapshot: PoolSnapshot) -> PoolSnapshot:
    """The pool after its plan was carried out."""
    applied = [step.manifest for step in plan_pool(snapshot) if isinstance(step, Apply)]
    objects = {
        kind: each for each in applied for kind in KINDS
        if (each["kind"], each["metadata"]["name"]) == (kind.kind, gateway_of("saas"))
    }  # fmt: skip
    tenants = {
        each["metadata"]["name"]: values(each) for each in applied if "-gateway-tenants-" in each["metadata"]["name"]
    }
    view = replace(snapshot.gateway, objects=objects, key_stored=True, tenants=tenants)
    return replace(snapshot, gateway=view)


KINDS: tuple[Kind, ...] = tuple(
    step.kind for step in plan_pool(a_gateways_pool()) if isinstance(step, Apply)
)  # fmt: skip


def values(secret: Manifest) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def behind_a_gateway(**more: Any) -> TenantSnapshot:
    return a_snapshot(pool=a_pool(BEHIND_ONE), tenant_token="tenants-own", **more)


def test_its_secrets_come_first_and_its_pods_last() -> None:
    steps = plan_pool(a_gateways_pool())
    assert [(step.kind.kind, step.manifest["metadata"]["name"]) for step in steps if isinstance(step, Apply)] == [
        ("Secret", "copilotpool-saas-gateway-tenants-0"),
        ("Secret", "copilotpool-saas-tenant-key"),
        ("Secret", "copilotpool-saas-gateway"),
        ("ServiceAccount", "copilotpool-saas-gateway"),
        ("Role", "copilotpool-saas-gateway"),
        ("RoleBinding", "copilotpool-saas-gateway"),
        ("NetworkPolicy", "copilotpool-saas-gateway"),
        ("PodDisruptionBudget", "copilotpool-saas-gateway"),
        ("Service", "copilotpool-saas-gateway"),
        ("Deployment", "copilotpool-saas-gateway"),
    ]


def test_a_pool_without_one_makes_none_of_it() -> None:
    steps = plan_pool(a_pool_snapshot(members=frozenset({"copilot-alice"}), tokens=TOKENS))
    assert not [step for step in steps if isinstance(step, Apply) and "gateway" in step.manifest["metadata"]["name"]]


def test_what_was_planned_needs_nothing_more() -> None:
    assert plan_pool(as_planned(a_gateways_pool())) == ()


@pytest.mark.parametrize("kind", sorted(set(KINDS), key=str), ids=str)
def test_each_of_its_objects_is_made_again(kind: Kind) -> None:
    there = as_planned(a_gateways_pool())
    without = {each: live for each, live in there.gateway.objects.items() if each != kind}
    (step,) = plan_pool(replace(there, gateway=replace(there.gateway, objects=without)))
    assert isinstance(step, Apply)
    assert (step.kind, step.manifest["metadata"]["name"], step.why) == (kind, gateway_of("saas"), "missing")


def test_who_may_read_metrics_comes_to_the_admin_port_of_gateways() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}
    found = a_gateways_pool(fields={"networkPolicy": {"allowMetricsFrom": [peer]}})
    ingress = gateway.network_policy(found)["spec"]["ingress"]
    assert [rule for rule in ingress if peer in rule["from"]] == [
        {"from": [peer], "ports": [{"protocol": "TCP", "port": gateway.ADMIN_PORT}]}
    ]
    assert all(rule["from"] for rule in gateway.network_policy(a_gateways_pool())["spec"]["ingress"])


def test_with_a_certificate_it_has_a_port_more_and_mounts_two_keys_of_the_secret_if_it_is_there() -> None:
    found = as_planned(a_gateways_pool(fields={"gateway": {"enabled": True, "tls": {"secretName": "saas-tls"}}}))
    pod = found.gateway.objects[DEPLOYMENT]["spec"]["template"]["spec"]
    keys = [{"key": key, "path": key} for key in ("tls.crt", "tls.key")]
    assert pod["volumes"][1:] == [
        {"name": "tls", "secret": {"secretName": "saas-tls", "items": keys, "optional": True}}
    ], "no other key of whatever Secret is named, and no pod waits for one that is missing"
    assert pod["containers"][0]["args"][-2:] == ["--tls", "/tls"]
    assert pod["containers"][0]["volumeMounts"][1:] == [{"name": "tls", "mountPath": "/tls", "readOnly": True}]
    ports = {each["name"]: each["port"] for each in found.gateway.objects[SERVICE]["spec"]["ports"]}
    assert ports == {"copilot": 4321, "copilot-tls": 4443}
    entry = found.gateway.objects[NETWORK_POLICY]["spec"]["ingress"][0]
    assert [each["port"] for each in entry["ports"]] == [4321, 4443]
    assert "tls" not in found.gateway.objects[ROLE]["rules"][0]["resourceNames"], "kubelet brings it, no watch"


def test_without_a_certificate_nothing_of_it_is_there() -> None:
    assert "tls" not in json.dumps(list(as_planned(a_gateways_pool()).gateway.objects.values()))


def test_applications_are_told_the_port_with_tls_where_there_is_one() -> None:
    def told(gateway: dict[str, Any]) -> str | None:
        return values(connection(replace(behind_a_gateway(), pool=a_pool({"gateway": gateway})))).get("tlsPort")

    assert told({"enabled": True}) is None
    assert told({"enabled": True, "tls": {"secretName": "saas-tls"}}) == "4443"


def test_a_policy_that_is_wanted_no_more_goes() -> None:
    there = as_planned(a_gateways_pool())
    live = there.gateway.objects[NETWORK_POLICY]
    live["metadata"]["uid"] = "uid-policy"
    off = a_gateways_pool(there.gateway, {"networkPolicy.enabled": False})
    deletes = [step for step in plan_pool(replace(off, network_policy=None)) if isinstance(step, Delete)]
    assert [(each.name, each.uid) for each in deletes] == [(gateway_of("saas"), "uid-policy")]


def test_it_may_read_its_secrets_and_no_others_and_write_nothing() -> None:
    there = as_planned(a_gateways_pool())
    (role,) = (live for kind, live in there.gateway.objects.items() if kind.kind == "Role")
    secrets, pods = role["rules"]
    assert secrets["resourceNames"] == [
        "copilotpool-saas-gateway", "copilotpool-saas-server-tokens-0", "copilotpool-saas-gateway-tenants-0",
    ]  # fmt: skip
    assert "copilotpool-saas-tenant-key" not in secrets["resourceNames"]
    assert {verb for rule in (secrets, pods) for verb in rule["verbs"]} == {"list", "watch"}


def test_no_token_of_a_tenant_reaches_it() -> None:
    there = as_planned(a_gateways_pool())
    told = [values(live) for kind, live in there.gateway.objects.items() if kind == SECRET]
    token = token_of(KEY, "uid-alice")
    assert token not in str([*told, *there.gateway.tenants.values()])
    assert KEY not in str([*told, *there.gateway.tenants.values()])
    assert fingerprint(token) in str(there.gateway.tenants)


def test_its_settings_name_its_secrets_and_pods_and_are_what_a_gateway_reads() -> None:
    fields = {
        "sessions.policy": {"models": ["m"]},
        "sessions.maxConcurrent": 20,
        "sessions.whenFull": "Reject",
        "sessions.persistence": "Ephemeral",
        "storage.mode": "Ephemeral",
        "sessions.infinite": {"backgroundCompactionThreshold": "0.75"},
    }
    found = values(gateway.settings(a_gateways_pool(fields=fields), ("a",), ("b", "c")))
    assert json.loads(found["shards.json"]) == {"serverTokens": ["a"], "tenants": ["b", "c"]}
    assert json.loads(found["pods.json"]) == {
        "servers": "app.kubernetes.io/managed-by=copilot-operator,app.kubernetes.io/name=copilot,"
        "copilot-operator.io/pool=saas",
    }
    read = msgspec_json(found["pool.json"])
    assert (read.policy.models, read.policy.host_tools, read.idle.session_s) == (["m"], True, 1800.0)
    assert (read.sessions.most, read.sessions.evict, read.sessions.ephemeral, read.forgets) == (20, False, True, True)
    assert read.policy.infinite == {"backgroundCompactionThreshold": 0.75}
    assert (read.limits.connections, read.limits.requests_per_second, read.limits.burst) == (1000, 200, 400)


def test_it_reaches_the_agents_of_its_servers() -> None:
    policy = gateway.network_policy(a_gateways_pool())["spec"]
    to_servers = next(rule for rule in policy["egress"] if "podSelector" in str(rule))
    assert [port["port"] for port in to_servers["ports"]] == [4321, 4322]


def msgspec_json(text: str) -> PoolFile:
    return msgspec.json.decode(text, type=PoolFile)


def test_a_suspended_tenant_is_told_as_such() -> None:
    assert "suspended" not in json.loads(ENTRY)
    entry = json.loads(gateway_entry(a_tenant(fields={"suspended": True}), KEY, shared=False))
    assert entry == json.loads(ENTRY) | {"suspended": True}


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [("False", "PodRefused", True), ("False", "Starting", False), ("True", "PodRefused", False)],
)
def test_what_keeps_a_server_from_starting_is_told_to_who_waits_for_it(status: str, reason: str, told: bool) -> None:
    ready = {"type": "Ready", "status": status, "reason": reason, "message": "exceeded\n  quota" + 400 * "."}
    tenant = a_tenant(status={"conditions": [ready]})
    entry = json.loads(gateway_entry(tenant, KEY, shared=False))
    assert entry.get("trouble", "").startswith("PodRefused: exceeded quota...") is told
    assert len(entry.get("trouble", "")) <= 300
    assert "trouble" not in json.loads(gateway_entry(tenant, KEY, shared=True)), "it has no server of its own"

    shared = a_gateways_pool(fields={"isolation": "Shared", "shared": {"replicas": 1}})
    server = Server(True, False, "cli:1", "copilot-saas-0", trouble=Finding(reason, "exceeded quota"))
    pool = gateway.pool_file(replace(shared, servers=(server,)))
    assert pool.get("trouble") == ("PodRefused: exceeded quota" if reason == "PodRefused" else None)
    assert "trouble" not in gateway.pool_file(replace(shared, servers=(replace(server, running=False),)))


def test_another_tenant_of_the_same_name_has_another_token_and_another_code() -> None:
    assert token_of(KEY, "uid-1") != token_of(KEY, "uid-2")
    assert code_of(KEY, "uid-1") != code_of(KEY, "uid-2")
    assert len(code_of(KEY, "uid-1")) == CODE_LENGTH
    assert token_of("another pool's key", "uid-1") != token_of(KEY, "uid-1")


def test_an_application_gets_a_token_that_is_not_its_servers() -> None:
    assert values(connection(behind_a_gateway()))["token"] == "tenants-own"
    assert values(connection(a_snapshot()))["token"] == "s3cret"


def test_the_tenants_service_is_another_name_of_the_gateways() -> None:
    assert service(behind_a_gateway(), cordoned=True)["spec"] == {
        "type": "ExternalName",
        "externalName": "copilotpool-saas-gateway.apps.svc.cluster.local",
    }


def test_a_tenant_waits_for_its_pools_key() -> None:
    assert plan_tenant(a_snapshot(pool=a_pool(BEHIND_ONE))).move is None
    assert plan_tenant(behind_a_gateway()).move is not None


def test_gateways_are_kept_off_a_draining_server_and_led_back_when_it_serves_again() -> None:
    serving = settled(behind_a_gateway())
    draining = replace(serving, leaving="node n1 is cordoned")
    note, cordon = plan_tenant(draining).steps
    assert (type(note).__name__, cordon) == (
        "Note",
        Label("apps", "copilot-alice-1", "uid-copilot-alice-1", {"copilot-operator.io/cordoned": "true"},
              "node n1 is cordoned"),
    )  # fmt: skip
    cordoned = (a_pod(cordoned=True),)
    assert not [step for step in plan_tenant(replace(draining, pods=cordoned)).steps if isinstance(step, Label)]
    (uncordon,) = plan_tenant(replace(serving, pods=cordoned)).steps
    assert isinstance(uncordon, Label)
    assert uncordon.labels == {"copilot-operator.io/cordoned": None}


def test_without_a_gateway_pods_are_not_labelled() -> None:
    draining = replace(settled(a_snapshot()), leaving="node n1 is cordoned")
    assert not [step for step in plan_tenant(draining).steps if isinstance(step, Label)]


def test_a_tenant_is_not_ready_without_a_gateway() -> None:
    serving = settled(behind_a_gateway(gateway_ready=False, reading=Reading(Health.HEALTHY)))
    report = tenant_report(serving, plan_tenant(serving))
    assert report.status
    assert report.status["phase"] == "Starting"
    ready = next(each for each in report.status["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "GatewayNotReady")
    assert "copilotpool-saas-gateway" in ready["message"]


@pytest.mark.parametrize(
    ("ready", "trouble", "reason"),
    [
        (0, None, "GatewayNotReady"),
        (0, Finding("ImagePullFailed", "no such image"), "ImagePullFailed"),
        (1, Finding("ImagePullFailed", "the second one's"), "PoolReady"),
        (2, None, "PoolReady"),
    ],
    ids=str,
)
def test_a_pool_is_ready_while_one_of_its_gateways_is(ready: int, trouble: Finding | None, reason: str) -> None:
    live = {"status": {"readyReplicas": ready} if ready else {}}
    view = GatewayView(objects={DEPLOYMENT: live}, tenant_key=KEY, admin_key="p", pods=(a_pod(waiting=trouble),))
    status = pool_report(a_gateways_pool(view)).status
    assert status
    assert next(each for each in status["conditions"] if each["type"] == "Ready")["reason"] == reason
    assert status["gateway"] == {"replicas": 2, "readyReplicas": ready}


def test_tenants_hear_when_the_first_gateway_is_ready_and_when_the_last_one_is_gone() -> None:
    one, two, none = ({"gateway": {"replicas": 2, "readyReplicas": number}} for number in (1, 2, 0))
    assert changes_course(none, one)
    assert changes_course(one, none)
    assert not changes_course(one, two)


def test_notes_of_a_drain_and_the_cordon_are_there_before_its_agent_is_asked() -> None:
    """The order is given once all steps were carried out; so steps must hold both."""
    intent = Intent(Why.NODE_DRAIN, NOW, NOW + timedelta(minutes=9))
    plan = plan_tenant(replace(settled(behind_a_gateway()), leaving="node n1 is cordoned"))
    assert plan.move
    assert plan.move.order is not None
    assert plan.move.intent == intent
    assert {type(step).__name__ for step in plan.steps} == {"Note", "Label"}


KEYS = st.dictionaries(st.integers(0, 3 * PER_SHARD).map(str), st.sampled_from("ab"), max_size=40)


@given(stored=st.lists(KEYS, max_size=3), wanted=KEYS)
def test_what_is_stored_stays_in_its_secret_and_all_that_is_wanted_is_in_one(
    stored: list[dict[str, str]], wanted: dict[str, str]
) -> None:
    seen: set[str] = set()
    held = {}
    for number, values in enumerate(stored):  # a key is in one Secret only
        held[f"s{number}"] = {key: value for key, value in values.items() if key not in seen}
        seen |= set(values)
    found = sharded(held, wanted, lambda number: f"s{number}")
    assert {key: value for values in found.values() for key, value in values.items()} == wanted
    assert sum(map(len, found.values())) == len(wanted)
    for name, values in held.items():
        assert set(values) & set(wanted) <= set(found[name])
    assert sharded(found, wanted, lambda number: f"s{number}") == found


@pytest.mark.parametrize(
    ("more", "phase", "reason"),
    [
        ({}, "Ready", "EndpointReady"),
        ({"tenant": a_tenant(fields={"suspended": True}), "gateway_ready": False}, "Suspended", "Suspended"),
        ({"gateway_ready": False}, "Starting", "GatewayNotReady"),
        ({"tenant": a_tenant(fields={"deletionPolicy": "Retain"})}, "Failed", "InvalidSpec"),
        ({"credential": NO_SECRET}, "Failed", "SecretNotFound"),
    ],
    ids=str,
)
def test_a_tenant_without_a_server_of_its_own_is_told_whether_it_can_connect(
    more: dict[str, Any], phase: str, reason: str
) -> None:
    pool = a_pool(BEHIND_ONE | {"isolation": "Shared", "shared": {"replicas": 1}})
    snapshot = a_snapshot(pool=pool, token=None, tenant_token="tenants-own", **more)
    status = endpoint_report(snapshot, plan_tenant(snapshot)).status
    assert status
    ready = next(each for each in status["conditions"] if each["type"] == "Ready")
    assert (status["phase"], ready["reason"]) == (phase, reason)


def test_a_gateway_may_ask_servers_and_the_agents_beside_them() -> None:
    egress = gateway.network_policy(a_gateways_pool())["spec"]["egress"]
    (to_servers,) = [each for each in egress if "podSelector" in str(each.get("to"))]
    assert [each["port"] for each in to_servers["ports"]] == [4321, 4322]
