"""Every topic has a guide, every guide has manifests, and what they say is what the API takes."""

import re
from typing import Any

import jsonschema
import pytest
import yaml

from copilot_operator.api.pool import parse_pool
from copilot_operator.api.tenant import parse_tenant
from tests.chart.generate import CRDS, draft_7
from tests.cluster.layout import ROOT
from tests.docs.manifests import of_docs

DOCS = ROOT / "docs"
OBJECTS = [(page, each) for page, objects in of_docs().items() for each in objects]
SPECS = {
    f"Copilot{kind.capitalize()}": draft_7(
        yaml.safe_load(path.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    )
    for kind, path in CRDS.items()
}
TOPICS = 23  # rows of GitHub's guide to scaling the CLI server


@pytest.mark.parametrize(
    ("page", "obj"), OBJECTS, ids=[f"{page}-{each['kind']}-{each['metadata']['name']}" for page, each in OBJECTS]
)
def test_manifests_of_the_docs_are_of_the_api(page: str, obj: dict[str, Any]) -> None:
    assert obj["apiVersion"] == "copilot-operator.io/v1alpha1"
    jsonschema.Draft7Validator(SPECS[obj["kind"]]).validate(obj["spec"])
    parsed = (parse_pool if obj["kind"] == "CopilotPool" else parse_tenant)(obj)
    assert parsed.spec


def test_a_mistyped_field_would_be_found() -> None:
    with pytest.raises(jsonschema.ValidationError, match="isolatoin"):
        jsonschema.Draft7Validator(SPECS["CopilotPool"]).validate({"isolatoin": "Shared"})


def test_every_topic_has_a_guide_and_every_guide_a_topic() -> None:
    table = (DOCS / "README.md").read_text().partition("| topic | guide |")[2].partition("\n\n")[0]
    rows = [row for row in table.splitlines()[2:] if row.startswith("|")]
    assert len(rows) == TOPICS
    for row in rows:
        assert re.search(r"\]\([\w/.-]+\.md(#[\w-]+)?\)", row), row
    named = set(re.findall(r"\((guides/[\w-]+\.md)", table))
    assert named == {str(path.relative_to(DOCS)) for path in (DOCS / "guides").glob("*.md")}
    assert all(f"docs/{guide}" in of_docs() for guide in named), "a guide shows how"


def test_every_picture_is_shown() -> None:
    text = "".join(path.read_text() for path in DOCS.rglob("*.md"))
    for picture in DOCS.rglob("*.svg"):
        assert f"{picture.name})" in text, picture
