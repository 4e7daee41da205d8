"""What those who own a session tell each other, past its clients: ``session.info`` events that nothing stores.

``session.log`` with ``ephemeral`` makes one; only connections that own the session hear it (CLI 1.0.102).
"""

from collections.abc import Mapping
from typing import Any, Final

KEPT: Final = "copilot-operator.kept"  # another gateway keeps the session; the message says which
LET_GO: Final = "copilot-operator.letGo"  # and does no more
LEFT: Final = "copilot-operator.left"  # it is to be kept no longer if it is idle: its last client went, or it moves
EVICT: Final = "copilot-operator.evict"  # room is wanted: whose client it is closes it, if it is idle
WAITS: Final = "waits"  # the message of that: though it waits for a person or a client's tool
_ALL: Final = frozenset({KEPT, LET_GO, LEFT, EVICT})


def said(id: str, what: str, message: str = "") -> dict[str, Any]:
    """Parameters of the ``session.log`` that says it."""
    return {"sessionId": id, "type": what, "message": message, "ephemeral": True}


def heard(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a ``session.info`` says among owners, and its message; None: it is for clients."""
    data = event.get("data") or {}
    what = data.get("infoType")
    return (what, str(data.get("message", ""))) if what in _ALL else None
