"""The last Events that this process wrote: the API server forgets them after an hour, and we may not list them."""

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from copilot_operator.api.conditions import timestamp
from copilot_operator.domain.status import Event

MOST: Final = 200


class Recent:
    """Newest first. Each has ``time``, ``type``, ``reason``, ``message``, and what it is about."""

    def __init__(self) -> None:
        self._events: deque[dict[str, str]] = deque(maxlen=MOST)

    def note(self, regarding: Mapping[str, Any], event: Event, now: datetime) -> None:
        metadata = regarding["metadata"]
        about = {"kind": regarding["kind"], "namespace": metadata["namespace"], "name": metadata["name"]}
        told = {"type": event.type, "reason": event.reason, "message": event.message}
        self._events.appendleft({"time": timestamp(now), **about, **told})

    def events(self) -> list[dict[str, str]]:
        return list(self._events)
