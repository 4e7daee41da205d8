"""Who of this gateway's members speaks in one shared session, or waits to: one lease for each member.

A lease is there before anything goes to the server that needs it, is renewed while that works and the member is here,
and given back as soon as the session is idle.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

from copilot_operator.gateway.agent_client import ERRORS
from copilot_operator.gateway.locks import Busy, Lease
from copilot_operator.gateway.server import Server
from copilot_operator.gateway.session import actions
from copilot_operator.gateway.session.actions import Failure, Reply, Request

log = logging.getLogger(__name__)

QUEUE_S: Final = 40.0  # what is let in then may still have to wait for its session; the SDKs' own timeout is 60 s
MOST_WAITING: Final = 64  # requests of one member
RETRY_AFTER_S: Final = 5
NEVER: Final = float("-inf")


class Stage(Protocol):
    """The session as its speakers know it."""

    name: str
    server_id: str

    @property
    def queues(self) -> bool:
        """Whether who may not speak waits; may change."""

    def home(self) -> Server | None:
        """The server whose agent is asked; None: none, for now."""

    def works(self) -> bool:
        """Whether anything that was said is under way."""

    def is_here(self, member: str) -> bool:
        """Whether a client of the member is."""

    def waited(self, seconds: float, refused: str) -> None:
        """A request has waited so long; ``refused`` for this reason, or "" if it went."""


@dataclass(frozen=True, eq=False, slots=True)
class Wish:
    """Something to be said. One of the two is called."""

    request: Request
    goes: Callable[[], None]
    refuse: Callable[[Reply], None]


@dataclass(eq=False)
class Speaker:
    """``until``: when its lease ends, by the loop's clock. ``busy``: who speaks, as was said last."""

    member: str
    token: str = ""
    server: Server | None = None
    until: float = NEVER
    waiting: list[Wish] = field(default_factory=list)
    busy: Busy | None = None
    renewing: bool = False


class Speakers:
    """See the module. ``sweep`` is to be called about every second, ``rested`` whenever the session may be idle."""

    def __init__(self, stage: Stage, now: Callable[[], float], start: Callable[[Any], None]) -> None:
        self._stage, self._now, self._start = stage, now, start
        self._speakers: dict[str, Speaker] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return sum(len(speaker.waiting) for speaker in self._speakers.values())

    def waits(self, client: int) -> bool:
        """Whether a request of this client waits."""
        return any(each.request.client == client for speaker in self._speakers.values() for each in speaker.waiting)

    def may_speak(self, member: str, server: str | None) -> bool:
        """Whether it has a good lease of the session on that server."""
        speaker = self._speakers.get(member)
        home = self._stage.home()
        return speaker is not None and home is not None and home.name == server and self._is_good(speaker, home)

    def speak(self, member: str, wish: Wish) -> None:
        """Have it said as soon as may be."""
        speaker = self._speakers.setdefault(member, Speaker(member))
        if not speaker.waiting and self._is_good(speaker, self._stage.home()):
            self._stage.waited(0.0, "")
            wish.goes()
        elif len(speaker.waiting) >= MOST_WAITING:
            self._refuse(speaker, wish, "QueueFull")
        else:
            speaker.waiting.append(wish)
            if len(speaker.waiting) == 1:
                self._ask(speaker)

    def client_gone(self, client: int) -> None:
        """It waits for nothing any more."""
        for speaker in list(self._speakers.values()):
            gone = [each for each in speaker.waiting if each.request.client == client]
            speaker.waiting = [each for each in speaker.waiting if each not in gone]
            for wish in gone:
                wish.refuse(refusal(self._stage.name, speaker.busy, "SessionBusy"))
            self._rest(speaker)

    def withdraw(self, member: str, reply: Callable[[Request], Reply]) -> None:
        """It is no member any more."""
        speaker = self._speakers.pop(member, None)
        if speaker is not None:
            self._give_back(speaker)
            for wish in speaker.waiting:
                wish.refuse(reply(wish.request))

    def rested(self) -> None:
        """Give back what is not needed any more."""
        for speaker in list(self._speakers.values()):
            self._rest(speaker)

    def sweep(self) -> None:
        for speaker in list(self._speakers.values()):
            self._give_up(speaker)
            home = self._stage.home()
            if speaker.waiting and home is not None and speaker.server is not home:  # else its place would be lost
                self._ask(speaker)
            self._rest(speaker)
            is_wanted = speaker.until > NEVER and self._stage.is_here(speaker.member)
            if is_wanted and speaker.server is not None and not speaker.renewing:
                speaker.renewing = True
                self._start(self._renew(speaker, speaker.server, self._lease(speaker)))

    def _give_up(self, speaker: Speaker) -> None:
        late = [each for each in speaker.waiting if self._now() - each.request.arrived_at >= QUEUE_S]
        speaker.waiting = [each for each in speaker.waiting if each not in late]
        for wish in late:
            self._refuse(speaker, wish, "QueuedTooLong" if speaker.busy else "NoServer")

    def _is_good(self, speaker: Speaker, home: Server | None) -> bool:
        return speaker.until > self._now() and home is not None and speaker.server is home

    def _lease(self, speaker: Speaker) -> Lease:
        return Lease(self._stage.server_id, speaker.token, speaker.member)

    def _ask(self, speaker: Speaker) -> None:
        self._give_back(speaker)
        speaker.server, speaker.until, speaker.token = self._stage.home(), NEVER, secrets.token_hex(16)
        if speaker.server is None:
            return  # again at the next sweep
        lease = self._lease(speaker)
        speaker.server.locks.ask(lease, partial(self._told, speaker, lease), waits=self._stage.queues)

    def _told(self, speaker: Speaker, lease: Lease, answer: float | Busy) -> bool:
        if self._speakers.get(speaker.member) is not speaker or speaker.token != lease.token:
            return False
        if isinstance(answer, Busy):
            speaker.busy = answer
            if self._stage.queues and not answer.full:
                return True
            refused, speaker.waiting, speaker.server = speaker.waiting, [], None
            self._speakers.pop(speaker.member)
            for wish in refused:
                self._refuse(speaker, wish, "QueueFull" if self._stage.queues else "SessionBusy")
            return False
        speaker.until, speaker.busy = answer, None
        went, speaker.waiting = speaker.waiting, []
        for wish in went:
            self._stage.waited(self._now() - wish.request.arrived_at, "")
            wish.goes()
        self._rest(speaker)
        return False

    async def _renew(self, speaker: Speaker, server: Server, lease: Lease) -> None:
        try:
            until = await server.locks.renew(lease)
        except ERRORS as error:  # it goes on until it ends
            log.warning("an agent does not renew a lease: %r", error)
        else:
            if speaker.token == lease.token:
                speaker.until = NEVER if until is None else until
        finally:
            speaker.renewing = False

    def _rest(self, speaker: Speaker) -> None:
        """One that has gone lets its lease end: what it said last may still be on its way."""
        if not speaker.waiting and (speaker.until <= NEVER or not self._stage.works()):
            self._speakers.pop(speaker.member, None)
            self._give_back(speaker)

    def _give_back(self, speaker: Speaker) -> None:
        if speaker.server is not None:
            speaker.server.locks.release(self._lease(speaker))
            speaker.server = None

    def _refuse(self, speaker: Speaker, wish: Wish, reason: str) -> None:
        self._stage.waited(self._now() - wish.request.arrived_at, reason)
        wish.refuse(refusal(self._stage.name, speaker.busy, reason))


def refusal(session: str, busy: Busy | None, reason: str) -> Reply:
    """Who speaks, since when, and when to try again."""
    data: dict[str, Any] = {"reason": reason, "retryAfterSeconds": RETRY_AFTER_S}
    text = f"it is not known who speaks in session {session}"
    if busy is not None:
        since = (datetime.now(UTC) - timedelta(seconds=busy.held_s)).isoformat(timespec="seconds")
        since = since.replace("+00:00", "Z")
        data |= {"holder": busy.holder or None, "since": since}
        text = f"{busy.holder or 'somebody'} speaks in session {session} since {since}"
    more = {
        "QueueFull": "; as many wait as may",
        "QueuedTooLong": f"; this has waited for {QUEUE_S:g} s",
    }.get(reason, "")
    text = f"{text}{more}; try again in {RETRY_AFTER_S} s"
    return Reply(failure=Failure(actions.GATEWAY_ERROR, text, data))
