"""What a deleted tenant of a Shared pool has left on servers, and which of them have erased it. Pure.

A tenant's sessions carry its code, which lies in the Secret from which gateways know it. Where the tenant is gone, its
entry becomes the note of an erasure in the same write: whatever ends in between, either of the two is there.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.seats import ordinal_of, seat_name
from copilot_operator.domain.snapshot import NOTE, Erasure

MOST_SEATS: Final = 1000
MOST_SHOWN: Final = 10
MOST_SERVERS_SHOWN: Final = 20


@dataclass(frozen=True)
class Departed:
    """Of whom an entry is stored in ``shard`` that no tenant has any more, unless the API server knows better."""

    code: str
    tenant: str
    key: str
    shard: str
    homes: tuple[str, ...] = ()


def noted(shards: Mapping[str, Mapping[str, str]]) -> list[Erasure]:
    """The erasures that are to be done, as they are stored."""
    found = []
    for held in shards.values():
        for key, text in held.items():
            note = _object(text) if key.startswith(NOTE) else {}
            if isinstance(note.get("code"), str):
                found.append(
                    Erasure(
                        note["code"],
                        str(note.get("name", "")),
                        _ordinals(str(note.get("seats", ""))),
                        str(note.get("since", "")),
                        note["erased"] if type(note.get("erased")) is int else 0,
                    )
                )
    return sorted(found, key=lambda each: (each.since, each.code))


def note(erasure: Erasure) -> str:
    """As it is stored. Nobody connects with it, so gateways take no notice."""
    held = {
        "tokens": [], "code": erasure.code, "name": erasure.tenant, "seats": _ranges(erasure.seats),
        "since": erasure.since, "erased": erasure.erased,
    }  # fmt: skip
    return json.dumps(held, sort_keys=True, separators=(",", ":"))


def departed(
    shards: Mapping[str, Mapping[str, str]], entries: Mapping[str, str], *, key_stored: bool
) -> Iterable[Departed]:
    """Stored entries with a code that no tenant has.

    A pool whose key was lost gives its tenants other codes; they are no others for that.
    """
    for shard, held in sorted(shards.items()):
        for key, text in sorted(held.items()):
            code = None if key.startswith(NOTE) else _object(text).get("code")
            if not isinstance(code, str) or (key in entries and not key_stored):
                continue
            if key not in entries or _object(entries[key]).get("code") != code:
                entry = _object(text)
                yield Departed(code, str(entry.get("name", "")), key, shard, tuple(entry.get("homes") or ()))


def advanced(erasure: Erasure, erased: Mapping[int, Mapping[str, int]], *, one_volume: bool = False) -> Erasure:
    """After servers have told what they ``erased``: sessions by code, by ordinal of the seat. ``one_volume``: of which
    each of them sees whether anything is left."""
    done = {seat: erased[seat][erasure.code] for seat in erasure.seats if erasure.code in erased.get(seat, {})}
    left = () if one_volume and done else tuple(seat for seat in erasure.seats if seat not in done)
    return replace(erasure, seats=left, erased=erasure.erased + sum(done.values()))


def orders(pool: str, erasures: Iterable[Erasure], alive: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Codes to erase, by server. ``alive``: codes that tenants have."""
    found: dict[int, list[str]] = {}
    for erasure in erasures:
        for seat in erasure.seats if erasure.code not in alive else ():
            found.setdefault(seat, []).append(erasure.code)
    return {_server(pool, seat): tuple(codes) for seat, codes in found.items()}


def seats_with(pool: str, seats: Iterable[str], homes: Collection[str]) -> tuple[int, ...]:
    """Ordinals of these seats of the pool, and of whatever servers a tenant had as its ``homes``."""
    found = {ordinal_of(seat) for seat in seats}
    if not set(homes) <= {_server(pool, ordinal) for ordinal in found}:  # a Deployment that somebody deleted
        found |= {ordinal for ordinal in range(MOST_SEATS) if _server(pool, ordinal) in homes}
    return tuple(sorted(found))


def codes_of(entries: Mapping[str, str]) -> set[str]:
    """Of tenants that are there."""
    found = {_object(text).get("code") for key, text in entries.items() if not key.startswith(NOTE)}
    return {code for code in found if isinstance(code, str)}


def pending(pool: str, erasures: Collection[Erasure]) -> Manifest:
    """``pendingErasures`` of a pool's status: how many, and the oldest of them."""
    if not erasures:
        return {}
    oldest = sorted(erasures, key=lambda each: (each.since, each.code))[:MOST_SHOWN]
    shown = [
        {
            "tenant": each.tenant,
            "since": each.since,
            "servers": [_server(pool, seat) for seat in each.seats[:MOST_SERVERS_SHOWN]],
        }
        for each in oldest
    ]
    return {"pendingErasures": {"count": len(erasures), "oldest": shown}}


def _server(pool: str, ordinal: int) -> str:
    return server_of(seat_name(pool, ordinal))


def _ranges(ordinals: Iterable[int]) -> str:
    """Short, since a Secret of 250 notes has 1 MiB and a pool 1,000 seats: ``0-3,7``."""
    runs: list[list[int]] = []
    for each in sorted(ordinals):
        if runs and each == runs[-1][1] + 1:
            runs[-1][1] = each
        else:
            runs.append([each, each])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _ordinals(ranges: str) -> tuple[int, ...]:
    found: list[int] = []
    for run in filter(None, ranges.split(",")):
        first, _, last = run.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
