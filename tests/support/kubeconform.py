"""The real kubeconform, compiled into the cache (a few seconds), with the schemas of Kubernetes that the package
kubernetes-validate brings, and those of our own CRDs."""

import functools
import importlib.resources
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.layout import ROOT
from tests.cluster.programs import ensure_program

PACKAGE: Final = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"
KUBERNETES: Final = "v1.37.0-local-strict"
DEFINITIONS: Final = "/api/_definitions.json#"  # as its schemas name the file of what they have in common
METADATA: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
CRDS: Final = tuple(sorted((ROOT / "crds").glob("copilot-operator.io_*.yaml")))
UNKNOWN: Final = frozenset(
    {
        "monitoring.coreos.com/v1/ServiceMonitor",
        "monitoring.coreos.com/v1/PodMonitor",
        "monitoring.coreos.com/v1/PrometheusRule",
        "argoproj.io/v1alpha1/Application",
        "kustomize.toolkit.fluxcd.io/v1/Kustomization",
        "external-secrets.io/v1/ExternalSecret",
        "secrets-store.csi.x-k8s.io/v1/SecretProviderClass",
        "keda.sh/v1alpha1/ScaledObject",
        "kustomize.config.k8s.io/v1beta1/Kustomization",
        "kustomize.config.k8s.io/v1alpha1/Component",
    }
)
"""Kinds of others, whose schemas are not here."""


@dataclass(frozen=True)
class Verdict:
    """Of one object. ``complaint`` is "" if it is valid; ``known``: there is a schema of its kind."""

    kind: str
    name: str
    complaint: str
    known: bool = True


def strict(schema: Any) -> Any:
    """A structural schema as one that takes nothing it does not name; -strict leaves that to the schemas it gets."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        made["additionalProperties"] = False
    return made


class Schemas:
    """A directory of schemas, by the names that kubeconform looks for: KIND-GROUP-VERSION.json with the group's first
    word."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for path in CRDS:
            spec = yaml.safe_load(path.read_text())["spec"]
            (version,) = spec["versions"]
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"$ref": f"#/$defs/{METADATA}"}
            self._write(self._file(f"{spec['group']}/{version['name']}", spec["names"]["kind"]), schema)

    def bring(self, api_version: str, kind: str) -> None:
        """Have Kubernetes' own schema of a kind there, if it has one, with all that it refers to in one file."""
        target = self._file(api_version, kind)
        source = kubernetes() / target.name
        if not target.exists() and source.is_file():
            schema = json.loads(source.read_text().replace(DEFINITIONS, "#"))
            self._write(target, schema)

    def _write(self, target: Path, schema: Any) -> None:
        target.write_text(json.dumps(schema | {"$defs": dict(_needed(schema))}))

    def _file(self, api_version: str, kind: str) -> Path:
        group, _, version = api_version.rpartition("/")
        return self.directory / "-".join(filter(None, (kind, group.partition(".")[0], f"{version}.json"))).lower()


def judged(text: str, schemas: Schemas) -> list[Verdict]:
    """What kubeconform says of each object of a YAML text."""
    for obj in yaml.load_all(text, Loader=yaml.CSafeLoader):
        if isinstance(obj, dict):
            schemas.bring(str(obj.get("apiVersion", "")), str(obj.get("kind", "")))
    words = ["-strict", "-verbose", "-output=json", f"-skip={','.join(sorted(UNKNOWN))}"]
    location = f"{schemas.directory}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    command = [str(program()), *words, f"-schema-location={location}", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    return [_verdict(each) for each in json.loads(done.stdout)["resources"]]


def complaints(text: str, schemas: Schemas) -> list[str]:
    """What is wrong with the objects of a text, each with its name."""
    return [f"{each.kind} {each.name}: {each.complaint}" for each in judged(text, schemas) if each.complaint]


@functools.cache
def program() -> Path:
    return ensure_program("kubeconform", PACKAGE)


def kubernetes() -> Path:
    """Where the package has its schemas."""
    return Path(str(importlib.resources.files("kubernetes_validate"))) / "kubernetes-json-schema" / KUBERNETES


@functools.cache
def _definitions() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((kubernetes() / "_definitions.json").read_text())["$defs"]
    return found


def _needed(schema: Any) -> Iterator[tuple[str, Any]]:
    """The definitions that a schema refers to, and that those refer to."""
    seen: set[str] = set()
    ahead = [schema]
    while ahead:
        for name in set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(ahead.pop()))) - seen:
            seen.add(name)
            ahead.append(_definitions()[name])
            yield name, _definitions()[name]


def _verdict(found: dict[str, Any]) -> Verdict:
    status = found["status"]
    complaint = "" if status in ("statusValid", "statusSkipped", "statusEmpty") else found["msg"] or status
    return Verdict(found["kind"], found["name"], complaint, known=status != "statusSkipped")


def dumped(objects: Sequence[Any]) -> str:
    return str(yaml.safe_dump_all(objects))
