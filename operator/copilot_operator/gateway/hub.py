"""One gateway: who its clients are, which servers there are, and where sessions go. The house behind the front door."""

import asyncio
import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from copilot_operator.gateway import config as files
from copilot_operator.gateway.clients import Client
from copilot_operator.gateway.config import Config, State
from copilot_operator.gateway.demand import Demand
from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.front import ClientConnection
from copilot_operator.gateway.house import Admitted, Reception, Rejected, TurnedAway
from copilot_operator.gateway.limits import Admission, FailedAuthentication
from copilot_operator.gateway.link import Address
from copilot_operator.gateway.metrics import Fault, Metrics
from copilot_operator.gateway.placement import ServerView, place
from copilot_operator.gateway.rules import methods
from copilot_operator.gateway.rules.ids import NameSpace
from copilot_operator.gateway.server import Server
from copilot_operator.gateway.session import actions
from copilot_operator.gateway.session.machine import Session
from copilot_operator.gateway.session.state import Bounds
from copilot_operator.gateway.slots import Slot
from copilot_operator.gateway.tenant import PROTOCOL_VERSION, Tenant, Terms
from copilot_operator.rpc.errors import ProtocolError

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 20_000  # of all tenants
MAX_STRANGERS: Final = 4096  # who have not said who they are; each has some seconds to do so


class Hub:
    """See the module. ``sweep`` is to be called about every second."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self.config, self.metrics = config, metrics
        self.isolation = config.isolation
        self.connections: dict[ClientConnection, tuple[Tenant, Client] | None] = {}
        self.servers: dict[str, Server] = {}
        self.tenants: dict[str, Tenant] = {}
        self._known: dict[str, files.Tenant] = {}
        self._by_code: dict[str, Tenant] = {}
        self._by_server: dict[str, Tenant] = {}  # Dedicated
        self._loop = asyncio.get_running_loop()
        self.demand = Demand(self._loop.time)
        self._parked: dict[str, set[str]] = {}  # what servers store that do not run, as far as it was seen
        self._admission, self._failed = Admission(), FailedAuthentication()
        self._strangers = 0
        self._numbers = itertools.count(1)
        self._placements = itertools.count()
        self._apply(config)
        metrics.connections.set_function(lambda: len(self.connections))
        metrics.upstreams.set_function(lambda: sum(len(tenant.driver.links) for tenant in self.tenants.values()))
        metrics.loaded.set_function(lambda: sum(slot.session.server is not None for slot in self._slots()))
        metrics.active.set_function(lambda: self.busy)
        metrics.kept.set_function(lambda: sum(len(server.keeper) for server in self.servers.values()))
        metrics.lingering.set_function(lambda: sum(slot.session.lingers for slot in self._slots()))

    @property
    def busy(self) -> int:
        """Sessions with a turn in flight."""
        return sum(slot.session.busy for slot in self._slots())

    def why_not_ready(self) -> str:
        """ "" if a client that comes now would be served."""
        serving = [server for server in self.servers.values() if server.serving]
        if serving and not any(server.reachable for server in serving):
            return f"none of {len(serving)} serving servers can be reached"
        return ""

    def reload(self, config: Config) -> None:
        """Other servers, tenants or rules hold from now on."""
        if config.isolation is not self.isolation:
            log.error("spec.isolation cannot change while the gateway runs; the new configuration is not used")
            return
        self._apply(config)
        log.info("new configuration", extra={"servers": len(self.servers), "tenants": len(self.tenants)})

    def sweep(self) -> None:
        """What time brings: sessions that nobody used, servers that drain, links that nothing needs."""
        self._admission.forget(self._loop.time())
        for server in self.servers.values():
            server.keeper.sweep(self._loop.time())
        idle_s = self.config.idle.session_s
        draining = [name for name, wanted in self.config.servers.items() if wanted.state is State.DRAINING]
        for tenant in list(self.tenants.values()):
            for name in draining:
                tenant.driver.draining(name)
            if idle_s is not None:
                tenant.driver.unload_idle(self._loop.time() - idle_s)
            tenant.driver.tidy()

    def close_idle(self) -> None:
        """The gateway ends: clients for whom nothing works may go to another one."""
        working = {
            slot.session.client_of(link) for slot in self._slots() if slot.session.busy for link in slot.session.links
        }
        for connection, known in list(self.connections.items()):
            if known is None or (known[1].number not in working and not known[1].under_way):
                connection.close("the gateway ends")

    def end(self) -> None:
        """Close everything."""
        for connection in list(self.connections):
            connection.abort("the gateway ends")
        for tenant in self.tenants.values():
            tenant.end()
        for server in self.servers.values():
            server.end()

    # What the front door calls

    def came(self, client: ClientConnection) -> bool:
        self.connections[client] = None
        self._strangers += 1
        return self._strangers <= MAX_STRANGERS and len(self.connections) <= MAX_CONNECTIONS

    def connect(self, client: ClientConnection, token: str) -> Reception:
        now = self._loop.time()
        who = self.config.tenant_of(token)
        if who is None:
            self.metrics.fault(Fault.AUTHENTICATION)
            wait_s = self._failed.wait_s(client.peer, now)
            self._failed.failed(client.peer, now)
            return Rejected(wait_s)
        if self.connections.get(client) is None:
            most = who.limits.connections
            if not self._admission.connects(who.name, most):
                self.metrics.fault(Fault.CROWDED)
                text = f"this tenant has {most} connections at this gateway, which is the most; close some"
                return TurnedAway(actions.GATEWAY_ERROR, text)
            tenant = self.tenants[who.name]
            self._strangers -= 1
            self.connections[client] = tenant, tenant.came(next(self._numbers), client)
        version = methods.table().cli
        return Admitted(
            {"ok": True, "protocolVersion": PROTOCOL_VERSION, "version": version, "taskKinds": ["agent", "shell"]}
        )

    def requested(self, client: ClientConnection, id: bytes, method: str, params: Any) -> None:
        if known := self.connections.get(client):
            known[0].requested(known[1], id, method, params)

    def replied(self, client: ClientConnection, id: bytes, body: bytes) -> None:
        if known := self.connections.get(client):
            known[0].replied(known[1], id, body)

    def notified(self, client: ClientConnection, method: str, body: bytes) -> None:
        """Clients tell servers nothing that a gateway could pass on."""

    def reads(self, client: ClientConnection, does: bool) -> None:
        if known := self.connections.get(client):
            known[0].reads(known[1], does)

    def gone(self, client: ClientConnection) -> None:
        known = self.connections.pop(client, None)
        if client.why_closed:
            self.metrics.fault(Fault.DOOR)
            log.info("closed a client's connection: %s", client.why_closed)
        if known is None:
            self._strangers -= 1
            return
        tenant, number = known
        self._admission.leaves(tenant.name)
        tenant.gone(number)

    # What tenants call

    def server(self, name: str) -> Server | None:
        return self.servers.get(name)

    def servers_of(self, tenant: str) -> Sequence[Server]:
        own = self._known[tenant].server if tenant in self._known else None
        return [each for each in self.servers.values() if each.reachable and own in (None, each.name)]

    def delay(self, tenant: str) -> float:
        limits = self._known[tenant].limits if tenant in self._known else self.config.limits
        return self._admission.requests(tenant, limits.requests_per_second, limits.burst, self._loop.time())

    def place(self, tenant: str, session_id: str, server_id: str, *, stored: bool) -> Server | None:
        who = self._known.get(tenant)
        if who is None:
            return None
        candidates = [each for each in self.servers.values() if who.server in (None, each.name)]
        homes = {each.name for each in candidates if server_id in each.stored}
        parked = {name for name, ids in self._parked.items() if server_id in ids}
        if stored and not homes:
            unseen = {each for each in who.homes if each not in self._parked}
            asleep = self._asleep({who.server} if who.server else parked or unseen)
        else:
            asleep = self._asleep({who.server} if who.server else set())
        for each in asleep:
            self.demand.want(each)
        if asleep:
            return None
        if (
            stored
            and not homes
            and not all(each.listed for each in candidates if not who.homes or each.name in who.homes)
        ):
            return None  # it may be where nobody has been able to look
        loaded = Counter(slot.session.server for slot in self._slots())
        servers = [ServerView(each.name, each.serving and each.reachable, loaded[each.name]) for each in candidates]
        if not stored and not any(view.serving for view in servers if view.name in homes):
            homes = set()
        name = place(self.config.routing, tenant, session_id, servers, homes, turn=next(self._placements))
        return None if name is None else self.servers[name]

    def _asleep(self, needed: set[str]) -> set[str]:
        """Those that do not run."""
        known = self.config.servers
        return {name for name in needed if name in known and known[name].state is State.STOPPED}

    def numbers(self) -> dict[str, Any]:
        """What each tenant has and does here; seconds since its last request for a session, if there was one."""
        now, homes = self._loop.time(), self._homes()
        return {
            name: {
                **({"homes": sorted(homes.get(tenant.space.code, ()))} if tenant.space.code else {}),
                "connections": len(tenant.clients),
                "active": sum(slot.session.busy for slot in tenant.driver.slots.values()),
                "loaded": sum(slot.session.server is not None for slot in tenant.driver.slots.values()),
                "held": sum(len(slot.session.held) for slot in tenant.driver.slots.values()),
                "quietS": None if tenant.asked_at is None else round(now - tenant.asked_at, 1),
            }
            for name, tenant in self.tenants.items()
        }

    def _homes(self) -> Mapping[str, set[str]]:
        """Servers that store anything of a tenant, by its code, as far as they have been seen."""
        length = len(next(iter(self._by_code), ""))
        stored = self._parked | {name: server.stored for name, server in self.servers.items() if server.listed}
        found = defaultdict[str, set[str]](set)
        for name, ids in stored.items():
            for code in {id[:length] for id in ids}:
                found[code].add(name)
        return found

    # Configuration

    def _apply(self, config: Config) -> None:
        self.config = config
        for name in self.servers.keys() - config.servers.keys():
            self._lose(name)
        for name in self._parked.keys() - config.servers.keys():
            del self._parked[name]
        for name, server in config.servers.items():
            self._set_server(name, server)
        self._known = {each.name: each for each in config.tenants.values()}
        for name in self.tenants.keys() - self._known.keys():
            self._leave(name)
        for tenant in self._known.values():
            self._set_tenant(tenant)
        self._by_code = {each.space.code: each for each in self.tenants.values() if each.space.code}
        self._by_server = {each.server: self.tenants[each.name] for each in self._known.values() if each.server}

    def _set_server(self, name: str, wanted: files.Server) -> None:
        address = Address(*wanted.address)
        known = self.servers.get(name)
        if known is not None and (known.address != address or wanted.state is State.STOPPED):
            self._lose(name)
            known = None
        if wanted.state is State.STOPPED:
            return
        if known is None:
            known = self.servers[name] = Server(
                name, address, True, self._broadcast, self._owned, keeps=self.config.gateways > 1
            )
        known.keeper.on = self.config.gateways > 1
        known.serving = wanted.state is State.SERVING

    def _lose(self, name: str) -> None:
        server = self.servers.pop(name, None)
        if server is not None:
            server.end()
            self._parked[name] = server.stored
            for tenant in self.tenants.values():
                tenant.driver.server_lost(name)

    def _set_tenant(self, wanted: files.Tenant) -> None:
        terms = Terms(self.config.policy, wanted.refusal, wanted.credential, self.config.defaults)
        known = self.tenants.get(wanted.name)
        if known is not None and known.space.code != wanted.code:
            self._leave(wanted.name)  # another tenant of the same name
            known = None
        if known is None:
            space = NameSpace(wanted.code)
            self.tenants[wanted.name] = Tenant(
                wanted.name, space, terms, self, self.metrics, lambda id: Session(id, self._bounds(wanted.name))
            )
        else:
            known.terms = terms

    def _bounds(self, tenant: str) -> Bounds:
        limits = self._known[tenant].limits
        return Bounds(limits.held_requests, limits.held_s, self.config.idle.linger_s)

    def _leave(self, name: str) -> None:
        """A tenant has been deleted: its clients go, and what works for it ends."""
        for connection, known in list(self.connections.items()):
            if known is not None and known[0].name == name:
                connection.abort("its tenant was deleted")
        self.tenants.pop(name).end()

    # Servers

    def _broadcast(self, server: Server, method: str, body: bytes) -> None:
        """Of whom a broadcast is, hears of it, whatever links it has."""
        try:
            params: Mapping[str, Any] = wire.params(body)
            id = params.get("sessionId")
        except (ProtocolError, AttributeError):
            return
        if tenant := self._tenant_of(server.name, id if isinstance(id, str) else ""):
            tenant.broadcast(body)

    def _owned(self, server: str, server_id: str) -> bool:
        """Whether a client of this gateway has the session open, or it works on here for one that has left."""
        tenant = self._tenant_of(server, server_id)
        id = tenant.space.inner(server_id) if tenant else None
        slot = tenant.driver.slots.get(id) if tenant and id is not None else None
        return slot is not None and slot.session.server in (None, server) and bool(slot.session.links)

    def _tenant_of(self, server: str, server_id: str) -> Tenant | None:
        if tenant := self._by_server.get(server):
            return tenant
        return self._by_code.get(server_id[: len(next(iter(self._by_code), ""))])

    def _slots(self) -> Iterator[Slot]:
        for tenant in self.tenants.values():
            yield from tenant.driver.slots.values()
