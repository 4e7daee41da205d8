"""One tenant: its clients, what they may ask, and where each request goes. Its sessions are the driver's."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from copilot_operator.gateway.clients import Client, Wire
from copilot_operator.gateway.driver import Driver
from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.metrics import Fault, Metrics
from copilot_operator.gateway.replies import answer_of
from copilot_operator.gateway.rules import fields, methods
from copilot_operator.gateway.rules.ids import InvalidId, NameSpace
from copilot_operator.gateway.rules.merge import concerns_all, merged
from copilot_operator.gateway.rules.methods import Rule, Scope, Verdict
from copilot_operator.gateway.server import Server
from copilot_operator.gateway.session import actions
from copilot_operator.gateway.session.calls import MAKES, SENDS
from copilot_operator.gateway.session.machine import Session
from copilot_operator.gateway.slots import Handle
from copilot_operator.gateway.watch import TurnWatch
from copilot_operator.rpc.errors import RpcError, ServerError

log = logging.getLogger(__name__)

PROTOCOL_VERSION: Final = 3
MAX_UNDER_WAY: Final = 1024  # requests of one client
LIST_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a tenant, and may change while it is connected."""

    policy: fields.Policy
    refusal: str = ""  # "": it is served
    credential: fields.Credential | None = field(default=None, repr=False)
    defaults: Mapping[str, Any] = field(default_factory=dict)


class Pool(Protocol):
    """The servers, as one tenant may use them."""

    isolation: methods.Isolation

    def server(self, name: str) -> Server | None: ...

    def place(self, tenant: str, session_id: str, server_id: str, *, stored: bool) -> Server | None: ...

    def servers_of(self, tenant: str) -> Sequence[Server]:
        """Those that may store something of it and can be asked."""

    def delay(self, tenant: str) -> float:
        """0.0: a request may go on now; else the seconds after which another may be tried."""


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
        self.driver = Driver(name, space, self.clients, self, lambda: TurnWatch(metrics), new_session)
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
            "ping": _pong,
            "status.get": lambda _: {"version": methods.table().cli, "protocolVersion": PROTOCOL_VERSION},
            "session.getForeground": lambda _: {},
        }

    # What the hub calls

    def came(self, number: int, connection: Wire) -> Client:
        """A client has authenticated as this tenant."""
        client = self.clients[number] = Client(number, connection)
        return client

    def gone(self, client: Client) -> None:
        """Its connection has ended; its sessions decide whether they linger."""
        del self.clients[client.number]
        self.driver.client_gone(client.number)

    def reads(self, client: Client, does: bool) -> None:
        client.reads = does
        self.driver.client_reads(client.number, does)

    def requested(self, client: Client, id: bytes, method: str, params: Any) -> None:
        """A request of an authenticated client."""
        rule = methods.rule(method, self.isolation)
        if rule.verdict is Verdict.REFUSE:
            self._refuse(client, id, *methods.unhandled(method))
            return
        delay_s = self._pool.delay(self.name)
        if delay_s > 0 or client.under_way >= MAX_UNDER_WAY:
            self._metrics.fault(Fault.CROWDED)
            text = f"too many requests; try again in {delay_s or 1:.3g} s"
            self._answer_error(client, id, actions.GATEWAY_ERROR, text, {"retryAfterS": delay_s or 1})
            return
        self._metrics.requests[rule.verdict] += 1
        try:
            self._dispatch(client, id, rule, params)
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

    def _dispatch(self, client: Client, id: bytes, rule: Rule, params: Any) -> None:
        given = params if isinstance(params, dict) else {}
        if rule.scope is Scope.SESSION:
            self._for_session(client, id, rule, given)
        elif answer := self._answers.get(rule.method):
            client.connection.send(wire.good_reply(id, answer(given)))
        else:
            task = asyncio.get_running_loop().create_task(self._for_servers(client, id, rule, given))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            client.under_way += 1

    def _for_session(self, client: Client, id: bytes, rule: Rule, params: dict[str, Any]) -> None:
        if rule.method == "session.create" and params.get("sessionId") in (None, ""):
            params = params | {"sessionId": str(uuid.uuid4())}
        if self.terms.refusal:
            self._answer_error(client, id, actions.GATEWAY_ERROR, self.terms.refusal, {"reason": "Suspended"})
            return
        self.asked_at = asyncio.get_running_loop().time()
        session_id = params.get("sessionId")
        server_id = self.space.outer(session_id, rule.method)
        assert isinstance(session_id, str)
        now, mark = self.driver.now(), uuid.uuid4().hex if rule.method in SENDS else ""
        handle = Handle(id, rule)
        if rule.method in MAKES:
            self.made(rule.method, params, ())  # refused at once rather than when its turn comes
        else:
            sent = fields.sanitised(rule.method, params, self.terms.policy, self.terms.credential, mark=mark or None)
            if rule.names_session_only:
                handle.params = sent | {"sessionId": server_id}
            else:
                handle.params = self.space.to_server(rule.method, sent)
        request = actions.Request(client.number, rule.method, params, now, mark, rule.counts_as_turn, handle)
        client.under_way += 1
        self.driver.request(request, session_id)

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
        if not asked:
            raise ServerError("no server can be asked")
        chosen = asked if concerns_all(rule) else asked[:1]
        sent = self.space.to_server(rule.method, params)
        results = await asyncio.gather(*(each.call(rule.method, sent, timeout_s=LIST_S) for each in chosen))
        return self.space.from_server_result(rule.method, merged(results))

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
