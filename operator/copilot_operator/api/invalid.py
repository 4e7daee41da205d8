"""From a raw object to a model, or to an error that a condition can be made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from copilot_operator.api.model import Model

M = TypeVar("M", bound=Model)

MAX_VALUE_LENGTH: Final = 80  # enough to recognise a value by; messages end up in conditions, which must stay small
WITHHELD: Final = frozenset({"env", "args", "annotations"})  # users put secrets there, and conditions are read by many

WAYS_OUT: Final[dict[str, str]] = {
    "missing": "the field is required",
    "string_type": "write a string",
    "string_pattern_mismatch": "the value must match {pattern}",
    "string_too_short": "write at least {min_length} characters",
    "string_too_long": "write at most {max_length} characters",
    "literal_error": "write {expected}",
    "too_long": "write at most {max_length} entries",
    "greater_than_equal": "write {ge} or more",
    "less_than_equal": "write {le} or less",
    "rule": "{sentence}",
}


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where (``spec.health.interval``), what stands there, the way out.

    ``value`` is empty if it is no scalar or may be secret.
    """

    path: str
    value: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.path}: {self.value!r}: {self.way_out}" if self.value else f"{self.path}: {self.way_out}"


class InvalidResource(ValueError):
    """An object that is stored but that this version cannot serve; ``problems`` has at least one entry."""

    def __init__(self, kind: str, namespace: str, name: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(f"{kind} {namespace}/{name} is invalid: " + "; ".join(map(str, problems)))
        self.kind, self.namespace, self.name, self.problems = kind, namespace, name, problems

    @property
    def path(self) -> str:
        """Where the first problem is."""
        return self.problems[0].path

    @property
    def value(self) -> str:
        """The value there."""
        return self.problems[0].value

    @property
    def way_out(self) -> str:
        """What to write instead."""
        return self.problems[0].way_out


def parse(model: type[M], obj: Mapping[str, Any]) -> M:
    """Read ``obj`` as ``model``; raises InvalidResource.

    A status that cannot be read is dropped: the operator is its only writer and will write it anew.
    """
    try:
        return model.model_validate(obj)
    except ValidationError as error:
        found = error.errors(include_url=False)
    if all(details["loc"][:1] == ("status",) for details in found):
        return parse(model, {key: value for key, value in obj.items() if key != "status"})
    problems = tuple(_problem(details) for details in found if details["loc"][:1] != ("status",))
    metadata = obj.get("metadata") or {}
    raise InvalidResource(
        model.__name__, str(metadata.get("namespace", "")), str(metadata.get("name", "")), problems
    ) from None  # pydantic's own error carries the input, secrets included


def _problem(details: ErrorDetails) -> Problem:
    facts = details.get("ctx", {})
    template = WAYS_OUT.get(details["type"])
    way_out = template.format_map(facts) if template else details["msg"]
    return Problem(_path(details["loc"]), _value(details), way_out)


def _path(loc: tuple[int | str, ...]) -> str:
    """``("spec", "env", 0, "name")`` as ``spec.env[0].name``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _value(details: ErrorDetails) -> str:
    value = details["input"]
    if not isinstance(value, str | int | float) or not WITHHELD.isdisjoint(map(str, details["loc"])):
        return ""
    text = str(value)
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"
