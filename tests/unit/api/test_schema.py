"""What a structural schema cannot say is an error of the generator, not a CRD that the API server refuses."""

from typing import Annotated

import pytest
from pydantic import Field

from copilot_operator.api.model import Model
from copilot_operator.api.schema import structural


class Leaf(Model):
    size: int = 1


class Tree(Model):
    left: "Tree | None" = None


class TwoTypes(Model):
    either: int | str


class OtherDefault(Model):
    leaf: Leaf = Leaf(size=2)


class UnknownKeyword(Model):
    even: Annotated[int, Field(multiple_of=2)]


class Parent(Model):
    leaf: Leaf = Leaf()
    words: tuple[str, ...] = ()
    maybe: Leaf | None = None


def test_defaults_of_a_nested_object_stay_with_its_fields() -> None:
    leaf = {"type": "object", "properties": {"size": {"type": "integer", "default": 1}}}
    assert structural(Parent) == {
        "type": "object",
        "properties": {
            "leaf": leaf | {"default": {}},
            "words": {"type": "array", "items": {"type": "string"}},
            "maybe": leaf,
        },
    }


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Tree, "contains itself"),
        (TwoTypes, "has one type"),
        (OtherDefault, "differs from the defaults of its fields"),
        (UnknownKeyword, "no structural form for"),
    ],
)
def test_what_has_no_structural_form_is_refused(model: type[Model], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        structural(model)
