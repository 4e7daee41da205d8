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
from copilot_operator.gateway.config_files import SharedSession
from copilot_operator.gateway.demand import Demand
from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.front import ClientConnection
from copilot_operator.gateway.holders import Holders, Pods, Unasked
from copilot_operator.gateway.house import Admitted, Reception, Rejected, TurnedAway
from copilot_operator.gateway.limits import Admission, FailedAuthentication, Held
from copilot_operator.gateway.link import Address
from copilot_operator.gateway.metrics import Fault, Metrics
from copilot_operator.gateway.moving import Moving
from copilot_operator.gateway.placement import Strategy
from copilot_operator.gateway.room import Room
from copilot_operator.gateway.rules import methods
from copilot_operator.gateway.rules.ids import NameSpace
from copilot_operator.gateway.server import Server
from copilot_operator.gateway.servers import Servers
from copilot_operator.gateway.session import actions
from copilot_operator.gateway.session.machine import Session
from copilot_operator.gateway.session.state import Bounds
from copilot_operator.gateway.slots import Slot
from copilot_operator.gateway.tenant import PROTOCOL_VERSION, Tenant, Terms
from copilot_operator.rpc.errors import ProtocolError

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 20_000  # of all tenants
KEPT_WITHIN_S: Final = 1.5  # by another gateway, which may hear of a server that much later. 0.01 to 0.1 s as a rule
CATCH_UP_S: Final = 10.0  # with the turns that ran before; a server that answers slowly keeps nobody from starting
MAX_STRANGERS: Final = 4096  # who have not said who they are; each has some seconds to do so


class Hub:
    """See the module. ``sweep`` is to be called about every second."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self.config, self.metrics = config, metrics
        self.isolation = config.isolation
        self.connections: dict[ClientConnection, tuple[Tenant, Client] | None] = {}
        self._came_with: dict[ClientConnection, str] = {}  # hash of its token
        self.tenants: dict[str, Tenant] = {}  # shared sessions among them
        self.rooms: dict[str, Room] = {}  # shared sessions, by their names
        self._known: dict[str, files.Tenant] = {}
        self._by_code: dict[str, Tenant] = {}
        self._by_server: dict[str, Tenant] = {}  # Dedicated
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()
        self.demand = Demand(self._loop.time)
        self._admission, self._failed = Admission(), FailedAuthentication()
        self._held = Held(self._waiting)
        self._strangers = 0
        self.pods: Pods = Unasked()
        self.holders = Holders(lambda: self.pods, self._release, self.metrics.waited_for_claim.observe)
        self._servers = Servers(
            config, self.demand, self.holders, make=self._new_server, lost=self._server_lost, loaded=self._loaded
        )
        self._numbers = itertools.count(1)
        self._moving = Moving()
        self._apply(config)
        metrics.connections.set_function(lambda: len(self.connections))
        metrics.upstreams.set_function(lambda: sum(len(tenant.driver.links) for tenant in self.tenants.values()))
        metrics.loaded.set_function(lambda: sum(slot.session.server is not None for slot in self._slots()))
        metrics.active.set_function(lambda: self.busy)
        metrics.kept.set_function(lambda: sum(len(server.keeper) for server in self.servers.values()))
        metrics.waiting_to_speak.set_function(lambda: sum(room.speakers.waiting for room in self.rooms.values()))
        metrics.lingering.set_function(lambda: sum(slot.session.lingers for slot in self._slots()))

    @property
    def servers(self) -> Mapping[str, Server]:
        """Those that run, by name."""
        return self._servers.running

    @property
    def busy(self) -> int:
        """Sessions with a turn in flight."""
        return sum(slot.session.busy for slot in self._slots())

    def why_not_ready(self) -> str:
        """ "" if a client that comes now would be served, and other gateways may be stopped."""
        serving = [server for server in self.servers.values() if server.serving and not server.starting]
        if serving and not any(server.reachable for server in serving):
            return f"none of {len(serving)} serving servers can be reached"
        late = [server.name for server in serving if server.reachable and server.keeper.on and not server.caught_up]
        if late and self._loop.time() < self._began_at + CATCH_UP_S:
            return f"does not yet keep the turns of other gateways on {', '.join(late)}"
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
        for room in self.rooms.values():
            room.sweep()
        if self.config.sessions.shared:
            moved = self._moving.sweep(self.config, self.tenants.values(), self._servers.views, self._loop.time())
            self.metrics.moved.inc(moved)
        self._say_what_is_open()

    def _say_what_is_open(self) -> None:
        """Of ephemeral sessions: also of one that is not loaded at present, and of one that works for who has left."""
        which, opened = self.config.ephemeral, defaultdict[str, list[str]](list)
        for slot in self._slots():
            if slot.server_id in which and slot.session.owners:
                opened["" if self.config.sessions.shared else slot.home].append(slot.server_id)
        for name, server in self.servers.items():  # any of them might delete what all of them have
            server.openings.are(opened["" if self.config.sessions.shared else name])

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
        self._servers.end()
        self.holders.end()

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
        if (known := self.connections[client]) and known[0].name == who.name:  # who says so again may stay
            self._came_with[client] = files.fingerprint(token)
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
        self._came_with.pop(client, None)
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
        return self._servers.of(self._known.get(tenant))

    def parked_listings(self, tenant: str) -> Sequence[Any]:
        return self._servers.parked_listings(self._known.get(tenant))

    def sessions_of(self, tenant: str) -> int | None:
        """How many sessions a tenant may have loaded on one server; None: no bound of its own."""
        return self._known[tenant].sessions if tenant in self._known else None

    def place(self, tenant: str, session_id: str, server_id: str, *, stored: bool) -> Server | None:
        who = self._known.get(tenant)
        routing = Strategy.STICKY if isinstance(self.tenants.get(tenant), Room) else self.config.routing
        return self._servers.place(who, session_id, server_id, routing, stored=stored) if who else None

    async def _release(self, name: str, server_id: str) -> bool:
        server = self.servers.get(name)
        return server is not None and await server.release(server_id)

    def no_room(self, tenant: str) -> str:
        return self._held.refusal(tenant, self._loop.time())

    def _waiting(self) -> dict[str, int]:
        return {
            name: sum(slot.session.waiting for slot in tenant.driver.slots.values())
            for name, tenant in self.tenants.items()
        }

    def waits(self, tenant: str, server_id: str, does: bool) -> None:
        self._servers.waits(tenant, server_id, does)

    def numbers(self) -> dict[str, Any]:
        """What each tenant has and does here; seconds since its last request for a session, if there was one."""
        now, length = self._loop.time(), self._code_length
        homes, stored = self._servers.homes_by(length), self._servers.stored_by(length)
        return {
            name: {
                **(
                    {"homes": sorted(homes.get(tenant.space.code, ())), "stored": stored[tenant.space.code]}
                    if tenant.space.code
                    else {}
                ),
                **({"refused": True} if tenant.driver.refused else {}),
                "connections": len(tenant.clients),
                "active": sum(slot.session.busy for slot in tenant.driver.slots.values()),
                "loaded": sum(slot.session.server is not None for slot in tenant.driver.slots.values()),
                "held": sum(len(slot.session.held) for slot in tenant.driver.slots.values()),
                "quietS": None if tenant.asked_at is None else round(now - tenant.asked_at, 1),
            }
            for name, tenant in self.tenants.items()
            if not isinstance(tenant, Room)
        }

    @property
    def _code_length(self) -> int:
        return len(next(iter(self._by_code), ""))

    # Configuration

    def _apply(self, config: Config) -> None:
        self.config = config
        self._servers.follow(config)
        rooms = [(each, config.room(each)) for each in config.shared]
        self._known = {each.name: each for each in (*config.tenants.values(), *(room for _, room in rooms))}
        for name in self.tenants.keys() - self._known.keys():
            self._leave(name)
        for session, room in rooms:
            self._set_room(session, room)
        for tenant in config.tenants.values():
            self._set_tenant(tenant)
            shares = {name: self.rooms[name] for name in tenant.shares if name in self.rooms}
            self.tenants[tenant.name].share(shares)
        self._close_rotated()
        self._by_code = {each.space.code: each for each in self.tenants.values() if each.space.code}
        self._by_server = {each.server: self.tenants[each.name] for each in self._known.values() if each.server}

    def _terms(self, wanted: files.Tenant) -> Terms:
        whole = self.config
        return Terms(whole.policy, wanted.refusal, wanted.credential, whole.defaults, wanted.limits, wanted.trouble)

    def _set_tenant(self, wanted: files.Tenant) -> None:
        terms = self._terms(wanted)
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
            known.agree(terms)

    def _set_room(self, session: SharedSession, wanted: files.Tenant) -> None:
        terms = self._terms(wanted)
        known = self.rooms.get(session.name)
        if known is not None and known.space.code != session.code:
            self._leave(wanted.name)
            known = None
        if known is not None:
            known.agree(terms)
            known.queues = session.queues
            return
        self.tenants[wanted.name] = self.rooms[session.name] = Room(
            session.name,
            session.code,
            terms,
            self,
            self.metrics,
            lambda id: Session(id, self._bounds(wanted.name)),
            queues=session.queues,
        )

    def _bounds(self, tenant: str) -> Bounds:
        limits = self._known[tenant].limits
        kept_s = KEPT_WITHIN_S if self.config.gateways > 1 else 0.0
        return Bounds(limits.held_requests, limits.held_s, self.config.idle.linger_s, kept_s=kept_s)

    def _close_rotated(self) -> None:
        """Who came with a token that is none any more comes again, with the new one."""
        for connection, token in list(self._came_with.items()):
            if token not in self.config.tenants and not connection.why_closed:
                connection.abort("its token was rotated")

    def _leave(self, name: str) -> None:
        """A tenant has been deleted: its clients go, and what works for it ends."""
        if isinstance(room := self.tenants[name], Room):
            for tenant in self.tenants.values():
                tenant.share({known: each for known, each in tenant.rooms.items() if each is not room})
            del self.rooms[room.session]
        for connection, known in list(self.connections.items()):
            if known is not None and known[0].name == name:
                connection.abort("its tenant was deleted")
        self.tenants.pop(name).end()

    # Servers

    def _new_server(self, name: str, address: Address, wanted: files.Server) -> Server:
        keeps, port = self.config.gateways > 1, wanted.agent_port
        return Server(
            name, address, True, self._broadcast, self._owned,
            keeps=keeps, agent_port=port, holders=self.holders, on_listed=self._server_listed,
        )  # fmt: skip

    def _server_listed(self, name: str) -> None:
        """Whoever waited for it need not wait until his next try."""
        its = self._by_server.get(name)
        for tenant in [its] if its else list(self.tenants.values()):
            tenant.driver.try_loads()

    def _server_lost(self, name: str) -> None:
        for tenant in self.tenants.values():
            tenant.driver.server_lost(name)

    def _loaded(self) -> Counter[str | None]:
        return Counter(slot.session.server for slot in self._slots())

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
        return self._by_code.get(server_id[: self._code_length])

    def _slots(self) -> Iterator[Slot]:
        for tenant in self.tenants.values():
            yield from tenant.driver.slots.values()
