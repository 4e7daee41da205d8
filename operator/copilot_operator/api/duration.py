"""Durations as users write them: Go syntax with a unit, ``90s``, ``30m``, ``1h30m``."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Final

from pydantic import Field

from copilot_operator.api.rules import Rule

# At most four parts of five digits: whatever matches is below Go's limit of 292 years, so CEL can read it.
PATTERN: Final = r"^([0-9]{1,5}([.][0-9]{1,3})?(ms|s|m|h)){1,4}$"
MAX_LENGTH: Final = 44  # four times "12345.123ms"
SECONDS: Final = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}

_WHOLE = re.compile(PATTERN[:-1] + r"\Z")
_PART = re.compile(r"([0-9.]+)(ms|s|m|h)")

Duration = Annotated[str, Field(max_length=MAX_LENGTH)]
"""A duration; bounds come with ``between``, which also says what is no duration."""


def duration_s(text: str) -> float:
    """``text`` in seconds; raises ValueError if it is not a duration."""
    if not _WHOLE.match(text):
        raise ValueError(f"{text!r} is not a duration: write a number with a unit, such as 30s, 5m or 1h30m")
    return float(sum(Decimal(number) * SECONDS[unit] for number, unit in _PART.findall(text)))


def between(least: str, most: str, why: str = "") -> Rule:
    """The rule that a duration lies in ``least`` to ``most``, both included; ``why`` ends the sentence.

    The shape is checked by the same rule, not by ``pattern``: nobody is helped by a regular expression as an answer.
    """
    reason = f": {why}" if why else ""
    return Rule(
        f"self.matches('{PATTERN}') && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')",
        f"write a duration from {least} to {most}, a number with a unit such as 90s, 30m or 1h30m{reason}",
        _within(duration_s(least), duration_s(most)),
    )


def _within(least_s: float, most_s: float) -> Callable[[str], bool]:
    return lambda text: bool(_WHOLE.match(text)) and least_s <= duration_s(text) <= most_s
