"""The short way of requests that change nothing of the session, which most are. Part of the machine in ``machine``.

It does what the long way does, or says that the long way must be gone; the property tests go both and compare.
"""

from typing import Final

from copilot_operator.gateway.session.actions import Link, Request
from copilot_operator.gateway.session.calls import CHANGES
from copilot_operator.gateway.session.replies import RepliesState
from copilot_operator.gateway.session.state import Phase

_LOADED: Final = Phase.LOADED  # to look a member up in its class takes longer than the rest


class PassingState(RepliesState):
    """The part of the machine that only lets pass."""

    def passes(self, request: Request, now: float) -> Link | None:
        """The link to send a new request over, if that is all that ``on_request`` would say; None: ask that."""
        if not self._only_passes(request):
            return None
        self.used_at = now
        request.sends, request.epoch, request.server = 1, self.epoch, self.server
        self.flying[request] = request.client
        return request.client

    def passes_back(self, request: Request) -> bool:
        """Whether its good reply is for the client and nothing else, as ``on_reply`` would say; False: ask that.

        With one owner, who is there, nobody lingers who could be let go now.
        """
        if self.owes_idle or self.leaving or not self._only_passes(request) or len(self.owners) != 1:
            return False
        return self.flying.pop(request, self) is not self

    def _only_passes(self, request: Request) -> bool:
        if self.phase is not _LOADED or request.counts_as_turn or request.method in CHANGES:
            return False
        return self.owners.by_itself(request.client)
