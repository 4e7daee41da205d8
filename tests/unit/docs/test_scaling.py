"""What others scale pools by: manifests about a metric, labels and a scale subresource that there are."""

import re
from typing import Any

import pytest
import yaml

from tests.chart.generate import CRDS
from tests.cluster.layout import ROOT
from tests.unit.docs.queries import METRICS, complaints

FOLDER = ROOT / "manifests" / "autoscaling"
KEDA, HPA, ADAPTER = (
    yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) for name in ("keda", "hpa", "prometheus-adapter")
)
(RULE,) = ADAPTER["externalRules"]
SESSIONS = "copilot_operator_pool_sessions"


@pytest.mark.parametrize("target", [KEDA["spec"]["scaleTargetRef"], HPA["spec"]["scaleTargetRef"]])
def test_what_is_scaled_has_a_scale_subresource(target: dict[str, str]) -> None:
    crds = [yaml.safe_load(path.read_text()) for path in CRDS.values()]
    (crd,) = (each for each in crds if each["spec"]["names"]["kind"] == target["kind"])
    version = crd["spec"]["versions"][0]
    assert target["apiVersion"] == f"{crd['spec']['group']}/{version['name']}"
    assert version["subresources"]["scale"] == {
        "specReplicasPath": ".spec.shared.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


def test_queries_are_about_a_metric_and_labels_that_there_are() -> None:
    (trigger,) = KEDA["spec"]["triggers"]
    assert SESSIONS in trigger["metadata"]["query"]
    assert {"pool_namespace", "pool", "state"} == METRICS[SESSIONS].labels.keys()
    assert RULE["seriesQuery"].partition("{")[0] == SESSIONS
    query = RULE["metricsQuery"].replace("<<.Series>>", SESSIONS).replace("{<<.LabelMatchers>>}", "")
    assert complaints(query) == []
    labels = {*re.findall(r'(\w+)!?="', trigger["metadata"]["query"] + RULE["seriesQuery"])}
    assert labels | RULE["resources"]["overrides"].keys() == {"pool_namespace", "pool"}


def test_the_autoscaler_asks_for_what_the_adapter_serves() -> None:
    (metric,) = HPA["spec"]["metrics"]
    asked: dict[str, Any] = metric["external"]["metric"]
    assert asked["name"] == RULE["name"]["as"]
    assert asked["selector"]["matchLabels"].keys() <= METRICS[SESSIONS].labels.keys()
    assert KEDA["spec"]["triggers"][0]["metadata"]["threshold"] == metric["external"]["target"]["averageValue"]


def test_what_is_not_known_is_not_taken_for_nothing() -> None:
    assert KEDA["spec"]["triggers"][0]["metadata"]["ignoreNullValues"] == "false"
