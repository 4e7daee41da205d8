"""What to do for a tenant: steps in order, each with its reason. ``plan`` is a pure function; it converges.

    observe → snapshot → **plan** → execute → status

An object that is there as wanted yields no step, so planning what was just executed yields an empty plan.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from copilot_operator.domain.desired.claim import claim
from copilot_operator.domain.desired.connection import connection
from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.desired.service import service
from copilot_operator.domain.fit import misfit
from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, SECRET, SERVICE
from copilot_operator.domain.lifecycle import Move, Stage, next_move
from copilot_operator.domain.live import is_up
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import (
    CORDONED_LABEL,
    DRAIN_CAUSE_ANNOTATION,
    DRAIN_DEADLINE_ANNOTATION,
    DRAIN_SINCE_ANNOTATION,
    HEALTH_RESTARTS_ANNOTATION,
    PROTECTED_LABEL,
)
from copilot_operator.domain.nodes import protection
from copilot_operator.domain.secrets import as_observed
from copilot_operator.domain.snapshot import TenantSnapshot
from copilot_operator.domain.steps import Apply, DeletePod, Label, Note, Scale, Step, converge
from copilot_operator.domain.subset import first_difference

NOTES: Final = frozenset(
    {DRAIN_CAUSE_ANNOTATION, DRAIN_SINCE_ANNOTATION, DRAIN_DEADLINE_ANNOTATION, HEALTH_RESTARTS_ANNOTATION}
)


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
    if snapshot.spec is None or snapshot.pool is None or snapshot.lacks_token or misfit(snapshot):
        return TenantPlan(tuple(_labels(snapshot)))  # the pool's plan gives each server a token first
    if not snapshot.has_server:
        return TenantPlan(() if snapshot.paused else tuple(_endpoint(snapshot)))
    if snapshot.paused:
        return TenantPlan(move=Move(_observed_stage(snapshot)))
    move = next_move(snapshot, deployment(snapshot))
    notes, deeds = tuple(_notes(snapshot, move)), (*_applies(snapshot, move), *_deed(snapshot, move))
    # Whoever goes on after a crash must find the intent: it is noted first, and forgotten once the server starts anew.
    steps = (*deeds, *notes) if move.apply else (*notes, *deeds)
    ends = move.stop or move.replace  # of a pod that goes nobody needs to know whether it may be evicted
    return TenantPlan(steps if ends else (*steps, *_cordons(snapshot, move), *_labels(snapshot)), move)


def _notes(snapshot: TenantSnapshot, move: Move) -> Iterator[Step]:
    if live := snapshot.children.deployment:
        noted = {key: value for key, value in annotations_of(live).items() if key in NOTES}
        if noted != dict(move.notes):
            yield Note(snapshot.namespace, snapshot.server, live["metadata"]["uid"], move.notes, move.why)


def _applies(snapshot: TenantSnapshot, move: Move) -> Iterator[Step]:
    if snapshot.has_volume:
        yield from converge(CLAIM, claim(snapshot), snapshot.children.claim, _difference)
    if not snapshot.is_seat:
        # No server runs where another template is applied: from now on applications need the token that it names.
        told = replace(snapshot, former_token=None) if move.apply else snapshot
        yield from _endpoint(told, cordoned=_cordoned(snapshot, move))


def _endpoint(snapshot: TenantSnapshot, *, cordoned: bool = False) -> Iterator[Step]:
    """What applications find the tenant's server, or its pool's gateway, with."""
    children = snapshot.children
    yield from converge(SERVICE, service(snapshot, cordoned=cordoned), children.service, _difference)
    yield from converge(SECRET, connection(snapshot), children.connection, _difference)


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


def _cordons(snapshot: TenantSnapshot, move: Move) -> Iterator[Step]:
    """What keeps gateways away from a server; without one its Service does (see ``service``)."""
    assert snapshot.pool
    for pod in snapshot.pods:
        if snapshot.pool.spec.gateway.enabled and not pod.terminating and pod.cordoned != move.cordoned:
            label = {CORDONED_LABEL: "true" if move.cordoned else None}
            yield Label(snapshot.namespace, pod.name, pod.uid, label, move.why or "it serves again")


def _labels(snapshot: TenantSnapshot) -> Iterator[Step]:
    """Pods that evictions must leave alone, and those that they need not any more."""
    for pod in snapshot.pods:
        found = protection(snapshot, pod)
        if found.label is not None:
            label = {PROTECTED_LABEL: "true" if found.label else None}
            yield Label(snapshot.namespace, pod.name, pod.uid, label, found.why)


def _difference(wanted: Manifest, live: Manifest) -> str | None:
    if wanted["kind"] == SECRET.kind:
        wanted = as_observed(wanted)
    if "ownerReferences" not in wanted["metadata"] and live["metadata"].get("ownerReferences"):
        return ".metadata.ownerReferences"  # deletionPolicy became Retain: what is too much, a subset can't show
    return first_difference(wanted, live)


def _observed_stage(snapshot: TenantSnapshot) -> Stage:
    if any(pod.ready for pod in snapshot.pods):
        return Stage.SERVING
    return Stage.STARTING if is_up(snapshot.children.deployment) else Stage.STOPPED
