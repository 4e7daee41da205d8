"""Where session ids stand in what a server says: the tables and walks that ``ids`` rewrites by. Pure.

Only exact places. Free text (a shell's output, a system message, a path) may hold a server's id and keeps it:
a search there would change transcripts.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from copilot_operator.gateway.frames.wire import EVENT_OPENING

Inner = Callable[[str], str | None]  # a server's id to the client's; None: of somebody else

LIFECYCLE_OPENING: Final = b'{"jsonrpc":"2.0","method":"session.lifecycle","params":{"type":"'
LIFECYCLE_ID: Final = b'","sessionId":"'
OPENINGS: Final = (EVENT_OPENING, LIFECYCLE_OPENING)

AGENT: Final = "agent-"  # in front of an id in ``source`` of a sub-agent's user.message
MARK: Final = "gateway-"  # in front of the gateway's own ``source`` of a message, which no client sees

_AGENTS_TOO: Final = "parentAgentId"  # may be an agent's id as well as a session's
_GONE: Final = object()

# Types of events that carry session ids in their data, and where: observed, and by session-events.schema.json.
EVENT_PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    "assistant.usage": ("accounting.sourceSessionId",),
    "external_tool.requested": ("sessionId",),
    "hook.start": ("input.sessionId", "input.parentAgentId"),
    "permission.completed": ("blocker.permissionRecovery.ownerSessionId",),
    "permission.requested": ("ownerSessionId",),
    "session.permission_recovery": ("ownerSessionId",),
    "session.shutdown": ("usageAccountingWatermarks{}",),
    "session.start": ("sessionId", "detachedFromSpawningParentSessionId"),
    "session.task_complete": ("blocker.permissionRecovery.ownerSessionId",),
    "session.usage_checkpoint": ("usageAccountingWatermarks{}",),
    "session.usage_record": ("usage.accounting.sourceSessionId",),
    "tool.execution_complete": ("toolUsage.accounting.sourceSessionId",),
}
SOURCED: Final = "user.message"
FAILED: Final = "session.error"
REVERSE_PLACES: Final = ("input.sessionId", "input.parentAgentId")  # of hooks.invoke

_REQUEST: Final = r"(?:Request [\w.]+ failed with message: )?"
_ERRORS: Final = tuple(
    re.compile(_REQUEST + form.replace("ID", "(?P<id>[A-Za-z0-9_-]+)"))
    for form in (
        r"Session not found for sessionId: ID",
        r"(?:Failed to load session events: )?Session not found: ID",
        r"Session file not found for ID",
        r"Persisted event journal is unavailable for session ID",
        r"Rejected session\.(?:create|resume) request with invalid sessionId: ID",
        r'Invalid sessionId: "ID"',
        r"Cannot delete session ID: it is currently in use by another process\.",
        r'Cannot acquire a bearer token for provider "[^"]*": no client connection registered for session "ID"\.'
        r" The connection that supplied this provider may have disconnected\.",
    )
)


def result_shown(result: Any, places: tuple[str, ...], inner: Inner) -> Any:
    """A result with the client's ids. What is not the tenant's leaves its list or map; outside of these, it is {}."""
    for place in places:
        result = _shown(result, tuple(_steps(place)), inner, in_list=False)
        if result is _GONE:
            return {}
    return result


def _shown(value: Any, steps: tuple[str, ...], inner: Inner, *, in_list: bool) -> Any:
    if not steps:
        id = inner(value) if isinstance(value, str) else None
        return _GONE if id is None else id
    step, rest = steps[0], steps[1:]
    if step == "[]":
        if not isinstance(value, list):
            return _GONE
        items = (_shown(item, rest, inner, in_list=True) for item in value)
        return [item for item in items if item is not _GONE]
    if step == "{}":
        return _keys_shown(value, inner) if isinstance(value, dict) else _GONE
    if not isinstance(value, dict):
        return value if value is None and not in_list else _GONE
    if step not in value:
        return _GONE if in_list else value
    child = _shown(value[step], rest, inner, in_list=False)
    return _GONE if child is _GONE else value | {step: child}


def _keys_shown(by_id: dict[str, Any], inner: Inner) -> dict[str, Any]:
    return {id: value for key, value in by_id.items() if (id := inner(key)) is not None}


def _steps(place: str) -> Iterator[str]:
    for member in place.split("."):
        name = member.rstrip("[]{}")
        yield from (step for step in (name, member[len(name) :]) if step)


def change_event(event: Any, own: str, inner: Inner) -> None:
    """Put the client's ids into a decoded event, in place. An id of somebody else becomes ``own``.

    Such an id cannot be left out: readers of events fail without a field that they know as present.
    """
    if not isinstance(event, dict) or not isinstance(data := event.get("data"), dict):
        return
    kind = event.get("type")
    if kind == SOURCED:
        _change_source(data, inner)
    elif kind == FAILED and isinstance(data.get("message"), str):
        data["message"] = error_shown(data["message"], inner)
    elif isinstance(kind, str):
        change(data, EVENT_PLACES.get(kind, ()), own, inner)


def change(data: dict[str, Any], places: tuple[str, ...], own: str, inner: Inner) -> None:
    """Put the client's ids at the places of a decoded object, in place; those of others become ``own``."""
    for place in places:
        *way, name = place.removesuffix("{}").split(".")
        holder: Any = data
        for step in way:
            holder = holder.get(step) if isinstance(holder, dict) else None
        value = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(value, str):
            holder[name] = inner(value) or (value if name == _AGENTS_TOO else own)
        elif isinstance(value, dict) and place.endswith("{}"):
            holder[name] = _keys_shown(value, inner)


def _change_source(data: dict[str, Any], inner: Inner) -> None:
    source = data.get("source")
    if not isinstance(source, str):
        return
    if source.startswith(MARK):
        del data["source"]
    elif source.startswith(AGENT):
        id = inner(source.removeprefix(AGENT))
        data["source"] = source if id is None else AGENT + id


def unmark(items: Any) -> None:
    """Take the gateway's mark from queued messages, in place."""
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and str(item.get("source", "")).startswith(MARK):
            del item["source"]


def error_shown(text: str, inner: Inner) -> str:
    """An error message with the client's id, if it has one of the CLI's exact forms; else as it is."""
    for form in _ERRORS:
        if found := form.fullmatch(text):
            return text[: found.start("id")] + (inner(found["id"]) or "?") + text[found.end("id") :]
    return text
