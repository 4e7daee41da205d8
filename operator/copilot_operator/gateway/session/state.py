"""What is known of one session, and answers made of it. Changed by ``loading`` and ``machine`` only."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from copilot_operator.gateway.session.actions import (
    Action,
    Answer,
    ClientId,
    Forward,
    Link,
    Load,
    Reply,
    Request,
    TellClient,
    refusal,
)
from copilot_operator.gateway.session.calls import SENDS
from copilot_operator.gateway.session.owners import Owners
from copilot_operator.gateway.session.prompts import Prompts
from copilot_operator.gateway.session.turns import Send, Turns


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a session may cost the gateway; seconds and numbers."""

    held: int = 64  # requests that wait for the session to be loaded
    held_s: float = 50.0  # the SDKs wait 60 s for a turn unless told otherwise
    linger_s: float = 1800.0  # for a turn whose client has left
    swallowed_s: float = 10.0  # from a send's answer to user.message; 0.01-0.2 s were measured
    kept_s: float = 0.0  # that a send's answer waits for another gateway to keep the session
    silent_s: float = 60.0  # a turn of which nothing is heard: somebody may have closed the session, and no one is told


class Phase(StrEnum):
    """Where the session stands. Requests are held in all phases but ``UNLOADED`` and ``LOADED``."""

    UNLOADED = "Unloaded"
    LOADING = "Loading"
    SETTLING = "Settling"  # loaded; it is being asked what became of sends in doubt
    LOADED = "Loaded"
    CLOSING = "Closing"  # sessions.close is under way
    LEAVING = "Leaving"  # the detach of the only owner is under way


@dataclass(slots=True)
class Loading:
    """The ``Load`` under way. ``request``: the client's own that asked for it, and gets its answer."""

    action: Load
    request: Request | None
    tries: int = 1
    failed: str = ""  # why, the last time


@dataclass(frozen=True, slots=True)
class Withheld:
    """The answer to a send, kept back until another gateway keeps the session, or ``until``."""

    answer: Answer
    until: float


class State:
    """One session. ``epoch`` counts how often it was unloaded: an answer of an older one is about another loading."""

    def __init__(self, session_id: str, bounds: Bounds) -> None:
        self.session_id, self.bounds = session_id, bounds
        self.server: str | None = None
        self.phase = Phase.UNLOADED
        self.used_at = float("-inf")
        self.owners, self.work, self.prompts = Owners(), Turns(), Prompts()
        self.epoch = 0
        self.made_with: dict[str, Any] | None = None  # parameters that make it what it is, whoever loads it
        self.is_stored = False  # something of it is on disk for certain
        self.approve_all: Mapping[str, Any] | None = None  # lost by a reload, so it is said again
        self.loading: Loading | None = None
        self.may_go_on = False  # a turn of which only a reload shows whether it lives
        self.parked = False  # a turn waits for somebody on disk, unloaded for another session
        self.owes_idle = False  # session.error was told of a turn, and session.idle is still to come
        self.settle_tries = 0
        self.leaving = False  # its server drains
        self.asking_work = False
        self.unsure = False  # a client resumed it, and perhaps a turn runs that another gateway's client began
        self.heard_at = float("-inf")  # when the server last told anything of a turn
        self.keeper: str | None = None  # another gateway that keeps the session, the last one that said so
        self.alone = False  # none came to keep it
        self.withheld: list[Withheld] = []
        self.held: list[Request] = []
        self.flying: dict[Request, Link | None] = {}

    # What drivers ask

    @property
    def forgotten(self) -> bool:
        """Nothing is left to be known: the object can be dropped. Also true of one that was never asked anything."""
        rest = self.owners or self.held or self.flying or self.withheld or self.work.busy
        return self.phase is Phase.UNLOADED and not rest

    @property
    def links(self) -> frozenset[Link]:
        """Links to ``server`` that must stay open for this session: they own it, or an answer is to come over them."""
        loading = {self.loading.action.via} if self.loading else set[Link]()
        return frozenset(self.owners) | {via for via in self.flying.values() if via is not None} | loading

    @property
    def busy(self) -> bool:
        """Whether a turn runs, may run or waits for somebody; if not, a loaded session may be closed."""
        return self.work.busy or self.may_go_on or self.unsure or any(each.counts_as_turn for each in self.flying)

    @property
    def lingers(self) -> bool:
        """Whether it works on for a client that has left."""
        return bool(self.owners.lingering)

    @property
    def turns(self) -> int:
        """Turns in flight."""
        return self.work.count

    @property
    def wake_at(self) -> float | None:
        """When ``on_time`` must be called at the latest."""
        times = [each.arrived_at + self.bounds.held_s for each in self._waiting]
        times += [send.in_doubt_from + self.bounds.held_s for send in self.work.doubts]
        times += [self.owners[link].left_at + self.bounds.linger_s for link in self.owners.lingering]
        times += [each.until for each in self.withheld]
        times += [] if self._ask_at is None else [self._ask_at]
        return min(times, default=None)

    @property
    def _ask_at(self) -> float | None:
        """When the server is to be asked whether it still works on what it has taken in."""
        if self.asking_work or self.phase is not Phase.LOADED:
            return None
        if self.unsure:
            return self.used_at
        if not self.work.busy:
            return None
        if self.work.running:
            return self.heard_at + self.bounds.silent_s
        since = min((send.since for send in self.work.unbegun), default=None)
        return None if since is None else since + self.bounds.swallowed_s

    @property
    def tools(self) -> list[Any]:
        """The client tools of all owners: a filter that names tools holds for all of them, so it must name these."""
        return [tool for link in self.owners for tool in self.owners[link].own.get("tools") or ()]

    def client_of(self, link: Link) -> ClientId | None:
        """To whom events and requests that come over ``link`` go; None: to nobody."""
        owner = self.owners.get(link)
        return owner.client if owner else None

    # What actions are made of

    @property
    def _waiting(self) -> list[Request]:
        """Requests that no server has at the moment and whose clients wait; sends in doubt are not among them."""
        asked = [self.loading.request] if self.loading and self.loading.request else []
        return asked + self.held

    @property
    def under_way(self) -> list[Request]:
        """Requests that were taken in and not answered."""
        withheld = [each.answer.request for each in self.withheld]
        return list(dict.fromkeys([*self.flying, *self._waiting, *withheld, *self.work.unanswered]))

    @property
    def waiting(self) -> int:
        """How many requests wait for the session to be loaded."""
        return len(self._waiting)

    def _hold(self, request: Request) -> list[Action]:
        """Keep a request until the session is there; in the order in which the clients asked."""
        if request.abandoned and request.method not in SENDS:
            return []
        if len(self.held) >= self.bounds.held:
            text = f"{len(self.held)} requests already wait for session {self.session_id} to be loaded; try again"
            return [Answer(request, refusal(text, "TooManyHeld"))]
        self.held.append(request)
        self.held.sort(key=lambda each: each.arrived_at)
        return []

    def _forward(self, via: Link | None, request: Request, now: float) -> Forward:
        """Send a request to the server, and remember what must come back."""
        again = request.sends > 0
        request.sends, request.epoch, request.server = request.sends + 1, self.epoch, self.server
        self.flying[request] = via
        if request.method in SENDS:
            self.work.forwarded(request, now)
        return Forward(via, request, again)

    def _tell(self, type: str, **data: Any) -> list[Action]:
        """An event of our own to every client that owns the session."""
        return [TellClient(client, type, data) for client in self.owners.clients]

    def _tell_died(self, message: str) -> list[Action]:
        """A turn has died: its client is told at once; and that the session is idle, if nothing else is in flight."""
        self.owes_idle = True
        answers = self._let_answers_go()
        return answers + self._tell("session.error", errorType="server_lost", message=message) + self._tell_idle()

    def _tell_idle(self) -> list[Action]:
        """The ``session.idle`` that no server will send any more, once it is true."""
        if not self.owes_idle or self.busy:
            return []
        self.owes_idle = False
        return self._tell("session.idle")

    def _answer_sent(self, send: Send, message_id: str) -> list[Action]:
        """Answer a send as the server would have; nothing if it did."""
        if send.answered:
            return []
        send.answered = True
        many = send.request.method == "session.sendMessages"
        return [Answer(send.request, Reply(result={"messageIds": [message_id]} if many else {"messageId": message_id}))]

    def _answer_once_kept(self, request: Request, reply: Reply, now: float) -> list[Action]:
        """Answer a send that the server took in. What a client was told of must outlive this gateway."""
        answer = Answer(request, reply)
        if not self.bounds.kept_s or self.keeper or self.alone:
            return [answer]
        self.withheld.append(Withheld(answer, now + self.bounds.kept_s))
        return []

    def _let_answers_go(self, now: float = float("inf")) -> list[Action]:
        """Those that have waited for long enough."""
        due = [each.answer for each in self.withheld if each.until <= now]
        self.withheld = [each for each in self.withheld if each.until > now]
        return list(due)

    def _unloaded(self) -> None:
        self.phase, self.server = Phase.UNLOADED, None
        self.leaving = self.asking_work = self.unsure = self.alone = False
        self.keeper = None
        self.epoch += 1
