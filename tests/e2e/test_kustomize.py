"""What kustomize builds, as ``kubectl apply -k`` does it: the same installation as the chart's with the same values."""

import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cluster.api import kubectl
from tests.cluster.layout import ROOT
from tests.e2e.test_chart_rendered import ONLY_IN_BASE, SAID_BY_CHART, by_name, without_release
from tests.support.helm import NAMESPACE, rendered

Object = dict[str, Any]
Name = tuple[str, str]

MANIFESTS: Final = ROOT / "manifests"
TEST_POD: Final = ("Pod", "copilot-operator-test")
PROMETHEUS: Final = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
VALUES: Final[dict[str, Object]] = {
    "base": {"image": {"tag": "dev"}},
    "overlays/production": {
        "image": {"repository": "registry.example.com/copilot-operator"},
        "priorityClassName": "system-cluster-critical",
        "networkPolicy": {"enabled": True, "metricsFrom": [PROMETHEUS]},
    },
    "overlays/namespace": {
        "image": {"repository": "registry.example.com/copilot-operator"},
        "watchNamespaces": [NAMESPACE],
        "crds": {"install": False},
        "rbac": {"aggregate": False},
    },
}
MOVED: Final = {"overlays/namespace": "team-a"}  # from the chart's namespace


def built(directory: Path) -> dict[Name, Object]:
    done = subprocess.run([kubectl(), "kustomize", directory], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return by_name([each for each in yaml.safe_load_all(done.stdout) if each])


def of_chart(values: Object) -> dict[Name, Object]:
    """What the chart makes of these values, without what only a release has."""
    made = by_name(rendered(values))
    del made[TEST_POD]
    if ("NetworkPolicy", "copilot-operator") in made:
        del made["NetworkPolicy", "copilot-operator"]["spec"]["ingress"][0]["from"][0]  # helm test's pod
    container = made["Deployment", "copilot-operator"]["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [each for each in container["env"] if each["name"] not in SAID_BY_CHART]
    return {name: without_release(obj) for name, obj in made.items()}


@pytest.mark.parametrize("directory", VALUES)
def test_chart_and_kustomize_make_the_same(directory: str) -> None:
    ours, charts = built(MANIFESTS / directory), of_chart(VALUES[directory])
    if directory != "overlays/production":  # the others are without the Service and people's roles
        charts = {name: obj for name, obj in charts.items() if name in ours}
    if moved := MOVED.get(directory):
        text = yaml.safe_dump_all(charts.values()).replace(f"namespace: {NAMESPACE}\n", f"namespace: {moved}\n")
        text = text.replace(
            f"_WATCH_NAMESPACES\n          value: {NAMESPACE}\n", f"_WATCH_NAMESPACES\n          value: {moved}\n"
        )
        charts = by_name(list(yaml.safe_load_all(text)))
    assert ours.keys() - ONLY_IN_BASE == charts.keys()
    assert len(ours) > 4
    for name, obj in charts.items():
        assert ours[name] == obj, name


def test_agents_run_from_the_image_that_somebody_has_set(tmp_path: Path) -> None:
    """As README has people do it: in the base's own file."""
    for name in ("base", "../crds"):
        source = (MANIFESTS / name).resolve()
        copy = tmp_path / ("manifests" if name == "base" else "") / source.name
        copy.mkdir(parents=True)
        for file in source.glob("*.yaml"):
            (copy / file.name).write_text(file.read_text())
    base = tmp_path / "manifests" / "base"
    kustomization = base / "kustomization.yaml"
    said = kustomization.read_text().replace("newName: copilot-operator", "newName: registry.example.com/ours")
    kustomization.write_text(said)
    container = built(base)["Deployment", "copilot-operator"]["spec"]["template"]["spec"]["containers"][0]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert container["image"] == env["COPILOT_OPERATOR_IMAGE"] == "registry.example.com/ours:dev"
