"""Metrics: what is said of them is what is served, by names that Prometheus' own linter takes."""

import inspect
import re
import subprocess

import pytest

from copilot_operator.agent import metrics as agent
from tests.docs.metrics import FREE, VALUES, Metric, all_metrics, exposed
from tests.support.debian import program

METRICS = all_metrics()


def test_names_and_types_and_units_are_those_of_prometheus() -> None:
    promtool = program("promtool")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=exposed(), text=True, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_an_agent_that_knows_everything_tells_of_every_metric() -> None:
    served = {metric.name for metric in METRICS if metric.part == "server"}
    assert set(re.findall(r'"(copilot_\w+)"', inspect.getsource(agent))) == served


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_said_something_of(metric: Metric) -> None:
    assert re.match(r"[A-Z0-9]", metric.text)
    for label, values in metric.labels.items():
        assert bool(values) != (label in FREE), f"say in tests/docs/metrics.py what values {label} has"


def test_values_are_of_labels_that_there_are() -> None:
    assert VALUES.keys() <= {(metric.name, label) for metric in METRICS for label in metric.labels}


def test_no_name_is_taken_twice() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
