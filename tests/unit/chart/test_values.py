"""What values the chart takes, and that what of it is made is up to date. Nothing here needs Helm."""

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from copilot_operator.settings import OperatorSettings
from tests.chart.generate import CHART, SCHEMA, files
from tests.cluster.layout import ROOT
from tests.unit.api.examples import EXAMPLES, Example, with_fields

SCHEMA_OF_VALUES: dict[str, Any] = json.loads((CHART / SCHEMA).read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
TEMPLATES = "".join(path.read_text() for path in sorted(CHART.rglob("templates/**/*")) if path.is_file())


def complaints(values: dict[str, Any]) -> list[str]:
    return [each.message for each in jsonschema.Draft7Validator(SCHEMA_OF_VALUES).iter_errors(values)]


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The values people set, by path; ``global`` is not ours."""
    for name, part in schema.get("properties", {}).items():
        if "properties" in part and "default" not in part:
            yield from leaves(part, f"{path}.{name}")
        elif "default" in part:
            yield f"{path}.{name}", part


@pytest.mark.parametrize("name", sorted(files()))
def test_made_files_are_up_to_date(name: str) -> None:
    assert (CHART / name).read_text() == files()[name], "make chart"


@pytest.mark.parametrize("directory", ["crds", "monitoring"])
def test_nothing_that_was_made_is_left_over(directory: str) -> None:
    found = [path for path in (CHART / "files" / directory).rglob("*") if path.is_file()]
    assert {str(path.relative_to(CHART)) for path in found} <= files().keys()


def test_one_version_for_package_chart_and_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_schema_is_one_and_takes_the_defaults() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA_OF_VALUES)
    assert complaints(VALUES) == []
    assert complaints({}) == []


def test_every_value_is_said_something_of() -> None:
    for path, schema in leaves(SCHEMA_OF_VALUES):
        assert re.fullmatch(r"[A-Z].*\.", schema["description"]), path


def test_every_value_is_read_by_a_template() -> None:
    for path, _ in leaves(SCHEMA_OF_VALUES):
        assert re.search(rf"\.Values{re.escape(path)}\b", TEMPLATES), path


def test_every_value_that_a_template_reads_is_one() -> None:
    known = {path for path, _ in leaves(SCHEMA_OF_VALUES)}
    assert set(re.findall(r"\.Values((?:\.\w+)+)", TEMPLATES)) <= known


def test_defaults_are_those_of_the_operator() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(OperatorSettings)}
    assert (VALUES["logLevel"], VALUES["workers"]) == (defaults["log_level"], defaults["workers"])


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"replcas": 3}, "replcas"),
        ({"image": {"tg": "1"}}, "tg"),
        ({"watchNamespaces": ["Team A"]}, "Team A"),
        ({"watchNamespaces": "a,b"}, "a,b"),
        ({"watchNamespaces": ["a", "a"]}, "non-unique"),
        ({"pools": {"saas": {"gateway": {"enabeld": True}}}}, "enabeld"),
        ({"tenants": {"alice": {"poolref": {"name": "saas"}}}}, "poolref"),
        ({"tenants": {"Alice": {"poolRef": {"name": "saas"}}}}, "Alice"),
        ({"replicas": "two"}, "two"),
        ({"image": {"repository": "registry.example.com/operator:1.0"}}, "operator:1.0"),
        ({"logLevel": "verbose"}, "verbose"),
        ({"extraEnv": [{"name": "COPILOT_OPERATOR_WORKERS", "value": "1"}]}, "COPILOT_OPERATOR_WORKERS"),
        ({"extraEnv": [{"name": "COPILOT_OPERATOR_PAGE_PORT", "value": "1"}]}, "COPILOT_OPERATOR_PAGE_PORT"),
        ({"networkPolicy": {"metricsFrom": [{"podSelectors": {}}]}}, "podSelectors"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], name: str) -> None:
    assert name in " ".join(complaints(values))


def test_settings_without_a_value_of_their_own_are_given_by_environment() -> None:
    """As the README says of COPILOT_OPERATOR_MOST_STARTS; those that the chart sets can't be given twice."""
    source = (ROOT / "operator" / "copilot_operator" / "settings.py").read_text()
    for name in sorted(set(re.findall(r'"(COPILOT_OPERATOR_\w+)"', source)) - {"COPILOT_OPERATOR_PORT"}):
        refused = complaints({"extraEnv": [{"name": name, "value": "1"}]}) != []
        assert refused == (f"- name: {name}" in TEMPLATES), name


@pytest.mark.parametrize("repository", ["copilot-operator", "registry.example.com:5000/a/b", "localhost/x"])
def test_repositories(repository: str) -> None:
    assert complaints({"image": {"repository": repository}}) == []


def values_with(obj: dict[str, Any]) -> dict[str, Any]:
    """A pool or tenant as a value, without nulls, which say nothing."""
    spec = {key: value for key, value in obj["spec"].items() if value is not None}
    return {{"CopilotPool": "pools", "CopilotTenant": "tenants"}[obj["kind"]]: {"one": spec}}


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_no_spec_is_refused_that_the_api_server_takes(example: Example) -> None:
    assert complaints(values_with(with_fields(example.base, example.good))) == []


@pytest.mark.parametrize("path", sorted((ROOT / "manifests" / "samples").glob("*.yaml")), ids=lambda path: path.stem)
def test_samples_are_values(path: Path) -> None:
    for obj in yaml.safe_load_all(path.read_text()):
        assert complaints(values_with(obj)) == []
