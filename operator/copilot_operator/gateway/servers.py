"""The servers of a gateway's pool: those that run and those that do not, what each stores, and where a session goes."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from copilot_operator.gateway import config as files
from copilot_operator.gateway.config import Config, State
from copilot_operator.gateway.demand import Demand
from copilot_operator.gateway.holders import Holders
from copilot_operator.gateway.link import Address
from copilot_operator.gateway.permits import Rules
from copilot_operator.gateway.placement import ServerView, Strategy, place
from copilot_operator.gateway.rules.methods import Isolation
from copilot_operator.gateway.server import Server

Make = Callable[[str, Address, files.Server], Server]


class Servers:
    """``running`` by name. ``make`` makes one, ``lost(name)`` is called when one has left; ``loaded`` tells how many
    sessions this gateway has loaded on each."""

    def __init__(
        self,
        config: Config,
        demand: Demand,
        holders: Holders,
        *,
        make: Make,
        lost: Callable[[str], None],
        loaded: Callable[[], Counter[str | None]],
    ) -> None:
        self.running: dict[str, Server] = {}
        self._parked: dict[str, Server] = {}  # that do not run, as they were when they ended
        self._config, self._demand, self._holders = config, demand, holders
        self._make, self._lost, self._loaded = make, lost, loaded
        self._placements = itertools.count()

    def follow(self, config: Config) -> None:
        """These are the servers from now on."""
        self._config = config
        for name in self.running.keys() - config.servers.keys():
            self._lose(name)
        for name in self._parked.keys() - config.servers.keys():
            del self._parked[name]
        permits = config.permits  # looks at all tenants: once, and not for each server
        for name, server in config.servers.items():
            self._set(name, server, permits)

    def end(self) -> None:
        """Ask them no more."""
        for server in self.running.values():
            server.end()

    def of(self, tenant: files.Tenant | None) -> Sequence[Server]:
        """Those that can be asked about a tenant's sessions."""
        own = tenant.server if tenant else None
        found = [each for each in self.running.values() if each.reachable and own in (None, each.name)]
        if not self._all_have_all:
            return found
        return sorted(found, key=lambda each: not each.serving)[:1]

    def parked_listings(self, tenant: files.Tenant | None) -> Sequence[Any]:
        """What servers that do not run and may store something of it answered to ``session.list`` last."""
        if self._all_have_all:
            return []
        own = tenant.server if tenant else None
        parked = (each for name, each in self._parked.items() if name not in self.running and own in (None, name))
        which = self._config.ephemeral  # nobody has them open there
        return [{"sessions": [known for known in each.listing if known["sessionId"] not in which]} for each in parked]

    def place(
        self, who: files.Tenant, session_id: str, server_id: str, routing: Strategy, *, stored: bool
    ) -> Server | None:
        """Where a session is to be loaded; None: nowhere for now. A server that is needed and does not run is asked
        for."""
        if self._all_have_all:
            return self._place_anywhere(who.name, session_id, server_id, routing)
        candidates = [each for each in self.running.values() if who.server in (None, each.name)]
        homes = {each.name for each in candidates if server_id in each.stored}
        parked = {name for name, each in self._parked.items() if server_id in each.stored}
        if stored and not homes:
            unseen = {each for each in who.homes if each not in self._parked}
            asleep = self._asleep({who.server} if who.server else parked or unseen)
        else:
            asleep = self._asleep({who.server} if who.server else set())
        known = self._config.servers
        leaving = {who.server} & known.keys() if who.server else set()
        for each in asleep | {name for name in leaving if known[name].state in (State.DRAINING, State.STARTING)}:
            self._demand.want(each)
        if asleep:
            return None
        asked = (each for each in candidates if not who.homes or each.name in who.homes)
        if stored and not homes and not all(each.listed for each in asked):
            return None  # it may be where nobody has been able to look
        views = self._views(candidates)
        if not stored and not any(view.serving for view in views if view.name in homes):
            homes = set()
        name = place(routing, who.name, session_id, views, homes, turn=next(self._placements))
        return None if name is None else self.running[name]

    def views(self) -> list[ServerView]:
        """Those that run, as placement knows them."""
        return self._views(self.running.values())

    def waits(self, tenant: str, server_id: str, does: bool) -> None:
        """What a server that does not run stores waits for that one, and is no better off with another; unless all
        servers have all sessions."""
        homeless = self._all_have_all or not any(server_id in each.stored for each in self._parked.values())
        self._demand.waits(tenant, server_id, does and homeless)

    def stored_by(self, code_length: int) -> Counter[str]:
        """How many sessions are stored, by the code of their tenant."""
        known = list(self._known().values())
        if self._all_have_all:
            known = sorted(known, key=lambda server: server.reachable)[-1:]
        return Counter(id[:code_length] for server in known for id in server.stored)

    def homes_by(self, code_length: int) -> Mapping[str, set[str]]:
        """Servers that store anything of a tenant, by its code, as far as they have been seen; none where all have
        all."""
        found = defaultdict[str, set[str]](set)
        for name, server in self._known().items() if not self._all_have_all else ():
            for code in {id[:code_length] for id in server.stored}:
                found[code].add(name)
        return found

    @property
    def _all_have_all(self) -> bool:
        """Whether all sessions lie on one volume, which all servers have."""
        return self._config.sessions.shared

    def _known(self) -> Mapping[str, Server]:
        """Those that have been seen, though they may not run any more."""
        return self._parked | {name: server for name, server in self.running.items() if server.listed}

    def _place_anywhere(self, tenant: str, session_id: str, server_id: str, routing: Strategy) -> Server | None:
        """With who holds it, else by the strategy, and who is asked claims it."""
        if pod := self._holders.of(server_id):
            name = next((name for name, each in self._config.servers.items() if each.pod == pod.uid), None)
            home = self.running.get(name) if name is not None else None
            if home is not None and home.serving and home.reachable:
                return home
            why = "whose server leaves" if home and not home.serving else "whose server cannot be reached"
            self._holders.wait_for(server_id, pod, home.name if home else None, why)
        views = self._views(self.running.values())
        placed = place(routing, tenant, session_id, views, turn=next(self._placements))
        return None if placed is None else self.running[placed]

    def _views(self, servers: Iterable[Server]) -> list[ServerView]:
        loaded = self._loaded()
        return [ServerView(each.name, each.serving and each.reachable, loaded[each.name]) for each in servers]

    def _asleep(self, needed: set[str]) -> set[str]:
        """Those that do not run."""
        known = self._config.servers
        return {name for name in needed if name in known and self._is_down(known[name])}

    def _is_down(self, server: files.Server) -> bool:
        """Whether it takes nothing. One that starts may be all that a tenant has; where there are others it is waited
        for by nobody before it has started."""
        return server.state is State.STOPPED or (server.state is State.STARTING and self._shares_servers)

    @property
    def _shares_servers(self) -> bool:
        return self._config.isolation is not Isolation.DEDICATED

    def _set(self, name: str, wanted: files.Server, permits: Rules | None) -> None:
        address = Address(*wanted.address)
        known = self.running.get(name)
        if known is not None and (known.address != address or self._is_down(wanted)):
            self._lose(name)
            known = None
        if self._is_down(wanted):
            return
        if known is None:
            known = self.running[name] = self._make(name, address, wanted)
        known.permits.rules = permits
        known.keeper.on, known.keeper.ephemeral = self._config.gateways > 1, self._config.ephemeral
        if known.serving and wanted.state is State.DRAINING and known.reachable:
            known.list()
        known.serving = wanted.state is not State.DRAINING
        known.starting = wanted.state is State.STARTING

    def _lose(self, name: str) -> None:
        server = self.running.pop(name)
        server.end()
        if not self._config.forgets:
            self._parked[name] = server
        self._lost(name)
