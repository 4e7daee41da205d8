"""Who of a pool's servers may take a turn, in memory: what every tenant's cycle told of its server, and what follows.

Nobody is admitted before all have told, since the start of the operator and since the last change of their pool:
until then it is not known who is idle, or who is away already.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from copilot_operator.domain.rollout import ABSENT, UNKNOWN, Standing, admitted, most_unavailable
from copilot_operator.domain.snapshot import Failing, Finding

log = logging.getLogger(__name__)

FAILED_FOR_S: Final = 30.0  # a registry that hiccups, or a first crash, is no verdict on a version
Pool = tuple[str, str]  # namespace, name


@dataclass
class Members:
    """The servers of one pool. ``untold``: those whose cycle has yet to come; None: nobody was asked so far."""

    max_unavailable: str = "1"
    untold: set[str] | None = None
    standings: dict[str, Standing] = field(default_factory=dict)
    turns: frozenset[str] = frozenset()  # admitted, and not back yet
    taken: set[str] = field(default_factory=set)  # turns taken in a cycle that is under way
    failing_since: dict[str, float] = field(default_factory=dict)
    last_failure: dict[str, Finding] = field(default_factory=dict)
    excused: set[str] = field(default_factory=set)  # did not work before their turn: no evidence against a version


class Rollouts:
    """``members`` lists the servers of a pool (namespace, name); ``wake`` has the tenants of some of them look again at
    once, ``wake_pool`` a pool. ``clock`` gives monotonic seconds.
    """

    def __init__(
        self,
        members: Callable[[str, str], list[str]],
        wake: Callable[[str, str, frozenset[str]], None],
        wake_pool: Callable[[str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._members, self._wake, self._wake_pool, self._clock = members, wake, wake_pool, clock
        self._pools: dict[Pool, Members] = {}
        self._homes: dict[tuple[str, str], str] = {}  # the pool for which a server (namespace, name) told last

    def asked(self, namespace: str, pool: str) -> None:
        """Something changed for all servers of a pool: nobody gets a turn for what they told before, or fails by it."""
        found = self._of(namespace, pool)
        found.untold = set(self._members(namespace, pool))
        found.failing_since.clear()
        found.last_failure.clear()

    def allows(self, namespace: str, pool: str, max_unavailable: str) -> None:
        """``update.maxUnavailable`` of a pool, as it was last seen."""
        found = self._of(namespace, pool)
        if found.max_unavailable != max_unavailable:
            found.max_unavailable = max_unavailable
            self._decide(namespace, pool, found)

    def report(self, namespace: str, pool: str, server: str, standing: Standing) -> None:
        """What a tenant's cycle found."""
        if self._homes.get((namespace, server), pool) != pool:
            self.forget(namespace, server)  # its tenant was deleted, and made again for another pool
        self._homes[namespace, server] = pool
        found = self._of(namespace, pool)
        before = found.standings.get(server)
        waited = server in self._untold(namespace, pool, found)
        found.standings[server] = standing
        found.taken.discard(server)
        if found.untold is not None:
            found.untold.discard(server)
        if before != standing or waited:
            self._watch_failure(namespace, pool, found, server, standing)
        if before != standing or server in found.turns or (waited and not found.untold):
            self._decide(namespace, pool, found)

    def could_not_tell(self, namespace: str, pool: str, server: str) -> None:
        """A cycle that failed holds up nobody: the server counts as not available, until it tells more."""
        found = self._of(namespace, pool)
        if server in self._untold(namespace, pool, found):
            self.report(namespace, pool, server, found.standings.get(server, UNKNOWN))

    def forget(self, namespace: str, server: str) -> None:
        """The tenant is gone."""
        self._homes.pop((namespace, server), None)
        for (where, pool), found in self._pools.items():
            if where == namespace and (server in found.standings or server in (found.untold or ())):
                self.report(namespace, pool, server, ABSENT)
                del found.standings[server], self._homes[namespace, server]

    def revision(self, namespace: str, pool: str, server: str) -> str:
        """The revision that a server is known to run, "" if it has not told yet, or does not run."""
        found = self._pools.get((namespace, pool))
        standing = found.standings.get(server, ABSENT) if found else ABSENT
        return "" if standing == UNKNOWN else standing.revision

    def admits(self, namespace: str, pool: str, server: str) -> bool:
        """Whether it is this server's turn, or its turn is not over yet."""
        found = self._pools.get((namespace, pool))
        return found is not None and server in found.turns

    def takes_turn(self, namespace: str, pool: str, server: str) -> bool:
        """For a server that does not run and is about to start: a turn at once, if there is room for one more."""
        found = self._of(namespace, pool)
        if server in found.turns:
            return True
        if self._untold(namespace, pool, found) - {server} or any(s.failed for s in found.standings.values()):
            return False
        running = {name for name, standing in found.standings.items() if standing.revision}
        away = {name for name in running if found.standings[name].unavailable} | found.turns
        if len(away - {server}) >= most_unavailable(found.max_unavailable, len(running | {server})):
            return False
        found.turns |= {server}
        found.taken.add(server)
        return True

    def failing(self, namespace: str, pool: str) -> dict[str, Failing]:
        """Servers that have failed with their pool's new revision for a while, and were not Ready since."""
        found = self._pools.get((namespace, pool))
        if found is None:
            return {}
        ripe = self._clock() - FAILED_FOR_S
        return {
            server: Failing(found.last_failure[server], server in found.excused)
            for server, since in sorted(found.failing_since.items())
            if since <= ripe
        }

    def next_verdict_s(self, namespace: str, pool: str) -> float | None:
        """Seconds until another server has failed for long enough to be told by ``failing``."""
        found = self._pools.get((namespace, pool))
        ends = [since + FAILED_FOR_S - self._clock() for since in (found.failing_since.values() if found else ())]
        return min((left for left in ends if left > 0), default=None)

    def _of(self, namespace: str, pool: str) -> Members:
        return self._pools.setdefault((namespace, pool), Members())

    def _untold(self, namespace: str, pool: str, found: Members) -> set[str]:
        if found.untold is None:
            found.untold = set(self._members(namespace, pool))
        return found.untold

    def _watch_failure(self, namespace: str, pool: str, found: Members, server: str, standing: Standing) -> None:
        """A crash loop runs now and then: who failed once is failing until it is Ready, or runs another version."""
        if standing.failed:
            found.last_failure[server] = standing.failed
            if server not in found.failing_since:
                log.warning("fails with its pool's new revision", extra={"object": server, "why": str(standing.failed)})
                found.failing_since[server] = self._clock()
                self._wake_pool(namespace, pool)
        elif not standing.unavailable or standing.wants_turn or not standing.revision:
            if found.failing_since.pop(server, None) is not None:
                self._wake_pool(namespace, pool)
            found.last_failure.pop(server, None)
            if not standing.unavailable:
                found.excused.discard(server)

    def _decide(self, namespace: str, pool: str, found: Members) -> None:
        back = {name for name in found.turns - found.taken if not self._is_away(found, name)}
        begun = {name for name in found.turns - back if name in found.taken or not found.standings[name].wants_turn}
        chosen: frozenset[str] = frozenset()
        if not self._untold(namespace, pool, found) and any(s.wants_turn for s in found.standings.values()):
            chosen = admitted(self._judged(found), found.max_unavailable, holding=found.turns)
        elif self._untold(namespace, pool, found):
            chosen = frozenset(found.turns - back)
        new = chosen - found.turns
        found.turns = frozenset(begun | chosen)
        found.excused |= {name for name in new if found.standings[name].unavailable}
        if new:
            self._wake(namespace, pool, new)

    def _is_away(self, found: Members, name: str) -> bool:
        standing = found.standings.get(name)
        return standing is not None and bool(standing.revision) and (standing.unavailable or standing.wants_turn)

    def _judged(self, found: Members) -> dict[str, Standing]:
        """Who failed before its turn, too, does not hold up the others, and who failed once does until it is Ready."""
        judged = found.standings | dict.fromkeys(found.taken, UNKNOWN)
        for name, failure in found.last_failure.items():
            judged[name] = replace(judged[name], failed=None if name in found.excused else failure)
        return judged
