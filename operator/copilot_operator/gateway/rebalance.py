"""Which idle sessions move to another server, where all servers have all sessions: after servers have come they have
none, and the others all. Pure.

A session moves by being unloaded; its next request loads it where placement leads it. No move makes the fullest server
fuller, and none is undone by a later one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from typing import Final

from copilot_operator.gateway.placement import ServerView, Strategy, place, weight

MOST_LOOKED_AT: Final = 10_000  # sessions


@dataclass(frozen=True, slots=True)
class Resting:
    """A session that is loaded and idle; ``used_at``: seconds of any one clock."""

    id: str
    tenant: str
    server: str
    used_at: float


def moves(strategy: Strategy, servers: Sequence[ServerView], resting: Iterable[Resting], most: int) -> dict[str, str]:
    """Which leave now, and for which server: at most ``most``, the longest unused first.

    Sticky: to its tenant's server, if that has fewer. Else to the one that has fewest, if that has fewer by two.
    ``servers`` with what is loaded there, and what has left for them (``with_those_on_their_way``).
    """
    counts = {each.name: each.sessions for each in servers if each.serving}
    found, own = dict[str, str](), dict[str, str | None]()
    for each in nsmallest(MOST_LOOKED_AT, resting, key=lambda each: (each.used_at, each.id)):
        if len(found) == most:
            break
        if each.server not in counts:
            continue  # that one leaves, and with it whatever is idle
        if strategy is Strategy.STICKY:
            if each.tenant not in own:
                own[each.tenant] = place(strategy, each.tenant, each.id, servers)
            target, least = own[each.tenant], 1
        else:
            target, least = min(counts, key=lambda name: (counts[name], weight(each.id, name))), 2
        if target is not None and counts[each.server] - counts[target] >= least:
            counts[each.server] -= 1
            counts[target] += 1
            found[each.id] = target
    return found


def with_those_on_their_way(servers: Iterable[ServerView], left_for: Mapping[str, str]) -> list[ServerView]:
    """``left_for``: servers by sessions that have been moved and are not loaded yet."""
    on_their_way = list(left_for.values())
    return [replace(each, sessions=each.sessions + on_their_way.count(each.name)) for each in servers]
