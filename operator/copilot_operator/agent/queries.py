"""What pages of the agent read of a query, and how they answer in JSON."""

import json
from collections.abc import Mapping
from typing import Any

from copilot_operator.agent.web import BadRequest, Response


def as_json(document: Mapping[str, Any], *, status: int = 200) -> Response:
    """An answer with a JSON document."""
    return Response(status, json.dumps(document) + "\n", "application/json")


def listed(query: Mapping[str, str], name: str) -> list[str]:
    """What a query gives as ``a,b``; nothing if it does not."""
    return [each for each in query.get(name, "").split(",") if each]


def whole(query: Mapping[str, str], name: str) -> int:
    """A whole number given in a query. Raises BadRequest."""
    try:
        return max(0, int(query[name]))
    except (LookupError, ValueError) as error:
        raise BadRequest(400, f"{name} must be a whole number") from error


def seconds(query: Mapping[str, str], name: str, default: float, at_most: float) -> float:
    """A duration given in a query. Raises BadRequest."""
    if not (given := query.get(name)):
        return default
    try:
        found = float(given)
    except ValueError as error:
        raise BadRequest(400, f"{name} must be a number of seconds") from error
    if not 0 <= found <= at_most:
        raise BadRequest(400, f"{name} must be between 0 and {at_most:g}")
    return found
