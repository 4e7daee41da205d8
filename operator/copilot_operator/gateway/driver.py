"""Carries out what the sessions of one tenant decide, and tells them what came of it. Owns the tenant's links.

Every input of a session goes through ``feed``: its actions are executed in order, then its timer is set, and a
session of which nothing is left to be known is dropped.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, assert_never

import msgspec

from copilot_operator.gateway.clients import Client
from copilot_operator.gateway.enquiries import without_mark
from copilot_operator.gateway.errands import Errands
from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.keeper import ME
from copilot_operator.gateway.link import Link
from copilot_operator.gateway.links import Links
from copilot_operator.gateway.replies import made_event, shown
from copilot_operator.gateway.rules import methods
from copilot_operator.gateway.rules.fields import Credential
from copilot_operator.gateway.rules.ids import NameSpace, SessionEvent
from copilot_operator.gateway.sender import Sender
from copilot_operator.gateway.session import actions
from copilot_operator.gateway.session.actions import Action, Reply, Reverse
from copilot_operator.gateway.session.machine import WATCHED, Session
from copilot_operator.gateway.slots import Handle, Slot, Surroundings
from copilot_operator.gateway.watch import TIMED, TurnWatch
from copilot_operator.rpc import owners
from copilot_operator.rpc.errors import METHOD_NOT_FOUND

log = logging.getLogger(__name__)

PAYING_EVENTS: Final = frozenset({"session.error", "assistant.message"})


class Driver:
    """The sessions and links of one tenant. ``clients`` are its clients by number; they come and go."""

    def __init__(
        self,
        tenant: str,
        space: NameSpace,
        clients: Mapping[int, Client],
        around: Surroundings,
        watch: Callable[[], TurnWatch],
        new_session: Callable[[str], Session],
    ) -> None:
        self.slots: dict[str, Slot] = {}
        self.links = Links(self, around.server, clients)
        self._tenant, self._space, self._clients, self._around = tenant, space, clients, around
        self._watch, self._new_session = watch, new_session
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._sender = Sender(tenant, space, clients, around, self.links, self.feed)
        self._errands = Errands(tenant, space, around, self.feed, self._sender.route)
        self.refused = False  # the model, or GitHub, did not take the credential the last time
        self._ended = False

    # Inputs

    def new_slot(self, session_id: str, server_id: str) -> Slot:
        """For a session of which nothing is known; to be followed by a request."""
        slot = self.slots[session_id] = Slot(self._new_session(session_id), server_id, self._watch())
        return slot

    def request(self, slot: Slot, request: actions.Request) -> None:
        """A client's request for a session, sanitised and allowed."""
        via = slot.session.passes(request, request.arrived_at)
        if via is not None:
            self._sender.forward(slot, via, request)
        else:
            self.feed(slot, slot.session.on_request(request, request.arrived_at))

    def reverse_reply(self, session_id: str, reverse: Reverse, reply: Reply) -> None:
        """A client's answer to its server."""
        if slot := self.slots.get(session_id):
            self.feed(slot, slot.session.on_reverse_reply(reverse, reply, self.now()))

    def client_gone(self, client: int) -> None:
        """A client's connection has ended."""
        for link in self.links:
            link.block(client, False)
        for slot in list(self.slots.values()):
            self.feed(slot, slot.session.on_client_gone(client, self.now()))
        self.tidy()

    def leave(self, session_id: str) -> None:
        """No client has this session any more, and none hears of it; what works there works on."""
        if slot := self.slots.get(session_id):
            for request in slot.session.under_way:  # its client is still there, and waits
                self._answer(request, actions.not_loaded(request.method, session_id))
                request.abandoned = True
            for client in slot.session.owners.clients:
                self.feed(slot, slot.session.on_client_gone(client, self.now()))

    def client_reads(self, client: int, does: bool) -> None:
        """A client has stopped reading, or reads again: so do the links whose events it gets."""
        for link in self.links:
            if does or link.number == client or self._brings_to(link, client):
                link.block(client, not does)

    def server_lost(self, name: str) -> None:
        """A server has left for good: nothing over its links counts any more."""
        self.links.leave(name)
        for slot in list(self.slots.values()):  # also who has moved since: an answer may still be awaited from there
            self.feed(slot, slot.session.on_server_lost(self.now(), name))

    def try_loads(self) -> None:
        """A server has come: sessions that found none try again now, not when they would have."""
        for slot in self.slots.values():
            self._sender.hurry(slot)

    def draining(self, name: str) -> None:
        """A server is to be left by all that is idle. May be repeated."""
        for slot in self._on(name):
            self.feed(slot, slot.session.on_draining(self.now()))

    def unload_idle(self, before: float) -> None:
        """Unload what has not been used since."""
        for slot in list(self.slots.values()):
            if slot.session.server is not None and not slot.session.busy and slot.session.used_at < before:
                self.unload(slot)

    def unload(self, slot: Slot) -> None:
        """If it is idle; its next request loads it again."""
        self.feed(slot, slot.session.close(self.now()))

    def pay_with(self, credential: Credential) -> None:
        """Sessions that live, and are not paid for by their clients, go on with another credential."""
        self.refused = False
        for slot in list(self.slots.values()):
            self._errands.start(self._errands.pay_with(slot, credential))

    def tidy(self) -> None:
        """Close links that nothing needs: each costs the server every broadcast."""
        self.links.tidy(
            {(number, slot.session.server) for slot in self.slots.values() for number in slot.session.links}
        )

    def end(self) -> None:
        """Close everything."""
        self._ended = True
        self._errands.end()
        for slot in self.slots.values():
            if slot.timer is not None:
                slot.timer.cancel()
        self.links.close()

    def feed(self, slot: Slot, todo: list[Action]) -> None:
        """Carry out what an input of a session brought."""
        if self._ended:
            return
        for action in todo:
            self._execute(slot, action)
        if slot.session.forgotten:
            if self.slots.get(slot.session.session_id) is slot:
                del self.slots[slot.session.session_id]
            if slot.timer is not None:
                slot.timer.cancel()
            return
        due = slot.session.wake_at
        if due is not None and (slot.timer is None or slot.timer_due > due):
            if slot.timer is not None:
                slot.timer.cancel()
            slot.timer, slot.timer_due = self._loop.call_at(due, self._wake, slot), due

    def _wake(self, slot: Slot) -> None:
        slot.timer = None
        due = slot.session.wake_at
        self.feed(slot, slot.session.on_time(self.now()) if due is not None and due <= self.now() else [])

    # Actions

    def _execute(self, slot: Slot, action: Action) -> None:
        match action:
            case actions.Forward(via, request):
                self._sender.forward(slot, via, request)
            case actions.Answer(request, reply):
                self._answer(request, reply)
            case actions.Load():
                self._sender.load_when_due(slot, action)
            case actions.Attach(via, params):
                self._errands.start(self._errands.attach(slot, via, params))
            case actions.Replay(via, method, params):
                self._errands.start(self._errands.replay(slot, via, method, params))
            case actions.Settle(via, not_before):
                self._errands.start(self._errands.settle(slot, via, not_before))
            case actions.AskWork(via, not_before):
                self._errands.start(self._errands.ask_work(slot, via, not_before))
            case actions.Close(server):
                self._errands.start(self._errands.close(slot, server))
            case actions.Release(via):
                self._sender.release(slot, via, [each for each in self.slots.values() if each is not slot])
            case actions.HandOver(via, server):
                self._errands.start(self._hand_over(slot, via, server))
            case actions.TellClient(client, type, data):
                self._send(client, made_event(slot.session.session_id, type, data))
                slot.watch.event(type, self.now())
            case actions.ShowAgain(client, frame):
                self._send(client, frame)
            case actions.AskClient(client, reverse):
                if asked := self._clients.get(client):
                    asked.ask(slot.session.session_id, reverse, reverse.params)
            case actions.AnswerServer(reverse, reply):
                self._sender.answer_server(slot, reverse, reply)
            case actions.Disconnect(client, why):
                if gone := self._clients.get(client):
                    gone.connection.abort(why)
            case _:
                assert_never(action)

    async def _hand_over(self, slot: Slot, via: int, name: str) -> None:
        """Without this gateway as an owner the turn would end with the other one."""
        if server := self._around.server(name):
            await server.keeper.keep(slot.server_id)
        self._sender.release(slot, via, [each for each in self.slots.values() if each is not slot])

    def _answer(self, request: actions.Request, reply: Reply) -> None:
        client = self._clients.get(request.client)
        if client is not None and not request.abandoned:
            handle = request.handle
            assert isinstance(handle, Handle)
            client.answer(shown(handle.id, handle.rule, reply, self._space))

    def _send(self, client: int, body: bytes) -> None:
        if to := self._clients.get(client):
            to.connection.send(body)

    # What links call

    def opened(self, link: Link) -> None:
        """Nothing more to be done."""

    def event(self, link: Link, body: bytes) -> None:
        event = self._space.session_event(body)
        slot = self.slots.get(event.session_id) if event is not None else None
        if event is None or slot is None or slot.session.server not in (None, link.server):
            return
        if event.type == "session.info" and (told := owners.heard(wire.params(body)["event"])):
            self._told_among_owners(slot, *told)
            return
        number = slot.session.client_of(link.number)
        if number is not None and (client := self._clients.get(number)):
            self._show(number, client, event)
        if event.type in TIMED:
            slot.watch.event(event.type, self.now())
        if event.type in PAYING_EVENTS:
            self._paid(event.type, wire.params(body)["event"].get("data") or {})
        if event.type in WATCHED:
            self._watched(slot, link, event, wire.params(body)["event"])

    def _show(self, number: int, client: Client, event: SessionEvent) -> None:
        client.connection.send(event.frame)

    def _paid(self, type: str, data: Mapping[str, Any]) -> None:
        """Whether what is paid with was refused the last time, or has been taken since."""
        if type == "assistant.message":
            self.refused = False
        elif data.get("statusCode") == HTTPStatus.UNAUTHORIZED or data.get("errorType") == "authentication":
            self.refused = True

    def _watched(self, slot: Slot, link: Link, event: SessionEvent, said: Mapping[str, Any]) -> None:
        data, id = without_mark(said.get("data") or {}), said.get("id")
        self.feed(slot, slot.session.on_event(link.number, event.type, id, data, event.frame, self.now()))

    def _told_among_owners(self, slot: Slot, what: str, message: str) -> None:
        if what == owners.EVICT and message == owners.WAITS:
            self.feed(slot, slot.session.close_waiting(self.now()))
        elif what == owners.EVICT:
            self.unload(slot)
        elif what in (owners.KEPT, owners.LET_GO) and message != ME:
            self.feed(slot, slot.session.on_kept(message, what == owners.KEPT))

    def told(self, link: Link, method: str, body: bytes) -> None:
        if method == "$/cancelRequest":
            params = wire.params(body)
            for client in self._clients.values():
                client.cancel(link.number, params.get("id", "") if isinstance(params, dict) else "")

    def asked(self, link: Link, id: bytes, method: str, body: bytes) -> None:
        params = wire.params(body)
        inner = self._space.reverse(params) if isinstance(params, dict) else None
        slot = self.slots.get(inner.get("sessionId", "")) if inner is not None else None
        if slot is None or not methods.reaches_client(method, self._around.isolation):
            link.send(wire.error_reply(id, METHOD_NOT_FOUND, f"Method not found: {method}"))
            return
        reverse = Reverse(link.number, msgspec.json.decode(id), method, inner)
        self.feed(slot, slot.session.on_reverse(reverse, self.now()))

    def reads(self, link: Link, does: bool) -> None:
        if client := self._clients.get(link.number):
            client.connection.listen(does)

    def lost(self, link: Link, why: str) -> None:
        if self._ended or not self.links.forget(link):
            return
        log.info("upstream connection ended: %s", why, extra={"tenant": self._tenant, "server": link.server})
        for slot in list(self.slots.values()):
            self.feed(slot, slot.session.on_link_lost(link.number, self.now(), link.server))

    def _on(self, server: str) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.session.server == server]

    def _brings_to(self, link: Link, client: int) -> bool:
        return any(slot.session.client_of(link.number) == client for slot in self._on(link.server))
