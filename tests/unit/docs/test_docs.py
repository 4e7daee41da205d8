"""The docs and the code are about the same things: what is named exists, what exists is named, links lead somewhere."""

import argparse
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import click
import pytest

from copilot_operator.__main__ import COMMANDS
from copilot_operator.api.pool import CopilotPool
from copilot_operator.api.tenant import CopilotTenant
from copilot_operator.export import main as export
from copilot_operator.plugin.program import cli
from tests.chart.generate import CHART, SCHEMA
from tests.cluster.layout import ROOT
from tests.docs.api import fields
from tests.unit.docs.queries import METRICS

PAGES: Final = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", CHART / "README.md", *sorted((ROOT / "docs").rglob("*.md"))
]  # fmt: skip
TEXTS: Final = {str(path.relative_to(ROOT)): path.read_text() for path in PAGES}
ALL: Final = "\n".join(TEXTS.values())
DECIDING: Final = ("domain", "cluster", "servers", "credentials")
OPERATOR: Final = ROOT / "operator" / "copilot_operator"
CODE: Final = "\n".join(path.read_text() for part in DECIDING for path in sorted((OPERATOR / part).rglob("*.py")))
REASONS: Final = frozenset(
    re.findall(r'(?:Finding|Event|MintError)\(\s*(?:"(?:Normal|Warning)",\s*)?"([A-Z]\w+)"', CODE)
) - {"Normal", "Warning"}  # fmt: skip


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text()), target


@pytest.mark.parametrize("page", [name for name in TEXTS if name.startswith("docs/")])
def test_every_page_is_found_from_the_readme(page: str) -> None:
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        path = ahead.pop()
        if path in seen or path.suffix != ".md" or not path.is_file():
            continue
        seen.add(path)
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            ahead.append((path.parent / target).resolve())
    if not page.startswith("docs/decisions/"):  # a link leads to their folder
        assert (ROOT / page) in seen


def plugin() -> dict[str, click.Command]:
    assert isinstance(cli, click.Group)
    return dict(cli.commands)


def test_commands_of_the_docs_exist_and_all_are_told_of() -> None:
    assert COMMANDS.keys() <= set(re.findall(r"`copilot-operator ([a-z]+)\b", ALL))
    for text in re.findall(r"`copilot-operator ([a-z]+)[^`]*`", ALL):
        assert text in COMMANDS, text
    spoken = set(re.findall(r"kubectl copilot ([a-z]+)", ALL))
    assert spoken <= plugin().keys(), "kubectl copilot has no such command"
    for name, command in plugin().items():
        assert command.hidden or re.search(rf"(?:`|kubectl copilot ){name}\b", ALL), f"nothing is said of {name}"


def flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from flags(each)


def test_flags_of_the_docs_exist_and_all_of_an_export_are_told_of() -> None:
    known = set(flags(export._parser())) - {"-h", "--help"}
    lines = [line for line in TEXTS["docs/export.md"].splitlines() if "copilot-operator export" in line or "`-" in line]
    said = set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", " ".join(lines)))
    assert said <= known
    long = {flag for flag in known if flag.startswith("--")} - {"--file", "--namespace"}  # told of by their letters
    assert long <= set(re.findall(r"--[a-z][a-z-]*", TEXTS["docs/export.md"]))
    options = {flag for each in plugin().values() for parameter in each.params for flag in parameter.opts}
    for line in re.findall(r"kubectl copilot [^`\n#]*", ALL):
        for flag in re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", line):
            assert flag in options, f"{line}: {flag}"


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^ +|`)make ([a-z0-9-]+)", ALL, re.MULTILINE)) <= targets


def test_metrics_of_the_docs_exist() -> None:
    named = set(re.findall(r"\bcopilot_(?:operator|agent|cli|server|gateway)_\w+", ALL))
    bare = {metric.name for metric in METRICS.values()}
    assert named - METRICS.keys() - bare == set()


def test_reasons_of_the_docs_exist_and_all_are_told_of() -> None:
    tables = [
        TEXTS["README.md"].partition("## When something is wrong")[2].partition("\n## ")[0],
        TEXTS["docs/conditions.md"],
    ]
    first = [row for table in tables for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)]
    named = {reason for row in first for reason in re.findall(r"`(\w+)`", row)}
    assert {reason for reason in named if not re.search(rf'"{reason}"', CODE)} == set()
    assert {reason for reason in REASONS if reason not in named} == set(), "say in docs/conditions.md what they mean"


METHODS: Final = "docs/decisions/"  # the CLI's, of which some are named like fields of ours


def value_paths(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, part in schema.get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from value_paths(part, f"{prefix}{name}.")


def test_fields_and_values_of_the_docs_exist() -> None:
    """What is written as a path that begins as one of ours does."""
    found = {
        path.replace("[]", ""): node for kind in (CopilotPool, CopilotTenant) for path, node in fields(kind).items()
    }
    maps = {path.removeprefix("spec.") for path, node in found.items() if "additionalProperties" in node}
    of_api = found.keys()
    bare = {path.removeprefix("spec.") for path in of_api}
    of_chart = set(value_paths(json.loads((CHART / SCHEMA).read_text())))
    known = of_api | bare | of_chart
    first = {path.split(".")[0] for path in known}
    for page, text in ((page, text) for page, text in TEXTS.items() if not page.startswith(METHODS)):
        for path in re.findall(r"`([a-z][A-Za-z]*(?:\.[a-z][A-Za-z]*)+)(?:: [^`]*)?`", text):
            if path.split(".")[0] in first and not path.endswith((".md", ".py", ".yaml", ".json")):
                in_a_map = path.removeprefix("spec.").rpartition(".")[0] in maps
                assert path in known or in_a_map, f"{page}: {path}"
