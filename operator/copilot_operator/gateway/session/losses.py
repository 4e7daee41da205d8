"""Connections and servers that end, and what becomes of the requests they had. Part of the machine in ``machine``."""

from collections.abc import Sequence
from typing import Final

from copilot_operator.gateway.session.actions import (
    Action,
    Answer,
    Link,
    Reply,
    Request,
    refusal,
)
from copilot_operator.gateway.session.calls import LEAVES, MAKES, SENDS, repeatable
from copilot_operator.gateway.session.loading import LOST, STORED_WITHIN_S, LoadingState
from copilot_operator.gateway.session.state import Phase
from copilot_operator.gateway.session.turns import Stage

_ON_A_SERVER: Final = frozenset({Phase.LOADED, Phase.SETTLING, Phase.CLOSING, Phase.LEAVING})


class LossesState(LoadingState):
    """The part of the machine that loses connections."""

    def on_link_lost(self, link: Link | None, now: float, server: str | None = None) -> list[Action]:
        """An upstream connection to ``server`` (None: the session's) ended; link None: the one that is nobody's."""
        server = server or self.server
        actions = self._unanswered(
            [each for each, via in self.flying.items() if (via, each.server) == (link, server)], now
        )
        if server != self.server:
            return actions + self._rest(now)
        self.asking_work = False  # perhaps over this link
        if link is not None:
            self.prompts.link_lost(link)
        if self.phase in _ON_A_SERVER:
            # By the CLI, if the last owner has gone; of those that join nobody knows whether they came in time.
            if not any(not self.owners[other].joining for other in self.owners if other != link):
                return actions + self._ended(now, perhaps=any(other != link for other in self.owners))
            if link is not None and link in self.owners:
                return actions + self._owner_lost(link, now)
        if self.phase is Phase.LOADED:
            return actions + self._settle_or_flush(now, now + STORED_WITHIN_S)
        return actions + self._rest(now)

    def _owner_lost(self, link: Link, now: float) -> list[Action]:
        owner = self.owners[link]
        actions = list[Action]()
        if owner.client is None or owner.joining:  # the create or resume of one that joins is sent again
            self.owners.remove(link)
        elif self.phase is not Phase.CLOSING:  # if that fails all are attached again
            actions.append(self._attach(link))
        if self.phase in (Phase.CLOSING, Phase.LEAVING):
            return actions
        return actions + self._settle_or_flush(now, now + STORED_WITHIN_S)

    def on_server_lost(self, now: float, server: str | None = None) -> list[Action]:
        """``server`` (None: the session's) has gone, and with it all links to it."""
        server = server or self.server
        actions = self._unanswered([each for each in self.flying if each.server == server], now)
        if server != self.server or self.phase not in _ON_A_SERVER:
            return actions + self._rest(now)
        self.asking_work = False
        for link in self.owners:
            self.prompts.link_lost(link)
        return actions + self._ended(now)

    def _unanswered(self, lost: Sequence[Request], now: float) -> list[Action]:
        """These requests will not be answered: send again what may be, settle sends, refuse the rest."""
        actions = list[Action]()
        self.work.unanswerable(lost, now)
        for request in lost:
            via = self.flying.pop(request)
            if request.method in SENDS:
                send = self.work.find(request)
                if send is None:  # it has ended, and with ``wait`` the answer was to come
                    actions.append(Answer(request, refusal(LOST, "ServerLost")))
                elif send.stage is Stage.BEGUN and not send.waits and send.message_id is not None:
                    actions += self._answer_sent(send, send.message_id)
            elif request.method in LEAVES:
                if via is not None:
                    self.owners.remove(via)
                actions.append(Answer(request, Reply(result={"success": True})))
            elif request.method in MAKES:
                if via is not None and via in self.owners and self.owners[via].joining:
                    self.owners.remove(via)
                actions += self._hold(request)
            elif repeatable(request.method) and request.sends < 2:
                actions += self._hold(request)
            else:
                actions.append(Answer(request, refusal(LOST, "ServerLost")))
        return actions
