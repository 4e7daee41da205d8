"""Dashboards: every query is PromQL, about metrics and labels that there are, and legends name labels that are left."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.layout import ROOT
from tests.docs.dashboards import DIRECTORY
from tests.support.debian import program
from tests.unit.docs.queries import complaints

BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((ROOT / DIRECTORY).glob("*.json"))
}


def targets(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"], target["legendFormat"]


QUERIES = [(query, legend) for board in BOARDS.values() for query, legend in targets(board)]


@pytest.mark.parametrize("query", sorted({query for query, _ in QUERIES}))
def test_queries_are_about_what_there_is(query: str) -> None:
    assert complaints(query) == []
    assert "copilot_" in query


@pytest.mark.parametrize(("query", "legend"), sorted(set(QUERIES)))
def test_legends_name_labels_that_the_query_leaves(query: str, legend: str) -> None:
    for label in re.findall(r"\{\{(\w+)\}\}", legend):
        assert re.search(rf"by \([^)]*\b{label}\b", query) or " by " not in query, label


def test_queries_are_promql(tmp_path: Path) -> None:
    names = {"$__rate_interval": "5m", "$namespace": "apps", "$pool": "saas", "$tenant": "alice"}
    rules = []
    for number, (query, _) in enumerate(QUERIES):
        for name, value in names.items():
            query = query.replace(name, value)
        assert "$" not in query
        rules.append({"record": f"query_{number}", "expr": query})
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(file)], text=True, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_beside_each_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in BOARDS[name]["panels"]):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize("name", BOARDS)
def test_variables_are_asked_of_metrics_that_there_are(name: str) -> None:
    variables = {each["name"]: each["query"] for each in BOARDS[name]["templating"]["list"]}
    for query in variables.values():
        assert complaints(query) == []
    used = {word for query, _ in targets(BOARDS[name]) for word in re.findall(r"\$([a-z]\w*)", query)}
    assert used <= variables.keys()
