"""Quantities as Kubernetes writes them: ``100m``, ``384Mi``, ``2``, ``1.5Gi``, ``1e3``; never below zero."""

import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from copilot_operator.api.rules import Rule

PATTERN: Final = r"^[0-9]{1,15}([.][0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?[0-9]{1,2})?$"
MAX_LENGTH: Final = 32

_WRITTEN = re.compile(PATTERN[:-1] + r"\Z")
# The API server gives back canonical forms that nobody would write (4.1Pi as 4616189618054758400m): read them all.
_ANY = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,2}))?\Z", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
FACTORS: Final[dict[str, Decimal]] = {
    "": Decimal(1),
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
    **{suffix: Decimal(10) ** power for suffix, power in _DECIMAL.items()},
}


def quantity_value(text: str) -> Decimal:
    """``text`` in its base unit (cores, bytes); raises ValueError if it is not a quantity."""
    found = _ANY.match(text)
    if not found:
        raise ValueError(f"{text!r} is not a quantity: write a number with or without a unit, such as 500m, 2 or 10Gi")
    number, suffix, exponent = found.groups()
    factor = Decimal(10) ** int(exponent) if exponent else FACTORS[suffix or ""]
    return Decimal(number) * factor


IS_QUANTITY: Final = Rule(
    f"string(self).matches('{PATTERN}')",
    "write a quantity, a number with or without a unit such as 500m, 2 or 10Gi",
    lambda text: bool(_WRITTEN.match(text)),
)


def _number_as_text(value: Any) -> Any:
    """``cpu: 2`` in YAML is a number; the API server takes it, and so do we."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_number_as_text),
    Field(max_length=MAX_LENGTH),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": MAX_LENGTH}),
    IS_QUANTITY,
]


def at_least(least: str, why: str) -> Rule:
    """The rule that a quantity is not below ``least``; ``why`` ends the sentence."""
    return Rule(
        f"!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('{least}')) >= 0",
        f"write {least} or more: {why}",
        lambda text: quantity_value(text) >= quantity_value(least),
    )
