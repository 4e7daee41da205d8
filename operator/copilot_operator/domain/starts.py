"""Who of the servers that are to be woken starts next. Pure.

A storm of wakes must not stampede: so many start at once, and the others wait. Pools take turns, so that one with
hundreds of servers does not keep another's one waiting; within a pool who came first is first.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

Pool = tuple[str, str]  # namespace, name
Server = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Waiting:
    """``number`` counts those that came to wait."""

    server: Server
    pool: Pool
    number: int


def next_starts(waiting: Iterable[Waiting], starting: Collection[Pool], most: int) -> list[Server]:
    """Servers that may start now, in their order. ``starting``: the pools of those that do, once for each."""
    queues: dict[Pool, list[Waiting]] = {}
    for each in sorted(waiting, key=lambda each: each.number, reverse=True):
        queues.setdefault(each.pool, []).append(each)
    under_way, found = Counter(starting), list[Server]()
    while queues and len(starting) + len(found) < most:
        pool = min(queues, key=lambda pool: (under_way[pool], queues[pool][-1].number))
        found.append(queues[pool].pop().server)
        under_way[pool] += 1
        if not queues[pool]:
            del queues[pool]
    return found
