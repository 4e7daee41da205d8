"""What to do for a tenant or a pool: steps in order, each with its reason. ``plan`` is a pure function; it converges.

    observe → snapshot → **plan** → execute → status

An object that is there as wanted yields no step, so planning what was just executed yields an empty plan.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from copilot_operator.domain.desired.claim import claim
from copilot_operator.domain.desired.connection import connection
from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.desired.pool import disruption_budget, network_policy, service_account, token_shard
from copilot_operator.domain.desired.service import CORDONED_LABEL, service
from copilot_operator.domain.fit import misfit
from copilot_operator.domain.kinds import (
    CLAIM,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    REVISION,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)
from copilot_operator.domain.lifecycle import Move, Stage, next_move
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import (
    DRAIN_CAUSE_ANNOTATION,
    DRAIN_DEADLINE_ANNOTATION,
    DRAIN_SINCE_ANNOTATION,
    HEALTH_RESTARTS_ANNOTATION,
    PROTECTED_LABEL,
    busy_servers,
    pool_object,
)
from copilot_operator.domain.naming import token_shard as shard_name
from copilot_operator.domain.nodes import protection
from copilot_operator.domain.progress import progress_of
from copilot_operator.domain.revisions import as_manifest
from copilot_operator.domain.secrets import as_observed
from copilot_operator.domain.snapshot import PoolSnapshot, TenantSnapshot
from copilot_operator.domain.subset import first_difference

NOTES: Final = frozenset(
    {DRAIN_CAUSE_ANNOTATION, DRAIN_SINCE_ANNOTATION, DRAIN_DEADLINE_ANNOTATION, HEALTH_RESTARTS_ANNOTATION}
)
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


@dataclass(frozen=True)
class Note:
    """Remember just these ``annotations`` of ours at the Deployment ``name`` with this ``uid``, by a field manager of
    their own; those that are not among them go."""

    namespace: str
    name: str
    uid: str
    annotations: Mapping[str, str]
    why: str


@dataclass(frozen=True)
class DeletePod:
    """Delete the pod with this ``uid``; ``grace_s`` None: its own grace period."""

    namespace: str
    name: str
    uid: str
    grace_s: int | None
    why: str


@dataclass(frozen=True)
class Label:
    """Set just these ``labels`` of the pod with this ``uid``; None takes one off."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str | None]
    why: str


Step = Apply | Scale | Delete | Note | DeletePod | Label


@dataclass(frozen=True)
class TenantPlan:
    """``move`` is None when nothing can be decided about the server; the snapshot's findings then say why."""

    steps: tuple[Step, ...] = ()
    move: Move | None = None


def plan_tenant(snapshot: TenantSnapshot) -> TenantPlan:
    """Bring the children of a tenant to what its spec and its pool's say.

    A tenant that can't be read, whose pool is missing, or that is in somebody's way is left exactly as it is: its
    server goes on running, and evictions leave it alone while it works, and no longer.
    """
    if snapshot.deleted:
        return TenantPlan()
    if snapshot.unusable or snapshot.children.obstacle or snapshot.storage.finding:
        return TenantPlan(tuple(_labels(snapshot)))
    if snapshot.spec is None or snapshot.pool is None or snapshot.token is None or misfit(snapshot):
        return TenantPlan(tuple(_labels(snapshot)))  # the pool's plan gives each server a token first
    if snapshot.paused:
        return TenantPlan(move=Move(_observed_stage(snapshot)))
    move = next_move(snapshot, deployment(snapshot))
    steps = (*_notes(snapshot, move), *_applies(snapshot, move), *_deed(snapshot, move))
    ends = move.stop or move.replace  # of a pod that goes nobody needs to know whether it may be evicted
    return TenantPlan(steps if ends else (*steps, *_labels(snapshot)), move)


def _notes(snapshot: TenantSnapshot, move: Move) -> Iterator[Step]:
    """First: a crash after this finds the intent, and goes on with it."""
    if live := snapshot.children.deployment:
        noted = {key: value for key, value in annotations_of(live).items() if key in NOTES}
        if noted != dict(move.notes):
            yield Note(snapshot.namespace, snapshot.server, live["metadata"]["uid"], move.notes, move.why)


def _applies(snapshot: TenantSnapshot, move: Move) -> Iterator[Step]:
    children = snapshot.children
    for kind, wanted, live in (
        (CLAIM, claim(snapshot), children.claim),
        (SERVICE, service(snapshot, cordoned=_cordoned(snapshot, move)), children.service),
        (SECRET, connection(snapshot), children.connection),
    ):
        if live is None:
            yield Apply(kind, wanted, "missing")
        elif "deletionTimestamp" in live["metadata"]:
            continue
        elif difference := _difference(kind, wanted, live):
            yield Apply(kind, wanted, f"differs in {difference}")


def _cordoned(snapshot: TenantSnapshot, move: Move) -> bool:
    """Without a pod the Service stays as it is: no write for what nobody can reach anyway."""
    if move.stage in (Stage.STOPPED, Stage.STOPPING) and not snapshot.pods:
        live = snapshot.children.service
        return live is not None and CORDONED_LABEL in live["spec"].get("selector", {})
    return move.cordoned


def _deed(snapshot: TenantSnapshot, move: Move) -> Iterator[Step]:
    if move.apply:
        yield Apply(DEPLOYMENT, move.apply, move.why)
    elif move.stop:
        yield Scale(snapshot.namespace, snapshot.server, 0, move.why)
    elif move.replace:
        pod = move.replace.pod
        yield DeletePod(snapshot.namespace, pod.name, pod.uid, move.replace.grace_s, move.why)


def _labels(snapshot: TenantSnapshot) -> Iterator[Step]:
    """Pods that evictions must leave alone, and those that they need not any more."""
    for pod in snapshot.pods:
        found = protection(snapshot, pod)
        if found.label is not None:
            label = {PROTECTED_LABEL: "true" if found.label else None}
            yield Label(snapshot.namespace, pod.name, pod.uid, label, found.why)


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
    steps = _revision_steps(snapshot)  # first: there must be a way back before anybody goes
    wanted_objects = [(SERVICE_ACCOUNT, service_account(snapshot), snapshot.service_account)]
    budget = snapshot.disruption_budget
    if budget and "minAvailable" in budget["spec"]:  # of somebody else, and with it the API server takes no other limit
        name, uid = busy_servers(snapshot.name), budget["metadata"]["uid"]
        steps.append(Delete(DISRUPTION_BUDGET, snapshot.namespace, name, uid, "somebody gave it another limit"))
        budget = None
    wanted_objects.append((DISRUPTION_BUDGET, disruption_budget(snapshot), budget))
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


def _revision_steps(snapshot: PoolSnapshot) -> list[Step]:
    """Keep what servers run and what they are to run, and note that a server was Ready with the latter."""
    progress = progress_of(snapshot)
    update = replace(progress.course.update, proven=progress.proven)
    stored = {manifest["metadata"]["name"]: manifest for manifest in snapshot.revisions}
    wanted, live = as_manifest(snapshot.raw, update), stored.get(update.name)
    steps: list[Step] = []
    if live is None:
        steps.append(Apply(REVISION, wanted, "missing"))
    elif not progress.complete and (difference := first_difference(wanted | {"data": live["data"]}, live)):
        steps.append(Apply(REVISION, wanted | {"data": live["data"]}, f"differs in {difference}"))
    current = (snapshot.raw.get("status") or {}).get("currentRevision")
    kept = {*progress.kept} if progress.complete else {*progress.kept, current}
    return steps + [
        Delete(REVISION, snapshot.namespace, name, manifest["metadata"]["uid"], "no server runs it any more")
        for name, manifest in sorted(stored.items())
        if name not in kept
    ]


def _token_steps(snapshot: PoolSnapshot) -> list[Step]:
    """New tokens go to the first shard with room; a token never moves, nor comes back elsewhere after it was lost: pods
    name its shard."""
    shards = {name: {s: t for s, t in held.items() if s in snapshot.members} for name, held in snapshot.tokens.items()}
    number = 0
    for server, token in sorted(snapshot.new_tokens.items()):
        while len(shards.setdefault(shard_name(snapshot.name, number), {})) >= TOKENS_PER_SHARD:
            number += 1
        home = snapshot.shard_of.get(server, shard_name(snapshot.name, number))
        shards.setdefault(home, {})[server] = token
    return [
        Apply(SECRET, token_shard(snapshot, name, held), f"tokens of {len(held)} servers")
        for name, held in sorted(shards.items())
        if held != snapshot.tokens.get(name)
    ]
