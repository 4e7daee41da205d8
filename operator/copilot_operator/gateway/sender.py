"""What sessions send to their servers: requests of clients, loadings, and answers to what a server asked."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from copilot_operator.gateway.clients import Client
from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.link import Link
from copilot_operator.gateway.links import Links
from copilot_operator.gateway.loads import enter, send
from copilot_operator.gateway.permits import Done, Permit
from copilot_operator.gateway.replies import lost, reply_of
from copilot_operator.gateway.rules.fields import Refused
from copilot_operator.gateway.rules.ids import NameSpace
from copilot_operator.gateway.server import Server
from copilot_operator.gateway.session import actions
from copilot_operator.gateway.session.actions import Action, Failure, Reply, Reverse
from copilot_operator.gateway.session.calls import CLOSES, MAKES
from copilot_operator.gateway.session.machine import Phase, Session
from copilot_operator.gateway.slots import Slot, Surroundings, tools_of

LOAD_S: Final = 40.0
ADMIT_S: Final = 10.0  # for room; then it is asked for once more, as long as the request may wait
TAKE_OVER_S: Final = 0.05
TAKE_OVER_TRIES: Final = 20  # then it is a client that is connected there
LOOK_AGAIN_S: Final = 0.1  # for a server that may close or delete a session
_NO_SERVER: Final = "no server can take this session at present"


class Sender:
    """For one tenant. ``feed`` executes what an answer brings."""

    def __init__(
        self,
        tenant: str,
        space: NameSpace,
        clients: Mapping[int, Client],
        around: Surroundings,
        links: Links,
        feed: Callable[[Slot, list[Action]], None],
    ) -> None:
        self._tenant, self._space, self._clients, self._around = tenant, space, clients, around
        self._links, self._feed = links, feed
        self._loop = asyncio.get_running_loop()

    def forward(self, slot: Slot, via: int | None, request: actions.Request) -> None:
        """Send a request on (``actions.Forward``)."""
        link, params = self.route(slot, via), request.handle.params
        if params is None:
            try:
                made = self._around.made(request.method, request.params, tools_of(slot.session))
            except Refused as error:  # the policy has changed since it came
                self.fail(slot, request, Reply(failure=Failure(error.code, error.message)))
                return
            params = self._space.to_server(request.method, made)
        if link is None:
            self.fail(slot, request, Reply(failure=self._no_server))
            return
        if slot.session.phase is Phase.LEAVING:
            self._leaves(slot, link)
        if request.method == "session.send":
            slot.watch.began(request.arrived_at)

        answered = partial(self._answered, slot, request, link if via is None else None)
        if request.method in MAKES:
            self._join(slot, link, request, params)
        elif request.method in CLOSES and self._is_claimed(link):
            self._close(slot, via, link, request, params)
        else:
            link.request(request.method, params, answered)

    def _is_claimed(self, link: Link) -> bool:
        """Whether other servers than the link's could have the same sessions."""
        server = self._around.server(link.server)
        return server is not None and server.permits.claims

    def _close(
        self, slot: Slot, via: int | None, link: Link, request: actions.Request, params: Mapping[str, Any]
    ) -> None:
        """Close or delete a session, which only the server that has it may do."""

        def admitted(failure: Failure | None, again: bool, permit: Permit) -> None:
            now = self._loop.time()
            if failure is None:
                answered = partial(self._answered, slot, request, link if via is None else None)
                send(permit, link, request.method, params, answered)
            elif again and now < request.arrived_at + slot.session.bounds.held_s:
                self._loop.call_later(LOOK_AGAIN_S, look_again)
            else:
                self._feed(slot, slot.session.on_reply(request, Reply(failure=failure), now))

        def look_again() -> None:
            other = self.route(slot, via)
            if other is None:
                admitted(self._no_server, True, Permit())
            else:
                self._close(slot, via, other, request, params)

        server = self._around.server(link.server)
        if server is None:
            self._loop.call_soon(look_again)
        else:
            self.enter(slot, server, link, admitted)

    def _join(self, slot: Slot, link: Link, request: actions.Request, params: Mapping[str, Any]) -> None:
        """Send a create or resume of a loaded session on. Should it have been unloaded meanwhile, this loads it."""
        answered = partial(self._answered, slot, request, None)

        def admitted(failure: Failure | None, again: bool, permit: Permit) -> None:
            if failure is None:
                send(permit, link, request.method, params, answered)
            else:
                self._feed(slot, slot.session.on_reply(request, Reply(failure=failure), self._loop.time()))

        server = self._around.server(link.server)
        if server is None:
            link.request(request.method, params, answered)
        else:
            self.enter(slot, server, link, admitted)

    @property
    def _no_server(self) -> Failure:
        """What keeps servers from starting is named, where that is known."""
        why = f": {self._around.trouble}" if self._around.trouble else ""
        return Failure(actions.GATEWAY_ERROR, _NO_SERVER + why, {"reason": "NoServer"})

    def fail(self, slot: Slot, request: actions.Request, reply: Reply) -> None:
        """Give a request an answer of the gateway's own. Soon: a session is not told what came of an action before that
        is over."""
        self._loop.call_soon(lambda: self._feed(slot, slot.session.on_reply(request, reply, self._loop.time())))

    def _answered(
        self, slot: Slot, request: actions.Request, utility: Link | None, body: bytes | None, id_end: int
    ) -> None:
        """The answer to a request that was sent on (over ``utility``, if over no client's link), or None."""
        session, handle = slot.session, request.handle
        if body is None:
            if utility is not None:  # else the loss of the link has been told
                self._feed(slot, session.on_link_lost(None, self._loop.time(), utility.server))
            return
        if id_end and handle.rule.keeps_result and session.passes_back(request):
            self._clients[request.client].answer(wire.good_with_id(body, id_end, handle.id))
        else:
            reply = reply_of(request.method, body, self._space)
            self._feed(slot, session.on_reply(request, reply, self._loop.time()))

    def route(self, slot: Slot, via: int | None) -> Link | None:
        """The link that an action names; None via: the utility link of the session's server or of its home."""
        name = slot.session.server
        if via is not None and name is not None:
            return self._links.to(via, name)
        server = self._around.server(name) if name is not None else self._place(slot, stored=False)
        return server.utility if server is not None else None

    def _place(self, slot: Slot, *, stored: bool) -> Server | None:
        return self._around.place(self._tenant, slot.session.session_id, slot.server_id, stored=stored)

    def load_when_due(self, slot: Slot, load: actions.Load) -> None:
        slot.load = self._loop.call_at(load.not_before, self.load, slot, load), load

    def hurry(self, slot: Slot) -> None:
        """Have a load that failed tried again now, not when it would be."""
        if slot.load is not None and slot.session.loading is not None and slot.session.loading.tries:
            handle, load = slot.load
            handle.cancel()
            slot.load = self._loop.call_soon(self.load, slot, load), load

    def load(self, slot: Slot, load: actions.Load) -> None:
        """Place a session and have it loaded there."""
        if slot.load is not None and slot.load[1] is load:
            slot.load = None
        session, over, tries = slot.session, False, 0
        try:
            params = self._load_params(session, load)
        except Refused as error:  # the policy has changed since the client made it
            self._feed(slot, session.on_load_failed(Failure(error.code, error.message), False, self._loop.time()))
            return
        # What has had no turn is on no disk, wherever it was; it may be made anew elsewhere.
        stored = load.by_client or session.is_stored or session.busy
        server = self._place(slot, stored=stored and load.method == "session.resume")
        self._around.waits(self._tenant, slot.server_id, server is None)
        none = self._no_server
        if server is None:
            self._feed(slot, session.on_load_failed(none, True, self._loop.time()))
            return
        link: Link | None = None
        permit = Permit()

        def failed(failure: Failure, transient: bool) -> None:
            nonlocal over
            if not over:
                over = True
                self._feed(slot, session.on_load_failed(failure, transient, self._loop.time()))

        def answered(body: bytes | None, _: int) -> None:
            nonlocal over, tries
            assert link is not None
            reply = lost() if body is None else reply_of(load.method, body, self._space)
            if reply.failure and reply.failure.says_tools_are_taken and load.by_client and tries < TAKE_OVER_TRIES:
                # Another gateway holds the session, tools and all, for the client that has come here: it hears of a
                # resume, and lets go.
                tries += 1
                told = {name: value for name, value in wanted.items() if name not in ("tools", "disableResume")}
                link.request("session.resume", told, again)
                return
            timer.cancel()
            permit.over(body is not None)
            if reply.failure is not None:
                failed(reply.failure, body is None)
            elif not over:
                over = True
                self._feed(slot, session.on_loaded(server.name, reply, self._loop.time()))

        def again(*_: object) -> None:
            assert link is not None
            self._loop.call_later(TAKE_OVER_S, link.request, load.method, wanted, answered)

        def admitted(failure: Failure | None, again: bool, given: Permit) -> None:
            nonlocal link, permit
            permit = given
            if failure is None and not over:
                # Where nothing is claimed, not sooner: nothing would keep it open.
                link = link or self._links.to(load.via, server.name)
                if link is not None:
                    link.request(load.method, wanted, answered)
                    return
            permit.over()
            timer.cancel()
            failed(failure or none, again)

        silent = Failure(actions.GATEWAY_ERROR, f"no answer to {load.method} in {LOAD_S:g} s", {"reason": "Timeout"})
        timer = self._loop.call_later(LOAD_S, failed, silent, True)
        wanted = self._space.to_server(load.method, params)
        if server.permits.claims:
            link = self._links.to(load.via, server.name)
        self.enter(slot, server, link, admitted)

    def enter(self, slot: Slot, server: Server, link: Link | None, admitted: Done) -> None:
        """Ask for room for a session before anything that may load it, which goes over ``link``."""
        slot.home = server.name
        server.opens(slot.server_id)
        of_tenant = self._around.sessions_of(self._tenant)
        if link is None:
            server.permits.ask(slot.server_id, of_tenant, admitted, within_s=ADMIT_S)
        else:
            enter(server.permits, link, slot.server_id, of_tenant, admitted, within_s=ADMIT_S)

    def _load_params(self, session: Session, load: actions.Load) -> Mapping[str, Any]:
        if load.by_client or load.method == "session.create":
            return self._around.made(load.method, load.params, ())
        return self._around.restored(load.params, tools_of(session))

    def release(self, slot: Slot, via: int, others: Collection[Slot]) -> None:
        """``via`` owns the session no longer; it stays open for its client, and for ``others`` that need it."""
        for link in self._links:
            if link.number != via:
                continue
            needed = any(via in each.session.links and each.session.server == link.server for each in others)
            if not slot.session.owners:
                self._leaves(slot, link)
            if needed or via in self._clients:
                params = self._space.to_server("session.detach", {"sessionId": slot.session.session_id})
                link.request("session.detach", params, lambda *_: None)
            else:
                link.close("its client has gone, and nothing works over it")

    def _leaves(self, slot: Slot, link: Link) -> None:
        """The last client leaves the idle session."""
        server = self._around.server(link.server)
        if slot.session.bounds.kept_s and server is not None:
            server.keeper.leave(slot.server_id)

    def answer_server(self, slot: Slot, reverse: Reverse, reply: Reply) -> None:
        """Answer what a server asked."""
        link = self._links.get(reverse.link, slot.session.server)
        if link is None:
            return
        id = msgspec.json.encode(reverse.id)
        if reply.raw is not None:
            link.send(wire.renumbered(reply.raw, id))
        elif reply.failure is not None:
            link.send(wire.error_reply(id, reply.failure.code, reply.failure.message, reply.failure.data))
        else:
            link.send(wire.good_reply(id, reply.result))
