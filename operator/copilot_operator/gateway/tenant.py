"""One tenant: its clients, what they may ask, and where each request goes. Its sessions are the driver's."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from copilot_operator.gateway import deleting
from copilot_operator.gateway.clients import Client, Wire
from copilot_operator.gateway.config_files import Limits
from copilot_operator.gateway.driver import Driver
from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.limits import TokenBucket
from copilot_operator.gateway.metrics import Fault, Metrics
from copilot_operator.gateway.replies import answer_of
from copilot_operator.gateway.rules import fields, methods
from copilot_operator.gateway.rules.ids import InvalidId, NameSpace
from copilot_operator.gateway.rules.merge import concerns_all, merged
from copilot_operator.gateway.rules.methods import Rule
from copilot_operator.gateway.server import Server
from copilot_operator.gateway.session import actions
from copilot_operator.gateway.session.calls import MAKES, SENDS
from copilot_operator.gateway.session.machine import Session
from copilot_operator.gateway.session.state import Phase
from copilot_operator.gateway.slots import Handle
from copilot_operator.gateway.watch import TurnWatch
from copilot_operator.rpc.errors import RpcError, ServerError

if TYPE_CHECKING:
    from copilot_operator.gateway.room import Room

log = logging.getLogger(__name__)

PROTOCOL_VERSION: Final = 3
MAX_UNDER_WAY: Final = 1024  # requests of one client
LIST_S: Final = 20.0
LISTS: Final = ("session.list", "sessions.list")


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a tenant, and may change while it is connected."""

    policy: fields.Policy
    refusal: str = ""  # "": it is served
    credential: fields.Credential | None = field(default=None, repr=False)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    trouble: str = ""  # what keeps servers from starting


class Pool(Protocol):
    """The servers, as one tenant may use them."""

    isolation: methods.Isolation

    def server(self, name: str) -> Server | None: ...

    def place(self, tenant: str, session_id: str, server_id: str, *, stored: bool) -> Server | None: ...

    def waits(self, tenant: str, server_id: str, does: bool) -> None: ...

    def no_room(self, tenant: str) -> str:
        """Why a request that may have to wait for a server can't; "" if it can."""

    def sessions_of(self, tenant: str) -> int | None: ...

    def parked_listings(self, tenant: str) -> Sequence[Any]:
        """What servers that do not run answered to ``session.list`` last."""
        ...

    def servers_of(self, tenant: str) -> Sequence[Server]:
        """Those that may store something of it and can be asked."""


class Tenant:
    """See the module."""

    def __init__(
        self,
        name: str,
        space: NameSpace,
        terms: Terms,
        pool: Pool,
        metrics: Metrics,
        new_session: Callable[[str], Session] = Session,
    ) -> None:
        self.name, self.space, self.terms = name, space, terms
        self.clients: dict[int, Client] = {}
        self.asked_at: float | None = None  # when a request for a session came last
        self.isolation = pool.isolation
        self._pool, self._metrics = pool, metrics
        self._rules = methods.served(pool.isolation)
        self._plain = fields.plain(pool.isolation)
        self.driver = self._new_driver(metrics, new_session)
        self.rooms: Mapping[str, Room] = {}  # sessions that it shares, by the name that they have for all
        self._bucket = self._new_bucket()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
            "ping": _pong,
            "status.get": lambda _: {"version": methods.table().cli, "protocolVersion": PROTOCOL_VERSION},
            "session.getForeground": lambda _: {},
        }

    # What the hub calls

    def agree(self, terms: Terms) -> None:
        """Other terms hold from now on."""
        paid_with, self.terms = self.terms.credential, terms
        if terms.credential is not None and terms.credential != paid_with:
            self.driver.pay_with(terms.credential)
        if (self._bucket.rate, self._bucket.burst) != (terms.limits.requests_per_second, terms.limits.burst):
            self._bucket = self._new_bucket()

    def came(self, number: int, connection: Wire) -> Client:
        """A client has authenticated as this tenant."""
        client = self.clients[number] = Client(number, connection)
        for room in self.rooms.values():
            room.admit(self.name, client)
        return client

    def share(self, rooms: "Mapping[str, Room]") -> None:
        """It is a member of these from now on, and of no others. Sessions of its own with such names are hidden."""
        before, self.rooms = self.rooms, rooms
        for name, room in before.items():
            if rooms.get(name) is not room:
                room.expel(self.name)
        for name, room in rooms.items():
            if before.get(name) is not room:
                self.driver.leave(name)
                for client in self.clients.values():
                    room.admit(self.name, client)

    def gone(self, client: Client) -> None:
        """Its connection has ended; its sessions decide whether they linger."""
        del self.clients[client.number]
        self.driver.client_gone(client.number)
        for room in self.rooms.values():
            room.gone(client)

    def reads(self, client: Client, does: bool) -> None:
        client.reads = does
        self.driver.client_reads(client.number, does)
        for room in self.rooms.values():
            room.driver.client_reads(client.number, does)

    def requested(self, client: Client, id: bytes, method: str, params: Any) -> None:
        """A request of an authenticated client."""
        rule = self._rules.get(method)
        if rule is None:
            self._refuse(client, id, *methods.unhandled(method))
            return
        now = self.driver.now()
        delay_s = self._bucket.take(now)
        if delay_s > 0 or client.under_way >= MAX_UNDER_WAY:
            self._metrics.fault(Fault.CROWDED)
            text = f"too many requests; try again in {delay_s or 1:.3g} s"
            self._answer_error(client, id, actions.GATEWAY_ERROR, text, {"retryAfterS": delay_s or 1})
            return
        self._metrics.requests[rule.verdict] += 1
        given = params if isinstance(params, dict) else {}
        try:
            if rule.is_of_session:
                self._for_session(client, id, rule, given, now)
            elif answer := self._answers.get(method):
                client.connection.send(wire.good_reply(id, answer(given)))
            else:
                self._start(client, self._for_servers(client, id, rule, given))
        except InvalidId as error:
            client.connection.send(_about_invalid(id, error))
        except fields.Refused as error:
            self._refuse(client, id, error.code, error.message)

    def replied(self, client: Client, id: bytes, body: bytes) -> None:
        """A client's answer to a request of its server."""
        try:
            reply = answer_of(body)
        except wire.BadMessage as error:
            client.connection.send(error.reply)
            return
        if asked := client.answered(id):
            session_id, reverse = asked
            self.driver.reverse_reply(session_id, reverse, reply)

    def broadcast(self, body: bytes) -> None:
        """A notification about one of its sessions, for every client. ``body`` names the server's id."""
        frame = self.space.event(body)
        if frame is not None:
            for client in self.clients.values():
                client.connection.send(frame)

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.driver.end()

    # What the driver calls

    def server(self, name: str) -> Server | None:
        return self._pool.server(name)

    def sessions_of(self, tenant: str) -> int | None:
        return self._pool.sessions_of(tenant)

    @property
    def trouble(self) -> str:
        return self.terms.trouble

    def waits(self, tenant: str, server_id: str, does: bool) -> None:
        self._pool.waits(tenant, server_id, does)

    def place(self, tenant: str, session_id: str, server_id: str, *, stored: bool) -> Server | None:
        server = self._pool.place(tenant, session_id, server_id, stored=stored)
        if server is None:
            self._metrics.fault(Fault.UNPLACED)
        return server

    def made(self, method: str, params: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
        """What the server is to get for a client's create or resume, but for ids. Raises Refused."""
        terms = self._terms_that_serve()
        return fields.sanitised(
            method, params, terms.policy, terms.credential, defaults=terms.defaults, known=known
        )  # fmt: skip

    def restored(self, params: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
        """What brings a session back that was made with ``params``, but for ids. Raises Refused."""
        terms = self._terms_that_serve()
        made = fields.sanitised_resume(params, terms.policy, terms.credential, terms.defaults, known)
        return fields.resume_params(made)

    def _terms_that_serve(self) -> Terms:
        """Raises Refused for a tenant that is suspended: a request may have been held since before that."""
        if self.terms.refusal:
            raise fields.Refused(actions.GATEWAY_ERROR, self.terms.refusal)
        return self.terms

    # Requests

    def _new_bucket(self) -> TokenBucket:
        limits = self.terms.limits
        return TokenBucket(limits.requests_per_second, limits.burst, self.driver.now())

    def _new_driver(self, metrics: Metrics, new_session: Callable[[str], Session]) -> Driver:
        return Driver(self.name, self.space, self.clients, self, lambda: TurnWatch(metrics), new_session)

    def _start(self, client: Client, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        client.under_way += 1

    def _for_session(self, client: Client, id: bytes, rule: Rule, params: dict[str, Any], now: float) -> None:
        if rule.method == "session.create" and params.get("sessionId") in (None, ""):
            params = params | {"sessionId": str(uuid.uuid4())}
        if self.terms.refusal:
            self._answer_error(client, id, actions.GATEWAY_ERROR, self.terms.refusal, {"reason": "Suspended"})
            return
        session_id = params.get("sessionId")
        self.asked_at = now
        room = self.rooms.get(session_id) if self.rooms and isinstance(session_id, str) else None
        if full := (room or self).no_room(session_id):
            self._metrics.fault(Fault.CROWDED)
            self._answer_error(client, id, actions.GATEWAY_ERROR, full, {"reason": "TooManyHeld"})
            return
        if room is not None:
            room.asks(self.name, client, id, rule, params, now)
            return
        request = self._request(client, id, rule, params, now)
        slot = self.driver.slots.get(str(session_id)) or self.driver.new_slot(
            str(session_id), self.space.outer(session_id, rule.method)
        )
        self.driver.request(slot, request)

    def no_room(self, session_id: object) -> str:
        """Why a request for a session is not held; "": it may be, or need not."""
        slot = self.driver.slots.get(session_id) if isinstance(session_id, str) else None
        loaded = slot is not None and slot.session.phase is Phase.LOADED
        return "" if loaded else self._pool.no_room(self.name)

    def _request(self, client: Client, id: bytes, rule: Rule, params: dict[str, Any], now: float) -> actions.Request:
        """What a session takes in; its client waits for an answer from now on. Raises Refused, InvalidId."""
        method, session_id = rule.method, params.get("sessionId")
        slot = self.driver.slots.get(session_id) if isinstance(session_id, str) else None
        server_id = self.space.outer(session_id, method) if slot is None else slot.server_id
        sent, mark, plain = None, "", self._plain.get(method)
        if plain is not None and plain >= params.keys():
            sent = {**params, "sessionId": server_id}
        elif method in MAKES:
            self.made(method, params, ())  # refused at once rather than when its turn comes
        else:
            mark = uuid.uuid4().hex if method in SENDS else ""
            sent = fields.sanitised(method, params, self.terms.policy, self.terms.credential, mark=mark or None)
            sent = sent | {"sessionId": server_id} if rule.names_session_only else self.space.to_server(method, sent)
        client.under_way += 1
        handle = Handle(id, rule, sent)
        return actions.Request(client.number, method, params, now, mark, rule.counts_as_turn, handle)

    async def _for_servers(self, client: Client, id: bytes, rule: Rule, params: dict[str, Any]) -> None:
        try:
            body = await self._asked_of_servers(id, rule, params)
        except InvalidId as error:
            body = _about_invalid(id, error)
        except fields.Refused as error:
            body = wire.error_reply(id, error.code, error.message)
        except RpcError as error:
            body = wire.error_reply(id, error.code, self.space.error_text(error.message), error.data)
        except ServerError as error:
            log.warning("%s: %s", rule.method, error, extra={"tenant": self.name})
            self._metrics.fault(Fault.LOST)
            body = wire.error_reply(id, actions.GATEWAY_ERROR, f"{rule.method}: no server answers at present")
        client.answer(body)

    async def _asked_of_servers(self, id: bytes, rule: Rule, params: dict[str, Any]) -> bytes:
        if rule.method == "session.getLastId":
            listed = await self._results(methods.rule("session.list", self.isolation), {})
            sessions = listed.get("sessions") or [{}]
            last = sessions[0].get("sessionId")
            return wire.good_reply(id, {} if last is None else {"sessionId": last})
        sent = fields.sanitised(rule.method, params, self.terms.policy, self.terms.credential)
        return wire.good_reply(id, await self._results(rule, sent))

    async def _results(self, rule: Rule, params: Mapping[str, Any]) -> Any:
        """One result of all servers that it concerns, with the client's ids."""
        asked = self._pool.servers_of(self.name)
        parked = self._pool.parked_listings(self.name) if rule.method == "session.list" and not params else ()
        if not asked and not parked:
            raise ServerError("no server can be asked")
        chosen = asked if concerns_all(rule) else asked[:1]
        sent = self.space.to_server(rule.method, params)
        if rule.method == deleting.METHOD and asked and asked[0].permits.claims:
            results = await deleting.deleted(sent["sessionIds"], self._place_stored)
            return self.space.from_server_result(rule.method, merged([{"freedBytes": {}}, *results]))
        results = await asyncio.gather(*(each.call(rule.method, sent, timeout_s=LIST_S) for each in chosen))
        found = merged([*results, *parked])
        own = self.space.from_server_result(rule.method, found)
        if not self.rooms or rule.method not in LISTS or not isinstance(own, dict):
            return own
        own["sessions"] = [each for each in own.get("sessions") or () if each.get("sessionId") not in self.rooms]
        return merged([own, *(room.space.from_server_result(rule.method, found) for room in self.rooms.values())])

    def _place_stored(self, server_id: str) -> Server | None:
        return self._pool.place(self.name, self.space.inner(server_id) or "", server_id, stored=True)

    def _refuse(self, client: Client, id: bytes, code: int, message: str) -> None:
        self._metrics.fault(Fault.REFUSED)
        self._answer_error(client, id, code, message)

    def _answer_error(self, client: Client, id: bytes, code: int, message: str, data: Any = None) -> None:
        client.connection.send(wire.error_reply(id, code, message, data))


def _about_invalid(id: bytes, error: InvalidId) -> bytes:
    if error.result is not None:
        return wire.good_reply(id, error.result)
    return wire.error_reply(id, error.code, error.message)


def _pong(params: Mapping[str, Any]) -> dict[str, Any]:
    message = params.get("message")
    text = f"pong: {message}" if isinstance(message, str) else "pong"
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"message": text, "timestamp": now, "protocolVersion": PROTOCOL_VERSION}
