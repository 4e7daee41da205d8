"""The base of every model of the API: camelCase outside, frozen, lenient about what it does not know."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from copilot_operator.api.rules import VALIDATIONS, Rule


class Model(BaseModel):
    """An object of the API. ``rules`` are the rules on the object as a whole, in the order in which they are told."""

    # extra="ignore": a newer CRD may have stored fields that this operator does not know.
    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        """An explicit null is no value, as for the API server, which prunes it before it puts in defaults."""
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if value is not None}
        return data

    @model_validator(mode="after")
    def _enforce_rules(self) -> Self:
        for rule in self.rules:
            rule.enforce(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        if cls.rules:
            handler.resolve_ref_schema(schema)[VALIDATIONS] = [rule.as_validation() for rule in cls.rules]
        return schema

    def to_api(self) -> dict[str, Any]:
        """The object as the API server takes it; what is None is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
