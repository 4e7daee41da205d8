"""From pydantic's JSON schema to a structural schema, the form that a CustomResourceDefinition takes.

Structural rules: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from typing import Any, Final

from pydantic import BaseModel

Schema = dict[str, Any]

COPIED: Final = (
    "type",
    "format",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "enum",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)
MEANT_FOR_READERS: Final = frozenset({"title", "description", "default", "required", "$defs", "$ref", "anyOf", "const"})
RESOLVED: Final = frozenset({"properties", "additionalProperties", "items"})


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of ``model``; raises ValueError for what a CRD cannot say."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}), path=model.__name__, within=())


def _convert(schema: Schema, definitions: dict[str, Schema], *, path: str, within: tuple[str, ...]) -> Schema:
    """One node; ``within`` are the definitions around it, because a recursive type has no structural schema."""
    schema = _without_null(schema, path)
    reference = schema.get("$ref", "").removeprefix("#/$defs/")
    if reference:
        if reference in within:
            raise ValueError(f"{path}: {reference} contains itself")
        within = (*within, reference)
        schema = {**definitions[reference], **{key: value for key, value in schema.items() if key != "$ref"}}
    unknown = schema.keys() - set(COPIED) - MEANT_FOR_READERS - RESOLVED
    if unknown:
        raise ValueError(f"{path}: no structural form for {sorted(unknown)}")

    node: Schema = {"description": " ".join(schema["description"].split())} if "description" in schema else {}
    node |= {key: schema[key] for key in COPIED if key in schema}
    if "const" in schema:
        node["enum"] = [schema["const"]]

    def below(part: Schema, name: str) -> Schema:
        return _convert(part, definitions, path=f"{path}.{name}", within=within)

    if "properties" in schema:
        node["properties"] = {name: below(part, name) for name, part in schema["properties"].items()}
        required = [name for name in schema["properties"] if name in schema.get("required", [])]
        node |= {"required": required} if required else {}
    if isinstance(schema.get("additionalProperties"), dict):
        node["additionalProperties"] = below(schema["additionalProperties"], "*")
    if "items" in schema:
        node["items"] = below(schema["items"], "[]")
    if "default" in schema:
        node |= _default(schema["default"], node, path)
    return node


def _without_null(schema: Schema, path: str) -> Schema:
    """``X | None`` is just not required: the API server prunes an explicit null."""
    if "anyOf" not in schema:
        return schema
    choices = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
    if len(choices) != 1:
        raise ValueError(f"{path}: a structural schema has one type")
    kept = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)}
    return {**choices[0], **kept}


def _default(value: Any, node: Schema, path: str) -> Schema:
    """The keyword ``default``, if it says something.

    A default below an absent parent applies only if the parent has a default too. So an object whose default is that
    of its fields gets ``{}``; one that is empty all the way down gets none, which spares users ``template: {}``.
    """
    if "properties" in node:
        if _said(_filled_in(node)) != _said(value):
            raise ValueError(f"{path}: the default differs from the defaults of its fields")
        return {"default": {}} if any("default" in part for part in node["properties"].values()) else {}
    return {} if value in ([], {}) else {"default": value}


def _filled_in(node: Schema) -> Schema:
    """What an object of this schema is when nothing of it is written."""
    return {
        name: _filled_in(part) if "properties" in part else part.get("default")
        for name, part in node["properties"].items()
        if "default" in part
    }


def _said(value: Any) -> Any:
    """``value`` without what says nothing: nulls and empty containers."""
    if not isinstance(value, dict):
        return value
    parts = {key: _said(part) for key, part in value.items()}
    return {key: part for key, part in parts.items() if part not in (None, [], {})}
