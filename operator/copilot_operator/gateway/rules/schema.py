"""The shape of a CLI's methods, out of the schema that its package ships (``schemas/api.schema.json``). Pure."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

TO_SERVER: Final = ("server", "session")  # sections of the schema by direction
TO_CLIENT: Final = ("clientSession", "clientGlobal")

_WORDS_ONLY: Final = frozenset(("description", "title", "markdownDescription"))  # no part of a shape


def shapes(schema: Mapping[str, Any], sections: tuple[str, ...]) -> dict[str, str]:
    """A short hash of what each method takes and gives, with all it refers to; descriptions do not count."""
    definitions = schema.get("definitions", {})
    return {
        str(entry["rpcMethod"]): _shape({part: entry.get(part) for part in ("params", "result")}, definitions)
        for section in sections
        for entry in _entries(schema.get(section))
    }


def parameters(schema: Mapping[str, Any], sections: tuple[str, ...] = TO_SERVER) -> dict[str, tuple[str, ...]]:
    """The names of each method's parameters, sorted."""
    definitions = schema.get("definitions", {})
    return {
        str(entry["rpcMethod"]): tuple(sorted(set(_members(entry.get("params"), definitions))))
        for section in sections
        for entry in _entries(schema.get(section))
    }


def _entries(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, Mapping):
        if "rpcMethod" in node:
            yield node
        else:
            for child in node.values():
                yield from _entries(child)


def _shape(node: Any, definitions: Mapping[str, Any]) -> str:
    used: dict[str, Any] = {}
    pending = [node]
    while pending:
        for name in _references(pending.pop()):
            if name not in used:
                used[name] = definitions.get(name)
                pending.append(used[name])
    text = msgspec.json.encode(_without_words([node, used]), order="sorted")
    return hashlib.sha256(text).hexdigest()[:12]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield _name(node["$ref"])
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _without_words(node: Any, *, names: bool = False) -> Any:
    """A schema without its prose; ``names``: the keys are names of members, of which one may be ``title``."""
    if isinstance(node, Mapping):
        kept = {key: child for key, child in node.items() if names or key not in _WORDS_ONLY}
        return {key: _without_words(child, names=key == "properties" and not names) for key, child in kept.items()}
    return [_without_words(child) for child in node] if isinstance(node, list) else node


def _members(node: Any, definitions: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(node, Mapping):
        return
    if isinstance(node.get("$ref"), str):
        yield from _members(definitions.get(_name(node["$ref"])), definitions)
    yield from node.get("properties", {})
    for key in ("anyOf", "oneOf", "allOf"):
        for child in node.get(key, ()):
            yield from _members(child, definitions)
