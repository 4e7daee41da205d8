"""When servers run though nobody uses them (``spec.suspend.runningHours``)."""

from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

from copilot_operator.api.conditions import timestamp
from copilot_operator.api.cron import first_after, last_before
from copilot_operator.api.operations import RunningHours


def running_hours(all_of_them: Iterable[RunningHours], now: datetime) -> str:
    """Which of them it is, and until when; "" if it is none. The one that ends last counts."""
    found = [(until, each) for each in all_of_them if _is_in(each, now) and (until := _end(each, now))]
    if not found:
        return ""
    until, hours = max(found, key=lambda pair: pair[0])
    return f"suspend.runningHours: from {hours.start} to {hours.end} {hours.time_zone}, until {timestamp(until)}"


def next_change_s(all_of_them: Iterable[RunningHours], now: datetime) -> float | None:
    """Seconds until any of them begins or ends; None if there are none."""
    times = [
        first_after(text, ZoneInfo(each.time_zone), now) for each in all_of_them for text in (each.start, each.end)
    ]
    return min(((at - now).total_seconds() for at in times if at), default=None)


def _is_in(hours: RunningHours, now: datetime) -> bool:
    """Whether they began later than they ended; a moment that does both ends them."""
    zone = ZoneInfo(hours.time_zone)
    began = last_before(hours.start, zone, now)
    ended = last_before(hours.end, zone, now)
    return began is not None and (ended is None or began > ended)


def _end(hours: RunningHours, now: datetime) -> datetime | None:
    return first_after(hours.end, ZoneInfo(hours.time_zone), now)
