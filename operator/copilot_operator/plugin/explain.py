"""What ``explain`` tells: the operator's reasons and Events about one object. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from copilot_operator.domain.kinds import POOL
from copilot_operator.domain.manifest import Manifest
from copilot_operator.plugin.reasons import events_of, reasons
from copilot_operator.plugin.times import age, moment, until
from copilot_operator.plugin.view import pool_document, seat_drains, tenant_document


def explanation(
    obj: Manifest,
    now: datetime,
    *,
    pool: Manifest | None = None,
    deployment: Manifest | None = None,
    servers: Sequence[Manifest] = (),
    events: Sequence[Manifest] = (),
) -> dict[str, Any]:
    """A document: the object as ``status`` shows it, ``reasons`` as important, ``events`` newest first."""
    metadata = obj["metadata"]
    if obj["kind"] == POOL.kind:
        drains = seat_drains(servers).get((metadata["namespace"], metadata["name"]), [])
        shown = pool_document(obj, drains, now)
    else:
        shown = tenant_document(obj, now)
    del shown["problems"]
    told = [
        {
            "type": event.get("type", ""),
            "reason": event.get("reason", ""),
            "message": event.get("message", ""),
            "time": event.get("lastTimestamp") or event.get("eventTime") or "",
            "count": event.get("count") or 1,
        }
        for event in events_of(events, obj)
    ]
    found = [each.to_document() for each in reasons(obj, now, deployment=deployment, pool=pool)]
    return {"kind": "CopilotExplanation", "about": obj["kind"], "object": shown, "reasons": found, "events": told}


def explanation_lines(found: dict[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    """(style, line)."""
    shown = found["object"]
    yield "bold", f"{found['about']} {shown['namespace']}/{shown['name']}, {age(shown['created'], now)} old"
    for number, reason in enumerate(found["reasons"], 1):
        style = "" if reason["severity"] == "Info" else reason["severity"]
        yield style, f"{number}. {reason['reason']} ({reason['source']})"
        yield "", f"   {reason['message'] or 'no message'}"
        if hint := reason.get("hint"):
            yield "", f"   → {hint}"
    for drain in shown.get("drains") or ():
        deadline = until(moment(drain["deadline"]), now)
        yield "Warning", f"server {drain['server']}: Drain, cause {drain['cause']}, deadline {deadline}"
    if found["events"]:
        yield "bold", "Events, newest first:"
    for event in found["events"]:
        times = f" ({event['count']} times)" if event["count"] > 1 else ""
        style = "Warning" if event["type"] == "Warning" else ""
        yield style, f"  {age(event['time'], now)} ago  {event['reason']}: {event['message']}{times}"
