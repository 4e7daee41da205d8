"""Times as people read them at a terminal."""

from datetime import UTC, datetime, timedelta


def moment(text: str) -> datetime:
    """A time as the API writes it."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def span(time: timedelta) -> str:
    """``42s``, ``3m12s``, ``2h5m``, ``9d``: two units at most, as kubectl does it."""
    seconds = max(0, round(time.total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 600:
        return f"{seconds // 60}m{seconds % 60}s" if seconds % 60 else f"{seconds // 60}m"
    if seconds < 3 * 3600:
        return f"{seconds // 60}m"
    if seconds < 48 * 3600:
        return f"{seconds // 3600}h"
    return f"{seconds // 86400}d"


def age(text: str | None, now: datetime) -> str:
    """How long ago; "" if it is not known."""
    return span(now - moment(text)) if text else ""


def until(deadline: datetime, now: datetime) -> str:
    """``in 3m`` or ``2m ago``."""
    return f"in {span(deadline - now)}" if deadline >= now else f"{span(now - deadline)} ago"


def span_s(seconds: float) -> str:
    """The same of seconds."""
    return span(timedelta(seconds=seconds))
