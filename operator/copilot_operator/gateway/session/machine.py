"""One session of one tenant: who owns it, where it is loaded, what it works on, what waits for it. No I/O, no clock.

The machine hides from clients that servers come and go. Each input returns actions (``actions``); none of them
raises for anything that happened outside. Its parts, each built on the one before: ``state`` (what is
known), ``settling`` (sends in doubt), ``loading`` (loaded and unloaded), ``losses``
(connections that end), ``replies`` (what servers answer), ``passing`` (what changes nothing), and here what clients ask
and servers say unasked.
``turns``, ``owners`` and ``prompts`` keep the books.

How to drive it
---------------
* One ``Session`` per (tenant, client's session id): made at the first request that names it, dropped when it is
  ``forgotten`` after an input.
* Execute the actions of one input in order and before the next input of this session. None needs to be waited for:
  what it brings comes back as an input. Frames over one link keep their order, also while the link is being opened
  (queue them, bounded). ``not_before``: wait so long before you begin; no other action waits for it.
* A ``Link`` is an upstream connection, named by the client connection it was opened for; the link and
  ``Session.server`` together say which is meant. Mostly client and link are the same number, but a client that
  takes over a session from one that has left speaks over that one's link. Close a link when its client has gone, or
  owns nothing, and no session has it in ``links``.
* Feed back each ``Load`` and ``Close`` exactly once: when the link is lost or time is up, as a failure. ``Settle`` and
  ``AskWork`` too, unless their link was reported lost. Feed back each ``Forward`` exactly once with ``on_reply`` (with
  a failure of your own if time is up), or never, if its link was reported lost before the reply came.
* Most requests change nothing here: ask ``passes`` before ``on_request``, and ``passes_back`` before ``on_reply`` if
  the reply is a good one.
* ``on_link_lost``: one upstream connection ended, whoever ended it; tell all sessions of the tenant, those that it
  does not concern do nothing. ``on_server_lost``: instead of that, once per session, when a server has gone, was
  replaced or must not be used any more. Both after the last frame that came over it, and with the server's name.
* For each ``session.event``: ``client_of(link)`` says where it goes (None: nobody is there, drop it). If its type is
  in ``WATCHED`` feed ``on_event`` too, after it was passed on. All owners get each event: feed all of them, copies
  are told apart by the event's id.
* Requests of the server go to ``on_reverse``, their answers to ``on_reverse_reply``. What the driver answers itself
  (``providerToken.getToken``) is none of the machine's.
* ``wake_at`` is when ``on_time`` must be called; look after each input.
* ``$/cancelRequest`` and requests without a session never come here.
"""

from collections.abc import Mapping
from typing import Any, Final

from copilot_operator.gateway.session.actions import (
    Action,
    Answer,
    AnswerServer,
    AskClient,
    AskWork,
    ClientId,
    Failure,
    HandOver,
    Link,
    Load,
    Release,
    Reply,
    Request,
    Reverse,
    not_loaded,
    refusal,
)
from copilot_operator.gateway.session.calls import CLOSES, LEAVES, MAKES, READ_RESULTS, SENDS, reads_disk
from copilot_operator.gateway.session.owners import own_fields
from copilot_operator.gateway.session.passing import PassingState
from copilot_operator.gateway.session.prompts import EVENTS, FOR_PEOPLE
from copilot_operator.gateway.session.state import Bounds, Phase
from copilot_operator.rpc.busy import Standing
from copilot_operator.rpc.errors import METHOD_NOT_FOUND

__all__ = ["READ_RESULTS", "WATCHED", "Bounds", "Phase", "Session"]

WATCHED: Final = EVENTS | {
    "user.message", "assistant.turn_start", "session.idle", "session.shutdown", "session.resume",
}  # fmt: skip
"""Types of events the machine wants to see."""

_ASK_AFTER_S: Final = 0.5  # a send answered just before session.idle has begun by then
_MOST_EVENT_IDS: Final = 256  # of watched types; owners' links may lag behind each other by so many
_NO_METHOD: Final = Reply(failure=Failure(METHOD_NOT_FOUND, "Method not found"))


class Session(PassingState):
    """See the module. Times are seconds of one monotonic clock."""

    def __init__(self, session_id: str, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - it is frozen
        super().__init__(session_id, bounds)
        self._seen: dict[str, None] = {}  # ids of events
        self._idle_at = self._asked_at = float("-inf")

    # Clients

    def on_request(self, request: Request, now: float) -> list[Action]:
        """A client's request that names this session (create and resume included), allowed and not yet sanitised."""
        self.used_at = now
        if self.phase is Phase.LOADED:
            return self._send(request, now)
        return self._start(request, now) if self.phase is Phase.UNLOADED else self._hold(request)

    def _start(self, request: Request, now: float) -> list[Action]:
        """A request on the unloaded session."""
        if reads_disk(request.method):
            return [self._forward(None, request, now)]
        if request.method in LEAVES:  # what nobody has loaded need not be loaded to be left
            return self._left_unloaded(request)
        if self.made_with is not None:
            return self._hold(request) + self._need(now)
        if request.method not in MAKES:
            return [Answer(request, not_loaded(request.method, self.session_id))]
        link = self.owners.join(request.client)
        assert link is not None, "nobody owns a session of which nothing is known"
        self.owners[link].own = own_fields(request.params)
        return self._begin_loading(Load(link, request.method, request.params, by_client=True), request)

    def _left_unloaded(self, request: Request) -> list[Action]:
        link = self.owners.link_of(request.client)
        if link is not None:
            self.owners.remove(link)
        if not self.owners:
            self.made_with = None
        success = link is not None or request.method == "session.detach"
        return [Answer(request, Reply(result={"success": success}))]

    def _send(self, request: Request, now: float) -> list[Action]:
        """A request on the loaded session."""
        if request.method in MAKES:
            return self._join(request, now)
        link = self.owners.any_link() if request.abandoned else self.owners.link_of(request.client)
        if request.method in LEAVES:
            return self._leave(request, link, now)
        if request.method == "session.tools.set" and link is None:
            # Over a connection of nobody's the tools' names would stay taken when this client has gone.
            text = f"Resume session {self.session_id} on this connection before you give it tools"
            return [Answer(request, refusal(text, "NotOwner"))]
        return [self._forward(link, request, now)]

    def _join(self, request: Request, now: float) -> list[Action]:
        """Create or resume of the loaded session: over the link of a client that left, if there is one."""
        link = self.owners.join(request.client)
        if link is None:
            text = f"Session {self.session_id} was taken over by another connection; resume it on a new one"
            return [Answer(request, refusal(text, "TakenOver"))]
        return [self._forward(link, request, now)]

    def _leave(self, request: Request, link: Link | None, now: float) -> list[Action]:
        if link is None:
            return [Answer(request, Reply(result={"success": request.method == "session.detach"}))]
        if not self.busy:
            if len(self.owners) == 1:
                self.phase = Phase.LEAVING
            return [self._forward(link, request, now)]
        # By the last owner it would kill the turn, and no session.idle would ever come.
        return [Answer(request, Reply(result={"success": True})), *self._left(link, now)]

    def _left(self, link: Link, now: float) -> list[Action]:
        """Nobody is there any more: release the turn from what would wait for nobody."""
        self.owners.leave(link, now)
        actions = list[Action]()
        for reverse in self.prompts.asked_over(link):
            if reverse.method not in FOR_PEOPLE:
                self.prompts.answered(reverse)
                actions.append(AnswerServer(reverse, _NO_METHOD))
        return actions

    def on_client_gone(self, client: ClientId, now: float) -> list[Action]:
        """The client's connection has ended. Its turns go on; its other requests need no answer any more."""
        for request in [*self.flying, *self._waiting]:
            request.abandoned = request.abandoned or request.client == client
        self.held = [each for each in self.held if not each.abandoned or each.method in SENDS]
        link = self.owners.link_of(client)
        actions = [] if link is None else self._left(link, now)
        if self.phase is Phase.UNLOADED:
            if not self._wanted and len(self.owners) == len(self.owners.lingering):
                self.made_with = None
            return actions + self._need(now)
        return actions + self._rest(now)

    def on_reverse_reply(self, reverse: Reverse, reply: Reply, now: float) -> list[Action]:
        """The client's answer to ``AskClient``."""
        return [AnswerServer(reverse, reply)] if self.prompts.answered(reverse) else []

    # Servers

    def on_event(
        self, link: Link, type: str, event_id: str | None, data: Mapping[str, Any], frame: bytes, now: float
    ) -> list[Action]:
        """A ``session.event`` of a type in ``WATCHED``. ``frame``: what ``ShowAgain`` shall send, as clients get it."""
        if self.phase not in (Phase.LOADED, Phase.SETTLING, Phase.LOADING) or self._is_copy(event_id):
            return []
        self.heard_at = now
        match type:
            case "user.message":
                send = self.work.began(str(data.get("source", "")), str(data.get("messageId", "")), now)
                if send is not None and send.orphan and not send.waits and send.message_id is not None:
                    return self._answer_sent(send, send.message_id)
            case "assistant.turn_start":
                self.work.running = True
            case "session.idle":
                return self._idle(now)
            case "session.shutdown" if self.phase is Phase.LOADED and not self._is_being_closed:
                return self._ended(now)
            case "session.resume":
                return self._resumed_elsewhere(now)
            case _ if type in EVENTS:
                self.prompts.saw(type, data, frame)
        return []

    @property
    def _is_being_closed(self) -> bool:
        """Whether a client closes or deletes it: the answer says what came of that. copilot-runtime tells of the end
        of a busy session before, and loading what is being deleted would make it anew."""
        return any(request.method in CLOSES for request in self.flying)

    def on_kept(self, gateway: str, kept: bool) -> list[Action]:
        """Another gateway keeps the session from now on, or does no more."""
        if kept:
            self.keeper, self.alone = gateway, False
            return self._let_answers_go()
        if gateway == self.keeper:
            self.keeper = None
        return []

    def _resumed_elsewhere(self, now: float) -> list[Action]:
        """Somebody resumed the session who is none of ours: the client for whom it lingers has come back by another
        gateway, which owns it now, and waits for the names of the client's tools."""
        ours = self.loading is not None or any(each.method in MAKES for each in self.flying)
        if ours or not self.owners.lingering or self.phase is not Phase.LOADED or self.server is None:
            return []
        released = self.owners.lingering
        for link in released:
            self.owners.remove(link)
        actions: list[Action] = [HandOver(link, self.server) for link in released]
        return actions if self.owners else actions + self._given_up(now)

    def _given_up(self, now: float) -> list[Action]:
        """No client is there, and nothing works here any more."""
        self.work.clear()
        self.prompts.clear()
        self.may_go_on = False
        self._unloaded()
        self.made_with = None
        return self._start_held(now)

    def _is_copy(self, event_id: str | None) -> bool:
        if event_id is None:
            return False
        if event_id in self._seen:
            return True
        self._seen[event_id] = None
        if len(self._seen) > _MOST_EVENT_IDS:
            del self._seen[next(iter(self._seen))]
        return False

    def _idle(self, now: float) -> list[Action]:
        ended, self._idle_at = self.work.idle(), now
        self.prompts.clear()
        self.owes_idle = self.unsure = False
        self.is_stored, self.used_at = self.is_stored or bool(ended), now
        actions = self._let_answers_go()
        for send in ended:
            if send.orphan and send.message_id is not None:
                actions += self._answer_sent(send, send.message_id)
        if self.work.unbegun:
            actions += self._ask_work(now)
        return actions + self._rest(now)

    def _ask_work(self, now: float) -> list[Action]:
        """Are sends that were taken in and did not begin still there? Withdrawn ones end without a sign."""
        via = self.owners.any_link()
        if self.asking_work or via is None:
            return []
        self.asking_work, self._asked_at = True, now
        return [AskWork(via, now + _ASK_AFTER_S)]

    def on_work(self, standing: Standing, now: float) -> list[Action]:
        """The answer to ``AskWork``; UNCOUNTED if it could not be told."""
        heard_since, self.asking_work = self.heard_at > self._asked_at, False
        self.heard_at = now
        if self.phase is not Phase.LOADED:
            return []
        if standing is Standing.NOT_LOADED:
            return self._ended(now)
        if self.unsure:
            self.unsure, self.work.running = False, self.work.running or standing.is_busy
        stale = [send for send in self.work.unbegun if now - send.since >= _ASK_AFTER_S]
        if standing.is_busy:
            for send in stale:
                send.since = now  # ask again, but not at once
            return []
        for send in stale:
            self.work.drop(send)
        if self.work.running and not heard_since:
            self.work.idle()  # of which we were not told
            self.owes_idle = True
        if any(send.since >= self._idle_at for send in stale):
            return self._tell_died("The server took the message in and did not begin with it") + self._rest(now)
        return self._rest(now)  # they were withdrawn: the session.idle that was passed on was theirs too

    def on_reverse(self, reverse: Reverse, now: float) -> list[Action]:
        """A request of the server about this session."""
        owner = self.owners.get(reverse.link)
        if owner is None or (owner.client is None and reverse.method not in FOR_PEOPLE):
            return [AnswerServer(reverse, _NO_METHOD)]
        self.prompts.asked(reverse)
        return [] if owner.client is None else [AskClient(owner.client, reverse)]

    # Time

    def on_time(self, now: float) -> list[Action]:
        """Time has passed ``wake_at``."""
        withheld = self._let_answers_go(now)
        self.alone = self.alone or bool(withheld)
        actions = withheld + self._too_long_held(now) + self._too_long_lingering(now)
        # A CLI whose session file is locked by another takes messages in and does nothing; one whose session was
        # closed by a third party says nothing of the turn.
        silent = self._ask_at is not None and self._ask_at <= now
        return actions + (self._ask_work(now) if silent else [])

    def _too_long_held(self, now: float) -> list[Action]:
        late = [each for each in self._waiting if now - each.arrived_at >= self.bounds.held_s]
        why = f" ({self.loading.failed})" if self.loading and self.loading.failed else ""
        text = f"Session {self.session_id} could not be loaded within {self.bounds.held_s:g} s{why}; try again"
        actions: list[Action] = [Answer(request, refusal(text, "HeldTooLong")) for request in late]
        if self.loading and self.loading.request in late:
            self.loading.request = None
            self.owners.remove(self.loading.action.via)
        self.held = [each for each in self.held if each not in late]
        doubts = [send for send in self.work.doubts if now - send.in_doubt_from >= self.bounds.held_s]
        return actions + self._give_up_doubts(doubts)

    def _too_long_lingering(self, now: float) -> list[Action]:
        actions = list[Action]()
        for link in self.owners.lingering:
            if now - self.owners[link].left_at >= self.bounds.linger_s:
                self.owners.remove(link)
                actions += self._unanswered([each for each, via in self.flying.items() if via == link], now)
                actions.append(Release(link))
        if actions and not self.owners and self.phase in (Phase.LOADED, Phase.SETTLING):
            actions += self._given_up(now)
        return actions
