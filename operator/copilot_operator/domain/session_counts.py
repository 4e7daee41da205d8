"""How many sessions a tenant has, as its status tells: coarse, for a write has to earn its place. Pure."""

from datetime import datetime, timedelta
from typing import Final

from copilot_operator.api.conditions import timestamp
from copilot_operator.domain.manifest import Manifest, condition_of
from copilot_operator.domain.snapshot import ServerState, SessionCounts

FRESH: Final = timedelta(minutes=5)


def counts_of(state: ServerState | None) -> SessionCounts | None:
    """Of a server that is one tenant's own; None: not known."""
    if state is None or state.busy is None or state.loaded is None or state.stored is None:
        return None
    return SessionCounts(state.busy, state.loaded, state.stored)


def told_counts(counts: SessionCounts | None, old: Manifest, now: datetime) -> Manifest:
    """``sessions`` of a status, {} without any; ``old`` is the status as it was told last.

    It changes 5 minutes after it did last, or after the tenant's readiness did: no tenant's sessions cost more than one
    write in that time. What was told stays while nothing is known.
    """
    before: Manifest = old.get("sessions") or {}
    same: Manifest = {"sessions": before} if before else {}
    if counts is None:
        return same
    fresh = {"active": counts.active, "loaded": counts.loaded, "stored": counts.stored}
    known = {name: before.get(name, 0) for name in fresh}
    since = before.get("time") or condition_of(old, "Ready").get("lastTransitionTime")
    if fresh == known or since is None or now - datetime.fromisoformat(since) < FRESH:
        return same
    return {"sessions": fresh | {"time": timestamp(now)}}
