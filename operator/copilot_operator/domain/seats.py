"""The servers of a Shared pool. Each has a seat, ``POOL/ORDINAL``, and is planned as the server of a tenant of that
name would be; no tenant can have it, since names of objects hold no slash.

Which seats run is decided for all of them together: never fewer than ``spec.shared.replicas``, idle ones go first, and
a seat that is not among them keeps its volume, and what is stored there. A request for that starts it (``demanded``).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from copilot_operator.domain.drain import Why, intent_of
from copilot_operator.domain.live import is_up
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import PAUSED_ANNOTATION
from copilot_operator.domain.snapshot import ServerState

SEPARATOR: Final = "/"


def seat_name(pool: str, ordinal: int) -> str:
    return f"{pool}{SEPARATOR}{ordinal}"


def pool_of_seat(name: str) -> str | None:
    """The pool whose seat it is; None if ``name`` is a tenant's."""
    pool, separator, _ = name.rpartition(SEPARATOR)
    return pool if separator else None


def ordinal_of(seat: str) -> int:
    return int(seat.rpartition(SEPARATOR)[2])


def is_seat(name: str) -> bool:
    return SEPARATOR in name


def as_tenant(pool: Manifest, seat: str, *, runs: bool, retained: bool, status: Manifest | None) -> Manifest:
    """A seat in the shape of a stored CopilotTenant; ``status``: what was found of it last."""
    metadata = pool["metadata"]
    made: Manifest = {
        "apiVersion": pool["apiVersion"],
        "kind": pool["kind"],
        "metadata": {
            "name": seat,
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "generation": metadata.get("generation", 1),
            "creationTimestamp": metadata["creationTimestamp"],
            "annotations": {
                key: value for key, value in annotations_of(pool).items() if key == PAUSED_ANNOTATION
            },
        },
        "spec": {
            "poolRef": {"name": metadata["name"]},
            "suspended": not runs,
            "deletionPolicy": "Retain" if retained else "Delete",
        },
    }  # fmt: skip
    return made | ({"status": status} if status else {})


@dataclass(frozen=True)
class Seat:
    """``up``: its Deployment has a replica, and is not on its way to none for want of a place (``leaves``).

    ``known``: its agent has told how many sessions are loaded and busy, or nothing can be in it. ``queued``: sessions
    that wait for room there. ``ready``: it serves.
    """

    name: str
    up: bool = False
    leaves: bool = False
    known: bool = True
    busy: int = 0
    loaded: int = 0
    demanded: bool = False
    queued: int = 0
    ready: bool = False


def seat_of(name: str, live: Manifest | None, state: ServerState | None, *, started: bool, demanded: bool) -> Seat:
    """``started``: its CLI runs, so it may have sessions."""
    intent = intent_of(live)
    leaves = intent is not None and intent.why == Why.SCALE_IN
    counted = state is not None and state.busy is not None
    return Seat(
        name=name,
        up=is_up(live) and not leaves,
        leaves=is_up(live) and leaves,
        known=counted or not started,
        busy=(state.busy or 0) if state else 0,
        loaded=(state.loaded or 0) if state else 0,
        demanded=demanded,
        queued=(state.wait_for_room or 0) if state else 0,
        ready=state is not None and state.answering and not state.draining,
    )


def running(seats: Iterable[Seat], replicas: int) -> frozenset[str]:
    """Names of the seats that are to run.

    What runs stays before what comes back, before what would be new. Of several that could go the idle one goes, with
    the fewest sessions, then with the highest ordinal. What has not been counted stays, and so does what works, until
    all have been counted.
    """
    demanded = frozenset(seat.name for seat in seats if seat.demanded)
    others = [seat for seat in seats if not seat.demanded]
    staying = [seat for seat in others if seat.up]
    if len(staying) > replicas:
        counted = all(seat.known for seat in staying)
        may_go = sorted((seat for seat in staying if seat.known and (counted or not seat.busy)), key=_worth)
        gone = {seat.name for seat in may_go[: len(staying) - replicas]}
        return demanded | {seat.name for seat in staying if seat.name not in gone}
    coming = sorted((seat for seat in others if not seat.up), key=lambda seat: (not seat.leaves, ordinal_of(seat.name)))
    return demanded | {seat.name for seat in (*staying, *coming[: replicas - len(staying)])}


def running_as_needed(seats: Iterable[Seat], replicas: int) -> frozenset[str]:
    """The same where the operator decides the number, by what is loaded: what works stays, also if it was on its way
    out, and no seat is new while one serves that is demanded for what it stores."""
    seats = list(seats)
    demanded = frozenset(seat.name for seat in seats if seat.demanded)
    others = [seat for seat in seats if not seat.demanded]
    working = frozenset(seat.name for seat in others if (seat.up or seat.leaves) and seat.busy)
    idle = [seat for seat in others if seat.up and seat.name not in working]
    surplus = len(working) + len(idle) - replicas
    if surplus > 0:
        gone = sorted((seat for seat in idle if seat.known), key=_worth)[:surplus]
        return demanded | working | {seat.name for seat in idle if seat not in gone}
    down = (seat for seat in others if not seat.up and seat.name not in working)
    coming = sorted(down, key=lambda seat: (not seat.leaves, ordinal_of(seat.name)))
    missing = max(0, -surplus - len(demanded))
    return demanded | working | {seat.name for seat in (*idle, *coming[:missing])}


def homes(told: Collection[str] | None, before: Collection[str], runs: Collection[str]) -> frozenset[str]:
    """Servers that store something of a tenant: what gateways have ``told`` (None: nothing yet), and what was known
    ``before`` of those that do not run, which nobody can ask."""
    if told is None:
        return frozenset(before)
    return frozenset(told) | (frozenset(before) - frozenset(runs))


def _worth(seat: Seat) -> tuple[bool, int, int]:
    return seat.busy > 0, seat.loaded, -ordinal_of(seat.name)


def seats_of(pool: str, replicas: int, existing: Collection[str]) -> list[str]:
    """All seats of a pool in the order of their ordinals: as many as shall run, and those that have run before."""
    names = {seat_name(pool, ordinal) for ordinal in range(replicas)} | set(existing)
    return sorted(names, key=ordinal_of)
