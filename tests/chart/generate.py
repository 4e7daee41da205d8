"""What of the chart is made from something else: its CRDs, alerts and dashboards, what its schema says of pools and
tenants, ``values.yaml``, and the table of values in its README. Written by people are the rest of
``values.schema.json`` and of the README.
"""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from tests.cluster.layout import ROOT

Schema: TypeAlias = dict[str, Any]

CHART: Final = ROOT / "charts" / "copilot-operator"
CRDS: Final = {
    "pool": ROOT / "crds" / "copilot-operator.io_copilotpools.yaml",
    "tenant": ROOT / "crds" / "copilot-operator.io_copilottenants.yaml",
}
MONITORING: Final = ROOT / "manifests" / "monitoring"
SCHEMA: Final = "values.schema.json"
TABLE_BEGINS: Final = "<!-- values: made by `make chart` -->\n"
TABLE_ENDS: Final = "<!-- end of values -->\n"
HEADER: Final = "# Made by `make chart` from values.schema.json, which is the file to edit.\n"
WIDTH: Final = 118

KEPT: Final = (
    "type", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties",
    "maxProperties", "required",
)  # fmt: skip


def files(chart: Path = CHART) -> dict[str, str]:
    """Every made file, by its path in the chart. ``chart`` holds what is written by people."""
    schema: Schema = json.loads((chart / SCHEMA).read_text())
    specs = {name: draft_7(_spec_of(path)) for name, path in CRDS.items()}
    schema["definitions"] = dict(sorted((schema["definitions"] | specs).items()))
    before, _, rest = (chart / "README.md").read_text().partition(TABLE_BEGINS)
    after = rest.partition(TABLE_ENDS)[2]
    return {
        **{f"files/crds/{path.name}": path.read_text() for path in CRDS.values()},
        **{f"files/monitoring/{path.relative_to(MONITORING)}": path.read_text() for path in monitoring()},
        SCHEMA: json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        "values.yaml": HEADER + "".join(_values(schema["properties"], "")),
        "README.md": f"{before}{TABLE_BEGINS}{''.join(_table(schema))}{TABLE_ENDS}{after}",
    }


def monitoring() -> list[Path]:
    """Alerts and dashboards; how to scrape without a Prometheus Operator is none of the chart's business."""
    return [MONITORING / "alerts.yaml", *sorted((MONITORING / "dashboards").glob("*.json"))]


def draft_7(node: Schema) -> Schema:
    """A structural schema as JSON schema, so that Helm knows the fields of a spec by name.

    What only the API server can check (rules, lists with keys) it checks itself.
    """
    made: Schema = {key: node[key] for key in KEPT if key in node}
    if "items" in node:
        made["items"] = draft_7(node["items"])
    if isinstance(node.get("additionalProperties"), dict):
        made["additionalProperties"] = draft_7(node["additionalProperties"])
    elif "properties" in node:
        made["additionalProperties"] = False
        made["properties"] = {name: draft_7(part) for name, part in node["properties"].items()}
    return made


def _spec_of(crd: Path) -> Schema:
    version = yaml.safe_load(crd.read_text())["spec"]["versions"][0]
    spec: Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def _values(properties: Schema, indent: str) -> Iterator[str]:
    """``values.yaml``: each value with its default, below what is said of it."""
    for name, schema in properties.items():
        if not _is_group(schema) and "default" not in schema:
            continue
        if not indent:
            yield "\n"
        prefix = f"{indent}# "
        yield (
            textwrap.fill(
                schema["description"], WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False
            )
            + "\n"
        )
        if _is_group(schema):
            yield f"{indent}{name}:\n"
            yield from _values(schema["properties"], indent + "  ")
        else:
            yield textwrap.indent(yaml.safe_dump({name: schema["default"]}, sort_keys=False, width=WIDTH), indent)


def _table(schema: Schema) -> Iterator[str]:
    yield "| value | default | |\n| --- | --- | --- |\n"
    for name, default, text in _rows(schema["properties"], ""):
        shown = json.dumps(default).replace("|", "\\|")
        yield f"| `{name}` | `{shown}` | {text.replace('|', chr(92) + '|')} |\n"


def _rows(properties: Schema, prefix: str) -> Iterator[tuple[str, Any, str]]:
    for name, schema in properties.items():
        if _is_group(schema):
            yield from _rows(schema["properties"], f"{prefix}{name}.")
        elif "default" in schema:
            yield f"{prefix}{name}", schema["default"], _said(schema)


def _said(schema: Schema) -> str:
    choices = f" One of {', '.join(schema['enum'])}." if "enum" in schema else ""
    return f"{schema['description']}{choices}"


def _is_group(schema: Schema) -> bool:
    """Whether a value only holds others, which have defaults of their own."""
    return "properties" in schema and "default" not in schema
