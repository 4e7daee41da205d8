"""One rule, two judges: the API server evaluates its CEL, the models evaluate its Python twin.

The API server is the one users meet. The twin is for objects that were stored before the rule existed: those pass the
API server for as long as they are not changed, and must become a condition, not a crash.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

VALIDATIONS: Final = "x-kubernetes-validations"

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """A rule on a field, used inside ``Annotated``, or on a whole object, listed in ``Model.rules``.

    ``cel`` sees the value as ``self``; ``message`` is a sentence that says what to write instead; ``holds`` is the
    same rule in Python, None for a rule that compares with the old object, which only the API server has.
    ``field_path`` is the place to complain about when it lies below ``self`` (``.requests``).
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] | None
    field_path: str = ""

    def as_validation(self) -> dict[str, str]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        place = {"fieldPath": self.field_path} if self.field_path else {}
        return {"rule": self.cel, "message": self.message, **place}

    def enforce(self, value: T) -> T:
        """Return ``value`` if the rule holds, else raise what pydantic turns into a validation error."""
        if self.holds is not None and not self.holds(value):
            raise PydanticCustomError("rule", "{sentence}", {"sentence": self.message})
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.enforce, handler(source))

    def __get_pydantic_json_schema__(
        self, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core)
        schema[VALIDATIONS] = [*schema.get(VALIDATIONS, []), self.as_validation()]
        return schema


@dataclass(frozen=True)
class ListType:
    """How the API server merges a list, and that it refuses duplicates in it (``key``: see ``list_map``)."""

    name: Literal["atomic", "set", "map"]
    key: str | None = None

    def enforce(self, values: tuple[T, ...]) -> tuple[T, ...]:
        """Return ``values`` if each is there once, else raise what pydantic turns into a validation error."""
        keys = [getattr(value, self.key) if self.key else value for value in values]
        if self.name != "atomic" and len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise PydanticCustomError("rule", "{sentence}", {"sentence": f"write {twice!r} once"})
        return values

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.enforce, handler(source))

    def __get_pydantic_json_schema__(
        self, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        keys = {"x-kubernetes-list-map-keys": [self.key]} if self.key else {}
        return {**handler(core), "x-kubernetes-list-type": self.name, **keys}


ATOMIC_LIST: Final = ListType("atomic")
"""One writer owns the whole list."""

LIST_SET: Final = ListType("set")
"""Several writers may add scalars."""


def list_map(key: str) -> ListType:
    """Several writers may add entries, told apart by their field ``key`` (a name that is the same in both worlds)."""
    return ListType("map", key)
