"""What to do for a tenant or a pool: steps in order, each with its reason. ``plan`` is a pure function; it converges.

    observe → snapshot → **plan** → execute → status

An object that is there as wanted yields no step, so planning what was just executed yields an empty plan.
"""

from dataclasses import dataclass

from copilot_operator.domain.desired.claim import claim
from copilot_operator.domain.desired.connection import connection
from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.desired.pool import network_policy, service_account, token_shard
from copilot_operator.domain.desired.service import service
from copilot_operator.domain.fit import misfit
from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, NETWORK_POLICY, SECRET, SERVICE, SERVICE_ACCOUNT, Kind
from copilot_operator.domain.lifecycle import Move, Stage, next_move
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import pool_object
from copilot_operator.domain.naming import token_shard as shard_name
from copilot_operator.domain.secrets import as_observed
from copilot_operator.domain.snapshot import PoolSnapshot, TenantSnapshot
from copilot_operator.domain.subset import first_difference

TOKENS_PER_SHARD = 250  # ~35 KiB a Secret: each new server rewrites one, and a Secret holds 1 MiB at most


@dataclass(frozen=True)
class Apply:
    """Server-side apply of ``manifest``."""

    kind: Kind
    manifest: Manifest
    why: str


@dataclass(frozen=True)
class Scale:
    """Set the replicas of the Deployment ``name`` and nothing else of it."""

    namespace: str
    name: str
    replicas: int
    why: str


@dataclass(frozen=True)
class Delete:
    """Delete the object with this ``uid``."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    why: str


Step = Apply | Scale | Delete


@dataclass(frozen=True)
class TenantPlan:
    """``move`` is None when nothing can be decided about the server; the snapshot's findings then say why."""

    steps: tuple[Step, ...] = ()
    move: Move | None = None


def plan_tenant(snapshot: TenantSnapshot) -> TenantPlan:
    """Bring the children of a tenant to what its spec and its pool's say.

    A tenant that can't be read, whose pool is missing, or that is in somebody's way is left exactly as it is: its
    server goes on running.
    """
    if snapshot.deleted or snapshot.unusable or snapshot.children.obstacle or snapshot.storage.finding:
        return TenantPlan()
    if snapshot.spec is None or snapshot.pool is None or snapshot.token is None or misfit(snapshot):
        return TenantPlan()  # the pool's plan gives each server a token first
    if snapshot.paused:
        return TenantPlan(move=Move(_observed_stage(snapshot)))
    children = snapshot.children
    steps: list[Step] = []
    for kind, wanted, live in (
        (CLAIM, claim(snapshot), children.claim),
        (SERVICE, service(snapshot), children.service),
        (SECRET, connection(snapshot), children.connection),
    ):
        if live is None:
            steps.append(Apply(kind, wanted, "missing"))
        elif difference := _difference(kind, wanted, live):
            steps.append(Apply(kind, wanted, f"differs in {difference}"))
    move = next_move(snapshot, deployment(snapshot))
    if move.apply:
        steps.append(Apply(DEPLOYMENT, move.apply, move.why))
    elif move.stop:
        steps.append(Scale(snapshot.namespace, snapshot.server, 0, move.why))
    return TenantPlan(tuple(steps), move)


def _difference(kind: Kind, wanted: Manifest, live: Manifest) -> str | None:
    if kind == SECRET:
        wanted = as_observed(wanted)
    if kind == CLAIM and "ownerReferences" not in wanted["metadata"] and live["metadata"].get("ownerReferences"):
        return ".metadata.ownerReferences"  # deletionPolicy became Retain: what is too much, a subset can't show
    return first_difference(wanted, live)


def _observed_stage(snapshot: TenantSnapshot) -> Stage:
    if any(pod.ready for pod in snapshot.pods):
        return Stage.SERVING
    live = snapshot.children.deployment
    runs = live is not None and live.get("spec", {}).get("replicas", 1) > 0
    return Stage.STARTING if runs else Stage.STOPPED


def plan_pool(snapshot: PoolSnapshot) -> tuple[Step, ...]:
    """Bring a pool's own objects to what its spec says; its servers are its tenants' business."""
    if snapshot.unusable or snapshot.spec is None or snapshot.paused or snapshot.obstacle:
        return ()
    steps: list[Step] = []
    wanted_objects = [(SERVICE_ACCOUNT, service_account(snapshot), snapshot.service_account)]
    if snapshot.spec.network_policy.enabled:
        wanted_objects.append((NETWORK_POLICY, network_policy(snapshot), snapshot.network_policy))
    elif live := snapshot.network_policy:
        name, uid = pool_object(snapshot.name), live["metadata"]["uid"]
        steps.append(Delete(NETWORK_POLICY, snapshot.namespace, name, uid, "networkPolicy.enabled is false"))
    for kind, wanted, live in wanted_objects:
        if live is None:
            steps.append(Apply(kind, wanted, "missing"))
        elif difference := first_difference(wanted, live):
            steps.append(Apply(kind, wanted, f"differs in {difference}"))
    return (*steps, *_token_steps(snapshot))


def _token_steps(snapshot: PoolSnapshot) -> list[Step]:
    """New tokens go to the first shard with room; a token never moves, since running pods name its shard."""
    shards = {name: {s: t for s, t in held.items() if s in snapshot.members} for name, held in snapshot.tokens.items()}
    number = 0
    for server, token in sorted(snapshot.new_tokens.items()):
        while len(shards.setdefault(shard_name(snapshot.name, number), {})) >= TOKENS_PER_SHARD:
            number += 1
        shards[shard_name(snapshot.name, number)][server] = token
    return [
        Apply(SECRET, token_shard(snapshot, name, held), f"tokens of {len(held)} servers")
        for name, held in sorted(shards.items())
        if held != snapshot.tokens.get(name)
    ]
