"""On which server a session is loaded. Pure.

Sticky is rendezvous hashing: each server gets a weight for the tenant, the heaviest wins. When a server leaves only
its own tenants move; when one comes it takes a share of 1/n from all others.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import assert_never


class Strategy(StrEnum):
    """``spec.shared.routing`` of a pool."""

    STICKY = "Sticky"
    ROUND_ROBIN = "RoundRobin"
    LEAST_SESSIONS = "LeastSessions"


@dataclass(frozen=True, slots=True)
class ServerView:
    """What placement knows of a server; ``sessions`` are those loaded through this gateway."""

    name: str
    serving: bool
    sessions: int = 0


def place(
    strategy: Strategy,
    tenant: str,
    session: str,
    servers: Sequence[ServerView],
    homes: Collection[str] = (),
    *,
    turn: int = 0,
) -> str | None:
    """Name of the server for ``session``; None if none may take it.

    ``homes`` are the servers that store it: nowhere else is its history, so if there are any it is one of them, or
    none while they do not serve. ``turn`` counts placements of this gateway (RoundRobin).
    """
    able = sorted((each for each in servers if each.serving), key=lambda each: each.name)
    if homes:
        able = [each for each in able if each.name in homes]
    if not able:
        return None
    match strategy:
        case Strategy.STICKY:
            return max(able, key=lambda each: weight(tenant, each.name)).name
        case Strategy.ROUND_ROBIN:
            return able[turn % len(able)].name
        case Strategy.LEAST_SESSIONS:  # equal ones apart by the session, or a burst would pile up on one
            return min(able, key=lambda each: (each.sessions, weight(session, each.name))).name
        case _:
            assert_never(strategy)


def weight(key: str, server: str) -> bytes:
    """How much ``key`` belongs to ``server``; compared between servers. The same in each process and version."""
    return blake2b(key.encode() + b"\0" + server.encode(), digest_size=8).digest()
