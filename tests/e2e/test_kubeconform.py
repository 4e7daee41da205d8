"""What people apply is valid, field by field: manifests/, what Helm makes of the chart, what is exported. The real
kubeconform says so, with -strict."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from copilot_operator.export.main import main as export
from tests.cluster.layout import ROOT
from tests.e2e.test_chart_rendered import EVERYTHING, Object
from tests.e2e.test_kustomize import MANIFESTS, built
from tests.support.helm import rendered
from tests.support.kubeconform import UNKNOWN, Schemas, complaints, dumped, judged
from tests.support.snapshots import a_pool_object, a_tenant
from tests.unit.export.test_export import FULL, IMAGE

FILES: Final = sorted([*MANIFESTS.rglob("*.yaml"), *(ROOT / "crds").glob("*.yaml")])
NO_OBJECTS: Final = {  # parts of other programs' configuration
    "monitoring/alerts.yaml", "monitoring/scrape.yaml", "autoscaling/prometheus-adapter.yaml",
    "gitops/argocd-health.yaml",
}  # fmt: skip
VALUES: Final[dict[str, Object]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "namespaces": {"watchNamespaces": ["team-a", "team-b"], "crds": {"install": False}, "rbac": {"aggregate": False}},
    "alone": {"replicas": 1, "podDisruptionBudget": {"enabled": False}, "page": {"enabled": False}, "resources": {}},
}


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Schemas:
    return Schemas(tmp_path_factory.mktemp("schemas"))


def name_of(path: Path) -> str:
    return str(path.relative_to(MANIFESTS if path.is_relative_to(MANIFESTS) else ROOT))


def objects_of(path: Path) -> list[Any]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


@pytest.mark.parametrize("path", [each for each in FILES if name_of(each) not in NO_OBJECTS], ids=name_of)
def test_manifests_are_valid(path: Path, schemas: Schemas) -> None:
    assert complaints(path.read_text(), schemas) == []


@pytest.mark.parametrize("directory", [str(each.parent.relative_to(MANIFESTS)) for each in FILES
    if each.name == "kustomization.yaml" and each.parts[-3] in ("manifests", "overlays")])  # fmt: skip
def test_what_kustomize_builds_is_valid(directory: str, schemas: Schemas) -> None:
    verdicts = judged(dumped(list(built(MANIFESTS / directory).values())), schemas)
    assert [each for each in verdicts if each.complaint or not each.known] == []


@pytest.mark.parametrize("values", VALUES)
def test_what_helm_makes_is_valid(values: str, schemas: Schemas) -> None:
    assert complaints(dumped(rendered(VALUES[values])), schemas) == []


@pytest.mark.parametrize("fields", [{}, FULL], ids=["bare", "full"])
def test_what_is_exported_is_valid(
    fields: Any, schemas: Schemas, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text(dumped([a_pool_object(fields=fields), a_tenant(), a_tenant("bob", {"deletionPolicy": "Retain"})]))
    assert export(["manifests", "-f", str(file), "--agent-image", IMAGE]) == 0
    verdicts = judged(capsys.readouterr().out, schemas)
    assert len(verdicts) > 6
    assert [each for each in verdicts if each.complaint or not each.known] == []


def test_only_kinds_of_others_are_not_looked_at() -> None:
    found = [each for path in FILES if name_of(path) not in NO_OBJECTS for each in objects_of(path)]
    kinds = {f"{each['apiVersion']}/{each['kind']}" for each in [*found, *rendered(EVERYTHING)]}
    assert kinds >= UNKNOWN, "it is not there any more"


def misspelt(node: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Of an object with one field misspelt: where, the wrong name, and the object. Names that people choose stay."""
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if path.endswith(("labels", "annotations", "matchLabels", "nodeSelector", "data", "requests", "limits")):
            continue
        yield path, f"{key}z", {(f"{name}z" if name == key else name): part for name, part in node.items()}
        if not isinstance(value, dict):
            continue
        for where, wrong, made in misspelt(value, f"{path}/{key}"):
            yield where, wrong, node | {key: made}


@pytest.mark.parametrize(
    "source", [*(f"samples/{each}.yaml" for each in ("pool", "shared-pool", "tenants")), "base/deployment.yaml"]
)
def test_a_misspelt_field_is_found_wherever_it_is(source: str, schemas: Schemas) -> None:
    made = [
        (where, wrong, bad)
        for each in objects_of(MANIFESTS / source)
        for where, wrong, bad in misspelt(each)
        if where or wrong not in ("apiVersionz", "kindz")
    ]
    for number, (_, _, bad) in enumerate(made):
        bad["metadata"] = copy.deepcopy(bad.get("metadata", {})) | {"name": f"it-{number}"}
    verdicts = {each.name: each.complaint for each in judged(dumped([bad for _, _, bad in made]), schemas)}
    assert len(made) > 10
    missed = [f"{where}/{wrong}" for number, (where, wrong, _) in enumerate(made) if not verdicts.get(f"it-{number}")]
    assert missed == []
    assert any(wrong in " ".join(verdicts.values()) for _, wrong, _ in made)


def test_a_field_that_comes_twice_is_found(schemas: Schemas) -> None:
    text = (MANIFESTS / "samples" / "pool.yaml").read_text()
    twice = text.replace("spec:\n", "spec:\n  isolation: Dedicated\n", 1)
    assert twice != text
    (verdict,) = judged(twice, schemas)
    assert "isolation" in verdict.complaint
