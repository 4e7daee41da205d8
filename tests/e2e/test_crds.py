"""The real API server takes the CRDs, and then takes and refuses what ``tests/unit/api/examples.py`` says."""

import copy
import json
import re
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import pytest
import yaml

from copilot_operator.api.crd import generate
from copilot_operator.api.pool import parse_pool
from copilot_operator.api.tenant import parse_tenant
from tests.docs.manifests import of_docs
from tests.unit.api.examples import EXAMPLES, POOL, TENANT, Example, Object, with_fields

DEADLINE_S: Final = 120
PAUSED: Final = {"copilot-operator.io/paused": "true"}  # an operator that happens to run leaves these objects alone


class Kube(Protocol):
    """The cluster of the session, as far as it is needed here."""

    @property
    def kubeconfig(self) -> Path: ...


Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def kubectl(kube: Kube) -> Kubectl:
    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = ["kubectl", f"--kubeconfig={kube.kubeconfig}", f"--request-timeout={DEADLINE_S}s", *words]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    return run


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace of this module, in a cluster that has the CRDs."""
    crds: Path = tmp_path_factory.mktemp("crds")
    for name, text in generate().items():
        (crds / name).write_text(text)
    succeeded(kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crds)))
    names = [f"crd/copilot{kind}s.copilot-operator.io" for kind in ("pool", "tenant")]
    succeeded(kubectl("wait", "--for=condition=Established", "--timeout=60s", *names))
    name = f"crds-{uuid.uuid4().hex[:8]}"
    succeeded(kubectl("create", "namespace", name))
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbered(number: int, obj: Object, namespace: str) -> Object:
    """``obj`` under a name by which kubectl's answer about it can be found among the others."""
    return copy.deepcopy(obj) | {
        "metadata": {"name": f"example-{number:03}", "namespace": namespace, "annotations": PAUSED}
    }


def as_stream(objects: Iterable[Object]) -> str:
    """One JSON document after the other; a List would be checked as a whole, by kubectl, before anything is sent."""
    return "\n".join(map(json.dumps, objects))


class Answers:
    """What the API server says to many objects: kubectl is started once for all of them, not once for each."""

    def __init__(self, kubectl: Kubectl, verb: str, objects: dict[int, Object]) -> None:
        done = kubectl(verb, "--dry-run=server", "-f", "-", stdin=as_stream(objects.values()))
        parts = re.split(r"(?=example-\d{3})", done.stdout + done.stderr)
        self.by_number = {
            number: "\n".join(part for part in parts if part.startswith(f"example-{number:03}")) for number in objects
        }

    def accepted(self, number: int) -> bool:
        return bool(re.match(r"example-\d{3} (created|replaced) \(server dry run\)", self.by_number[number]))


@pytest.fixture(scope="module")
def stored(kubectl: Kubectl, namespace: str) -> None:
    """The objects that transition rules compare with."""
    objects = [
        numbered(number, with_fields(example.base, example.before), namespace)
        for number, example in enumerate(EXAMPLES)
        if example.before is not None
    ]
    succeeded(kubectl("create", "-f", "-", stdin=as_stream(objects)))


def answers(kubectl: Kubectl, namespace: str, fields: Callable[[Example], Object]) -> Answers:
    made = {
        number: numbered(number, with_fields(example.base, fields(example)), namespace)
        for number, example in enumerate(EXAMPLES)
    }
    created = Answers(kubectl, "create", {n: obj for n, obj in made.items() if EXAMPLES[n].before is None})
    replaced = Answers(kubectl, "replace", {n: obj for n, obj in made.items() if EXAMPLES[n].before is not None})
    created.by_number |= replaced.by_number
    return created


@pytest.fixture(scope="module")
def good(kubectl: Kubectl, namespace: str, stored: None) -> Answers:
    return answers(kubectl, namespace, lambda example: example.good)


@pytest.fixture(scope="module")
def bad(kubectl: Kubectl, namespace: str, stored: None) -> Answers:
    return answers(kubectl, namespace, lambda example: example.bad)


NUMBERED: Final = [pytest.param(number, id=str(example)) for number, example in enumerate(EXAMPLES)]


@pytest.mark.parametrize("number", NUMBERED)
def test_api_server_accepts(good: Answers, number: int) -> None:
    assert good.accepted(number), good.by_number[number]


@pytest.mark.parametrize("number", NUMBERED)
def test_api_server_refuses_with_the_sentence(bad: Answers, number: int) -> None:
    example, answer = EXAMPLES[number], bad.by_number[number]
    assert not bad.accepted(number)
    assert example.message in answer
    assert example.path in answer


@pytest.mark.parametrize(
    ("base", "fields", "unknown"),
    [
        (POOL, {"gateway": {"enabled": True, "resources": {}}}, "spec.gateway.resources"),
        (POOL, {"server.template.spec.hostNetwork": True}, "spec.server.template.spec.hostNetwork"),
        (TENANT, {"sessions": {"ttl": "1h"}}, "spec.sessions.ttl"),
    ],
)
def test_fields_of_other_versions_are_refused(
    kubectl: Kubectl, namespace: str, base: Object, fields: Object, unknown: str
) -> None:
    obj = json.dumps(with_fields(base, fields))
    done = kubectl("create", "--dry-run=server", "-n", namespace, "-f=-", stdin=obj)
    assert done.returncode != 0
    assert f'unknown field "{unknown}"' in done.stderr


def test_defaults_of_the_api_server_are_those_of_the_models(kubectl: Kubectl, namespace: str) -> None:
    pool = json.loads(
        succeeded(kubectl("create", "--dry-run=server", "-o=json", "-n", namespace, "-f=-", stdin=json.dumps(POOL)))
    )
    tenant = json.loads(
        succeeded(kubectl("create", "--dry-run=server", "-o=json", "-n", namespace, "-f=-", stdin=json.dumps(TENANT)))
    )
    assert pool["spec"] == said(parse_pool(POOL).spec.to_api())
    assert tenant["spec"] == said(parse_tenant(TENANT).spec.to_api())


def said(value: Any) -> Any:
    """Without empty lists and objects, which the CRDs do not write out."""
    if not isinstance(value, dict):
        return value
    return {key: kept for key, part in value.items() if (kept := said(part)) not in ([], {})}


def test_an_explicit_null_becomes_the_default(kubectl: Kubectl, namespace: str) -> None:
    nulls = with_fields(POOL, {"health": None, "storage.size": None, "server.logLevel": None})
    words = ("create", "--dry-run=server", "-o=json", "-n", namespace, "-f=-")
    stored = json.loads(succeeded(kubectl(*words, stdin=json.dumps(nulls))))
    assert stored["spec"] == said(parse_pool(nulls).spec.to_api())


def test_short_names_and_category(kubectl: Kubectl, namespace: str) -> None:
    listed = succeeded(
        kubectl("api-resources", "--api-group=copilot-operator.io", "--categories=copilot", "--no-headers")
    )
    assert sorted(line.split()[:2] for line in listed.splitlines()) == [
        ["copilotpools", "cpool"],
        ["copilottenants", "ctenant"],
    ]


def test_columns_and_status(kubectl: Kubectl, namespace: str) -> None:
    named = copy.deepcopy(TENANT) | {"metadata": {"name": "columns", "namespace": namespace, "annotations": PAUSED}}
    # The pool of this tenant does not exist; no operator makes anything for it.
    succeeded(kubectl("create", "-f=-", stdin=json.dumps(named)))
    status = {
        "phase": "Pending",
        "observedGeneration": 1,
        "endpoint": {"host": "copilot-columns.default.svc", "port": 4321, "secretName": "copilot-columns"},
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "PoolNotFound",
                "message": "Pool saas does not exist",
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            },
            {
                "type": "Needed",
                "status": "True",
                "reason": "InUse",
                "message": "",
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            },
        ],
    }
    patch = json.dumps({"status": status})
    succeeded(
        kubectl("patch", "ctenant", "columns", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    )
    wide = succeeded(kubectl("get", "ctenant", "columns", "-n", namespace, "-o=wide"))
    assert wide.splitlines()[0].split() == ["NAME", "PHASE", "READY", "REASON", "POOL", "NEEDED", "HOST", "AGE"]
    row = ["columns", "Pending", "False", "PoolNotFound", "saas", "InUse", "copilot-columns.default.svc"]
    assert wide.splitlines()[1].split()[:7] == row
    spec_only = kubectl(
        "patch", "ctenant", "columns", "-n", namespace, "--type=merge", "-p", '{"status":{"phase":"Failed"}}'
    )
    succeeded(spec_only)  # the main resource has no say in the status
    assert succeeded(kubectl("get", "ctenant", "columns", "-n", namespace, "-o=jsonpath={.status.phase}")) == "Pending"


def test_a_dedicated_pool_cannot_be_scaled(kubectl: Kubectl, namespace: str) -> None:
    named = copy.deepcopy(POOL) | {"metadata": {"name": "fixed", "namespace": namespace, "annotations": PAUSED}}
    succeeded(kubectl("create", "-f=-", stdin=json.dumps(named)))
    done = kubectl("scale", "cpool", "fixed", "-n", namespace, "--replicas=3")
    assert done.returncode != 0
    assert "leave shared out and do not scale this pool" in done.stderr
    table = succeeded(kubectl("get", "cpool", "fixed", "-n", namespace, "-o=wide"))
    assert re.split(r"\s{2,}", table.splitlines()[0].strip()) == [
        "NAME",
        "READY",
        "REASON",
        "TENANTS",
        "SERVERS READY",
        "SCALED",
        "IMAGE",
        "AGE",
    ]


def test_every_field_is_explained(kubectl: Kubectl, namespace: str) -> None:
    text = succeeded(kubectl("explain", "copilotpool.spec.storage.size"))
    assert "and never shrink" in " ".join(text.split())


@pytest.mark.parametrize(
    "sample", sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml")), ids=str
)
def test_samples_are_accepted(kubectl: Kubectl, namespace: str, sample: Path) -> None:
    succeeded(kubectl("create", "--dry-run=server", "-n", namespace, "-f", str(sample)))


@pytest.mark.parametrize("page", of_docs())
def test_manifests_of_the_docs_are_accepted(kubectl: Kubectl, namespace: str, page: str) -> None:
    text = yaml.safe_dump_all(of_docs()[page])
    succeeded(kubectl("create", "--dry-run=server", "-n", namespace, "-f=-", stdin=text))
