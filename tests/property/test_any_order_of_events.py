"""Any order of events ends where the spec says, and nothing on the way there harms a running server."""

import base64
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, currently_in_test_context, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from copilot_operator.api.conditions import timestamp
from copilot_operator.api.pool import parse_pool
from copilot_operator.api.tenant import parse_tenant
from copilot_operator.domain.desired.deployment import token_source
from copilot_operator.domain.drain import intent_of
from copilot_operator.domain.kinds import (
    CLAIM,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    REVISION,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
)
from copilot_operator.domain.lifecycle import Move, Order
from copilot_operator.domain.live import is_up
from copilot_operator.domain.manifest import Manifest, annotations_of, controller_uid
from copilot_operator.domain.naming import CORDONED_LABEL, RESTARTED_AT_ANNOTATION, busy_servers, pool_object
from copilot_operator.domain.ownership import obstacle
from copilot_operator.domain.plan import plan_tenant
from copilot_operator.domain.pool_plan import plan_pool
from copilot_operator.domain.pool_status import pool_report
from copilot_operator.domain.secrets import as_observed
from copilot_operator.domain.server_tokens import key_of, parts_of, rotations
from copilot_operator.domain.snapshot import (
    Children,
    Credential,
    DrainReading,
    Finding,
    Health,
    PoolSnapshot,
    PoolView,
    Reading,
    ServerState,
    ServerToken,
    TenantSnapshot,
)
from copilot_operator.domain.status import tenant_report
from copilot_operator.domain.steps import Apply, DeletePod, Scale, Step
from copilot_operator.domain.tenant_tokens import latest
from tests.property.cluster_model import CHILDREN, KUBECTL_RESTART, SERVER, Cluster, LivePod
from tests.support.snapshots import NOW, SETTINGS

SHARD = "copilotpool-saas-server-tokens-0"
HAND_MADE: dict[str, tuple[Any, Manifest]] = {
    "image of the template": (DEPLOYMENT, {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}),
    "kubectl rollout restart": (
        DEPLOYMENT,
        {"spec": {"template": {"metadata": {"annotations": {KUBECTL_RESTART: "now"}}}}},
    ),
    "label of the Deployment": (DEPLOYMENT, {"metadata": {"labels": {"app.kubernetes.io/name": "x"}}}),
    "note of the intent": (DEPLOYMENT, {"metadata": {"annotations": {"copilot-operator.io/intent-hash": "image=0"}}}),
    "scaled to three": (DEPLOYMENT, {"spec": {"replicas": 3}}),
    "scaled to none": (DEPLOYMENT, {"spec": {"replicas": 0}}),
    "selector of the Service": (SERVICE, {"spec": {"selector": {"off": "yes"}}}),
    "token of the connection": (SECRET, {"data": {"token": "eA=="}}),
}


class Operator:
    """Level-triggered: it knows nothing but what it sees. ``cluster`` stands for its cache."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.secret: str | None = "gho_1"  # the value of the user's Secret, None: missing
        self.answers = False  # whether the server answered a ping since the operator or the pod started
        self.now = NOW
        self.minted = 0
        self.ordered: set[str] = set()  # pods whose agents were given an order since the operator started
        self.admitted = True
        self.leaving = ""

    def pool_snapshot(self) -> PoolSnapshot | None:
        cluster, raw = self.cluster, self.cluster.pool
        if raw is None:
            return None
        uid = raw["metadata"]["uid"]
        shard = cluster.live(SECRET, SHARD)
        tokens = {SHARD: values(shard)} if shard and controller_uid(shard) == uid else {}
        members = frozenset({SERVER} if cluster.tenant else ())
        held = {parts_of(key)[1] for key in tokens.get(SHARD, {})}
        current, wanted = self._rotations(held) if members else ("", "")
        missing = [rotation for rotation in {current, wanted} - held if members]
        new = {key_of(SERVER, each): self._adopt_or_mint() if each == current else self._mint() for each in missing}
        name = pool_object("saas")
        live = {kind: cluster.live(kind, name) for kind in (SERVICE_ACCOUNT, NETWORK_POLICY)}
        taken = any(each and controller_uid(each) != uid for each in (*live.values(), shard))
        return PoolSnapshot(
            raw,
            self.now,
            SETTINGS,
            spec=parse_pool(raw).spec,
            members=members,
            tokens=tokens,
            new_tokens=new,
            spent_tokens=frozenset(key_of(SERVER, each) for each in held - {current, wanted}),
            service_account=live[SERVICE_ACCOUNT],
            network_policy=live[NETWORK_POLICY],
            revisions=tuple(
                each for (kind, _), each in cluster.objects.items() if kind == REVISION and controller_uid(each) == uid
            ),
            disruption_budget=cluster.live(DISRUPTION_BUDGET, busy_servers("saas")),
            obstacle=Finding("NameTaken", "of the former pool") if taken else None,
        )

    def _rotations(self, held: set[str]) -> tuple[str, str]:
        live, wanted = self.cluster.live(DEPLOYMENT), parse_tenant(self.cluster.tenant or {}).spec.connection_token
        source = token_source(live) if live else None
        return rotations(held, parts_of(source[1])[1] if source else None, latest(wanted, self.now) if wanted else "")

    def _adopt_or_mint(self) -> str:
        if known := self.cluster.live(SECRET):
            return values(known)["token"]
        return self._mint()

    def _mint(self) -> str:
        self.minted += 1
        return f"token-{self.minted}"

    def tenant_snapshot(self) -> TenantSnapshot | None:
        cluster, raw = self.cluster, self.cluster.tenant
        if raw is None:
            return None
        snapshot = TenantSnapshot(
            raw,
            self.now,
            SETTINGS,
            SERVER,
            spec=parse_tenant(raw).spec,
            pods=cluster.seen_pods,
            reading=Reading(Health.HEALTHY if self.answers else Health.UNKNOWN),
            admitted=self.admitted,
        )
        if pod := self._live_pod(snapshot):
            snapshot = replace(snapshot, **self._told_by(pod), leaving=self.leaving)
        found = {kind: cluster.live(kind) for kind in CHILDREN}
        blocked = next((o for kind, live in found.items() if live and (o := obstacle(kind, live, snapshot))), None)
        connection = found[SECRET]
        children = Children(
            found[DEPLOYMENT], found[SERVICE], found[CLAIM], as_observed(connection) if connection else None
        )
        snapshot = replace(snapshot, children=Children(obstacle=blocked) if blocked else children)
        if cluster.pool is None:
            return replace(snapshot, unusable=Finding("PoolNotFound", "no pool"))
        spec = parse_pool(cluster.pool).spec
        return replace(
            snapshot,
            pool=PoolView(spec, restarted_at=annotations_of(cluster.pool).get(RESTARTED_AT_ANNOTATION, "")),
            **self._tokens(cluster.pool["metadata"]["uid"]),
            credential=self._credential(spec),
        )

    def _live_pod(self, snapshot: TenantSnapshot) -> LivePod | None:
        """The pod that its agent and the pings speak of: one that started."""
        seen = snapshot.server_pod
        return next((pod for pod in self.cluster.pods if seen and seen.started and pod.uid == seen.uid), None)

    def _told_by(self, pod: LivePod) -> dict[str, Any]:
        told: dict[str, Any] = {
            "state": ServerState(
                pod.uid, self.now, not pod.hung, busy=len(pod.turns), draining=pod.phase is not None,
                processes=300 if pod.worn else 3, age_s=1.0, failure="Silent" if pod.hung else "",
            )
        }  # fmt: skip
        if pod.hung:
            told["reading"] = Reading(Health.UNHEALTHY, "no answer")
        if pod.name in self.ordered:
            told["drain"] = DrainReading(pod.uid, pod.phase, busy=len(pod.turns))
        return told

    def follow(self, snapshot: TenantSnapshot, move: Move | None) -> None:
        """Carry the order of a move to the pod's agent."""
        pod = self._live_pod(snapshot)
        if move is None or move.order is None or pod is None or pod.terminating:
            return
        match move.order:
            case Order.DRAIN:
                assert move.intent
                assert intent_of(self.cluster.live(DEPLOYMENT)) == move.intent, "an order that nobody would remember"
                pod.drain(move.intent.deadline, self.now)
                self.ordered.add(pod.name)
            case Order.CANCEL:
                pod.serve_again()
                self.ordered.discard(pod.name)
            case Order.RESTART:
                self.cluster.restart_cli(pod.uid)
                self.ordered.discard(pod.name)

    def _tokens(self, pool_uid: str) -> dict[str, Any]:
        shard = self.cluster.live(SECRET, SHARD)
        stored = values(shard) if shard and controller_uid(shard) == pool_uid else {}
        held = {each: ServerToken(token, SHARD, each) for key, token in stored.items() for each in [parts_of(key)[1]]}
        current, wanted = self._rotations(set(held))
        token, before = held.get(wanted), held.get(current)
        return {"token": token or before, "former_token": before if token and wanted != current else None}

    def _credential(self, spec: Any) -> Credential | None:
        if spec.auth is None:
            return None
        if self.secret is None:
            return Credential("github", "token", finding=Finding("SecretNotFound", "no Secret github"))
        return Credential("github", "token", digest=self.secret)


def values(secret: Manifest) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret.get("data", {}).items()}


class AnyOrder(RuleBasedStateMachine):
    """Rules are what people, controllers, kubelet and the operator do; each may come at any time."""

    @initialize(counts_terminating=st.booleans(), settled=st.booleans())
    def a_cluster(self, counts_terminating: bool, settled: bool = False) -> None:
        self.cluster = Cluster(counts_terminating)
        self.operator = Operator(self.cluster)
        self.started_from: Any = None  # what people wanted when the Deployment was last applied
        self.applied: Any = None  # the template as it was after that
        self.notes_lost = False  # our annotations are gone: what shows in them only can't be told from before
        self.meddled = False  # somebody edited the Deployment and things have not settled since
        self.tokens_lost = False  # somebody took or edited a Secret with a token, and things have not settled since
        self.dead: set[str] = set()  # tokens that were exchanged
        self.serves_with = ""
        self.cluster.create_pool()
        self.cluster.create_tenant()
        if settled:
            self.everything_settles()

    # ---- people

    @rule()
    def tenant_comes(self) -> None:
        if self.cluster.tenant is None:
            self.cluster.create_tenant()

    @rule(retain=st.booleans())
    def tenant_goes(self, retain: bool) -> None:
        if retain and self.cluster.tenant:
            self._edit_tenant(lambda spec: spec | {"deletionPolicy": "Retain"})
            self.operator_looks()
        self.cluster.tenant = None
        self.serves_with, self.dead = "", set()  # of another tenant

    @rule(suspended=st.booleans())
    def tenant_is_suspended_or_woken(self, suspended: bool) -> None:
        self._edit_tenant(lambda spec: spec | {"suspended": suspended})

    @rule(memory=st.sampled_from(["512Mi", "1024Mi"]))
    def tenant_gets_memory(self, memory: str) -> None:
        self._edit_tenant(lambda spec: spec | {"server": {"resources": {"requests": {"memory": memory}}}})

    @rule(policy=st.sampled_from(["Retain", "Delete"]))
    def deletion_policy_changes(self, policy: str) -> None:
        self._edit_tenant(lambda spec: spec | {"deletionPolicy": policy})

    @rule(image=st.sampled_from(["cli:1", "cli:2"]), needs_secret=st.booleans())
    def pool_is_edited(self, image: str, needs_secret: bool) -> None:
        if self.cluster.pool:
            pool = copy.deepcopy(self.cluster.pool)
            pool["spec"]["server"]["image"] = image
            pool["spec"]["recycle"] = {"maxProcesses": 200}
            pool["spec"]["auth"] = {"gitHub": {"tokenSecretRef": {"name": "github", "key": "token"}}}
            if not needs_secret:
                del pool["spec"]["auth"]
            self.cluster.pool = pool

    @rule(moment=st.sampled_from(["monday", "tuesday"]))
    def restart_is_asked_for(self, moment: str) -> None:
        if self.cluster.pool:
            pool = copy.deepcopy(self.cluster.pool)
            pool["metadata"]["annotations"] = {RESTARTED_AT_ANNOTATION: moment}
            self.cluster.pool = pool

    @rule(minutes=st.sampled_from([None, -5, 3, 10, 30]))
    def token_is_to_be_rotated(self, minutes: int | None) -> None:
        """So many minutes from noon on, which may have passed; None: not any more."""
        wish = {} if minutes is None else {"connectionToken": {"rotateAt": timestamp(NOW + timedelta(minutes=minutes))}}
        self._edit_tenant(lambda spec: {key: value for key, value in spec.items() if key != "connectionToken"} | wish)

    @rule(value=st.sampled_from([None, "gho_1", "gho_2"]))
    def secret_changes(self, value: str | None) -> None:
        self.operator.secret = value

    @rule()
    def pool_goes_or_comes(self) -> None:
        if self.cluster.pool:
            self.cluster.pool = None
        else:
            self.cluster.create_pool()

    @rule(kind=st.sampled_from([DEPLOYMENT, SERVICE, SECRET]))
    def child_is_deleted(self, kind: Any) -> None:
        self.cluster.delete(kind)
        self.tokens_lost |= kind == SECRET

    @rule()
    def tokens_are_deleted(self) -> None:
        self.cluster.delete(SECRET, SHARD)
        self.tokens_lost = True

    @rule(name=st.sampled_from(sorted(HAND_MADE)))
    def child_is_edited(self, name: str) -> None:
        kind, change = HAND_MADE[name]
        if self.cluster.live(kind):
            self.cluster.edit(kind, change)
            self.meddled |= kind == DEPLOYMENT
            self.tokens_lost |= kind == SECRET

    @rule()
    def notes_are_removed(self) -> None:
        if live := self.cluster.live(DEPLOYMENT):
            for key in ("copilot-operator.io/intent-hash", "copilot-operator.io/applied-hash"):
                live["metadata"]["annotations"].pop(key, None)
            self.notes_lost = True

    @rule()
    def pod_is_deleted(self) -> None:
        for pod in self.cluster.pods[:1]:
            pod.terminating, pod.ready = True, False
        self.tell()

    # ---- clients

    @rule()
    def turn_begins(self) -> None:
        """Also at a server that is drained: an open connection can't be refused."""
        for pod in self.cluster.pods:
            if pod.ready and not pod.terminating and not pod.hung:
                pod.turns.append(self.operator.now)

    @rule()
    def turn_ends(self) -> None:
        for pod in self.cluster.pods:
            del pod.turns[:1]

    # ---- misfortunes

    @rule()
    def server_hangs(self) -> None:
        for pod in self.cluster.pods:
            pod.hung = pod.ready

    @rule()
    def server_wears_out(self) -> None:
        for pod in self.cluster.pods:
            pod.worn = pod.ready

    @rule(leaving=st.booleans())
    def node_is_cordoned_or_not(self, leaving: bool) -> None:
        self.operator.leaving = "node n1 is cordoned" if leaving else ""

    @rule(admitted=st.booleans())
    def pool_gives_turns(self, admitted: bool) -> None:
        self.operator.admitted = admitted

    @rule(minutes=st.sampled_from([1, 8, 12]))
    def time_passes(self, minutes: int) -> None:
        self.operator.now += timedelta(minutes=minutes)

    @rule()
    def agents_work(self) -> None:
        for pod in self.cluster.pods:
            pod.agent_works(self.operator.now, waits=False)
        self.tell()

    # ---- cluster

    @rule()
    def garbage_is_collected(self) -> None:
        self.cluster.collect_garbage()

    @rule()
    def controller_works(self) -> None:
        self.cluster.control()
        self.tell()

    @rule()
    def deadline_passes(self) -> None:
        self.cluster.pass_the_deadline()

    @rule()
    def pod_starts(self) -> None:
        self.cluster.start_pod()
        self.tell()

    @rule()
    def pods_end(self) -> None:
        self.cluster.end_pods()
        self.tell()

    @rule()
    def watch_catches_up(self) -> None:
        self.cluster.tell_of_pods()

    def tell(self) -> None:
        """Pods' news may be late only where the Deployment's status tells of pods that end."""
        if not self.cluster.counts_terminating:
            self.cluster.tell_of_pods()

    # ---- operator

    @rule()
    def server_is_pinged(self) -> None:
        self.operator.answers = any(pod.ready for pod in self.cluster.pods)

    @rule()
    def operator_restarts(self) -> None:
        self.operator.answers = False
        self.operator.ordered.clear()

    @rule()
    def operator_looks(self) -> None:
        self.operator_dies_after(99)

    @rule(rounds=st.integers(1, 2))
    def operator_and_controller_work(self, rounds: int) -> None:
        for _ in range(rounds):
            self.operator_looks()
            self.controller_works()

    @rule(image=st.sampled_from(["cli:1", "cli:2"]))
    def server_is_updated(self, image: str) -> None:
        """The busiest road, so that it is taken often: drain, stop, look again while the pod still ends."""
        self.pool_is_edited(image, needs_secret=False)
        for happens in (self.operator_looks, self.agents_work, self.agents_work):
            happens()
        self.operator_and_controller_work(2)

    @rule(minutes=st.sampled_from([0, 8]), agents=st.integers(0, 2), steps=st.integers(0, 3))
    def busy_server_is_suspended_and_woken(self, minutes: int, agents: int, steps: int) -> None:
        """The other one: a drain on its way, and perhaps its end, before the cause goes away and the operator dies."""
        self.turn_begins()
        self.tenant_is_suspended_or_woken(True)
        self.operator_looks()
        self.time_passes(minutes)
        for _ in range(agents):
            self.agents_work()
        self.operator_looks()
        self.tenant_is_suspended_or_woken(False)
        self.operator_dies_after(steps)
        self.operator_restarts()

    @rule(steps=st.integers(0, 6), looks=st.booleans())
    def token_is_rotated_and_the_operator_dies(self, steps: int, looks: bool) -> None:
        """The way to the moment when the old token goes and the new one comes, and a death before, at or after it."""
        self.token_is_to_be_rotated(round((self.operator.now - NOW).total_seconds() / 60))
        for happens in (self.operator_looks, self.agents_work, self.agents_work, self.operator_looks):
            happens()
            self.applications_are_told_the_token_of_the_server()
        self.controller_works()
        self.pods_end()
        self.watch_catches_up()
        self.controller_works()
        self.operator_dies_after(steps)
        self.operator_restarts()
        if looks:
            self.operator_looks()
        self.controller_works()
        self.pod_starts()

    @rule(steps=st.integers(0, 3))
    def operator_dies_after(self, steps: int) -> None:
        """One cycle for the pool and one for the tenant, of which only the first steps are done."""
        self.operator.now += timedelta(seconds=1)
        pool = self.operator.pool_snapshot()
        done = self._execute(plan_pool(pool)[:steps]) if pool else 0
        tenant = self.operator.tenant_snapshot()
        if tenant is None or done >= steps:
            return
        plan = plan_tenant(tenant)
        self._execute(plan.steps[: steps - done], tenant)
        if steps < 99:
            return
        self.operator.follow(tenant, plan.move)
        report = tenant_report(tenant, plan)
        if report.status and self.cluster.tenant:
            ready = next(each for each in report.status["conditions"] if each["type"] == "Ready")
            serves = any(pod.ready and not pod.terminating for pod in self.cluster.seen_pods)
            assert ready["status"] == "False" or serves, "Ready without a ready pod"
            self.cluster.tenant = self.cluster.tenant | {"status": report.status}

    def _execute(self, steps: tuple[Step, ...], tenant: TenantSnapshot | None = None) -> int:
        for step in steps:
            if currently_in_test_context():
                note(f"{type(step).__name__} {getattr(step, 'kind', '')}: {step.why}")
            before = self.cluster.live(DEPLOYMENT)
            if tenant and isinstance(step, Scale | DeletePod):
                self._cuts_nothing(step)
            self.cluster.execute(step)
            if tenant and isinstance(step, Scale):
                self._stopped_for_a_cause(tenant)
            if tenant and isinstance(step, Apply) and step.kind == DEPLOYMENT:
                self._changed_with_care(before)
                self.applied = self._template(self.cluster.live(DEPLOYMENT))
                if before is None or before["spec"]["replicas"] == 0 or self.notes_lost:
                    self.started_from, self.notes_lost = people_want(tenant), False
        return len(steps)

    def _cuts_nothing(self, step: Scale | DeletePod) -> None:
        """No turn that began before its server was cordoned is running, unless its time is up or the server hangs."""
        for pod in self.cluster.pods:
            if pod.terminating or pod.hung or (isinstance(step, DeletePod) and step.uid != pod.uid):
                continue
            early = [began for began in pod.turns if began < pod.drained_from]
            assert not early or self.operator.now > pod.deadline, "a turn was cut before its deadline"

    def _stopped_for_a_cause(self, tenant: TenantSnapshot) -> None:
        assert tenant.spec
        causes = {
            "suspended": tenant.spec.suspended,
            "people changed something": people_want(tenant) != self.started_from,
            "somebody's edit got a pod of its own": self.meddled,
        }
        assert any(causes.values()), "a running server was stopped without a cause"

    def _changed_with_care(self, before: Manifest | None) -> None:
        after = self.cluster.live(DEPLOYMENT)
        assert after
        if before is None:
            return
        assert after["spec"]["replicas"] > 0 or before["spec"]["replicas"] == 0, "an apply stopped a server"
        if self._template(before) == self._template(after):
            return
        down = before["spec"]["replicas"] == 0 and not self.cluster.pods
        assert down or self._template(after) == self.applied, "the template changed under a server that is not down"

    def _template(self, live: Manifest | None) -> Any:
        """The template without what others added, which an apply leaves there."""
        template = live and json.loads(json.dumps(live["spec"]["template"]))
        if template:
            template["metadata"]["annotations"].pop(KUBECTL_RESTART, None)
        return template

    def running(self) -> list[LivePod]:
        return [pod for pod in self.cluster.pods if not pod.terminating]

    # ---- what must always hold

    @invariant()
    @precondition(lambda self: hasattr(self, "cluster"))
    def one_pod_at_most_is_wanted(self) -> None:
        assert self.meddled or len(self.running()) <= 1
        assert sum(pod.ready for pod in self.cluster.pods) <= 1, "the lock lets one server in"

    @invariant()
    @precondition(lambda self: hasattr(self, "cluster"))
    def applications_are_told_the_token_of_the_server(self) -> None:
        """From its start to its end, whatever was exchanged meanwhile; and what was exchanged never comes back."""
        secret = self.cluster.live(SECRET)
        for pod in self.cluster.pods:
            if not pod.ready or not secret or self.tokens_lost or self.meddled:
                continue
            assert values(secret)["token"] == pod.token, "applications have another token than their server"
            assert pod.token not in self.dead, "a token that was exchanged is taken again"
            if self.serves_with not in ("", pod.token):
                self.dead.add(self.serves_with)
            self.serves_with = pod.token

    # ---- where it ends

    @rule()
    def everything_settles(self) -> None:
        self.operator.leaving, self.operator.admitted = "", True
        for pod in self.cluster.pods:
            pod.turns.clear()
        for _ in range(16):
            before = self._state()
            for happens in (
                self.agents_work,
                self.cluster.collect_garbage,
                self.cluster.control,
                self.cluster.end_pods,
                self.cluster.control,
                self.cluster.start_pod,
                self.cluster.control,
                self.cluster.pass_the_deadline,
                self.cluster.tell_of_pods,
                self.server_is_pinged,
                self.operator_looks,
            ):
                happens()
            if self._state() == before:
                break
        else:
            raise AssertionError("it does not come to rest")
        self.meddled &= self.cluster.pool is None  # without its pool a tenant is left as it is, edits included
        self.tokens_lost &= self.cluster.pool is None
        self._ends_where_the_spec_says()
        self._needs_nothing_more()

    def teardown(self) -> None:
        if hasattr(self, "cluster"):
            self.everything_settles()

    def _state(self) -> Any:
        cluster = self.cluster
        pods = [(pod.name, pod.ready, pod.terminating, pod.phase) for pod in cluster.pods]
        return json.dumps([list(cluster.objects.values()), pods, cluster.tenant, cluster.pool])

    def _needs_nothing_more(self) -> None:
        pool, tenant = self.operator.pool_snapshot(), self.operator.tenant_snapshot()
        assert pool is None or plan_pool(pool) == ()
        if pool and (status := pool_report(pool).status):
            assert pool_report(replace(pool, raw=pool.raw | {"status": status})).status is None
        if tenant:
            plan = plan_tenant(tenant)
            assert plan.steps == ()
            assert tenant_report(tenant, plan).status is None, "status is quiet"

    def _ends_where_the_spec_says(self) -> None:
        cluster, tenant = self.cluster, self.operator.tenant_snapshot()
        live = cluster.live(DEPLOYMENT)
        if tenant is None:
            left = [kind for kind in CHILDREN if cluster.live(kind)]
            assert not cluster.pods
            assert left in ([], [CLAIM])
            return
        if tenant.pool is None:
            return  # left as it was
        assert tenant.spec
        claim = cluster.live(CLAIM)
        assert claim
        assert (controller_uid(claim) is None) == (tenant.spec.deletion_policy == "Retain")
        assert all(cluster.live(kind) for kind in (SERVICE, SECRET))
        assert tenant.token
        assert values(cluster.objects[SECRET, SERVER])["token"] == tenant.token.value
        self._has_one_token(tenant)
        cordoned = set() if is_up(live) else {CORDONED_LABEL}  # nobody can reach it anyway
        selector = cluster.objects[SERVICE, SERVER]["spec"]["selector"].keys()
        assert selector - cordoned == {"app.kubernetes.io/name", "copilot-operator.io/tenant"}
        assert cluster.tenant
        phase = cluster.tenant.get("status", {}).get("phase")
        if tenant.spec.suspended:
            assert live
            assert (live["spec"]["replicas"], cluster.pods, phase) == (0, [], "Suspended")
        elif tenant.credential and tenant.credential.finding:
            assert phase in ("Failed", "Ready"), "it goes on with what it was started with, or does not start"
            assert (phase == "Ready") == bool(self.running())
        else:
            (pod,) = cluster.pods
            (cli,) = pod.template["spec"]["containers"]
            own = tenant.spec.server.resources if tenant.spec.server else None
            memory = ((own and own.requests) or {}).get("memory", "384Mi").replace("1024Mi", "1Gi")
            assert (pod.ready, phase, cli["image"]) == (True, "Ready", tenant.pool.spec.server.image)
            assert cli["resources"]["requests"]["memory"] == memory
            assert pod.template["spec"]["terminationGracePeriodSeconds"] == 600
            assert people_want(tenant) == self.started_from

    def _has_one_token(self, tenant: TenantSnapshot) -> None:
        assert tenant.spec
        assert tenant.token
        assert tenant.former_token is None
        assert [*values(self.cluster.objects[SECRET, SHARD])] == [key_of(SERVER, tenant.token.rotation)]
        wanted = tenant.spec.connection_token
        due = latest(wanted, self.operator.now) if wanted else ""
        assert tenant.token.rotation >= due.replace("-", "").replace(":", "")

    def _edit_tenant(self, change: Callable[[Manifest], Manifest]) -> None:
        if tenant := self.cluster.tenant:
            metadata = tenant["metadata"] | {"generation": tenant["metadata"]["generation"] + 1}
            self.cluster.tenant = tenant | {"metadata": metadata, "spec": change(tenant["spec"])}


def people_want(tenant: TenantSnapshot) -> Any:
    """What a server is started from, computed anew and not with the code under test."""
    assert tenant.spec
    assert tenant.pool
    assert tenant.token
    own = tenant.spec.server.resources if tenant.spec.server else None
    return (
        tenant.pool.spec.server.image,
        ((own and own.requests) or {}).get("memory"),
        tenant.pool.restarted_at,
        tenant.credential and tenant.credential.digest,
        tenant.token.value,
    )


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=120,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # to shrink a failure takes minutes: add Phase.shrink when there is one
    suppress_health_check=list(HealthCheck),
)


def test_no_template_changes_while_a_pod_that_is_seen_still_ends() -> None:
    machine = AnyOrder()
    machine.a_cluster(counts_terminating=False, settled=True)
    machine.server_is_updated("cli:2")
    assert [pod.terminating for pod in machine.cluster.pods] == [True]
    machine.everything_settles()


def test_no_template_changes_while_a_pod_that_only_the_status_counts_still_ends() -> None:
    machine = AnyOrder()
    machine.a_cluster(counts_terminating=True, settled=False)
    machine.operator_and_controller_work(1)  # the watch has not told of the pod, and never will
    machine.pod_starts()
    machine.server_is_updated("cli:2")
    assert [pod.terminating for pod in machine.cluster.pods] == [True]
    machine.everything_settles()


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("steps", range(7))
def test_wherever_the_operator_dies_in_a_rotation_applications_have_the_servers_token(steps: int, looks: bool) -> None:
    machine = AnyOrder()
    machine.a_cluster(counts_terminating=True, settled=True)
    machine.token_is_rotated_and_the_operator_dies(steps, looks)
    machine.applications_are_told_the_token_of_the_server()
    machine.everything_settles()
    machine.applications_are_told_the_token_of_the_server()
    assert machine.dead == {"token-1"}
    assert machine.serves_with == "token-2"
