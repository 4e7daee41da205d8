"""What became of sends in doubt: the messages that the session has decide. Part of the machine in ``machine``.

A doubt ends in one of three ways: the session has the message, so it is answered and never sent again; it has not, so
it is sent again; it cannot be asked, so its client is told that it failed, and it is never sent again either.
"""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Final

from copilot_operator.gateway.session.actions import (
    Action,
    Answer,
    Link,
    Request,
    Settle,
    StoredMessage,
    refusal,
)
from copilot_operator.gateway.session.state import Phase, State
from copilot_operator.gateway.session.turns import Send
from copilot_operator.rpc.busy import Standing

RETRY_S: Final = 0.05  # doubled with each try
_TRIES: Final = 5


class SettlingState(State):
    """The part of the machine that settles."""

    @abstractmethod
    def _ended(self, now: float, *, perhaps: bool = False) -> list[Action]:
        """It is loaded nowhere any more, or ``perhaps``."""

    @abstractmethod
    def _flush(self, now: float) -> list[Action]:
        """The session is there: send what was held, in order."""

    def _settle_or_flush(self, now: float, not_before: float = 0.0) -> list[Action]:
        if not self.work.doubts and not self.may_go_on:
            return self._flush(now)
        via = self.owners.any_link()
        assert via is not None, "a loaded session has an owner"
        self.phase = Phase.SETTLING
        return [Settle(via, not_before)]

    def on_settled(self, stored: Sequence[StoredMessage], standing: Standing, now: float) -> list[Action]:
        """The answer to ``Settle``."""
        if self.phase is not Phase.SETTLING:
            return []
        if standing is Standing.NOT_LOADED:
            return self.on_settle_failed(now)
        self.settle_tries = 0
        known = {message.mark: message.message_id for message in stored}
        lives, died, actions = standing.is_busy, False, list[Action]()
        if self.may_go_on:
            self.may_go_on, self.work.running, died = False, lives, not lives
        again = list[Send]()
        for send in self.work.doubts:
            message_id = known.get(send.request.mark)
            if message_id is None:
                again.append(send)
                continue
            self.is_stored = True
            if lives:  # perhaps not for this one; then session.idle ends it all the same
                self.work.began(send.request.mark, message_id, now)
                actions += [] if send.waits else self._answer_sent(send, message_id)
            else:
                died = True
                self.work.drop(send)
                actions += self._answer_sent(send, message_id)
        # All doubts are over before anything is told: what is repeated keeps session.idle back.
        for send in again:
            actions.append(self._forward(self._link_for(send.request), send.request, now))
        if died:
            actions += self._tell_died("The server of this session ended during the turn; what it had stored is kept")
        return actions + self._flush(now)

    def _link_for(self, request: Request) -> Link | None:
        link = self.owners.link_of(request.client)
        return self.owners.any_link() if link is None else link

    def on_settle_failed(self, now: float) -> list[Action]:
        """``Settle`` brought no answer, or an error."""
        if self.phase is not Phase.SETTLING:
            return []
        self.settle_tries += 1
        if self.settle_tries < _TRIES:  # somebody may have closed it in the meantime: load it once more
            return self._ended(now, perhaps=True)
        self.settle_tries = 0
        died, self.may_go_on = self.may_go_on, False
        actions = self._give_up_doubts(self.work.doubts)
        if died:
            actions += self._tell_died("The server of this session ended during the turn")
        return actions + self._flush(now)

    def _give_up_doubts(self, sends: Collection[Send]) -> list[Action]:
        """It could not be found out whether these were taken in. Their clients are told, so they must not run later."""
        actions, told = list[Action](), False
        for send in sends:
            self.work.drop(send)
            if send.answered:
                told = True
            else:
                send.answered = True
                text = "The server of this session ended; whether it had taken in this message could not be found out"
                actions.append(Answer(send.request, refusal(text, "InDoubt")))
        return actions + (self._tell_died("The server of this session ended before the turn began") if told else [])
