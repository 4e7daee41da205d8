"""What Argo CD and Flux are told of our kinds: Argo's Lua is run, samples are about fields that there are."""

import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.chart.generate import CRDS
from tests.cluster.layout import ROOT
from tests.support.debian import program

GITOPS = ROOT / "manifests" / "gitops"
PREFIX = "resource.customizations.health.copilot-operator.io_"
LUA: dict[str, str] = {
    key.removeprefix(PREFIX): text
    for key, text in yaml.safe_load((GITOPS / "argocd-health.yaml").read_text())["data"].items()
}


def lua(value: Any) -> str:
    """A value as Lua writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{json.dumps(key)}] = {lua(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(lua, value)) + "}"
    return "nil" if value is None else json.dumps(value)


def health(kind: str, obj: dict[str, Any]) -> tuple[str, str]:
    """Argo's verdict and message."""
    text = f"local obj = {lua(obj)}\nlocal function health()\n{LUA[kind]}\nend\n"
    text += 'local found = health()\nio.write(found.status, "\\n", found.message)\n'
    done = subprocess.run([program("lua5.4"), "-"], input=text, text=True, capture_output=True, timeout=20, check=False)
    if "error while loading shared libraries" in done.stderr:
        pytest.skip(f"Debian's lua5.4 lacks a library here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    status, _, message = done.stdout.partition("\n")
    return status, message


def an_object(*conditions: tuple[str, str, str], seen: int = 1, **status: str) -> dict[str, Any]:
    rows = [{"type": type, "status": value, "reason": reason, "message": "why"} for type, value, reason in conditions]
    return {"metadata": {"generation": 1}, "status": {"observedGeneration": seen, "conditions": rows, **status}}


READY, NOT_READY = ("Ready", "True", "ServerReady"), ("Ready", "False", "Starting")
STALLED = ("Stalled", "True", "SecretNotFound")


@pytest.mark.parametrize("kind", LUA)
@pytest.mark.parametrize(
    ("obj", "verdict"),
    [
        ({"metadata": {"generation": 1}}, "Progressing"),
        ({"metadata": {"generation": 1}, "status": {"observedGeneration": 0}}, "Progressing"),
        (an_object(READY), "Healthy"),
        (an_object(READY, seen=0), "Progressing"),
        (an_object(NOT_READY), "Progressing"),
        (an_object(("Ready", "False", "SecretNotFound"), STALLED), "Degraded"),
        (an_object(STALLED, ("Ready", "False", "SecretNotFound")), "Degraded"),
    ],
    ids=["no status", "default status", "ready", "not seen", "starting", "stalled", "stalled, other order"],
)
def test_argo_is_told_how_it_is(kind: str, obj: dict[str, Any], verdict: str) -> None:
    assert health(kind, obj)[0] == verdict


@pytest.mark.parametrize(
    ("kind", "obj", "verdict"),
    [
        ("CopilotTenant", an_object(("Ready", "False", "Suspended"), phase="Suspended"), "Suspended"),
        ("CopilotTenant", an_object(("Ready", "False", "SuspendedWhenIdle"), phase="Suspended"), "Healthy"),
        ("CopilotPool", an_object(("Ready", "False", "NoServers")), "Suspended"),
    ],
)
def test_what_is_stopped_as_asked_is_no_fault(kind: str, obj: dict[str, Any], verdict: str) -> None:
    assert health(kind, obj) == (verdict, "why")


def test_the_message_is_the_operators() -> None:
    assert health("CopilotTenant", an_object(READY))[1] == "why"
    assert "operator" in health("CopilotTenant", {"metadata": {"generation": 1}})[1]


def test_samples_are_yaml_about_kinds_and_fields_that_there_are() -> None:
    schemas = {}
    for path in CRDS.values():
        crd = yaml.safe_load(path.read_text())
        schemas[crd["spec"]["names"]["kind"]] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    application = yaml.safe_load((GITOPS / "argocd-application.yaml").read_text())
    for each in application["spec"]["ignoreDifferences"]:
        for pointer in each["jsonPointers"]:
            node = schemas[each["kind"]]
            for part in pointer.strip("/").split("/"):
                node = node["properties"][part]
    for each in yaml.safe_load((GITOPS / "flux-kustomization.yaml").read_text())["spec"]["healthCheckExprs"]:
        fields = schemas[each["kind"]]["properties"]["status"]["properties"]
        assert set(re.findall(r"status\.(\w+)", each["current"] + each["failed"])) <= fields.keys() | {"status"}
    for phase in re.findall(r"'(Ready|Suspended)'", (GITOPS / "flux-kustomization.yaml").read_text()):
        assert phase in schemas["CopilotTenant"]["properties"]["status"]["properties"]["phase"]["enum"] + ["Ready"]
    usable = {"copilot-operator.io/tenant-usable": "true"}
    secret = yaml.safe_load((GITOPS / "external-secret.yaml").read_text())
    assert secret["spec"]["target"]["template"]["metadata"]["labels"] == usable
    provider_class, keeper = yaml.safe_load_all((GITOPS / "secret-provider-class.yaml").read_text())
    [made], [volume] = provider_class["spec"]["secretObjects"], keeper["spec"]["template"]["spec"]["volumes"]
    assert made["labels"] == usable
    assert volume["csi"]["volumeAttributes"]["secretProviderClass"] == provider_class["metadata"]["name"]
