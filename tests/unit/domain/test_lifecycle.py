"""When a server runs, stops and starts: every stage against every cause."""

import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.lifecycle import Move, Stage, next_move
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import (
    Children,
    Credential,
    DrainPhase,
    DrainReading,
    Health,
    Pod,
    Reading,
    ServerState,
    TenantSnapshot,
)
from tests.support.snapshots import BUNDLE, CREDENTIAL, NO_BUNDLE, NO_SECRET, NOW, a_pod, a_pool, a_snapshot, a_tenant

SUSPENDED = a_tenant(fields={"suspended": True})
READY, YOUNG, ENDING = a_pod(), a_pod(ready=False), a_pod(ready=False, terminating=True)
UNREADY = a_pod(ready=False, started=True)
ENDING_READY = a_pod(ready=True, terminating=True)
FORGETS = a_pool({"gateway.enabled": True, "suspend.afterIdle": "30m", "storage.mode": "Ephemeral"})
IDLES = a_pool({"gateway.enabled": True, "suspend.afterIdle": "30m"})
RUNS_AN_HOUR = a_pool({"gateway.enabled": True, "suspend.afterIdle": "30m", "suspend.minRunning": "1h"})
ON_SUNDAYS, ON_MONDAYS = (
    a_pool({"gateway.enabled": True, "suspend.afterIdle": "30m", "suspend.runningHours": [hours]})
    for hours in ({"start": f"0 8 * * {day}", "end": f"0 18 * * {day}"} for day in ("SUN", "MON"))
)
NEW_IMAGE = a_pool({"server.image": "cli:2"})


def live(snapshot: TenantSnapshot | None = None, *, replicas: int = 1, **status: Any) -> Manifest:
    """The Deployment as applied for ``snapshot``, seen by its controller."""
    manifest = copy.deepcopy(deployment(snapshot or a_snapshot()))
    manifest["spec"]["replicas"] = replicas
    manifest["metadata"]["generation"] = 3
    manifest["status"] = {"observedGeneration": 3, "replicas": replicas} | status.pop("counts", {}) | status
    return manifest


def edited(path: str, value: Any, **more: Any) -> Manifest:
    manifest = live(**more)
    *parents, last = path.split("/")
    node: Any = manifest
    for parent in parents:
        node = node[int(parent)] if parent.isdigit() else node[parent]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return manifest


@dataclass(frozen=True)
class Case:
    """Given what is there: the stage, how the reason begins, and what is done.

    That is "", "apply <replicas>", "stop", "replace <grace>", or what the agent is ordered to do; ``noted`` is what the
    Deployment remembers afterwards.
    """

    stage: Stage
    why: str
    action: str
    deployment: Manifest | None = None
    pods: tuple[Pod, ...] = ()
    tenant: Manifest | None = None
    pool: Any = None
    credential: Credential | None = None
    noted: dict[str, str] | None = None
    more: dict[str, Any] = field(default_factory=dict)  # further fields of the snapshot


def noting(cause: str, *, minutes_ago: int = 1, **more: Any) -> Manifest:
    """A running server's Deployment with an intent to drain."""
    since = NOW - timedelta(minutes=minutes_ago)
    return edited(ANNOTATIONS, live()["metadata"]["annotations"] | notes(cause, since), **more)


def notes(cause: str, since: datetime = NOW, timeout: timedelta = timedelta(minutes=9)) -> dict[str, str]:
    return {
        f"{PREFIX}/drain-cause": cause,
        f"{PREFIX}/drain-since": since.isoformat(),
        f"{PREFIX}/drain-deadline": (since + timeout).isoformat(),
    }


def stopped_as(cause: str, **more: Any) -> Manifest:
    """A stopped server's Deployment that remembers why."""
    return edited(ANNOTATIONS, live(**more)["metadata"]["annotations"] | notes(cause), replicas=0, **more)


def replaced(*minutes_ago: int, pod: str = "other-po") -> dict[str, str]:
    """The note of earlier replacements."""
    line = " ".join(f"{(NOW - timedelta(minutes=each)).isoformat()}/{pod}" for each in minutes_ago)
    return {f"{PREFIX}/health-restarts": line}


def said(phase: DrainPhase | None, **more: Any) -> dict[str, Any]:
    """What the agent says of its drain."""
    return {"drain": DrainReading(READY.uid, phase, **more)}


def agent_says(**more: Any) -> dict[str, Any]:
    return {"state": ServerState(READY.uid, NOW, more.pop("answering", True), busy=more.pop("busy", 0), **more)}


IMAGE_FIELD = "spec/template/spec/containers/0/image"
ANNOTATIONS = "metadata/annotations"
PREFIX = "copilot-operator.io"
UNUSED = live(a_snapshot(pool=IDLES))
RESTING = edited(
    ANNOTATIONS,
    UNUSED["metadata"]["annotations"] | notes("Idle", NOW - timedelta(minutes=1)),
    replicas=0,
    snapshot=a_snapshot(pool=IDLES),
)
FORGETFUL = live(a_snapshot(pool=FORGETS))
STOPPED_AS_IDLE = stopped_as("Idle", snapshot=a_snapshot(pool=IDLES))
SILENT = {"reading": Reading(Health.UNHEALTHY, "gone")}
LATE = {"type": "Progressing", "reason": "ProgressDeadlineExceeded"}
STUCK = {"replicas": 2, "updatedReplicas": 1, "conditions": [LATE]}
WITHOUT_STAMPS = {f"{PREFIX}/tenant-name": "alice"}
CASES = {
    # nothing there
    "a new tenant starts": Case(Stage.STARTING, "first start", "apply 1"),
    "a new suspended tenant gets a Deployment of no pods": Case(
        Stage.STOPPED, "spec.suspended is true", "apply 0", tenant=SUSPENDED
    ),
    "a new tenant without its Secret gets none: the pod would only crash": Case(
        Stage.STOPPED, "Secret github does not exist", "", credential=NO_SECRET
    ),
    "a new tenant without its certificates gets none": Case(
        Stage.STOPPED, "ConfigMap ca does not exist", "", more={"bundle": NO_BUNDLE}
    ),
    "a new suspended tenant without its Secret": Case(
        Stage.STOPPED, "spec.suspended is true", "apply 0", tenant=SUSPENDED, credential=NO_SECRET
    ),
    # nobody uses it
    "an unused server is drained": Case(
        Stage.DRAINING,
        "suspend.afterIdle: nobody has used it for 30m",
        "drain",
        UNUSED,
        (READY,),
        pool=IDLES,
        more=agent_says(quiet_s=1801.0),
        noted=notes("Idle"),
    ),
    "one that nobody ever used is, too": Case(
        Stage.DRAINING,
        "suspend.afterIdle",
        "drain",
        UNUSED,
        (READY,),
        pool=IDLES,
        more=agent_says(age_s=1801.0),
    ),
    "one that would forget what it stores goes on": Case(
        Stage.SERVING,
        "",
        "",
        FORGETFUL,
        (READY,),
        pool=FORGETS,
        more=agent_says(quiet_s=1801.0, stored=1),
    ),
    "one that might, too": Case(
        Stage.SERVING,
        "",
        "",
        FORGETFUL,
        (READY,),
        pool=FORGETS,
        more=agent_says(quiet_s=1801.0, stored=None),
    ),
    "one that stores nothing is drained": Case(
        Stage.DRAINING,
        "suspend.afterIdle",
        "drain",
        FORGETFUL,
        (READY,),
        pool=FORGETS,
        more=agent_says(quiet_s=1801.0, stored=0),
        noted=notes("Idle"),
    ),
    "one that was used a while ago goes on": Case(
        Stage.SERVING,
        "",
        "",
        UNUSED,
        (READY,),
        pool=IDLES,
        more=agent_says(quiet_s=1799.0, age_s=9999.0),
    ),
    "one that works goes on however quiet it is": Case(
        Stage.SERVING,
        "",
        "",
        UNUSED,
        (READY,),
        pool=IDLES,
        more=agent_says(quiet_s=9999.0, busy=1),
    ),
    "one whose sessions could not be counted goes on": Case(
        Stage.SERVING,
        "",
        "",
        UNUSED,
        (READY,),
        pool=IDLES,
        more=agent_says(quiet_s=9999.0, busy=None),
    ),
    "one that gateways want goes on": Case(
        Stage.SERVING,
        "",
        "",
        UNUSED,
        (READY,),
        pool=IDLES,
        more=agent_says(quiet_s=9999.0) | {"demanded": True},
    ),
    "one that was started a while ago goes on for as long as it shall": Case(
        Stage.SERVING, "", "", UNUSED, (READY,), pool=RUNS_AN_HOUR, more=agent_says(quiet_s=1900.0, age_s=3600.0)
    ),
    "and no longer": Case(
        Stage.DRAINING,
        "suspend.afterIdle",
        "drain",
        UNUSED,
        (READY,),
        pool=RUNS_AN_HOUR,
        more=agent_says(quiet_s=1900.0, age_s=3601.0),
        noted=notes("Idle"),
    ),
    "an unused one goes on in its running hours": Case(
        Stage.SERVING, "", "", UNUSED, (READY,), pool=ON_SUNDAYS, more=agent_says(quiet_s=9999.0)
    ),
    "one that rests starts when its running hours begin": Case(
        Stage.STARTING, "starts", "apply 1", RESTING, pool=ON_SUNDAYS
    ),
    "one that rests goes on resting at other times": Case(
        Stage.STOPPED,
        "it was idle",
        "",
        RESTING,
        pool=ON_MONDAYS,
        noted=notes("Idle", NOW - timedelta(minutes=1)),
    ),
    "one that people suspended stays down in its running hours, and whoever wants it": Case(
        Stage.STOPPED,
        "spec.suspended is true",
        "",
        RESTING,
        pool=ON_SUNDAYS,
        tenant=SUSPENDED,
        more={"demanded": True},
    ),
    "one of a pool that does not ask for it goes on": Case(
        Stage.SERVING, "", "", live(), (READY,), more=agent_says(quiet_s=9999.0)
    ),
    "an unused server that is drained stops": Case(
        Stage.STOPPING,
        "suspend.afterIdle",
        "stop",
        noting("Idle"),
        (READY,),
        pool=IDLES,
        more=agent_says(quiet_s=1900.0) | said(DrainPhase.DONE),
        noted=notes("Idle", NOW - timedelta(minutes=1)),
    ),
    "one that is wanted while it drains serves again": Case(
        Stage.SERVING,
        "the cause of its drain is gone",
        "cancel",
        noting("Idle"),
        (READY,),
        pool=IDLES,
        more=agent_says(quiet_s=1900.0) | {"demanded": True},
        noted={},
    ),
    "one that was stopped as unused stays so": Case(
        Stage.STOPPED,
        "it was idle",
        "",
        STOPPED_AS_IDLE,
        pool=IDLES,
        noted=notes("Idle"),
    ),
    "it starts when it is wanted": Case(
        Stage.STARTING, "starts", "apply 1", stopped_as("Idle"), pool=IDLES, more={"demanded": True}, noted={}
    ),
    "it waits while as many start as may": Case(
        Stage.STOPPED,
        "it waits until fewer",
        "",
        STOPPED_AS_IDLE,
        pool=IDLES,
        more={"demanded": True, "waits_behind": 7},
        noted=notes("Idle"),
    ),
    "and when its pool asks for it no more": Case(Stage.STARTING, "starts", "apply 1", stopped_as("Idle"), noted={}),
    "one that was stopped for anything else starts again": Case(
        Stage.STARTING, "starts", "apply 1", stopped_as("Update"), pool=IDLES, noted={}
    ),
    # it runs
    "a settled server is left alone": Case(Stage.SERVING, "", "", live(), (READY,)),
    "a server whose pod is not ready yet is starting": Case(Stage.STARTING, "", "", live(), (YOUNG,)),
    "a server whose pod is to come is starting": Case(Stage.STARTING, "", "", live()),
    "a ready pod that is being deleted serves no more": Case(Stage.STARTING, "", "", live(), (ENDING_READY,)),
    "suspension drains it": Case(
        Stage.DRAINING, "spec.suspended is true", "drain", live(), (READY,), SUSPENDED, noted=notes("Suspension")
    ),
    "suspension stops one that is starting": Case(
        Stage.STOPPING, "spec.suspended is true", "stop", live(), (YOUNG,), SUSPENDED
    ),
    "a changed image drains it": Case(
        Stage.DRAINING, "changed: image", "drain", live(), (READY,), pool=NEW_IMAGE, noted=notes("Update")
    ),
    "a changed image waits until its pool lets the server begin": Case(
        Stage.SERVING,
        "waits for its turn: changed: image",
        "",
        live(),
        (READY,),
        pool=NEW_IMAGE,
        noted={},
        more={"admitted": False},
    ),
    "what waits for its turn does not hide what need not": Case(
        Stage.DRAINING,
        "node n1 is cordoned",
        "drain",
        live(),
        (READY,),
        pool=NEW_IMAGE,
        noted=notes("NodeDrain"),
        more={"admitted": False, "leaving": "node n1 is cordoned"},
    ),
    "its own change need not wait, even if the pool changed as well": Case(
        Stage.DRAINING,
        "changed: image, ownRestartedAt",
        "drain",
        live(),
        (READY,),
        a_tenant(annotations={f"{PREFIX}/restarted-at": "monday"}),
        NEW_IMAGE,
        noted=notes("Change"),
        more={"admitted": False},
    ),
    "its own changes wait for nobody": Case(
        Stage.DRAINING,
        "changed: ownRestartedAt",
        "drain",
        live(),
        (READY,),
        a_tenant(annotations={f"{PREFIX}/restarted-at": "monday"}),
        noted=notes("Change"),
        more={"admitted": False},
    ),
    "a lost Secret leaves it running": Case(
        Stage.SERVING,
        "goes on with what it was started with",
        "",
        live(a_snapshot(credential=CREDENTIAL)),
        (READY,),
        credential=NO_SECRET,
    ),
    "a lost Secret holds a changed image back": Case(
        Stage.SERVING,
        "goes on with what it was started with",
        "",
        live(a_snapshot(credential=CREDENTIAL)),
        (READY,),
        pool=NEW_IMAGE,
        credential=NO_SECRET,
    ),
    "certificates that can't be used hold a changed image back": Case(
        Stage.SERVING,
        "goes on with what it was started with",
        "",
        live(),
        (READY,),
        pool=NEW_IMAGE,
        more={"bundle": NO_BUNDLE},
    ),
    "other certificates are a change": Case(
        Stage.DRAINING,
        "changed: caBundle",
        "drain",
        live(),
        (READY,),
        more={"bundle": BUNDLE},
        noted=notes("Update"),
    ),
    "an edited template is put back at once, the running pod stays": Case(
        Stage.SERVING,
        "repairs .spec.template.spec.containers[copilot].image",
        "apply 1",
        edited(IMAGE_FIELD, "evil:1"),
        (READY,),
    ),
    "a scaled Deployment is put back": Case(
        Stage.SERVING, "repairs .spec.replicas", "apply 1", live(replicas=3), (READY,)
    ),
    "an edited note of the intent is drift, no cause to stop": Case(
        Stage.SERVING,
        f"repairs .{ANNOTATIONS.replace('/', '.')}.{PREFIX}/intent-hash",
        "apply 1",
        edited(f"{ANNOTATIONS}", live()["metadata"]["annotations"] | {f"{PREFIX}/intent-hash": "image=0"}),
        (READY,),
    ),
    "removed notes are put back while the template is as wanted": Case(
        Stage.SERVING, "repairs .metadata.annotations", "apply 1", edited(ANNOTATIONS, WITHOUT_STAMPS), (READY,)
    ),
    "without its notes nobody knows what it was started from, so it may be changed": Case(
        Stage.DRAINING,
        "it differs, and its annotation copilot-operator.io/intent-hash is gone",
        "drain",
        edited(ANNOTATIONS, WITHOUT_STAMPS),
        (READY,),
        pool=NEW_IMAGE,
    ),
    "a template of an older operator waits for the next stop": Case(
        Stage.SERVING,
        "a newer pod template waits",
        "",
        edited(ANNOTATIONS, live()["metadata"]["annotations"] | {f"{PREFIX}/applied-hash": "older"}),
        (READY,),
    ),
    "an addition to the template that keeps a second pod waiting ends in a restart": Case(
        Stage.DRAINING, "its pod template was changed by somebody else", "drain", live(counts=STUCK), (YOUNG, READY)
    ),
    "not before the controller has seen our repair": Case(
        Stage.SERVING, "", "", live(counts=STUCK, observedGeneration=2), (READY, YOUNG)
    ),
    "a first start that takes long is no such addition": Case(
        Stage.STARTING, "", "", live(counts=STUCK | {"replicas": 1}), (YOUNG,)
    ),
    # it drains
    "a drain goes on where its intent says it is, whoever began it": Case(
        Stage.DRAINING,
        "spec.suspended is true",
        "drain",
        noting("Suspension", minutes_ago=5),
        (UNREADY,),
        SUSPENDED,
        noted=notes("Suspension", NOW - timedelta(minutes=5)),
    ),
    "as long as its agent does": Case(
        Stage.DRAINING,
        "spec.suspended",
        "drain",
        noting("Suspension"),
        (UNREADY,),
        SUSPENDED,
        more=said(DrainPhase.FLUSHING),
    ),
    "what the agent of a former pod said does not count": Case(
        Stage.DRAINING,
        "spec.suspended",
        "drain",
        noting("Suspension"),
        (a_pod("copilot-alice-2"),),
        SUSPENDED,
        more=said(DrainPhase.DONE),
    ),
    "a drained server stops": Case(
        Stage.STOPPING,
        "spec.suspended is true",
        "stop",
        noting("Suspension"),
        (UNREADY,),
        SUSPENDED,
        more=said(DrainPhase.DONE),
    ),
    "another timeout moves the deadline of the drain under way": Case(
        Stage.DRAINING,
        "spec.suspended is true",
        "drain",
        noting("Suspension", minutes_ago=5),
        (UNREADY,),
        SUSPENDED,
        pool=a_pool({"drain.timeout": "20m"}),
        noted=notes("Suspension", NOW - timedelta(minutes=5), timedelta(minutes=20)),
    ),
    "another cause takes a drain over, with its deadline": Case(
        Stage.DRAINING,
        "spec.suspended is true",
        "drain",
        noting("Update", minutes_ago=5),
        (UNREADY,),
        SUSPENDED,
        noted=notes("Suspension", NOW - timedelta(minutes=5)),
    ),
    "the agent has a minute after the deadline": Case(
        Stage.DRAINING, "spec", "drain", noting("Suspension", minutes_ago=10), (UNREADY,), SUSPENDED
    ),
    "after that a silent agent is waited for no longer": Case(
        Stage.STOPPING, "spec", "stop", noting("Suspension", minutes_ago=11), (UNREADY,), SUSPENDED
    ),
    "Wait waits as long as the agent does": Case(
        Stage.DRAINING,
        "spec",
        "drain",
        noting("Suspension", minutes_ago=99),
        (UNREADY,),
        SUSPENDED,
        a_pool({"drain.onTimeout": "Wait"}),
        more=said(DrainPhase.QUIESCING),
    ),
    "Wait does not wait for an agent that is silent": Case(
        Stage.STOPPING,
        "spec",
        "stop",
        noting("Suspension", minutes_ago=99),
        (UNREADY,),
        SUSPENDED,
        a_pool({"drain.onTimeout": "Wait"}),
        more=said(DrainPhase.QUIESCING, unanswered="refused"),
    ),
    "a cause that goes away ends the drain": Case(
        Stage.STARTING, "the cause of its drain is gone", "cancel", noting("Suspension"), (UNREADY,), noted={}
    ),
    "but not while sessions are being closed": Case(
        Stage.DRAINING,
        "its sessions are being closed",
        "drain",
        noting("Suspension"),
        (UNREADY,),
        noted=notes("Suspension", NOW - timedelta(minutes=1)),
        more=said(DrainPhase.FLUSHING),
    ),
    "a drain that nobody ordered, or that was to be cancelled, is": Case(
        Stage.STARTING, "the cause of its drain is gone", "cancel", live(), (UNREADY,), more=agent_says(draining=True)
    ),
    "nonsense in the notes is as good as none": Case(
        Stage.DRAINING,
        "spec.suspended",
        "drain",
        edited(ANNOTATIONS, live()["metadata"]["annotations"] | {f"{PREFIX}/drain-cause": "Boredom"}),
        (READY,),
        SUSPENDED,
        noted=notes("Suspension"),
    ),
    "a node that is emptied has its pod replaced once it is drained": Case(
        Stage.STOPPING,
        "node n1 is cordoned",
        "replace None",
        noting("NodeDrain"),
        (UNREADY,),
        noted={},
        more={"leaving": "node n1 is cordoned"} | said(DrainPhase.DONE),
    ),
    "what has not started on such a node is replaced at once": Case(
        Stage.STOPPING, "node", "replace None", live(), (YOUNG,), more={"leaving": "node n1 is cordoned"}
    ),
    "a worn out server is restarted in place": Case(
        Stage.STOPPING,
        "recycle.maxProcesses",
        "restart",
        noting("Recycle"),
        (UNREADY,),
        pool=a_pool({"recycle.maxProcesses": 10}),
        more=agent_says(processes=11, age_s=5.0) | said(DrainPhase.DONE),
    ),
    "by replacing its pod where the agent is too old to do it": Case(
        Stage.STOPPING,
        "recycle.maxProcesses",
        "replace None",
        noting("Recycle"),
        (UNREADY,),
        pool=a_pool({"recycle.maxProcesses": 10}),
        more=agent_says(processes=11) | said(DrainPhase.DONE),
    ),
    "never while it is busy": Case(
        Stage.SERVING,
        "",
        "",
        live(),
        (READY,),
        pool=a_pool({"recycle.maxProcesses": 10}),
        more=agent_says(processes=11, busy=1),
    ),
    "nor while nobody knows": Case(
        Stage.SERVING,
        "",
        "",
        live(),
        (READY,),
        pool=a_pool({"recycle.maxProcesses": 10}),
        more=agent_says(processes=11, busy=None),
    ),
    # it does not answer
    "a server that neither we nor its agent can reach is replaced": Case(
        Stage.STOPPING,
        "the server does not answer: gone",
        "replace 10",
        live(),
        (READY,),
        noted=replaced(0, pod=READY.uid[:8]),
        more=agent_says(answering=False, failure="Silent") | SILENT,
    ),
    "our own failure to reach it is no reason": Case(
        Stage.SERVING, "", "", live(), (READY,), more=agent_says() | SILENT
    ),
    "nor is the agent's alone": Case(Stage.SERVING, "", "", live(), (READY,), more=agent_says(answering=False)),
    "one that rejects our token lives": Case(
        Stage.SERVING,
        "",
        "",
        live(),
        (READY,),
        more=agent_says(answering=False, failure="AuthenticationFailed") | SILENT,
    ),
    "after its restarts are spent it stays as it is": Case(
        Stage.STARTING,
        "It was replaced 2 times in an hour (health.maxRestartsPerHour); the next is at 2026-03-01T12:10:00",
        "",
        edited(ANNOTATIONS, live()["metadata"]["annotations"] | replaced(50, 5)),
        (READY,),
        pool=a_pool({"health.maxRestartsPerHour": 2}),
        noted=replaced(50, 5),
        more=agent_says(answering=False, failure="Silent") | SILENT,
    ),
    "an hour later there is room again": Case(
        Stage.STOPPING,
        "the server does not answer",
        "replace 10",
        edited(ANNOTATIONS, live()["metadata"]["annotations"] | replaced(61, 5)),
        (READY,),
        pool=a_pool({"health.maxRestartsPerHour": 2}),
        noted={
            f"{PREFIX}/health-restarts": f"{(NOW - timedelta(minutes=5)).isoformat()}/other-po "
            f"{NOW.isoformat()}/{READY.uid[:8]}"
        },
        more=agent_says(answering=False, failure="Silent") | SILENT,
    ),
    "a replacement that was noted and not done is done": Case(
        Stage.STOPPING,
        "the server does not answer",
        "replace 10",
        edited(ANNOTATIONS, live()["metadata"]["annotations"] | replaced(1, pod=READY.uid[:8])),
        (READY,),
        pool=a_pool({"health.maxRestartsPerHour": 1}),
        noted=replaced(1, pod=READY.uid[:8]),
        more=agent_says(answering=False, failure="Silent") | SILENT,
    ),
    "one that answers and can't work is replaced when it is drained": Case(
        Stage.DRAINING,
        "no session can be made",
        "drain",
        live(),
        (READY,),
        noted=notes("Health"),
        more=agent_says(deep_failure="no session can be made"),
    ),
    # it was told to stop
    "a pod that ends is waited for": Case(
        Stage.STOPPING, "waits for its pod to end", "", live(replicas=0), (ENDING,), pool=NEW_IMAGE
    ),
    "pods that only the status counts are waited for": Case(
        Stage.STOPPING, "waits for its pod to end", "", live(replicas=0, terminatingReplicas=1)
    ),
    "pods that only the cache knows are waited for": Case(
        Stage.STOPPING, "waits for its pod to end", "", live(replicas=0), (READY,)
    ),
    "until the controller has seen the change nobody knows": Case(
        Stage.STOPPING, "waits for its pod to end", "", live(replicas=0, observedGeneration=2)
    ),
    "a suspended server whose pod ends is not started in between": Case(
        Stage.STOPPING, "spec.suspended is true", "", live(replicas=0), (ENDING,), SUSPENDED
    ),
    # it is down
    "then it starts with the new template": Case(Stage.STARTING, "starts", "apply 1", live(replicas=0), pool=NEW_IMAGE),
    "it does not start on a volume that is being deleted": Case(
        Stage.STOPPED, "Claim copilot-alice was deleted", "", live(replicas=0), more={"claim_ends": True}
    ),
    "a woken tenant starts": Case(Stage.STARTING, "starts", "apply 1", live(replicas=0)),
    "a suspended server stays down": Case(
        Stage.STOPPED, "spec.suspended is true", "", live(replicas=0), tenant=SUSPENDED
    ),
    "nobody is told that a suspended server stops once more because of a note of ours": Case(
        Stage.STOPPED, "spec.suspended is true", "", live(replicas=0, observedGeneration=2), tenant=SUSPENDED
    ),
    "and it takes a new template only when the controller has seen that it is to have no pod": Case(
        Stage.STOPPED,
        "spec.suspended is true",
        "",
        live(replicas=0, observedGeneration=2),
        tenant=SUSPENDED,
        pool=NEW_IMAGE,
    ),
    "a suspended server takes a new template while it is down": Case(
        Stage.STOPPED, "spec.suspended is true", "apply 0", live(replicas=0), tenant=SUSPENDED, pool=NEW_IMAGE
    ),
    "an edited template of a suspended server is put back": Case(
        Stage.STOPPED,
        "spec.suspended is true",
        "apply 0",
        edited(IMAGE_FIELD, "evil:1", replicas=0),
        tenant=SUSPENDED,
    ),
    "without its Secret it is not started": Case(
        Stage.STOPPED, "Secret github does not exist", "", live(replicas=0), credential=NO_SECRET
    ),
}


def action_of(move: Move) -> str:
    """The one thing that is done."""
    done = [f"apply {move.apply['spec']['replicas']}"] if move.apply else []
    done += ["stop"] if move.stop else []
    done += [f"replace {move.replace.grace_s}"] if move.replace else []
    done += [move.order.value.lower()] if move.order else []
    assert len(done) <= 1, "one thing at a time"
    return "".join(done)


def sentence(name: str) -> Any:
    return pytest.param(CASES[name], id=name)


@pytest.mark.parametrize("case", [sentence(name) for name in CASES])
def test_the_next_move(case: Case) -> None:
    more = dict(case.more)
    ending = {"metadata": {"deletionTimestamp": "now"}} if more.pop("claim_ends", False) else None
    snapshot = a_snapshot(
        tenant=case.tenant,
        pool=case.pool,
        credential=case.credential,
        children=Children(deployment=case.deployment, claim=ending),
        pods=case.pods,
        **more,
    )
    wanted = deployment(snapshot)
    move = next_move(snapshot, wanted)
    assert (move.stage, action_of(move)) == (case.stage, case.action), move.why
    assert case.noted is None or move.notes == case.noted
    assert move.why.startswith(case.why), move.why
    assert bool(move.why) == bool(case.why)
    if move.apply:
        assert move.apply["spec"]["template"] == wanted["spec"]["template"]


def test_what_was_applied_is_not_applied_again() -> None:
    snapshot = a_snapshot(tenant=SUSPENDED, pool=NEW_IMAGE)
    down = next_move(replace(snapshot, children=Children(live(replicas=0))), deployment(snapshot)).apply
    assert down
    down |= {"status": {}, "metadata": down["metadata"] | {"generation": 0}}
    assert next_move(replace(snapshot, children=Children(down)), deployment(snapshot)).apply is None
