"""A cluster in a dict: one pool, one tenant, and as much of the API server and its controllers as plans can meet.

Applies merge as server-side apply does (three ways, maps by key, lists as a whole) and come back with defaults; the
Deployment controller surges; pods that end linger; a pod becomes ready only as the oldest one on its volume (the lock
of the state directory). What the operator sees of pods may be old; what it is answered it sees at once.
"""

import base64
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, SECRET, SERVICE, Kind
from copilot_operator.domain.manifest import Manifest, annotations_of, controller_uid
from copilot_operator.domain.naming import DRAIN_SINCE_ANNOTATION, PROTECTED_LABEL
from copilot_operator.domain.plan import NOTES
from copilot_operator.domain.snapshot import DrainPhase, Pod
from copilot_operator.domain.steps import Apply, Delete, DeletePod, Label, Note, Scale, Step
from tests.support.snapshots import a_pool_object, a_tenant

SERVER = "copilot-alice"
CHILDREN = (DEPLOYMENT, SERVICE, CLAIM, SECRET)
ATOMIC = ("selector", "nodeSelector")  # replaced as a whole by an apply
NEVER = datetime.max.replace(tzinfo=UTC)
KUBECTL_RESTART = "kubectl.kubernetes.io/restartedAt"


@dataclass
class LivePod:
    """``template`` is what it was made from; ``deployment`` the UID of its Deployment. Its CLI has ``turns``, each
    with when it began; its agent may drain it (``phase``, until ``deadline``). ``hung``: the CLI does not answer."""

    name: str
    template: Manifest
    deployment: str
    ready: bool = False
    terminating: bool = False
    turns: list[datetime] = field(default_factory=list)
    phase: DrainPhase | None = None
    deadline: datetime = NEVER
    drained_from: datetime = NEVER  # when the drain was ordered first
    hung: bool = False
    worn: bool = False
    token: str | None = None  # what its containers were started with
    protected: bool = False

    @property
    def uid(self) -> str:
        return f"uid-{self.name}"

    def seen(self) -> Pod:
        """``ready`` of the model is that its CLI runs; the pod is not ready while it is drained."""
        ready = self.ready and self.phase is None
        return Pod(self.name, self.uid, "10.0.0.1", ready, self.ready, self.terminating, self.protected, "n1")

    def drain(self, deadline: datetime, now: datetime) -> None:
        """As its agent is ordered, again and again."""
        if self.phase is None:
            self.phase, self.drained_from = DrainPhase.QUIESCING, now
        if self.phase == DrainPhase.DONE and self.turns:
            self.phase = DrainPhase.QUIESCING
        self.deadline = deadline

    def serve_again(self) -> None:
        if self.phase != DrainPhase.FLUSHING:
            self.phase, self.deadline, self.drained_from = None, NEVER, NEVER

    def agent_works(self, now: datetime, waits: bool) -> None:
        """One step: until nothing is busy, or the deadline."""
        if self.phase == DrainPhase.FLUSHING:
            self.phase, self.turns = DrainPhase.DONE, []
        elif self.phase == DrainPhase.QUIESCING and (
            not self.turns or self.hung or (now > self.deadline and not waits)
        ):
            self.phase = DrainPhase.FLUSHING


@dataclass
class Cluster:
    """Objects by kind and name. ``counts_terminating``: the Deployment's status tells of pods that end (1.35)."""

    counts_terminating: bool = True
    objects: dict[tuple[Kind, str], Manifest] = field(default_factory=dict)
    applied: dict[tuple[Kind, str], Manifest] = field(default_factory=dict)
    pods: list[LivePod] = field(default_factory=list)
    seen_pods: tuple[Pod, ...] = ()
    tenant: Manifest | None = None
    pool: Manifest | None = None
    numbers: Any = field(default_factory=lambda: count(1))

    # ---- people

    def create_tenant(self) -> None:
        self.tenant = a_tenant(uid=f"tenant-{next(self.numbers)}")

    def create_pool(self) -> None:
        self.pool = a_pool_object(uid=f"pool-{next(self.numbers)}")

    def live(self, kind: Kind, name: str = SERVER) -> Manifest | None:
        return self.objects.get((kind, name))

    def delete(self, kind: Kind, name: str = SERVER) -> None:
        """Delete an object with whatever it owns."""
        gone = self.objects.pop((kind, name), None)
        self.applied.pop((kind, name), None)
        if gone and kind == DEPLOYMENT:
            for pod in self.pods:
                if pod.deployment == gone["metadata"]["uid"]:
                    pod.terminating, pod.ready = True, False

    def edit(self, kind: Kind, change: Manifest) -> None:
        """Somebody's ``kubectl patch``."""
        if live := self.live(kind):
            self._store(kind, SERVER, merged(None, live, change))

    # ---- API server

    def execute(self, step: Step) -> None:
        match step:
            case Apply(kind, manifest, _):
                name = manifest["metadata"]["name"]
                before = self.live(kind, name)
                assert before is None or _adoptable(before, manifest), f"two controllers in {kind} {name}"
                after = merged(self.applied.get((kind, name)), before, without_nothing(manifest))
                self.applied[kind, name] = manifest
                self._store(kind, name, after)
            case Scale(_, name, replicas, _):
                live = self.objects[DEPLOYMENT, name]
                self._store(DEPLOYMENT, name, live | {"spec": live["spec"] | {"replicas": replicas}})
            case Delete(kind, _, name, uid, _):
                assert self.objects[kind, name]["metadata"]["uid"] == uid
                self.delete(kind, name)
            case Note(_, name, uid, annotations, _):
                live = self.objects[DEPLOYMENT, name]
                assert live["metadata"]["uid"] == uid
                since = {annotations_of(live).get(DRAIN_SINCE_ANNOTATION), annotations.get(DRAIN_SINCE_ANNOTATION)}
                assert len(since - {None}) <= 1, "a drain that goes on began anew, and its deadline ran away"
                others = {key: each for key, each in annotations_of(live).items() if key not in NOTES}
                metadata = live["metadata"] | {"annotations": others | dict(annotations)}
                self._store(DEPLOYMENT, name, live | {"metadata": metadata})
            case Label(_, name, uid, labels, _):
                for pod in self.pods:
                    if (pod.name, pod.uid) == (name, uid):
                        pod.protected = labels[PROTECTED_LABEL] == "true"
                self.seen_pods = tuple(
                    replace(pod, protected=labels[PROTECTED_LABEL] == "true") if pod.uid == uid else pod
                    for pod in self.seen_pods
                )
            case DeletePod(_, name, uid, _, _):
                for pod in self.pods:
                    if pod.uid == uid:
                        pod.terminating, pod.ready = True, False

    def _store(self, kind: Kind, name: str, manifest: Manifest) -> None:
        before = self.live(kind, name)
        metadata = {"uid": f"{kind.plural}-{next(self.numbers)}", "generation": 0} | manifest["metadata"]
        stored = with_defaults(kind, manifest | {"metadata": metadata})
        changed = before is None or before.get("spec") != stored.get("spec")
        if changed or (kind == DEPLOYMENT and before and annotations_of(before) != annotations_of(stored)):  # apps/v1
            metadata["generation"] += 1
        if kind == CLAIM:
            stored["status"] = {"phase": "Bound"}
        self.objects[kind, name] = stored

    # ---- controllers

    def collect_garbage(self) -> None:
        """Delete what was owned by a tenant or a pool that is gone."""
        owners = {each["metadata"]["uid"] for each in (self.tenant, self.pool) if each}
        for kind, name in list(self.objects):
            owner = controller_uid(self.objects[kind, name])
            if owner and owner not in owners:
                self.delete(kind, name)

    def control(self) -> None:
        """One round of the Deployment's controller: maxSurge 1, maxUnavailable 0."""
        live = self.live(DEPLOYMENT)
        if live is None:
            return
        uid, template, replicas = live["metadata"]["uid"], live["spec"]["template"], live["spec"].get("replicas", 1)
        active = [pod for pod in self.pods if pod.deployment == uid and not pod.terminating]
        updated = [pod for pod in active if pod.template == template]
        if replicas == 0:
            surplus = active
        else:
            while len(updated) < replicas:
                fresh = LivePod(f"pod-{next(self.numbers)}", template, uid)
                self.pods.append(fresh)
                updated.append(fresh)
            outdated = [pod for pod in active if pod not in updated]
            surplus = [pod for pod in outdated if any(each.ready for each in updated) or not pod.ready]
            surplus += sorted(updated, key=lambda pod: not pod.ready)[replicas:]
        for pod in surplus:
            pod.terminating, pod.ready = True, False
        self._count(live)

    def _count(self, live: Manifest, **more: Any) -> None:
        uid, template = live["metadata"]["uid"], live["spec"]["template"]
        own = [pod for pod in self.pods if pod.deployment == uid]
        active = [pod for pod in own if not pod.terminating]
        status = {
            "observedGeneration": live["metadata"]["generation"],
            "replicas": len(active),
            "updatedReplicas": sum(pod.template == template for pod in active),
            "readyReplicas": sum(pod.ready for pod in active),
        }
        if self.counts_terminating:
            status["terminatingReplicas"] = len(own) - len(active)
        live["status"] = status | more

    def pass_the_deadline(self) -> None:
        """A rollout that got nowhere is called so after progressDeadlineSeconds."""
        live = self.live(DEPLOYMENT)
        if live is None:
            return
        self._count(live)
        if live["status"]["replicas"] > live["status"]["updatedReplicas"]:
            self._count(live, conditions=[{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}])

    # ---- kubelet

    def start_pod(self) -> None:
        """The oldest pod has the volume's lock; it becomes ready, if its token is there."""
        if self.pods and not self.pods[0].terminating and (token := self._token_for(self.pods[0])):
            self.pods[0].ready, self.pods[0].token = True, token

    def _token_for(self, pod: LivePod) -> str | None:
        """What kubelet finds where its template says (core/v1 SecretKeySelector)."""
        (cli,) = pod.template["spec"]["containers"]
        variable = next(each for each in cli["env"] if each["name"] == "COPILOT_CONNECTION_TOKEN")
        source = variable["valueFrom"]["secretKeyRef"]
        secret = self.live(SECRET, source["name"])
        value = (secret or {}).get("data", {}).get(source["key"])
        return base64.b64decode(value).decode() if value else None

    def restart_cli(self, uid: str) -> None:
        """In place: another process in the same pod."""
        for pod in self.pods:
            if pod.uid == uid and not pod.turns:
                pod.phase, pod.worn, pod.hung, pod.ready = None, False, False, False
                pod.deadline = pod.drained_from = NEVER

    def end_pods(self) -> None:
        """Its preStop waits for the turns; the model's pods have grace enough."""
        self.pods = [pod for pod in self.pods if not pod.terminating or (pod.turns and not pod.hung)]

    # ---- watches

    def tell_of_pods(self) -> None:
        self.seen_pods = tuple(pod.seen() for pod in self.pods)


def _adoptable(before: Manifest, manifest: Manifest) -> bool:
    """Two controllers in one object are refused by the API server."""
    return len({controller_uid(before), controller_uid(manifest)} - {None}) <= 1


def merged(applied: Any, live: Any, wanted: Any) -> Any:
    """Server-side apply of ``wanted`` onto ``live``, where ``applied`` is what the same manager applied before."""
    if not isinstance(wanted, dict) or not isinstance(live, dict):
        return wanted
    before = applied if isinstance(applied, dict) else {}
    kept = {key: value for key, value in live.items() if key in wanted or key not in before}
    return kept | {
        key: value if key in ATOMIC else merged(before.get(key), live.get(key), value) for key, value in wanted.items()
    }


def without_nothing(value: Any) -> Any:
    """As the API server's types drop it: no empty lists, maps and strings (an emptyDir stays)."""
    if isinstance(value, dict):
        found = {key: without_nothing(each) for key, each in value.items()}
        return {key: each for key, each in found.items() if each not in (None, {}, [], "") or key == "emptyDir"}
    if isinstance(value, list):
        return [without_nothing(each) for each in value]
    return value


def with_defaults(kind: Kind, manifest: Manifest) -> Manifest:
    """A deep copy with some of what the API server puts in, in the places where it does."""
    made: Manifest = json.loads(json.dumps(manifest))  # far faster than copy.deepcopy
    if kind == SERVICE:
        made["spec"] = {"clusterIP": "10.1.0.1", "sessionAffinity": "None", "ipFamilies": ["IPv4"]} | made["spec"]
    if kind == CLAIM:
        made["spec"] = {"volumeMode": "Filesystem", "storageClassName": "standard"} | made["spec"]
    if kind == DEPLOYMENT:
        pod = made["spec"]["template"]["spec"]
        pod |= {"dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler"}
        pod["serviceAccount"] = pod["serviceAccountName"]
        for container in pod["containers"] + pod["initContainers"]:
            container |= {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
            for quantities in container["resources"].values():
                quantities |= {"memory": quantities["memory"].replace("1024Mi", "1Gi")}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container:
                    container[probe] = {"successThreshold": 1} | container[probe]
                    container[probe]["httpGet"] = {"scheme": "HTTP"} | container[probe]["httpGet"]
    return made
