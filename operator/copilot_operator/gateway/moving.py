"""Has idle sessions of a gateway's clients move to servers that have fewer (``rebalance``), so many at a time."""

from collections.abc import Callable, Collection, Sequence
from typing import Final

from copilot_operator.gateway.config import Config
from copilot_operator.gateway.placement import ServerView
from copilot_operator.gateway.rebalance import Resting, moves, with_those_on_their_way
from copilot_operator.gateway.room import Room
from copilot_operator.gateway.tenant import Tenant

MOVE_EVERY_S: Final = 10.0
MOST_MOVES: Final = 10  # each time: their next requests load them again, 50 to 100 ms each


class Moving:
    """Of one gateway, which counts what it has loaded itself."""

    def __init__(self) -> None:
        self._left_for: dict[str, str] = {}  # servers, by sessions that were moved and are not loaded yet
        self._looked_at = float("-inf")

    def sweep(
        self, config: Config, tenants: Collection[Tenant], servers: Callable[[], Sequence[ServerView]], now: float
    ) -> int:
        """Now and then unload some; returns how many. Sessions that tenants share stay where their locks are."""
        if now < self._looked_at + MOVE_EVERY_S:
            return 0
        self._looked_at = now
        own = [tenant for tenant in tenants if not isinstance(tenant, Room)]
        found = {slot.server_id: (tenant, slot) for tenant in own for slot in tenant.driver.slots.values()}
        self._left_for = {
            id: server for id, server in self._left_for.items() if id in found and found[id][1].session.server is None
        }
        before = now - config.idle.moves_s
        resting = (
            Resting(id, tenant.name, server, slot.session.used_at)
            for id, (tenant, slot) in found.items()
            if (server := slot.session.server) is not None and not slot.session.busy and slot.session.used_at <= before
        )
        chosen = moves(config.routing, with_those_on_their_way(servers(), self._left_for), resting, MOST_MOVES)
        for id, server in chosen.items():
            tenant, slot = found[id]
            self._left_for[id] = server
            tenant.driver.unload(slot)
        return len(chosen)
