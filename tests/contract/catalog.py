"""Parameters for any method of a CLI, made from the schema that the CLI ships (``schemas/api.schema.json``)."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.cluster.image_cache import cache_directory
from tests.cluster.image_npm import pinned_cli

DEPTH: Final = 8  # of nested objects; deeper ones are recursive

PLAIN: Final[Mapping[str, Any]] = {"string": "x", "integer": 1, "number": 1, "boolean": True, "null": None}


def schema_file() -> Path:
    """Where a CLI that has run once on this machine has left its schema."""
    return (
        cache_directory() / "cli-unpacked" / "pkg" / "linux-x64" / pinned_cli().version / "schemas" / "api.schema.json"
    )


@cache
def schema() -> dict[str, Any]:
    """The whole schema."""
    found: dict[str, Any] = json.loads(schema_file().read_text())
    return found


@cache
def methods() -> dict[str, dict[str, Any]]:
    """What the schema says of each method that a client may call."""
    return {entry["rpcMethod"]: entry for part in ("server", "session") for entry in _entries(schema()[part])}


def least_params(method: str) -> dict[str, Any]:
    """The required parameters and no others, each with the plainest value of its type."""
    params = methods()[method].get("params") or {}
    made = _value(params, 0)
    return made if isinstance(made, dict) else {}


def properties(method: str) -> dict[str, Any]:
    """All parameters that the schema knows for a method."""
    params = _resolved(methods()[method].get("params") or {})
    found: dict[str, Any] = params.get("properties", {})
    return found


def _entries(part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for value in part.values():
        if not isinstance(value, dict):
            continue
        if "rpcMethod" in value:
            yield value
        else:
            yield from _entries(value)


def _resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        node = schema()["definitions"][node["$ref"].rpartition("/")[2]]
    return node


def _value(node: Mapping[str, Any], depth: int) -> Any:
    node = _resolved(node)
    if depth > DEPTH:
        return None
    if "const" in node:
        return node["const"]
    if "enum" in node:
        return node["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if choice in node:
            return _value(node[choice][0], depth + 1)
    if "allOf" in node:
        parts = [_value(part, depth + 1) for part in node["allOf"]]
        return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
    kind = node.get("type", "object" if "properties" in node else "null")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        known = node.get("properties", {})
        return {name: _value(known.get(name, {}), depth + 1) for name in node.get("required", ())}
    if kind == "array":
        return [_value(node.get("items", {}), depth + 1)] * node.get("minItems", 0)
    if kind == "integer" and "minimum" in node:
        return max(1, int(node["minimum"]))
    return PLAIN.get(kind)
