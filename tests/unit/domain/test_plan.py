"""Plans as data: which steps, in which order, for which reason."""

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from copilot_operator.domain.desired.claim import claim
from copilot_operator.domain.desired.connection import connection
from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.desired.pool import disruption_budget, network_policy, service_account
from copilot_operator.domain.desired.service import service
from copilot_operator.domain.drain import Intent, Why
from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, DISRUPTION_BUDGET, NETWORK_POLICY, SECRET, SERVICE
from copilot_operator.domain.lifecycle import Move, Stage
from copilot_operator.domain.plan import TenantPlan, plan_tenant
from copilot_operator.domain.pool_plan import PER_SHARD, plan_pool
from copilot_operator.domain.secrets import as_observed
from copilot_operator.domain.snapshot import (
    Children,
    DrainPhase,
    DrainReading,
    Finding,
    PoolSnapshot,
    ServerState,
    ServerToken,
    Storage,
    TenantSnapshot,
)
from copilot_operator.domain.steps import Apply, Delete, DeletePod, Label, Note, Scale, Step
from tests.support.snapshots import NO_SECRET, NOW, a_pod, a_pool, a_pool_snapshot, a_snapshot, a_tenant


def settled(snapshot: TenantSnapshot) -> TenantSnapshot:
    """The same tenant with all its children as wanted and its pod ready."""
    live = deployment(snapshot) | {"status": {"replicas": 1}}
    live["metadata"]["uid"] = "uid-deployment"
    children = Children(live, service(snapshot), claim(snapshot), as_observed(connection(snapshot)))
    return replace(snapshot, children=children, pods=(a_pod(),))


def lines(steps: tuple[Step, ...]) -> list[str]:
    return [f"{getattr(step, 'kind', DEPLOYMENT)} {type(step).__name__}: {step.why}" for step in steps]


def test_a_new_tenant_gets_its_children_the_deployment_last() -> None:
    plan = plan_tenant(a_snapshot())
    assert lines(plan.steps) == [
        "PersistentVolumeClaim Apply: missing",
        "Service Apply: missing",
        "Secret Apply: missing",
        "Deployment Apply: first start",
    ]
    assert plan.move
    assert plan.move.stage == Stage.STARTING


FORGETS = a_pool({"storage.mode": "Ephemeral", "storage.size": "2Gi"})


def test_a_server_with_ephemeral_storage_has_no_claim_and_space_of_its_node() -> None:
    plan = plan_tenant(a_snapshot(pool=FORGETS))
    assert lines(plan.steps) == ["Service Apply: missing", "Secret Apply: missing", "Deployment Apply: first start"]
    apply = plan.steps[-1]
    assert isinstance(apply, Apply)
    template = apply.manifest["spec"]["template"]
    assert template["spec"]["volumes"][0] == {"name": "data", "emptyDir": {"sizeLimit": "2Gi"}}
    local = template["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"]
    assert local == "data,logs,tmp"


def test_a_tenant_cannot_keep_a_volume_that_is_none() -> None:
    plan = plan_tenant(a_snapshot(tenant=a_tenant(fields={"deletionPolicy": "Retain"}), pool=FORGETS))
    assert plan.steps == ()


def test_a_settled_tenant_needs_nothing() -> None:
    assert plan_tenant(settled(a_snapshot())) == TenantPlan((), Move(Stage.SERVING))


def test_a_tenant_without_its_secret_gets_everything_but_a_server() -> None:
    plan = plan_tenant(a_snapshot(credential=NO_SECRET))
    assert [step.kind for step in plan.steps if isinstance(step, Apply)] == [CLAIM, SERVICE, SECRET]


def test_a_drain_is_noted_before_anything_else_and_nothing_new_is_led_to_the_server() -> None:
    plan = plan_tenant(replace(settled(a_snapshot()), spec=a_snapshot(tenant=SUSPENDED).spec))
    note, cordon = plan.steps
    assert isinstance(note, Note)
    assert (note.uid, note.why) == ("uid-deployment", "spec.suspended is true")
    assert note.annotations["copilot-operator.io/drain-cause"] == "Suspension"
    assert isinstance(cordon, Apply)
    assert cordon.manifest["spec"]["selector"]["copilot-operator.io/cordoned"] == "true"


def test_a_drained_server_is_scaled_and_what_is_noted_stays_until_it_is_down() -> None:
    intent = Intent(Why.SUSPENSION, NOW, NOW + timedelta(minutes=9))
    done = DrainReading(a_pod().uid, DrainPhase.DONE)
    snapshot = replace(settled(a_snapshot()), spec=a_snapshot(tenant=SUSPENDED).spec, drain=done)
    assert snapshot.children.deployment
    snapshot.children.deployment["metadata"]["annotations"] |= intent.annotations()
    cordoned = replace(snapshot.children, service=service(snapshot, cordoned=True))
    plan = plan_tenant(replace(snapshot, children=cordoned))
    assert plan.steps == (Scale("apps", "copilot-alice", 0, "spec.suspended is true"),)


def test_a_claim_that_was_deleted_is_left_alone_until_it_is_gone() -> None:
    snapshot = settled(a_snapshot())
    assert snapshot.children.claim
    snapshot.children.claim["metadata"] |= {"deletionTimestamp": "x", "labels": {}}
    assert plan_tenant(snapshot).steps == ()


SUSPENDED = a_tenant(fields={"suspended": True})
TROUBLES: dict[str, dict[str, Any]] = {
    "it is being deleted": {"raw": a_tenant(deletionTimestamp="2026-03-01T11:59:00Z")},
    "it can't be read": {"unusable": Finding("InvalidSpec", "no")},
    "its pool is gone": {"pool": None, "unusable": Finding("PoolNotFound", "no")},
    "a child's name is taken": {"children": Children(obstacle=Finding("NameTaken", "no"))},
    "its storage class is missing": {"storage": Storage(finding=Finding("StorageClassNotFound", "no"))},
    "its server has no token yet": {"token": None},
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_a_tenant_is_left_exactly_as_it_is_when(trouble: dict[str, Any]) -> None:
    assert plan_tenant(replace(a_snapshot(tenant=SUSPENDED), **trouble)) == TenantPlan()


def test_a_tenant_whose_resources_do_not_go_with_the_pools_is_left_as_it_is() -> None:
    tenant = a_tenant(fields={"server.resources": {"requests": {"memory": "3Gi"}}})  # the pool's limit is 2Gi
    assert plan_tenant(a_snapshot(tenant=tenant)) == TenantPlan()


@pytest.mark.parametrize(
    ("more", "stage"),
    [
        ({"pods": (a_pod(),)}, Stage.SERVING),
        ({"pods": ()}, Stage.STARTING),
        ({"pods": (), "children": Children()}, Stage.STOPPED),
    ],
)
@pytest.mark.parametrize("by", ["tenant", "pool"])
def test_a_paused_tenant_is_looked_at_only(by: str, more: dict[str, Any], stage: Stage) -> None:
    raw = a_tenant(annotations={"copilot-operator.io/paused": "true"}) if by == "tenant" else a_tenant()
    running = replace(settled(a_snapshot(tenant=raw, pool=a_pool({"server.image": "x"}, paused=by == "pool"))), **more)
    assert plan_tenant(running) == TenantPlan((), Move(stage))


@pytest.mark.parametrize(
    ("child", "path", "value", "line"),
    [
        ("service", "spec.selector", {}, "Service Apply: differs in .spec.selector.app.kubernetes.io/name"),
        ("service", "metadata.labels", {}, "Service Apply: differs in .metadata.labels.app.kubernetes.io/managed-by"),
        ("service", "metadata.ownerReferences", [], "Service Apply: differs in .metadata.ownerReferences"),
        ("connection", "data", {"token": "x"}, "Secret Apply: differs in .data.cliUrl"),
        (
            "claim",
            "spec.resources",
            {"requests": {"storage": "1Gi"}},
            "PersistentVolumeClaim Apply: differs in .spec.resources.requests.storage",
        ),
    ],
)
def test_drift_of_a_child_is_repaired(child: str, path: str, value: Any, line: str) -> None:
    snapshot = settled(a_snapshot())
    live = getattr(snapshot.children, child)
    first, second = (*path.split("."), "")[:2]
    changed = live | {first: live[first] | {second: value} if second else value}
    plan = plan_tenant(replace(snapshot, children=replace(snapshot.children, **{child: changed})))
    assert lines(plan.steps)[0].startswith(line)
    assert len(plan.steps) == 1


def test_a_deleted_child_is_made_again_and_the_server_runs_on() -> None:
    snapshot = settled(a_snapshot())
    plan = plan_tenant(replace(snapshot, children=replace(snapshot.children, service=None, connection=None)))
    assert lines(plan.steps) == ["Service Apply: missing", "Secret Apply: missing"]


def test_a_claim_that_becomes_retained_loses_its_owner() -> None:
    before = settled(a_snapshot())
    after = replace(before, spec=a_snapshot(tenant=a_tenant(fields={"deletionPolicy": "Retain"})).spec)
    (step,) = plan_tenant(after).steps
    assert isinstance(step, Apply)
    assert (step.kind, "ownerReferences" in step.manifest["metadata"]) == (CLAIM, False)


def test_a_retained_claim_that_was_found_again_is_adopted() -> None:
    snapshot = a_snapshot()
    retained = claim(a_snapshot(tenant=a_tenant(fields={"deletionPolicy": "Retain"})))
    step = plan_tenant(replace(snapshot, children=Children(claim=retained))).steps[0]
    assert isinstance(step, Apply)
    assert step.manifest["metadata"]["ownerReferences"][0]["uid"] == "uid-alice"


def test_a_connection_secret_is_compared_by_digests() -> None:
    snapshot = settled(a_snapshot())
    plan = plan_tenant(replace(snapshot, token=ServerToken("another", "copilotpool-saas-server-tokens-0")))
    assert any(line.startswith("Secret Apply: differs in .") for line in lines(plan.steps))


# ---- evictions


def working(snapshot: TenantSnapshot, **more: Any) -> TenantSnapshot:
    """The same tenant with a pod whose CLI works."""
    pod = a_pod(started=True)
    return replace(snapshot, pods=(pod,), state=ServerState(pod.uid, snapshot.now, True, busy=1), **more)


PROTECT = Label("apps", "copilot-alice-1", "uid-copilot-alice-1", {"copilot-operator.io/protected": "true"}, "it works")


def test_a_server_that_works_is_protected_after_everything_else() -> None:
    assert plan_tenant(working(settled(a_snapshot()))).steps == (PROTECT,)
    snapshot = working(settled(a_snapshot()))
    steps = plan_tenant(replace(snapshot, children=replace(snapshot.children, service=None))).steps
    assert lines(steps)[0] == "Service Apply: missing"
    assert steps[1:] == (PROTECT,)


@pytest.mark.parametrize("name", [name for name in TROUBLES if name != "it is being deleted"])
def test_a_server_that_works_is_protected_although(name: str) -> None:
    assert plan_tenant(working(a_snapshot(), **TROUBLES[name])) == TenantPlan((PROTECT,))


def test_of_a_paused_tenant_no_pod_is_labelled() -> None:
    raw = a_tenant(annotations={"copilot-operator.io/paused": "true"})
    assert plan_tenant(working(settled(a_snapshot(tenant=raw)))).steps == ()


def test_of_a_pod_that_is_to_go_no_label_is_changed() -> None:
    snapshot = working(settled(a_snapshot()), leaving="node n1 is cordoned")
    pod = replace(snapshot.pods[0], protected=True)
    snapshot = replace(snapshot, pods=(pod,), drain=DrainReading(pod.uid, DrainPhase.DONE))
    assert Label not in {type(step) for step in plan_tenant(snapshot).steps}
    assert DeletePod in {type(step) for step in plan_tenant(snapshot).steps}


# ---- pools


def a_settled_pool(**more: Any) -> PoolSnapshot:
    pool = a_pool_snapshot(**more)
    return replace(
        pool,
        service_account=service_account(pool),
        network_policy=network_policy(pool),
        disruption_budget=disruption_budget(pool),
    )


def shard(number: int) -> str:
    return f"copilotpool-saas-server-tokens-{number}"


def written(steps: tuple[Step, ...]) -> dict[str, dict[str, str]]:
    """Tokens by shard, as the steps write them."""
    found = {}
    for step in steps:
        assert isinstance(step, Apply)
        assert step.kind == SECRET
        data = step.manifest["data"]
        found[step.manifest["metadata"]["name"]] = {key: base64.b64decode(data[key]).decode() for key in data}
    return found


def test_a_new_pool_gets_an_account_a_budget_and_a_policy() -> None:
    assert lines(plan_pool(a_pool_snapshot())) == [
        "ServiceAccount Apply: missing",
        "PodDisruptionBudget Apply: missing",
        "NetworkPolicy Apply: missing",
    ]


def test_a_settled_pool_needs_nothing() -> None:
    tokens = {shard(0): {"copilot-a": "x"}}
    assert plan_pool(a_settled_pool(members=frozenset({"copilot-a"}), tokens=tokens)) == ()


@pytest.mark.parametrize(
    "trouble", [{"unusable": Finding("InvalidSpec", "no")}, {"obstacle": Finding("NameTaken", "no")}], ids=str
)
def test_a_pool_in_trouble_is_left_as_it_is(trouble: dict[str, Any]) -> None:
    assert plan_pool(a_pool_snapshot(new_tokens={"copilot-a": "x"}, **trouble)) == ()


def test_a_policy_that_is_wanted_no_more_is_deleted_by_its_uid() -> None:
    live = network_policy(a_pool_snapshot())
    live["metadata"]["uid"] = "uid-policy"
    pool = replace(
        a_settled_pool(), network_policy=live, spec=a_pool_snapshot(fields={"networkPolicy.enabled": False}).spec
    )
    (step,) = plan_pool(pool)
    assert step == Delete(NETWORK_POLICY, "apps", "copilotpool-saas", "uid-policy", "networkPolicy.enabled is false")
    assert plan_pool(replace(pool, network_policy=None)) == ()


def test_one_more_label_in_the_policys_selector_is_repaired_since_it_would_protect_nobody() -> None:
    pool = a_settled_pool()
    live = network_policy(pool)
    live["spec"]["podSelector"] = {"matchLabels": live["spec"]["podSelector"]["matchLabels"] | {"off": "yes"}}
    (step,) = plan_pool(replace(pool, network_policy=live))
    assert step.why == "differs in .spec.podSelector.matchLabels.off"


@pytest.mark.parametrize(
    ("drift", "why"),
    [
        ({"maxUnavailable": 1}, "differs in .spec.maxUnavailable"),
        ({"selector": {}}, "differs in .spec.selector.matchLabels"),
        ({"unhealthyPodEvictionPolicy": "AlwaysAllow"}, "differs in .spec.unhealthyPodEvictionPolicy"),
    ],
    ids=str,
)
def test_a_budget_that_would_protect_nobody_is_repaired(drift: dict[str, Any], why: str) -> None:
    pool = a_settled_pool()
    live = disruption_budget(pool)
    live["spec"] |= drift
    (step,) = plan_pool(replace(pool, disruption_budget=live))
    assert step.why == why


def test_a_budget_with_a_limit_of_somebody_elses_is_made_anew_since_no_apply_takes_the_limit_away() -> None:
    pool = a_settled_pool()
    live = disruption_budget(pool)
    live["metadata"]["uid"] = "uid-budget"
    live["spec"]["minAvailable"] = live["spec"].pop("maxUnavailable")
    delete, apply = plan_pool(replace(pool, disruption_budget=live))
    name, why = "copilotpool-saas-busy-servers", "somebody gave it another limit"
    assert delete == Delete(DISRUPTION_BUDGET, "apps", name, "uid-budget", why)
    assert apply == Apply(DISRUPTION_BUDGET, disruption_budget(pool), "missing")


def test_tokens_fill_one_shard_after_the_other() -> None:
    servers = {f"copilot-{number:04}": f"token-{number}" for number in range(2 * PER_SHARD + 1)}
    shards = written(plan_pool(a_settled_pool(members=frozenset(servers), new_tokens=servers)))
    assert {name: len(held) for name, held in shards.items()} == {shard(0): 250, shard(1): 250, shard(2): 1}
    assert {server: token for held in shards.values() for server, token in held.items()} == servers


def test_a_token_never_moves_and_room_is_used_again() -> None:
    first = {f"copilot-{number:04}": "a" for number in range(250)}
    second = {"copilot-x": "b"}
    members = frozenset([*list(first)[1:], "copilot-x", "copilot-y", "copilot-z"])  # the first one left
    pool = a_settled_pool(
        members=members,
        tokens={shard(0): first, shard(1): second},
        new_tokens={"copilot-y": "c", "copilot-z": "d"},
    )
    stayed = {server: token for server, token in first.items() if server in members}
    assert written(plan_pool(pool)) == {
        shard(0): stayed | {"copilot-y": "c"},
        shard(1): second | {"copilot-z": "d"},
    }


def test_a_lost_token_comes_back_where_its_server_looks_for_it() -> None:
    steps = plan_pool(
        a_pool_snapshot(
            members=frozenset({"copilot-a", "copilot-b"}),
            new_tokens={"copilot-a": "t-a", "copilot-b": "t-b"},
            shard_of={"copilot-b": "copilotpool-saas-server-tokens-3"},
        )
    )
    written = {step.manifest["metadata"]["name"]: step for step in steps if isinstance(step, Apply)}
    assert list(written["copilotpool-saas-server-tokens-3"].manifest["data"]) == ["copilot-b"]
    assert list(written["copilotpool-saas-server-tokens-0"].manifest["data"]) == ["copilot-a"]


def test_only_shards_that_change_are_written() -> None:
    tokens = {shard(0): {"copilot-a": "x", "copilot-gone": "y"}, shard(1): {"copilot-b": "z"}}
    pool = a_settled_pool(members=frozenset({"copilot-a", "copilot-b"}), tokens=tokens)
    assert written(plan_pool(pool)) == {shard(0): {"copilot-a": "x"}}


def test_a_shard_whose_members_are_all_gone_is_emptied_once() -> None:
    pool = a_settled_pool(tokens={shard(0): {"copilot-gone": "y"}})
    assert written(plan_pool(pool)) == {shard(0): {}}
    assert plan_pool(replace(pool, tokens={shard(0): {}})) == ()


def test_the_account_is_made_before_the_tokens_that_let_servers_start() -> None:
    steps = plan_pool(a_pool_snapshot(members=frozenset({"copilot-a"}), new_tokens={"copilot-a": "x"}))
    assert lines(steps) == [
        "ServiceAccount Apply: missing",
        "PodDisruptionBudget Apply: missing",
        "NetworkPolicy Apply: missing",
        "Secret Apply: tokens of 1 servers",
    ]


def test_a_server_starts_before_it_is_forgotten_why_it_was_stopped() -> None:
    """In between, an operator that starts anew must know whose turn it was."""
    snapshot = settled(a_snapshot())
    live = snapshot.children.deployment
    assert live
    intent = Intent(Why.UPDATE, NOW, NOW + timedelta(minutes=9))
    metadata = live["metadata"] | {"annotations": live["metadata"]["annotations"] | intent.annotations()}
    down = live | {"metadata": metadata, "spec": live["spec"] | {"replicas": 0}, "status": {}}
    plan = plan_tenant(replace(snapshot, pods=(), children=replace(snapshot.children, deployment=down)))
    assert [(type(step), step.why) for step in plan.steps] == [(Apply, "starts"), (Note, "starts")]
