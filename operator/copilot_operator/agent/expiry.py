"""Which stored sessions have expired. Pure; times are seconds since the epoch.

A session's age is that of its last stored event (``modifiedTime`` of ``session.getMetadata``); one without any event
has only the time of its directory. What could not be found out keeps a session.
"""

import heapq
import re
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

PINNED: Final = "copilot-operator.io/pinned"  # a key of a session's client metadata, whatever its value

_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Stored:
    """A session's directory, and when an entry was last made in it or taken out (as loading and unloading do)."""

    id: str
    touched_at: float


def candidates(stored: Iterable[Stored], *, before: float, most: int) -> list[Stored]:
    """Those that may have been used last before that, the oldest first: at most so many.

    Only may: a turn does not touch the directory, so the CLI has to be asked.
    """
    return heapq.nsmallest(most, (each for each in stored if each.touched_at < before), key=lambda s: s.touched_at)


def expired(metadata: Any, stored: Stored, *, before: float) -> bool:
    """Whether a session was used last before that, by ``session.getMetadata``; without events, by its directory."""
    if metadata == {}:
        return stored.touched_at < before
    session = metadata.get("session") if isinstance(metadata, dict) else None
    used_at = session.get("modifiedTime") if isinstance(session, dict) else None
    return isinstance(used_at, str) and _TIME.fullmatch(used_at) is not None and used_at < timestamp(before)[:-1]


def unpinned(answer: Any) -> set[str]:
    """Ids of which ``sessions.getClientMetadata``, asked for ``PINNED``, says that they carry none."""
    return {
        each["sessionId"]
        for each in (answer if isinstance(answer, list) else ())
        if isinstance(each, dict)
        and isinstance(each.get("sessionId"), str)
        and each.get("status") == "ok"
        and isinstance(each.get("metadata"), dict)
        and PINNED not in each["metadata"]
    }


def unheld(answer: Any, asked: Collection[str]) -> set[str]:
    """Those of ``asked`` that no other process holds, by ``sessions.checkInUse``."""
    held = answer.get("inUse") if isinstance(answer, dict) else None
    return set(asked) - set(map(str, held)) if isinstance(held, list) else set()


def freed(answer: Any) -> dict[str, int]:
    """Bytes by id of what ``sessions.bulkDelete`` has deleted."""
    return _bytes_by_id(answer, "freedBytes")


def sizes(answer: Any) -> dict[str, int]:
    """Bytes by id of all that is stored, by ``sessions.getSizes``."""
    return _bytes_by_id(answer, "sizes")


def largest(answer: Any, most: int) -> list[tuple[str, int]]:
    """The largest by ``sessions.getSizes``, the very largest first."""
    return heapq.nlargest(most, sizes(answer).items(), key=lambda each: (each[1], each[0]))


def timestamp(at: float) -> str:
    """A time as the API server and the CLI write it, in whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _bytes_by_id(answer: Any, name: str) -> dict[str, int]:
    found = answer.get(name) if isinstance(answer, dict) else None
    items = found.items() if isinstance(found, dict) else ()
    return {id: size for id, size in items if type(size) is int and size >= 0}
