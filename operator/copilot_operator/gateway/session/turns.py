"""The turns of one session in flight, from a send to ``session.idle``, and what is known of each. Pure.

A server may die at any moment, so each send stands somewhere between "sent" and "certainly stored":

    SENT ── reply ──► ACCEPTED ── user.message ──► BEGUN ── session.idle ──► (ended)
      │                  │                           │
      └── link lost ─────┴── session lost ───────────┴─ within STORED_AFTER_S ──► DOUBT ── settled ──► SENT | (ended)

Neither the reply nor an event means that the message is on disk: the CLI writes it up to 150 ms later (seen with
1.0.102), and a queued one only when its turn begins.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from copilot_operator.gateway.session.actions import Request

STORED_AFTER_S: Final = 2.0  # after user.message was seen; 0.13 s were measured, on a quiet disk


class Stage(StrEnum):
    """What is known of a send."""

    SENT = "Sent"
    ACCEPTED = "Accepted"
    BEGUN = "Begun"
    DOUBT = "Doubt"


@dataclass(slots=True, eq=False)
class Send:
    """One send; ``since`` is when it reached its stage, ``sent_at`` when it was first forwarded."""

    request: Request
    sent_at: float
    since: float
    stage: Stage = Stage.SENT
    message_id: str | None = None
    answered: bool = False  # its client has the reply: it must not get another
    orphan: bool = False  # not answered, and the link its answer would have come over is lost

    @property
    def in_doubt_from(self) -> float:
        """From when its client waits in vain: for its answer, or, if it has that, since the doubt came up."""
        return self.since if self.answered else self.sent_at

    def doubt(self, now: float) -> None:
        """Whether the session has it must be asked."""
        self.stage, self.since = Stage.DOUBT, now

    @property
    def waits(self) -> bool:
        """Whether its reply tells the end of the turn (``wait: true``)."""
        return bool(self.request.params.get("wait"))


class Turns:
    """All sends of a session that have not ended, in the order in which they were first sent."""

    def __init__(self) -> None:
        self._sends: list[Send] = []
        self.running = False  # a turn was seen to start; also one that no send of ours began

    @property
    def busy(self) -> bool:
        return self.running or bool(self._sends)

    @property
    def count(self) -> int:
        """Turns in flight; queued ones included."""
        return max(len(self._sends), int(self.running))

    @property
    def doubts(self) -> Sequence[Send]:
        """Sends of which it must be asked whether the session has them."""
        return [send for send in self._sends if send.stage is Stage.DOUBT]

    @property
    def unanswered(self) -> Sequence[Request]:
        """Requests whose clients still wait for the reply."""
        return [send.request for send in self._sends if not send.answered]

    def awaits(self, client: int) -> bool:
        """Whether a message of this client has not begun so far."""
        return any(send.request.client == client and send.stage is not Stage.BEGUN for send in self._sends)

    @property
    def unbegun(self) -> Sequence[Send]:
        """Accepted sends whose message has not been seen."""
        return [send for send in self._sends if send.stage is Stage.ACCEPTED]

    def find(self, request: Request) -> Send | None:
        """The send that ``request`` is, unless it has ended."""
        return next((send for send in self._sends if send.request is request), None)

    def forwarded(self, request: Request, now: float) -> None:
        """The request went to a server, for the first time or again."""
        send = self.find(request)
        if send is None:
            self._sends.append(Send(request, sent_at=now, since=now))
        else:
            send.stage, send.since, send.orphan = Stage.SENT, now, False

    def accepted(self, request: Request, now: float) -> None:
        """The server answered a send well."""
        send = self.find(request)
        if send is None:  # its turn has ended already
            return
        send.answered = True
        if send.stage is Stage.SENT:
            send.stage, send.since = Stage.ACCEPTED, now

    def began(self, mark: str, message_id: str, now: float) -> Send | None:
        """``user.message`` was seen; with a mark that is none of ours it is the turn of somebody else."""
        self.running = True
        for send in self._sends:
            if mark and send.request.mark == mark and send.stage is not Stage.BEGUN:
                send.stage, send.since, send.message_id = Stage.BEGUN, now, message_id
                return send
        return None

    def idle(self) -> list[Send]:
        """``session.idle``: what has begun has ended. What is accepted and was not seen is not part of it."""
        self.running = False
        ended = [send for send in self._sends if send.stage is Stage.BEGUN]
        self._sends = [send for send in self._sends if send.stage is not Stage.BEGUN]
        return ended

    def drop(self, send: Send) -> None:
        """It has ended, or never will begin."""
        self._sends.remove(send)

    def clear(self) -> list[Send]:
        """Nothing is in flight any more; what was."""
        sends, self._sends, self.running = self._sends, [], False
        return sends

    def unanswerable(self, lost: Collection[Request], now: float) -> None:
        """The link over which these requests would have been answered is lost."""
        for send in self._sends:
            if send.request in lost:
                send.orphan = not send.answered
                if send.stage is Stage.SENT:
                    send.doubt(now)

    def unloaded(self, now: float) -> tuple[bool, list[Send]]:
        """The session was ended where it was loaded.

        Returns whether a turn died of which the message certainly is on disk, and such sends. All others are in
        doubt, save those whose own answer is still to come over a link that lives.
        """
        begun = [send for send in self._sends if send.stage is Stage.BEGUN]
        died = [send for send in begun if now - send.since >= STORED_AFTER_S]
        anything_died = bool(died) or (self.running and not begun)
        self.running = False
        self._sends = [send for send in self._sends if send not in died]
        for send in self._sends:
            if send.stage not in (Stage.SENT, Stage.DOUBT):  # one still to be answered tells it by its answer
                send.doubt(now)
        return anything_died, died
