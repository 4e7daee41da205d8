"""The pools and tenants that are written in the docs."""

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from tests.cluster.layout import ROOT

GROUP: Final = "copilot-operator.io/"


def blocks(text: str) -> Iterator[list[dict[str, Any]]]:
    """Each block of YAML in a page, as its documents."""
    for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield [document for document in yaml.safe_load_all(block) if document]


def of_docs() -> dict[str, list[dict[str, Any]]]:
    """Pools and tenants by page; pieces of objects are left out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        objects = [
            each
            for block in blocks(path.read_text())
            for each in block
            if isinstance(each, dict) and str(each.get("apiVersion")).startswith(GROUP)
        ]
        if objects:
            found[str(path.relative_to(ROOT))] = objects
    return found
