"""What ``doctor`` finds: from documents to checks, each with its level and what to do. Pure.

Where a question could not be asked, its answer is the error, and the check says so.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

from copilot_operator.api.crd import RESOURCES, definition
from copilot_operator.api.references import CLIENT_ID_KEY, REFRESH_TOKEN_KEY
from copilot_operator.domain.credentials import check_credential
from copilot_operator.domain.fitness import too_old
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.secrets import as_observed
from copilot_operator.plugin.errors import PluginError
from copilot_operator.settings import NAMESPACES

Answer: TypeAlias = Any  # documents, or the PluginError that came instead


class Level(StrEnum):
    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Check:
    """``found`` says what there is, ``way_out`` what to do about it ("" if nothing)."""

    name: str
    level: Level
    found: str
    way_out: str = ""

    def to_document(self) -> dict[str, str]:
        return {"check": self.name, "level": self.level.value, "found": self.found, "wayOut": self.way_out}


@dataclass(frozen=True)
class Right:
    """What the user may do; ``needed_for`` names the commands that do it."""

    verb: str
    group: str
    resource: str
    needed_for: str
    subresource: str = ""
    level: Level = Level.WARN

    def __str__(self) -> str:
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {resource}{'/' + self.subresource if self.subresource else ''}"

    def review(self, namespace: str) -> Manifest:
        """authorization.k8s.io/v1 SelfSubjectAccessReview; without a namespace it asks about all."""
        what = {"verb": self.verb, "group": self.group, "resource": self.resource, "subresource": self.subresource}
        what["namespace"] = namespace
        attributes = {key: value for key, value in what.items() if value}
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }


OURS: Final = "copilot-operator.io"
RIGHTS: Final = (
    *(Right(verb, OURS, kind, "every command", level=Level.FAIL) for kind in ("copilotpools", "copilottenants")
      for verb in ("get", "list")),
    Right("patch", OURS, "copilottenants", "restart, suspend, wake, pause"),
    Right("patch", OURS, "copilotpools", "restart and pause of a pool"),
    Right("list", "", "pods", "connect, chat, sessions, restart --wait"),
    Right("create", "", "pods", "connect, chat, sessions", "portforward"),
    Right("get", "", "pods", "logs", "log"),
    Right("get", "", "secrets", "chat, sessions, connect --show-token"),
    Right("list", "", "events", "explain"),
    Right("list", "apps", "deployments", "explain, and drains of Shared pools"),
)  # fmt: skip
DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
INSTALL: Final = "kubectl apply --server-side -k crds, or the Helm chart"
IMAGE_TROUBLE: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
MANY: Final = 5  # of what is alike, so many are named


def version(answer: Answer) -> Check:
    """The API server's."""
    name = "API server"
    if isinstance(answer, PluginError):
        return Check(
            name, Level.FAIL, str(answer), "Check the kubeconfig, its context and the network: kubectl cluster-info"
        )
    text = str(answer.get("gitVersion", ""))
    if why := too_old(text):
        return Check(name, Level.FAIL, f"Kubernetes {text}", why)
    return Check(name, Level.OK, f"Kubernetes {text}")


def crds(answers: Mapping[str, Answer]) -> Iterator[Check]:
    """By the names of their kinds: there, established, and as this version of the plugin knows them."""
    for resource in RESOURCES:
        name, live = f"CRD {resource.kind}", answers[resource.kind]
        if isinstance(live, PluginError):
            yield Check(
                name, Level.WARN, f"could not be read: {live}", "Ask for the right to get CustomResourceDefinitions"
            )
            continue
        if live is None:
            yield Check(name, Level.FAIL, "not installed", f"Install it: {INSTALL}")
            continue
        wanted = definition(resource)["spec"]["versions"][0]
        served = {each["name"]: each for each in live["spec"]["versions"] if each.get("served")}
        established = any(
            each["type"] == "Established" and each["status"] == "True"
            for each in (live.get("status") or {}).get("conditions") or ()
        )
        if wanted["name"] not in served:
            yield Check(
                name,
                Level.FAIL,
                f"serves {', '.join(served) or 'nothing'}, not {wanted['name']}",
                f"Upgrade it: {INSTALL}",
            )
        elif not established:
            yield Check(name, Level.FAIL, "not established", f"See: kubectl describe crd {live['metadata']['name']}")
        elif served[wanted["name"]].get("schema") != wanted["schema"]:
            found = f"{wanted['name']}, with other fields than this plugin's version knows"
            yield Check(name, Level.WARN, found, f"Have plugin, operator and CRDs of one version: {INSTALL}")
        else:
            yield Check(name, Level.OK, f"{wanted['name']}, of this version")


def operator(answer: Answer) -> Iterator[Check]:
    """Its Deployments, of any namespace."""
    name = "operator"
    if isinstance(answer, PluginError):
        yield Check(name, Level.WARN, f"could not be looked for: {answer}", "Name its namespace: --operator-namespace")
        return
    if not answer:
        yield Check(
            name,
            Level.FAIL,
            "no Deployment labelled app.kubernetes.io/name=copilot-operator",
            "Install it: kubectl apply --server-side -k manifests/base, or the Helm chart",
        )
        return
    for deployment in answer:
        metadata, spec, status = deployment["metadata"], deployment.get("spec") or {}, deployment.get("status") or {}
        ready, wanted = status.get("readyReplicas", 0), spec.get("replicas", 1)
        images = ", ".join(each.get("image", "") for each in spec["template"]["spec"]["containers"])
        found = f"{metadata['namespace']}/{metadata['name']}: {ready} of {wanted} ready, image {images}"
        way_out = f"See: kubectl -n {metadata['namespace']} describe deploy {metadata['name']}"
        if not wanted:
            scale = f"kubectl -n {metadata['namespace']} scale deploy {metadata['name']} --replicas=2"
            yield Check(name, Level.FAIL, found, f"Nobody acts on pools and tenants: {scale}")
        elif not ready:
            yield Check(name, Level.FAIL, found, way_out)
        elif ready < wanted:
            yield Check(name, Level.WARN, found, way_out)
        else:
            yield Check(name, Level.OK, found)
    if shared := _shared(answer):
        found = f"{len(answer)} installations serve {shared}"
        yield Check(name, Level.WARN, found, "Only one of them acts: keep one, or give each namespaces of its own")


def _shared(deployments: Sequence[Manifest]) -> str:
    """What two installations serve both, "" if each has namespaces of its own."""
    seen: set[str] = set()
    for deployment in deployments:
        (container, *_) = deployment["spec"]["template"]["spec"]["containers"]
        said = (each.get("value") for each in container.get("env") or () if each["name"] == NAMESPACES)
        names = {name.strip() for name in (next(said, None) or "").split(",")} - {""}
        if not names and len(deployments) > 1:
            return "all namespaces"
        if both := sorted(seen & names):
            return f"namespace {both[0]}"
        seen |= names
    return ""


def rights(answer: Answer, where: str) -> Iterator[Check]:
    """``answer``: the reviews of ``RIGHTS``, in their order."""
    name = "your rights"
    if isinstance(answer, PluginError):
        yield Check(name, Level.WARN, f"could not be asked for: {answer}")
        return
    missing = [
        right for right, review in zip(RIGHTS, answer, strict=True) if not (review.get("status") or {}).get("allowed")
    ]
    for right in missing:
        yield Check(name, right.level, f"you may not {right} in {where}", f"Needed for: {right.needed_for}")
    if not missing:
        yield Check(name, Level.OK, f"all that the plugin does, in {where}")


def storage(classes: Answer, pools: Sequence[Manifest]) -> Iterator[Check]:
    """The classes that pools name, and the default for those that name none (and for pools to come)."""
    name = "storage"
    if isinstance(classes, PluginError):
        yield Check(name, Level.WARN, f"StorageClasses could not be read: {classes}")
        return
    known = {each["metadata"]["name"] for each in classes}
    defaults = sorted(each["metadata"]["name"] for each in classes if annotations_of(each).get(DEFAULT_CLASS) == "true")
    storages = {_name(pool): (pool.get("spec") or {}).get("storage") or {} for pool in pools}
    with_volumes = {pool: storage for pool, storage in storages.items() if storage.get("mode") != "Ephemeral"}
    named = {pool: storage.get("storageClassName") for pool, storage in with_volumes.items()}
    for pool, chosen in named.items():
        if chosen and chosen not in known:
            yield Check(
                name,
                Level.FAIL,
                f"pool {pool} names StorageClass {chosen}, which is not there",
                "Create it, or make a pool with another",
            )
    on_default = [pool for pool, chosen in named.items() if not chosen]
    if len(defaults) == 1:
        yield Check(name, Level.OK, f"default StorageClass {defaults[0]}")
    elif defaults:
        yield Check(
            name,
            Level.WARN,
            f"several default StorageClasses: {', '.join(defaults)}",
            "Leave one the default: the newest is taken",
        )
    else:
        level = Level.FAIL if on_default or not pools else Level.WARN
        yield Check(
            name,
            level,
            "no StorageClass is the default",
            f'Mark one ({DEFAULT_CLASS}: "true"), or name one in storage.storageClassName of each pool',
        )


def claims(answer: Answer) -> Iterator[Check]:
    """Volumes of servers."""
    name = "volumes"
    if isinstance(answer, PluginError):
        yield Check(name, Level.WARN, f"claims could not be read: {answer}")
        return
    bad = [each for each in answer if (each.get("status") or {}).get("phase") in ("Pending", "Lost")]
    for each in bad[:MANY]:
        phase = each["status"]["phase"]
        level = Level.FAIL if phase == "Lost" else Level.WARN
        way_out = f"See: kubectl -n {each['metadata']['namespace']} describe pvc {each['metadata']['name']}"
        yield Check(name, level, f"claim {_name(each)} is {phase}", way_out)
    if answer and not bad:
        modes = sorted({mode for each in answer for mode in (each.get("spec") or {}).get("accessModes") or ()})
        yield Check(name, Level.OK, f"{len(answer)} bound, {', '.join(modes)}")
        if modes and modes != ["ReadWriteOncePod"]:
            yield Check(
                name, Level.OK, "ReadWriteOncePod needs a CSI driver; without, the CLI's own lock keeps servers apart"
            )


def references(owners: Iterable[Manifest]) -> list[tuple[Manifest, str, str]]:
    """(pool or tenant, Secret, key) of every credential that is named."""
    found = []
    for owner in owners:
        auth = (owner.get("spec") or {}).get("auth") or {}
        git_hub, provider = auth.get("gitHub") or {}, auth.get("provider") or {}
        app = git_hub.get("app") or {}
        for ref in (git_hub.get("tokenSecretRef"), app.get("privateKeySecretRef"), provider.get("apiKeySecretRef")):
            if ref:
                found.append((owner, str(ref["name"]), str(ref["key"])))
        if person := git_hub.get("userToken"):
            found += [(owner, str(person["secretRef"]["name"]), key) for key in (REFRESH_TOKEN_KEY, CLIENT_ID_KEY)]
    return found


def credentials(
    named: Sequence[tuple[Manifest, str, str]], secrets: Mapping[tuple[str, str], Answer]
) -> Iterator[Check]:
    """Judged as the operator does it, from digests. ``secrets`` by namespace and name; None: not there."""
    name, good = "credentials", 0
    for owner, secret, key in named:
        found = secrets[owner["metadata"]["namespace"], secret]
        if isinstance(found, PluginError):
            yield Check(name, Level.WARN, f"{_whose(owner)}: Secret {secret} could not be read: {found}")
            continue
        observed = as_observed(found) if found else None
        trouble = check_credential(secret, key, observed, exists=found is not None).finding
        if trouble is None:
            good += 1
        else:
            yield Check(name, Level.FAIL, f"{_whose(owner)}: {trouble.reason}", trouble.message)
    if good:
        yield Check(name, Level.OK, f"{good} of {len(named)} references to Secrets can be used")


def images(answer: Answer) -> Iterator[Check]:
    """What kubelet says of the images of servers and gateways."""
    name = "images"
    if isinstance(answer, PluginError):
        yield Check(name, Level.WARN, f"pods could not be read: {answer}")
        return
    bad: dict[str, tuple[str, str]] = {}
    for pod in answer:
        status = pod.get("status") or {}
        for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
            waiting = (each.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in IMAGE_TROUBLE:
                bad.setdefault(each["image"], (_name(pod), waiting.get("message") or waiting["reason"]))
    for image, (pod, message) in sorted(bad.items())[:MANY]:
        way_out = "Mend spec.server.image or spec.server.template.spec.imagePullSecrets of its pool"
        yield Check(name, Level.FAIL, f"pod {pod} can't pull {image}: {message}", way_out)
    if answer and not bad:
        yield Check(name, Level.OK, f"{len(answer)} pods of servers and gateways have theirs")


def gateways(pools: Iterable[Manifest]) -> Iterator[Check]:
    """As the operator tells of them."""
    for pool in pools:
        if gateway := (pool.get("status") or {}).get("gateway"):
            ready, wanted = gateway["readyReplicas"], gateway["replicas"]
            level = Level.OK if ready >= wanted else Level.WARN if ready else Level.FAIL
            metadata = pool["metadata"]
            way_out = f"See: kubectl copilot explain pool/{metadata['name']} -n {metadata['namespace']}"
            found = f"pool {_name(pool)}: {ready} of {wanted} ready"
            yield Check("gateway", level, found, "" if level is Level.OK else way_out)


def objects(status: Mapping[str, Any]) -> Iterator[Check]:
    """How many pools and tenants are in trouble; what of, ``status`` tells. From its document."""
    for kind in ("pools", "tenants"):
        bad = [each for each in status[kind] if any(problem["severity"] == "Error" for problem in each["problems"])]
        if bad:
            names = ", ".join(f"{each['namespace']}/{each['name']}" for each in bad[:MANY])
            more = f" and {len(bad) - MANY} more" if len(bad) > MANY else ""
            yield Check(
                kind,
                Level.WARN,
                f"{len(bad)} of {len(status[kind])} in trouble: {names}{more}",
                "See: kubectl copilot status",
            )
        elif status[kind]:
            yield Check(kind, Level.OK, f"{len(status[kind])}, none in trouble")


def worst(found: Iterable[Check]) -> Level:
    levels = {each.level for each in found}
    return next((level for level in (Level.FAIL, Level.WARN) if level in levels), Level.OK)


def _name(obj: Manifest) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def _whose(owner: Manifest) -> str:
    return f"{'pool' if 'isolation' in (owner.get('spec') or {}) else 'tenant'} {_name(owner)}"
