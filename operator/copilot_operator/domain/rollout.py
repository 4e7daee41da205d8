"""How a changed pool reaches its servers: a few at a time, idle ones first, and no further than the first that fails.

Each tenant's cycle tells where its server stands; from all of them together follows who may begin. Nothing of this is
stored: after a restart of the operator every tenant tells again.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from copilot_operator.domain.drain import Why
from copilot_operator.domain.lifecycle import Move, Stage
from copilot_operator.domain.live import is_up, observed_status, progress_reason
from copilot_operator.domain.manifest import annotations_of
from copilot_operator.domain.naming import POOL_REVISION_ANNOTATION
from copilot_operator.domain.snapshot import Finding, Health, TenantSnapshot


@dataclass(frozen=True)
class Standing:
    """Where a server stands, as far as its pool must know.

    ``revision`` of its pool that it runs; "": it does not run and shall not, so it does not count. ``busy``: None if it
    could not be counted. ``failed``: why it does not become Ready with the revision that its pool is changing to.
    """

    wants_turn: bool = False
    unavailable: bool = False
    busy: bool | None = False
    failed: Finding | None = None
    revision: str = ""


ABSENT: Final = Standing()
NAMELESS: Final = "unnamed"  # made before revisions had names
UNKNOWN: Final = Standing(unavailable=True, busy=None, revision="unknown")  # its cycle could not tell


def standing_of(snapshot: TenantSnapshot, move: Move | None) -> Standing:
    """After the tenant's cycle decided on ``move``; None: nothing could be decided, or carried out."""
    live, pool = snapshot.children.deployment, snapshot.pool
    if snapshot.deleted or snapshot.spec is None or pool is None or snapshot.spec.suspended:
        return ABSENT
    if live is None and (move is None or move.stage == Stage.STOPPED):
        return ABSENT
    if move and move.stage == Stage.STOPPED:
        return ABSENT  # held down, for want of its credential or its volume
    ready = bool(snapshot.server_pod and snapshot.server_pod.ready)
    serves = move.stage == Stage.SERVING if move else ready
    wants = bool(move and move.waits_for_turn)
    revision = _running(snapshot, move)
    failed = failure(snapshot) if pool.rolling and not serves and not wants and revision == pool.revision else None
    return Standing(
        wants_turn=wants,
        unavailable=not serves or snapshot.reading.health == Health.UNHEALTHY,
        busy=snapshot.state.busy != 0 if snapshot.state and snapshot.state.busy is not None else None,
        failed=failed,
        revision=revision,
    )


def _running(snapshot: TenantSnapshot, move: Move | None) -> str:
    """A change of the pool that means nothing to this server leaves it with the older name, and up to date."""
    assert snapshot.pool
    live, target = snapshot.children.deployment, snapshot.pool.revision or NAMELESS
    noted = annotations_of(live).get(POOL_REVISION_ANNOTATION) if live else None
    if move and move.cause and move.cause.why == Why.UPDATE:
        return noted or NAMELESS
    if snapshot.refused and live and not is_up(live):
        return target  # it can't even be made from it
    undisturbed = move and move.stage == Stage.SERVING and move.cause is None
    if undisturbed and not snapshot.missing:
        return target  # had it to be another server, there would be a cause
    return noted or target


def failure(snapshot: TenantSnapshot) -> Finding | None:
    """Why a server that should start does not become Ready: kubelet's word, the API server's, or the time it took."""
    if snapshot.refused:
        return snapshot.refused
    if waiting := next((pod.waiting for pod in snapshot.pods if pod.waiting and not pod.terminating), None):
        return waiting
    status = observed_status(snapshot.children.deployment or {})
    if status is None or progress_reason(status) != "ProgressDeadlineExceeded":
        return None
    unschedulable = next((pod.unschedulable for pod in snapshot.pods if pod.unschedulable), "")
    message = f"No node takes the pod: {unschedulable}" if unschedulable else "It did not become Ready in time"
    return Finding("ProgressDeadlineExceeded", message)


def most_unavailable(max_unavailable: str, servers: int) -> int:
    """``update.maxUnavailable`` as a number of servers: a share is rounded down, and at least one may always go."""
    if max_unavailable.endswith("%"):
        return max(1, servers * int(max_unavailable[:-1]) // 100)
    return max(1, int(max_unavailable))


def admitted(standings: Mapping[str, Standing], max_unavailable: str, holding: Collection[str] = ()) -> frozenset[str]:
    """Names of the servers whose turn it is: those that hold a turn, then idle ones, then busy ones, then by name.

    A server that is not available anyway loses nothing by a turn; any other gets one only while, with those that are
    not available, no more than ``max_unavailable`` are away. Nobody gets one as long as a server fails with the target.
    """
    running = {name: standing for name, standing in standings.items() if standing.revision}
    if any(standing.failed for standing in running.values()):
        return frozenset()
    most = most_unavailable(max_unavailable, len(running))
    away = {name for name, standing in running.items() if standing.unavailable}
    room = most - sum(not running[name].wants_turn for name in away)  # for one that is away it costs nothing
    left = most - len(away)  # for others
    chosen: set[str] = set()
    if room <= 0:
        return frozenset()
    wanting = (name for name, standing in running.items() if standing.wants_turn)
    for name in sorted(wanting, key=lambda name: (name not in holding, running[name].busy is not False, name)):
        if len(chosen) >= room:
            break
        if name in away or left > 0:
            left -= name not in away
            chosen.add(name)
    return frozenset(chosen)
