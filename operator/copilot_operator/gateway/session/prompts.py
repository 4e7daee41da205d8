"""What a session asks of its clients and has no answer to yet: events that want one, and requests of the server. Pure.

The CLI says everything once. A client that comes back to a lingering session must be told again by us.
"""

from collections.abc import Mapping
from typing import Any, Final

from copilot_operator.gateway.session.actions import Link, Reverse

_KINDS: Final = ("permission", "external_tool", "user_input", "elicitation", "exit_plan_mode", "auto_mode_switch")
_OUTLIVE: Final = frozenset({"permission", "external_tool"})  # a reload, if it says continuePendingWork
_REQUESTED: Final = {f"{kind}.requested": kind for kind in _KINDS}
_COMPLETED: Final = frozenset(f"{kind}.completed" for kind in _KINDS)

EVENTS: Final = frozenset(_REQUESTED) | _COMPLETED
"""Types of the events that open and close prompts."""

FOR_PEOPLE: Final = frozenset(
    {"userInput.request", "exitPlanMode.request", "autoModeSwitch.request", "permission.request", "tool.call"}
)
"""Requests of the server that may wait for a client to come back. Any other would only stall the turn."""

MOST: Final = 64  # open prompts that are remembered; more are not shown again


class Prompts:
    """Open prompts of one session, in the order in which they came."""

    def __init__(self) -> None:
        self._events: dict[str, tuple[str, bytes]] = {}  # by requestId: kind, frame
        self._requests: dict[Reverse, None] = {}

    @property
    def outlive(self) -> bool:
        """Whether the turn waits for something that is still open after the session was loaded again."""
        return any(kind in _OUTLIVE for kind, _ in self._events.values())

    @property
    def open(self) -> bool:
        """Whether the turn waits for a person or a client's tool."""
        return bool(self._events or self._requests)

    @property
    def frames(self) -> list[bytes]:
        """The events, as they came."""
        return [frame for _, frame in self._events.values()]

    def saw(self, type: str, data: Mapping[str, Any], frame: bytes) -> None:
        """An event of ``EVENTS``."""
        id = str(data.get("requestId"))
        if type in _COMPLETED:
            self._events.pop(id, None)
        elif len(self._events) < MOST and not data.get("resolvedByHook"):
            self._events[id] = (_REQUESTED[type], frame)

    def asked(self, reverse: Reverse) -> None:
        """The server waits for an answer."""
        self._requests[reverse] = None

    def answered(self, reverse: Reverse) -> bool:
        """It has its answer; False: it does not wait for it (any more)."""
        return self._requests.pop(reverse, self) is None

    def asked_over(self, link: Link) -> list[Reverse]:
        """Requests that came over ``link``."""
        return [reverse for reverse in self._requests if reverse.link == link]

    def link_lost(self, link: Link) -> None:
        """Nobody waits there any more."""
        for reverse in self.asked_over(link):
            del self._requests[reverse]

    def unloaded(self) -> None:
        """Keep what outlives a reload."""
        self._requests.clear()
        self._events = {id: prompt for id, prompt in self._events.items() if prompt[0] in _OUTLIVE}

    def clear(self) -> None:
        """The turn is over."""
        self._events.clear()
