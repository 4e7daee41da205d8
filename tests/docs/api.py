"""The API reference, from the CRDs, which are made from the models: one table of fields for each part of a kind."""

from collections.abc import Iterator
from typing import Any, Final

from copilot_operator.api.crd import GROUP, VERSION, root_schema
from copilot_operator.api.model import Model
from copilot_operator.api.pool import CopilotPool
from copilot_operator.api.tenant import CopilotTenant

KINDS: Final[tuple[type[Model], ...]] = (CopilotPool, CopilotTenant)
BOUNDS: Final = (("minimum", "≥"), ("maximum", "≤"))
HEAD: Final = """# API reference

<!-- made by `make docs` from the models -->

`{version}`. `kubectl explain copilotpool.spec` and `kubectl explain copilottenant.spec` tell the same at a terminal.
A field works or is refused: rules are checked by the API server, so a wrong object is never stored.
"""


def page() -> str:
    """docs/api.md."""
    return HEAD.format(version=f"{GROUP}/{VERSION}") + "".join(_kind(kind) for kind in KINDS)


def fields(model: type[Model]) -> dict[str, dict[str, Any]]:
    """Every field of a kind by its path (``spec.server.image``; ``[]`` is an element, ``.*`` a value of a map)."""
    schema = root_schema(model)
    parts = {name: part for name, part in schema["properties"].items() if name in ("spec", "status")}
    return dict(_below(parts, ""))


def _below(properties: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, schema in properties.items():
        path = f"{prefix}{name}"
        yield path, schema
        inner, mark = schema, ""
        while "items" in inner:
            inner, mark = inner["items"], f"{mark}[]"
        yield from _below(inner.get("properties", {}), f"{path}{mark}.")


def _kind(model: type[Model]) -> str:
    schema, found = root_schema(model), fields(model)
    lines = [f"\n## {model.__name__}\n\n{schema['description']}\n"]
    for part in ("spec", "status"):
        lines.append(f"\n### {model.__name__} {part}\n\n| field | type | default | |\n| --- | --- | --- | --- |\n")
        lines += [_row(path, found[path]) for path in found if path.startswith(f"{part}.")]
        mine = {path: node for path, node in found.items() if path.split(".")[0] == part}
        rules = [
            (path + rule.get("fieldPath", ""), rule["message"]) for path, node in mine.items() for rule in _rules(node)
        ]
        if rules:
            lines.append(f"\nRules of the {part}, and the way out that a refusal names:\n\n")
            lines += [f"* `{path}`: {_plain(message)}\n" for path, message in dict.fromkeys(rules)]
    return "".join(lines)


def _rules(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the field itself, and of its elements or values."""
    found = list(node.get("x-kubernetes-validations", ()))
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            found += _rules(node[key])
    return found


def _row(path: str, schema: dict[str, Any]) -> str:
    default = schema.get("default")
    shown = "" if default in (None, {}, []) else f"`{_literal(default)}`"
    return f"| `{path}` | {_type(schema)} | {shown} | {_plain(schema.get('description', ''))} |\n"


def _type(schema: dict[str, Any]) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    bounds = " ".join(f"{sign} {schema[key]}" for key, sign in BOUNDS if key in schema)
    kind = schema.get("format", schema.get("type", "any"))
    return f"{kind} {bounds}".strip()


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_literal(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_literal, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
