"""What the operator tells the agent with every question for ``/state``; kept as long as the agent runs. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from copilot_operator.rpc.ids import is_id

_MAX_TTL_S: Final = 1e10
_ACTIONS: Final = {"Delete": False, "DryRun": True}
_SHORTEST_CODE: Final = 8  # of a shorter one it may be that ids of others begin with it


@dataclass(frozen=True, slots=True)
class Policy:
    """``ttl_s``: how long a session is kept after its last use; None: for ever. ``dry_run``: it is only counted.

    ``high_water_percent``: from how full a volume on the largest sessions are looked for; None: never. ``erase``: codes
    of deleted tenants, with which the ids of sessions begin that are to be erased.
    """

    ttl_s: float | None = None
    dry_run: bool = False
    high_water_percent: float | None = None
    erase: tuple[str, ...] = ()


def told(before: Policy, query: Mapping[str, str]) -> Policy:
    """The policy after a question with ``ttl_s`` (0: for ever), ``ttl_action``, ``high_water_percent`` and ``erase``.

    What a question does not name stays. Raises ValueError with a sentence.
    """
    ttl_s, dry_run, percent = before.ttl_s, before.dry_run, before.high_water_percent
    if "ttl_s" in query:
        ttl_s = _number("ttl_s", query["ttl_s"], _MAX_TTL_S) or None
    if "ttl_action" in query:
        if query["ttl_action"] not in _ACTIONS:
            raise ValueError(f"ttl_action must be one of {', '.join(_ACTIONS)}")
        dry_run = _ACTIONS[query["ttl_action"]]
    if "high_water_percent" in query:
        percent = _number("high_water_percent", query["high_water_percent"], 100)
    erase = before.erase
    if "erase" in query:
        erase = tuple(code for code in query["erase"].split(",") if code)
        if any(len(code) < _SHORTEST_CODE or not is_id(code) for code in erase):
            raise ValueError(f"erase must name codes of at least {_SHORTEST_CODE} characters, with commas between")
    return Policy(ttl_s, dry_run, percent, erase)


def _number(name: str, given: str, at_most: float) -> float:
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not 0 <= number <= at_most:
        raise ValueError(f"{name} must be a number from 0 to {at_most:g}")
    return number
