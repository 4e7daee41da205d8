"""The committed CRDs are what the models say, structural, explained, and every rule of them has examples."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from copilot_operator.api.crd import RESOURCES, definition, generate, main
from tests.unit.api.examples import RULES

CRDS = Path(__file__).parents[3] / "crds"
COMMITTED = sorted(CRDS.glob("copilot-operator.io_*.yaml"))
Node = dict[str, Any]


def nodes(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    """``node`` and everything below it, each with its path."""
    yield path, node
    for name, part in node.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


def all_nodes() -> list[tuple[str, Node]]:
    return [
        found
        for resource in RESOURCES
        for version in definition(resource)["spec"]["versions"]
        for found in nodes(version["schema"]["openAPIV3Schema"], resource.kind)
    ]


def test_committed_files_are_the_generated_ones_byte_for_byte() -> None:
    assert {path.name: path.read_bytes() for path in COMMITTED} == {
        name: text.encode() for name, text in generate().items()
    }, "run `make crds`"


def test_the_command_writes_the_files_or_prints_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "new")]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == generate()
    assert capsys.readouterr().out == ""
    assert main([]) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert printed == [definition(resource) for resource in RESOURCES]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_crds_are_valid_by_the_schema_of_kubernetes(path: Path) -> None:
    kubernetes_validate.validate(yaml.safe_load(path.read_text()), "1.34", strict=True)


def test_every_node_has_one_type_and_nothing_a_structural_schema_forbids() -> None:
    forbidden = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "nullable", "uniqueItems", "patternProperties"}
    for path, node in all_nodes():
        assert ("type" in node) != node.get("x-kubernetes-int-or-string", False), path
        assert forbidden.isdisjoint(node), path
        assert not {"properties", "additionalProperties"} <= node.keys(), path
        assert "x-kubernetes-preserve-unknown-fields" not in node, path
        if node.get("type") == "object" and not path.endswith(".metadata"):
            assert "properties" in node or "additionalProperties" in node, path


def test_everything_users_write_is_bounded_so_that_rules_stay_cheap() -> None:
    for path, node in all_nodes():
        if node.get("type") == "string" and path.count(".") > 1:
            assert "maxLength" in node or "enum" in node or node.get("format") == "date-time", path
        if node.get("type") == "array":
            assert "maxItems" in node, path
            assert "x-kubernetes-list-type" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_every_field_is_described_in_a_sentence() -> None:
    for path, node in all_nodes():
        if not path.endswith(("[]", "Pool.metadata", "Tenant.metadata")):
            assert node.get("description", "").endswith("."), path


def test_defaults_reach_below_absent_parents() -> None:
    for path, node in all_nodes():
        for name, part in node.get("properties", {}).items():
            below = any("default" in inner for inner in part.get("properties", {}).values())
            asks = "required" in part  # people write such an object, or leave it out whole
            if below and not asks and name not in node.get("required", []):
                assert "default" in part, f"{path}.{name}"


def test_rules_are_sentences_and_each_has_an_accepted_and_a_refused_example() -> None:
    messages = {rule["message"] for _, node in all_nodes() for rule in node.get("x-kubernetes-validations", [])}
    shown = {example.message for example in RULES}
    without = {message for message in messages if not any(message.startswith(start) for start in shown)}
    assert without == set()
    assert {start for start in shown if not any(message.startswith(start) for message in messages)} == set()
