"""What sessions send to their servers: requests of clients, loadings, and answers to what a server asked."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from copilot_operator.gateway.clients import Client
from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.link import Link
from copilot_operator.gateway.links import Links
from copilot_operator.gateway.replies import lost, reply_of
from copilot_operator.gateway.rules.fields import Refused
from copilot_operator.gateway.rules.ids import NameSpace
from copilot_operator.gateway.server import Server
from copilot_operator.gateway.session import actions
from copilot_operator.gateway.session.actions import Action, Failure, Reply, Reverse
from copilot_operator.gateway.session.machine import Session
from copilot_operator.gateway.slots import Handle, Slot, Surroundings, tools_of

LOAD_S: Final = 40.0
TAKE_OVER_S: Final = 0.05
TAKE_OVER_TRIES: Final = 20  # then it is a client that is connected there
_NO_SERVER: Final = "no server can take this session at present"


class Sender:
    """For one tenant. ``feed`` executes what an answer brings. ``load`` is not to be called within it."""

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
        session, link, handle = slot.session, self.route(slot, via), request.handle
        assert isinstance(handle, Handle)
        try:
            params = handle.params
            if params is None:
                made = self._around.made(request.method, request.params, tools_of(session))
                params = self._space.to_server(request.method, made)
        except Refused as error:  # the policy has changed since it came
            failed = Reply(failure=Failure(error.code, error.message))
            self._loop.call_soon(lambda: self._feed(slot, session.on_reply(request, failed, self._loop.time())))
            return
        if link is None:
            none = actions.refusal(_NO_SERVER, "NoServer")
            self._loop.call_soon(lambda: self._feed(slot, session.on_reply(request, none, self._loop.time())))
            return
        if request.method == "session.send":
            slot.watch.began(request.arrived_at)

        def answered(body: bytes | None) -> None:
            if body is None:
                if via is None:  # else the loss of the link has been told
                    self._feed(slot, session.on_link_lost(None, self._loop.time(), link.server))
                return
            shown = wire.good_with_id(body, handle.id) if handle.rule.keeps_result else None
            if shown is not None and session.passes_back(request):
                self._clients[request.client].answer(shown)
            else:
                reply = reply_of(request.method, body, self._space)
                self._feed(slot, session.on_reply(request, reply, self._loop.time()))

        link.request(request.method, params, answered)

    def route(self, slot: Slot, via: int | None) -> Link | None:
        """The link that an action names; None via: the utility link of the session's server or of its home."""
        name = slot.session.server
        if via is not None and name is not None:
            return self._links.to(via, name)
        server = self._around.server(name) if name is not None else self._place(slot, stored=False)
        return server.utility if server is not None else None

    def _place(self, slot: Slot, *, stored: bool) -> Server | None:
        id = slot.session.session_id
        return self._around.place(self._tenant, id, self._space.outer(id), stored=stored)

    def load(self, slot: Slot, load: actions.Load) -> None:
        """Place a session and have it loaded there."""
        session, over, tries = slot.session, False, 0
        try:
            params = self._load_params(session, load)
        except Refused as error:  # the policy has changed since the client made it
            self._feed(slot, session.on_load_failed(Failure(error.code, error.message), False, self._loop.time()))
            return
        # What has had no turn is on no disk, wherever it was; it may be made anew elsewhere.
        stored = load.by_client or session.is_stored or session.busy
        server = self._place(slot, stored=stored and load.method == "session.resume")
        link = self._links.to(load.via, server.name) if server is not None else None
        if server is None or link is None:
            failure = Failure(actions.GATEWAY_ERROR, _NO_SERVER, {"reason": "NoServer"})
            self._feed(slot, session.on_load_failed(failure, True, self._loop.time()))
            return

        def failed(failure: Failure, transient: bool) -> None:
            nonlocal over
            if not over:
                over = True
                self._feed(slot, session.on_load_failed(failure, transient, self._loop.time()))

        def answered(body: bytes | None) -> None:
            nonlocal over, tries
            reply = lost() if body is None else reply_of(load.method, body, self._space)
            if reply.failure and reply.failure.says_tools_are_taken and load.by_client and tries < TAKE_OVER_TRIES:
                # Another gateway holds the session, tools and all, for the client that has come here: it hears of a
                # resume, and lets go.
                tries += 1
                told = {name: value for name, value in wanted.items() if name not in ("tools", "disableResume")}
                link.request("session.resume", told, again)
                return
            timer.cancel()
            if reply.failure is not None:
                failed(reply.failure, body is None)
            elif not over:
                over = True
                self._feed(slot, session.on_loaded(server.name, reply, self._loop.time()))

        def again(_: bytes | None) -> None:
            self._loop.call_later(TAKE_OVER_S, link.request, load.method, wanted, answered)

        silent = Failure(actions.GATEWAY_ERROR, f"no answer to {load.method} in {LOAD_S:g} s", {"reason": "Timeout"})
        timer = self._loop.call_later(LOAD_S, failed, silent, True)
        wanted = self._space.to_server(load.method, params)
        link.request(load.method, wanted, answered)

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
            if needed or via in self._clients:
                params = self._space.to_server("session.detach", {"sessionId": slot.session.session_id})
                link.request("session.detach", params, lambda _: None)
            else:
                link.close("its client has gone, and nothing works over it")

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
