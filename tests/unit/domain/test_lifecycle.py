"""When a server runs, stops and starts: every stage against every cause."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest

from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.lifecycle import Stage, next_move
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import Children, Credential, Pod, TenantSnapshot
from tests.support.snapshots import CREDENTIAL, NO_SECRET, a_pod, a_pool, a_snapshot, a_tenant

SUSPENDED = a_tenant(fields={"suspended": True})
READY, YOUNG, ENDING = a_pod(), a_pod(ready=False), a_pod(ready=False, terminating=True)
ENDING_READY = a_pod(ready=True, terminating=True)
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
    """Given what is there: the stage, how the reason begins, and what is done ("", "stop" or "apply <replicas>")."""

    stage: Stage
    why: str
    action: str
    deployment: Manifest | None = None
    pods: tuple[Pod, ...] = ()
    tenant: Manifest | None = None
    pool: Any = None
    credential: Credential | None = None


IMAGE_FIELD = "spec/template/spec/containers/0/image"
ANNOTATIONS = "metadata/annotations"
PREFIX = "copilot-operator.io"
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
    "a new suspended tenant without its Secret": Case(
        Stage.STOPPED, "spec.suspended is true", "apply 0", tenant=SUSPENDED, credential=NO_SECRET
    ),
    # it runs
    "a settled server is left alone": Case(Stage.SERVING, "", "", live(), (READY,)),
    "a server whose pod is not ready yet is starting": Case(Stage.STARTING, "", "", live(), (YOUNG,)),
    "a server whose pod is to come is starting": Case(Stage.STARTING, "", "", live()),
    "a ready pod that is being deleted serves no more": Case(Stage.STARTING, "", "", live(), (ENDING_READY,)),
    "suspension stops it": Case(Stage.STOPPING, "spec.suspended is true", "stop", live(), (READY,), SUSPENDED),
    "suspension stops one that is starting": Case(
        Stage.STOPPING, "spec.suspended is true", "stop", live(), (YOUNG,), SUSPENDED
    ),
    "a changed image stops it": Case(Stage.STOPPING, "changed: image", "stop", live(), (READY,), pool=NEW_IMAGE),
    "a lost Secret leaves it running": Case(
        Stage.SERVING,
        "goes on with the credential",
        "",
        live(a_snapshot(credential=CREDENTIAL)),
        (READY,),
        credential=NO_SECRET,
    ),
    "a lost Secret holds a changed image back": Case(
        Stage.SERVING,
        "goes on with the credential",
        "",
        live(a_snapshot(credential=CREDENTIAL)),
        (READY,),
        pool=NEW_IMAGE,
        credential=NO_SECRET,
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
    "a template of an older operator waits for the next stop": Case(
        Stage.SERVING,
        "a newer pod template waits",
        "",
        edited(ANNOTATIONS, live()["metadata"]["annotations"] | {f"{PREFIX}/applied-hash": "older"}),
        (READY,),
    ),
    "an addition to the template that keeps a second pod waiting ends in a restart": Case(
        Stage.STOPPING, "its pod template was changed by somebody else", "stop", live(counts=STUCK), (READY, YOUNG)
    ),
    "not before the controller has seen our repair": Case(
        Stage.SERVING, "", "", live(counts=STUCK, observedGeneration=2), (READY, YOUNG)
    ),
    "a first start that takes long is no such addition": Case(
        Stage.STARTING, "", "", live(counts=STUCK | {"replicas": 1}), (YOUNG,)
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
    "a woken tenant starts": Case(Stage.STARTING, "starts", "apply 1", live(replicas=0)),
    "a suspended server stays down": Case(
        Stage.STOPPED, "spec.suspended is true", "", live(replicas=0), tenant=SUSPENDED
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


def sentence(name: str) -> Any:
    return pytest.param(CASES[name], id=name)


@pytest.mark.parametrize("case", [sentence(name) for name in CASES])
def test_the_next_move(case: Case) -> None:
    snapshot = a_snapshot(
        tenant=case.tenant,
        pool=case.pool,
        credential=case.credential,
        children=Children(deployment=case.deployment),
        pods=case.pods,
    )
    wanted = deployment(snapshot)
    move = next_move(snapshot, wanted)
    action = "stop" if move.stop else f"apply {move.apply['spec']['replicas']}" if move.apply else ""
    assert (move.stage, action) == (case.stage, case.action), move.why
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
