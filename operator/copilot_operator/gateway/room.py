"""A session that several tenants share: a tenant of its own, whose clients are those of its members.

Its code is its own, so on the servers it is in nobody's name space, and all members know it by the one name. What one
tenant's clients have in a session of theirs holds here for clients of several: each has a link of its own, and hears
all. What is different: they speak one at a time (``speakers``), and may not do everything (``rules/shared``).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from copilot_operator.gateway.clients import Client
from copilot_operator.gateway.driver import Driver
from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.link import Link
from copilot_operator.gateway.metrics import Metrics
from copilot_operator.gateway.replies import made_event
from copilot_operator.gateway.rules import shared
from copilot_operator.gateway.rules.ids import NameSpace, SessionEvent
from copilot_operator.gateway.rules.methods import Rule
from copilot_operator.gateway.rules.shared import Manner
from copilot_operator.gateway.server import Server
from copilot_operator.gateway.session import actions
from copilot_operator.gateway.session.actions import Action, Failure, Reply, Request
from copilot_operator.gateway.session.machine import Session
from copilot_operator.gateway.slots import Handle, Slot
from copilot_operator.gateway.speakers import Speakers, Wish, refusal
from copilot_operator.gateway.tenant import Pool, Tenant, Terms
from copilot_operator.gateway.watch import TurnWatch
from copilot_operator.rpc.errors import METHOD_NOT_FOUND

PREFIX: Final = "shared/"  # no tenant can have such a name
NO_LONGER: Final = "This session is not shared with you any more"
_ANSWERS: Final = ("handlePending", "notifyPrompt")


class JoinHandle(Handle):
    """Of a create or resume; ``first``: what makes the session if it is not there."""

    first: Mapping[str, Any] | None = None


class SpokenHandle(Handle):
    """Of a request that needs the lock; ``member``: who says it, "" if it is no member any more."""

    member: str = ""


class Room(Tenant):
    """``session`` is its name, ``queues`` whether who may not speak waits."""

    def __init__(
        self,
        session: str,
        code: str,
        terms: Terms,
        pool: Pool,
        metrics: Metrics,
        new_session: Callable[[str], Session],
        *,
        queues: bool,
    ) -> None:
        super().__init__(PREFIX + session, NameSpace(code), terms, pool, metrics, new_session)
        self.session, self.queues, self.server_id = session, queues, code + session
        self.speakers = Speakers(_Stage(self), self.driver.now, self._errand)
        self._members: dict[int, str] = {}  # by client
        self._owed: set[int] = set()  # clients that are to be told that it is idle, once it is for them
        self._between: set[Request] = set()  # that neither the session nor the speakers have just now

    # Members

    def admit(self, member: str, client: Client) -> None:
        """A client of a member is there; it may open the session."""
        self.clients[client.number] = client
        self._members[client.number] = member

    def gone(self, client: Client) -> None:
        """The connection of a member's client has ended."""
        if self._members.pop(client.number, None) is not None:
            self._owed.discard(client.number)
            self.speakers.client_gone(client.number)
            super().gone(client)

    def expel(self, member: str) -> None:
        """It is no member any more: what its clients asked is answered as if they had never been, and they hear no
        more. Its turn goes on for the others."""
        self.speakers.withdraw(member, lambda request: actions.not_loaded(request.method, self.session))
        for number in [number for number, known in self._members.items() if known == member]:
            slot = self.driver.slots.get(self.session)
            asked = [*self._between, *(slot.session.under_way if slot is not None else ())]
            for request in [each for each in asked if each.client == number]:
                self._between.discard(request)
                self.driver.refuse(request, actions.not_loaded(request.method, self.session))
                if isinstance(request.handle, SpokenHandle):
                    request.handle.member = ""
            client = self.clients[number]
            if slot is not None and number in slot.session.owners.clients:
                data = {"errorType": "not_shared", "message": NO_LONGER}
                client.connection.send(made_event(self.session, "session.error", data))
                client.connection.send(made_event(self.session, "session.idle", {}))
            self.gone(client)

    # Requests

    def asks(self, member: str, client: Client, id: bytes, rule: Rule, params: dict[str, Any], now: float) -> None:
        """A member's request for the session. Raises Refused, InvalidId."""
        if self.terms.refusal:
            self._answer_error(client, id, actions.GATEWAY_ERROR, self.terms.refusal, {"reason": "NoCredential"})
            return
        manner = shared.manner(rule.method)
        if manner is Manner.REFUSED:
            self._refuse(client, id, METHOD_NOT_FOUND, shared.why_refused(rule.method, self.session))
        elif manner is Manner.JOINS:
            self._join(client, id, params, now)
        elif manner is Manner.SPEAKS:
            self._speak(member, self._request(client, id, rule, params, now))
        elif manner is Manner.TENDS:
            self._tend(member, self._request(client, id, rule, params, now))
        else:
            self.send_on(self._request(client, id, rule, params, now))

    def _join(self, client: Client, id: bytes, params: Mapping[str, Any], now: float) -> None:
        joins, first = shared.joining(params)
        self.made("session.create", first, ())  # refused at once
        request = self._request(client, id, self._rules["session.resume"], joins, now)
        handle = request.handle
        request.handle = JoinHandle(handle.id, handle.rule, handle.params, first)
        self.send_on(request)

    def _speak(self, member: str, request: Request) -> None:
        handle = request.handle
        request.handle = SpokenHandle(handle.id, handle.rule, handle.params, member)
        if self._is_open:
            goes, refuse = partial(self.send_on, request), partial(self.refuse, request)
            self.speakers.speak(member, Wish(request, goes, refuse))
        else:
            self.send_on(request)  # to be told that it is not

    def _tend(self, member: str, request: Request) -> None:
        slot, home = self.driver.slots.get(self.session), self.home()
        if slot is None or home is None or self.speakers.may_speak(member, slot.session.server):
            self.send_on(request)
        else:
            self._between.add(request)
            self._errand(self._tend_if_may(member, request, home))

    async def _tend_if_may(self, member: str, request: Request, home: Server) -> None:
        busy = await home.locks.tend(self.server_id, member)
        if request not in self._between:
            return  # it was answered when its client was expelled
        self._between.discard(request)
        if busy is None:
            self.send_on(request)
        elif request.method.rpartition(".")[2].startswith(_ANSWERS):
            self.refuse(request, Reply(result={"success": False}))  # as the CLI answers a second one
        else:
            self._metrics.not_to_speak.labels("SessionBusy").inc()
            self.refuse(request, refusal(self.session, busy, "SessionBusy"))

    def refuse(self, request: Request, reply: Reply) -> None:
        """Answer a request that goes to no server."""
        self.driver.refuse(request, reply)
        self.tell_idle()

    def make(self, request: Request, first: Mapping[str, Any]) -> None:
        """The session is not there: who wanted to join makes it."""
        made = Request(request.client, "session.create", first, request.arrived_at, handle=request.handle)
        self._between.add(made)
        self.driver.soon(partial(self._make, made))

    def _make(self, made: Request) -> None:
        if made in self._between:
            self._between.discard(made)
            self.send_on(made)

    def send_on(self, request: Request) -> None:
        """Have the session take a request in."""
        slot = self.driver.slots.get(self.session) or self.driver.new_slot(self.session, self.server_id)
        self.driver.request(slot, request)

    @property
    def _is_open(self) -> bool:
        """Whether somebody here has it open: it is loaded, or will be when it is wanted."""
        slot = self.driver.slots.get(self.session)
        return slot is not None and bool(slot.session.owners)

    def home(self) -> Server | None:
        """Where it is loaded, or will be."""
        slot = self.driver.slots.get(self.session)
        if slot is not None and slot.session.server is not None:
            return self.server(slot.session.server)
        return self.place(self.name, self.session, self.server_id, stored=True)

    # Time

    def sweep(self) -> None:
        """To be called about every second."""
        self.speakers.sweep()
        self.tell_idle()

    def rested(self) -> None:
        """The session may be idle."""
        self.speakers.rested()
        self.tell_idle()

    def works(self) -> bool:
        """Whether anything that was said may be under way."""
        slot = self.driver.slots.get(self.session)
        if slot is None:
            return False
        spoken = (shared.manner(each.method) is Manner.SPEAKS for each in (*slot.session.flying, *slot.session.held))
        return slot.session.busy or any(spoken)

    def is_here(self, member: str) -> bool:
        """Whether a client of the member is."""
        return member in self._members.values()

    def goes(self, slot: Slot, forward: actions.Forward, goes: Callable[[], None]) -> None:
        """Let a request go to the server; one that had to wait for its session too long, once it may speak again."""
        request = forward.request
        member = request.handle.member if isinstance(request.handle, SpokenHandle) else ""
        if shared.manner(request.method) is not Manner.SPEAKS or self.speakers.may_speak(member, slot.session.server):
            goes()
            return
        fail = partial(self.driver.fail, slot, request)
        if not member:
            fail(Reply(failure=Failure(actions.GATEWAY_ERROR, NO_LONGER, {"reason": "NotMember"})))
            return
        epoch = slot.session.epoch

        def late() -> None:
            if request in slot.session.flying and slot.session.epoch == epoch:
                goes()

        self.speakers.speak(member, Wish(request, late, fail))

    def keeps_back(self, client: int, event: SessionEvent) -> bool:
        """Whether an event is not for a client: the end of somebody else's turn, while its own message waits. To a
        client that would be the end of its own; a CLI alone tells of one end for all that was queued."""
        slot = self.driver.slots.get(self.session)
        if event.type != "session.idle" or slot is None or not self._waits(client, slot):
            return False
        self._owed.add(client)
        return True

    def tell_idle(self) -> None:
        """Those whose message came to nothing are told of the end that was kept back."""
        slot = self.driver.slots.get(self.session)
        for number in list(self._owed):
            if slot is not None and (self._waits(number, slot) or slot.session.busy):
                continue
            self._owed.discard(number)
            if client := self.clients.get(number):
                client.connection.send(made_event(self.session, "session.idle", {}))

    def forgive(self, client: int) -> None:
        """An end that was for it has been passed on."""
        self._owed.discard(client)

    def _waits(self, client: int, slot: Slot) -> bool:
        return self.speakers.waits(client) or slot.session.work.awaits(client)

    def _errand(self, work: Any) -> None:
        self.driver.start(work)

    def count(self, seconds: float, refused: str) -> None:
        """What became of a wish to speak."""
        if refused:
            self._metrics.not_to_speak.labels(refused).inc()
        else:
            self._metrics.waited_to_speak.observe(seconds)

    def _new_driver(self, metrics: Metrics, new_session: Callable[[str], Session]) -> "RoomDriver":
        return RoomDriver(self, self.name, self.space, self.clients, self, lambda: TurnWatch(metrics), new_session)

    driver: "RoomDriver"


class RoomDriver(Driver):
    """Everything that goes out and comes in passes the room."""

    def __init__(self, room: Room, *given: Any) -> None:
        super().__init__(*given)
        self._room = room

    def request(self, slot: Slot, request: Request) -> None:
        self.feed(slot, slot.session.on_request(request, self.now()))

    def feed(self, slot: Slot, todo: list[Action]) -> None:
        super().feed(slot, todo)
        if not slot.session.busy and not self._ended:
            self._room.rested()

    def refuse(self, request: Request, reply: Reply) -> None:
        """Answer a request that goes to no server."""
        super()._answer(request, reply)

    def fail(self, slot: Slot, request: Request, reply: Reply) -> None:
        """Tell the session that a request that it has sent on came to nothing."""
        self._sender.fail(slot, request, reply)

    def start(self, work: Any) -> None:
        self._errands.start(work)

    def soon(self, work: Callable[[], None]) -> None:
        """Not within the input of a session that is being taken in."""
        self._loop.call_soon(work)

    def asked(self, link: Link, id: bytes, method: str, body: bytes) -> None:
        """A session asks one connection; a shared one has no tools, hooks and questions of one client."""
        link.send(wire.error_reply(id, METHOD_NOT_FOUND, f"Method not found: {method}"))

    def _execute(self, slot: Slot, action: Action) -> None:
        if isinstance(action, actions.Forward):
            self._room.goes(slot, action, partial(super()._execute, slot, action))
        else:
            super()._execute(slot, action)

    def _show(self, number: int, client: Client, event: SessionEvent) -> None:
        if not self._room.keeps_back(number, event):
            if event.type == "session.idle":
                self._room.forgive(number)
            super()._show(number, client, event)

    def _answer(self, request: Request, reply: Reply) -> None:
        handle = request.handle
        first = handle.first if isinstance(handle, JoinHandle) else None
        if first is None or request.method != "session.resume" or not (reply.failure and reply.failure.says_not_stored):
            super()._answer(request, reply)
        elif request.client in self._clients:
            self._room.make(request, first)


class _Stage:
    """What the speakers know of the room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.name, self.server_id = room.session, room.server_id

    @property
    def queues(self) -> bool:
        return self._room.queues

    def home(self) -> Server | None:
        return self._room.home()

    def works(self) -> bool:
        return self._room.works()

    def is_here(self, member: str) -> bool:
        return self._room.is_here(member)

    def waited(self, seconds: float, refused: str) -> None:
        self._room.count(seconds, refused)
