"""How long sessions are kept and how full volumes get: what a server's agent is told, and what people are.

Agents count and delete by themselves (``agent/janitor.py``), about once an hour; statuses follow them, and no faster.
"""

from dataclasses import dataclass
from math import floor
from typing import Final

from copilot_operator.api.duration import duration_s
from copilot_operator.api.pool import PoolSpec
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import Finding, ServerState

ALMOST_FULL: Final = "VolumeAlmostFull"
DOES_NOT_GROW: Final = "VolumeDoesNotGrow"
QUARANTINED: Final = "SessionsQuarantined"
READ_ONLY: Final = "VolumeReadOnly"
TO_BE_TOLD: Final = frozenset({ALMOST_FULL, DOES_NOT_GROW, QUARANTINED})  # though the volume is ready
FULL_PERCENT: Final = 99.0
STEP_PERCENT: Final = 5  # a volume that is told to be full is so until it is that much below the mark
UNITS: Final = ("KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Retention:
    """What the agent of a server is told; ``ttl_s`` 0: sessions are kept for ever."""

    ttl_s: float = 0.0
    dry_run: bool = False
    high_water_percent: int = 85


def retention_of(spec: PoolSpec) -> Retention:
    ttl, storage = spec.sessions.ttl, spec.storage
    mark = storage.high_water_mark_percent if storage.mode == "PerServer" else 100  # else it would be the node's disk
    return Retention(duration_s(ttl) if ttl else 0.0, spec.sessions.ttl_action == "DryRun", mark)


def steps_above(percent: float, mark: float) -> int:
    """How many steps a volume is above the mark: 0 from the mark on, -1 when it is a little below."""
    return floor((percent - mark) / STEP_PERCENT)


def almost_full(state: ServerState | None, mark: int, before: Manifest) -> Finding | None:
    """That a volume is fuller than the mark, and by what. ``before``: the condition as it was told last.

    What was told stays while nobody can say otherwise: the server is stopped, or the operator has just started.
    """
    was = before.get("reason") == ALMOST_FULL
    if state is None or state.disk_percent is None:
        return Finding(ALMOST_FULL, before["message"]) if was else None
    steps = steps_above(state.disk_percent, mark)
    if steps < (-1 if was else 0):
        return None
    largest = ", ".join(f"{id} ({size_text(size)})" for id, size in state.largest)
    if state.disk_percent >= FULL_PERCENT:
        message = "The volume is full: messages and new sessions fail until there is room; deleting sessions works. "
    else:
        message = ""
    message += (
        f"The volume is {mark + STEP_PERCENT * steps} % full or more (storage.highWaterMarkPercent is {mark}): "
        "let it grow (storage.size), have old sessions deleted (sessions.ttl), or delete some. "
        + (f"The largest sessions: {largest}" if largest else "The sizes of its sessions are not known")
    )
    return Finding(ALMOST_FULL, message)


def read_only(state: ServerState | None, before: Manifest) -> Finding | None:
    """That nothing can be stored. ``before``: the condition as it was told last, which stays while nobody can say
    otherwise."""
    if not (before.get("reason") == READ_ONLY if state is None else state.read_only):
        return None
    message = (
        "The volume is read-only: messages and new sessions fail, what is stored can be read, and nothing is deleted. "
        "A file system turns so after an error of its disk: see the node's kernel log, mend the storage, and have it "
        "mounted anew: stop the server (suspended: true, or scale in), and start it when the node has let go of the "
        "volume"
    )
    return Finding(READ_ONLY, message)


def in_quarantine(state: ServerState | None, before: Manifest) -> Finding | None:
    """That sessions were set aside as broken. ``before``: the condition as it was told last, which stays while nobody
    can say otherwise."""
    if state is None:
        return Finding(QUARANTINED, before["message"]) if before.get("reason") == QUARANTINED else None
    if not state.quarantined:
        return None
    names = ", ".join(state.quarantined_names)
    message = (
        f"{state.quarantined} broken sessions, or parts of them, are in quarantine (/data/copilot/quarantine of the "
        f"server), and stay there until somebody deletes them, or mends them and puts them back: {names}"
    )
    return Finding(QUARANTINED, message)


def expired_sessions(state: ServerState | None, retention: Retention, before: Manifest | None) -> Manifest | None:
    """``expiredSessions`` of a status. What was told stays while the agent can't be asked, or is a new one."""
    told: Manifest = dict(before or {})
    if state and state.deletion:
        told |= {"lastDeletionTime": state.deletion.at, "lastDeleted": state.deletion.sessions}
    if not (retention.ttl_s and retention.dry_run):
        told.pop("kept", None)
    elif state and state.expired_kept is not None:
        told["kept"] = state.expired_kept
    return told or None


def size_text(size: int) -> str:
    """Bytes for people."""
    if size < 1024:
        return f"{size} bytes"
    value, unit = size / 1024, 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.3g} {UNITS[unit]}" if value < 1000 else f"{value:.0f} {UNITS[unit]}"
