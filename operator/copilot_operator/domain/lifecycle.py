"""When a server runs, drains, stops and starts: one machine for every cause.

    Stopped ─► Starting ─► Serving ─► Draining ─► Stopping (replicas 0, its pod still there) ─► Stopped
                  ▲           ▲          │ │
                  │           └──────────┘ └─ the pod is replaced, or the CLI started again in its place ─┐
                  │            cause is gone                                                              │
                  └───────────────────────────────────────────────────────────────────────────────────────┘

Where a server stands is derived from its Deployment, its pods and what its agent says; remembered is only the intent
to drain (annotations of the Deployment), so that an operator that starts in the middle goes on. The template of a
Deployment changes only in *Stopped*: no change of ours can start a second process beside a running one, or cut a turn.

A server leaves *Draining* when its agent says that nothing is loaded any more, or, should the agent have fallen silent,
a minute after the deadline. What has never answered has nothing to drain and stops at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from copilot_operator.domain.causes import causes, outdated
from copilot_operator.domain.desired.common import is_outdated
from copilot_operator.domain.desired.deployment import FLUSH_S, drain_timeout_s
from copilot_operator.domain.drain import Cause, Ending, Intent, Why, intent_of
from copilot_operator.domain.health import Restarts, unresponsive
from copilot_operator.domain.idleness import rests
from copilot_operator.domain.live import counts_pods, has_no_pods, is_up
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import DrainPhase, DrainReading, Finding, Pod, TenantSnapshot
from copilot_operator.domain.subset import first_difference

WAITS_TO_START: Final = "it waits until fewer servers start at the same time"
HUNG_GRACE_S: Final = 10  # for a CLI that does not answer: enough for its agent to find that out once more


class Stage(StrEnum):
    """Where a server stands."""

    STOPPED = "Stopped"
    STARTING = "Starting"
    SERVING = "Serving"
    DRAINING = "Draining"
    STOPPING = "Stopping"


class Order(StrEnum):
    """What the agent of the serving pod is to do."""

    DRAIN = "Drain"  # until the intent's deadline
    CANCEL = "Cancel"  # and serve again
    RESTART = "Restart"  # end the CLI, for kubelet to start it again


@dataclass(frozen=True)
class Replace:
    """Delete this pod, its ReplicaSet makes another; ``grace_s`` None: the pod's own."""

    pod: Pod
    grace_s: int | None = None


@dataclass(frozen=True)
class Move:
    """What to do with a server now; every field says nothing by default.

    ``apply`` a Deployment, ``stop`` (replicas 0), ``replace`` its pod, and give its agent an ``order``. ``intent`` and
    ``restarts`` are what its Deployment shall remember from now on. ``cause``: why it drains, or waits for its turn to.
    ``trouble``: what keeps it from running, with the way out.
    """

    stage: Stage
    why: str = ""
    apply: Manifest | None = None
    stop: bool = False
    replace: Replace | None = None
    order: Order | None = None
    intent: Intent | None = None
    restarts: Restarts = field(default_factory=Restarts)
    cause: Cause | None = None
    waits_for_turn: bool = False
    trouble: Finding | None = None

    @property
    def notes(self) -> Mapping[str, str]:
        """The annotations of the Deployment that carry what is remembered."""
        return (self.intent.annotations() if self.intent else {}) | self.restarts.annotations()

    @property
    def ends(self) -> bool:
        """Whether this ends the CLI that runs."""
        return self.stop or self.replace is not None or self.order is Order.RESTART

    @property
    def cordoned(self) -> bool:
        """Whether nothing new may be led to the server."""
        return self.stage in (Stage.DRAINING, Stage.STOPPING)


def next_move(snapshot: TenantSnapshot, wanted: Manifest) -> Move:
    """The next step of the server whose Deployment shall be ``wanted`` (as rendered, replicas 1)."""
    assert snapshot.spec
    live = snapshot.children.deployment
    restarts = Restarts.of(live) if live else Restarts()
    if live and is_up(live):
        return _running(snapshot, live, wanted, restarts)
    resting = rests(snapshot, live) if live else ""
    waits = WAITS_TO_START if snapshot.waits_behind is not None else ""
    suspended, trouble = snapshot.held_down or resting or waits, _cannot_start(snapshot)
    hold = suspended or (trouble.message if trouble else "")
    intent = intent_of(live) if resting or waits else None  # remembered until it starts
    if live is None:
        if trouble and not suspended:
            return Move(Stage.STOPPED, hold, trouble=trouble)  # a pod without its Secret would only crash
        return Move(Stage.STOPPED if hold else Stage.STARTING, hold or "first start", _sized(wanted, not hold))
    if snapshot.pods or counts_pods(live) or not (hold or has_no_pods(live)):
        return Move(Stage.STOPPING, hold or "waits for its pod to end", intent=intent_of(live), restarts=restarts)
    if not hold:
        return Move(Stage.STARTING, "starts", _sized(wanted, True), restarts=restarts)
    # A note of ours, too, is a change that the controller has yet to see: people are not told of it.
    as_wanted = not (is_outdated(live, wanted) or first_difference(_sized(wanted, False), live))
    if trouble or as_wanted or not has_no_pods(live):
        return Move(Stage.STOPPED, hold, intent=intent, restarts=restarts, trouble=None if suspended else trouble)
    return Move(Stage.STOPPED, hold, _sized(wanted, False), intent=intent, restarts=restarts)


def _running(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest, restarts: Restarts) -> Move:
    pod = snapshot.server_pod
    stage = Stage.SERVING if pod and pod.ready else Stage.STARTING
    intent, found = intent_of(live), causes(snapshot, live, wanted)
    may_begin = [each for each in found if intent or snapshot.admitted or not each.takes_turns]
    cause, waiting = next(iter(may_begin), None), next(iter(found), None)
    drain = snapshot.drain if pod and snapshot.drain and snapshot.drain.pod_uid == pod.uid else None
    if intent is None and pod and (silence := unresponsive(snapshot, pod)):
        return _replaced(snapshot, pod, silence, restarts)
    if cause and cause.why == Why.HEALTH and pod and (spent := _spent(snapshot, pod, cause.message, restarts)):
        return Move(stage, spent.message, restarts=restarts, trouble=spent)
    if cause is None:
        if drain and drain.phase == DrainPhase.FLUSHING:
            return Move(
                Stage.DRAINING, "its sessions are being closed; it serves again after that",
                intent=intent, restarts=restarts, order=Order.DRAIN,
            )  # fmt: skip
        if intent or drain or (snapshot.state and snapshot.state.draining):
            return Move(stage, "the cause of its drain is gone", order=Order.CANCEL, restarts=restarts)
        if waiting:
            why = f"waits for its turn: {waiting.message}"
            return Move(stage, why, restarts=restarts, cause=waiting, waits_for_turn=True)
        return _undisturbed(snapshot, live, wanted, stage, restarts)
    if pod is None or not pod.started:
        return _ended(snapshot, cause, pod, None, restarts)
    intent = _intent(cause, intent, snapshot)
    if (drain and drain.phase == DrainPhase.DONE) or _overdue(snapshot, intent, drain):
        return _ended(snapshot, cause, pod, intent, restarts)
    return Move(Stage.DRAINING, cause.message, intent=intent, restarts=restarts, order=Order.DRAIN, cause=cause)


def _ended(snapshot: TenantSnapshot, cause: Cause, pod: Pod | None, intent: Intent | None, restarts: Restarts) -> Move:
    """Nothing is left in it that a stop could cut."""
    match cause.ending:
        case Ending.REPLACE if pod:
            if cause.why == Why.HEALTH:
                restarts = restarts.with_one_more(pod, snapshot.now)
            return Move(Stage.STOPPING, cause.message, replace=Replace(pod), restarts=restarts, cause=cause)
        case Ending.RESTART if pod:
            return Move(
                Stage.STOPPING, cause.message, order=Order.RESTART, intent=intent, restarts=restarts, cause=cause
            )
    return Move(Stage.STOPPING, cause.message, stop=True, intent=intent, restarts=restarts, cause=cause)


def _replaced(snapshot: TenantSnapshot, pod: Pod, silence: str, restarts: Restarts) -> Move:
    """A server that does not answer has nothing to wait for; its agent tries to drain it in the grace all the same."""
    if spent := _spent(snapshot, pod, silence, restarts):
        return Move(Stage.STARTING, spent.message, restarts=restarts, trouble=spent)
    restarts = restarts.within_an_hour(snapshot.now).with_one_more(pod, snapshot.now)
    return Move(Stage.STOPPING, silence, replace=Replace(pod, HUNG_GRACE_S), restarts=restarts)


def _spent(snapshot: TenantSnapshot, pod: Pod, why: str, restarts: Restarts) -> Finding | None:
    assert snapshot.pool
    recent = restarts.within_an_hour(snapshot.now)
    full = len(recent.entries) >= snapshot.pool.spec.health.max_restarts_per_hour
    return recent.spent(why) if full and not recent.counts(pod) else None


def _undisturbed(snapshot: TenantSnapshot, live: Manifest, wanted: Manifest, stage: Stage, restarts: Restarts) -> Move:
    if snapshot.missing:
        return Move(stage, "goes on with what it was started with", restarts=restarts)
    if outdated(live, wanted):
        return Move(stage, "a newer pod template waits for the next stop", restarts=restarts)
    if difference := first_difference(wanted, live):
        return Move(stage, f"repairs {difference}", wanted, restarts=restarts)
    return Move(stage, restarts=restarts)


def _intent(cause: Cause, before: Intent | None, snapshot: TenantSnapshot) -> Intent:
    """A drain goes on when its cause becomes another; its deadline follows the pool's ``drain.timeout``."""
    since = before.since if before else snapshot.now.replace(microsecond=0)
    return Intent(cause.why, since, since + timedelta(seconds=drain_timeout_s(snapshot)))


def _overdue(snapshot: TenantSnapshot, intent: Intent, drain: DrainReading | None) -> bool:
    """The agent should have ended it: it is gone, or can't be reached. With ``Wait`` only its silence counts."""
    assert snapshot.pool
    late = snapshot.now > overdue_at(intent)
    waits = snapshot.pool.spec.drain.on_timeout == "Wait"
    return late and not (waits and drain and drain.phase and not drain.unanswered)


def overdue_at(intent: Intent) -> datetime:
    return intent.deadline + timedelta(seconds=FLUSH_S)


def _cannot_start(snapshot: TenantSnapshot) -> Finding | None:
    claim = snapshot.children.claim
    if claim and "deletionTimestamp" in claim["metadata"]:
        message = f"Claim {snapshot.claim} was deleted; the server starts with a new one as soon as it is gone"
        return Finding("VolumeBeingDeleted", message)
    return snapshot.missing


def _sized(wanted: Manifest, run: bool) -> Manifest:
    return wanted | {"spec": wanted["spec"] | {"replicas": 1 if run else 0}}


def outcome(snapshot: TenantSnapshot) -> str:
    """How the drain went of a server that is being ended, in one word; see ``ops.metrics``."""
    pod, drain = snapshot.server_pod, snapshot.drain
    if pod is None or not pod.started:
        return "Empty"
    if drain is None or drain.pod_uid != pod.uid or drain.phase != DrainPhase.DONE:
        return "Overdue"
    return "Cut" if drain.cut else "GaveUp" if drain.gave_up else "Drained"
