"""What servers answer to requests, and what is remembered of it. Part of the machine in ``machine``."""

from copilot_operator.gateway.session.actions import (
    Action,
    Answer,
    AskClient,
    Attach,
    Failure,
    Link,
    Release,
    Reply,
    Request,
    ShowAgain,
)
from copilot_operator.gateway.session.calls import CLOSES, LEAVES, MAKES, SENDS, reads_disk
from copilot_operator.gateway.session.losses import LossesState
from copilot_operator.gateway.session.owners import common_fields, own_fields
from copilot_operator.gateway.session.state import Phase
from copilot_operator.gateway.session.turns import Stage


class RepliesState(LossesState):
    """The part of the machine that takes in answers."""

    def on_reply(self, request: Request, reply: Reply, now: float) -> list[Action]:
        """The server's answer to a ``Forward``; or the driver's own failure, if the call took too long."""
        if request not in self.flying:
            return []
        via = self.flying.pop(request)
        if reply.failure and self._should_be_there(request, via, reply.failure):
            return self._was_not_loaded(request, reply, now)
        if request.method in SENDS:
            actions = self._sent(request, reply, now)
        elif request.method in MAKES:
            actions = self._joined(request, via, reply, now)
        elif request.method in LEAVES:
            actions = self._has_left(request, via, reply, now)
        elif request.method in CLOSES:
            actions = self._removed(request, reply)
        else:
            self._remember(request, via, reply)
            actions = [Answer(request, reply)]
        return actions + self._rest(now)

    def _should_be_there(self, request: Request, via: Link | None, failure: Failure) -> bool:
        """Whether the server says that the session is not there, though it should be."""
        if request.method in MAKES:
            owner = self.owners.get(via)
            if not failure.says_not_stored or self.made_with is None or owner is None:
                return False
            if request.epoch != self.epoch:  # it was about another loading: it joins this one
                return True
            if owner.joining and via is not None:  # it is to join again
                self.owners.remove(via)
            return len(self.owners) > 0
        if not failure.says_not_loaded or reads_disk(request.method) or request.method in LEAVES:
            return False
        return self.made_with is not None and len(self.owners) > 0

    def _was_not_loaded(self, request: Request, reply: Reply, now: float) -> list[Action]:
        """Somebody has unloaded the session, and a request was the first to notice: it is sent again, once."""
        send = self.work.find(request)
        if send is not None and send.answered:  # a repeated one: as another that is in doubt
            send.doubt(now)
        else:
            if send is not None:
                self.work.drop(send)
            if request.sends >= 2:
                return [Answer(request, reply), *self._rest(now)]
        actions = [] if send is not None and send.answered else self._hold(request)
        if self.phase is Phase.LOADED and request.epoch == self.epoch:
            return actions + self._ended(now)
        if self.phase is Phase.LOADED:
            return actions + self._settle_or_flush(now)
        return actions + (self._need(now) if self.phase is Phase.UNLOADED else [])

    def _sent(self, request: Request, reply: Reply, now: float) -> list[Action]:
        send = self.work.find(request)
        answered = send is not None and send.answered
        answer: list[Action] = [] if answered else [Answer(request, reply)]
        if reply.failure is None and send is not None and send.stage is Stage.SENT and request.epoch != self.epoch:
            # Taken in by a loading of the session that has ended since: answered once it is settled.
            send.doubt(now)
            send.orphan = True
            return self._settle_or_flush(now) if self.phase is Phase.LOADED else []
        if reply.failure is None:
            self.work.accepted(request, now)
            runs = send is not None and not send.waits
            return self._answer_once_kept(request, reply, now) if answer and runs else answer
        if send is not None:
            self.work.drop(send)
        return self._tell_died(reply.failure.message) if answered else answer

    def _joined(self, request: Request, via: Link | None, reply: Reply, now: float) -> list[Action]:
        owner = self.owners.get(via)
        if owner is None or via is None:
            return [Answer(request, reply)]
        if reply.failure is not None:
            if owner.joining:
                self.owners.remove(via)
            elif owner.client == request.client and via != request.client:  # what it took over lingers on
                self.owners.leave(via, now)
            gone = not self.owners and self.phase is Phase.SETTLING
            return [Answer(request, reply), *(self._ended(now) if gone else [])]
        owner.joining = False
        owner.own |= own_fields(request.params)
        if not request.params.get("disableResume"):
            self.made_with = (self.made_with or {}) | common_fields(request.params)
        actions: list[Action] = [Answer(request, reply)]
        if owner.client is not None:
            actions += [ShowAgain(owner.client, frame) for frame in self.prompts.frames]
            actions += [AskClient(owner.client, reverse) for reverse in self.prompts.asked_over(via)]
        if self.phase is not Phase.LOADED:  # all are attached when it is loaded again
            return actions
        # Somebody may have closed it before, and this resume loaded it: then the others own it no longer.
        others = [link for link in self.owners if link != via and self.owners[link].client is not None]
        return actions + [Attach(link, {"sessionId": self.session_id} | self.owners[link].own) for link in others]

    def _has_left(self, request: Request, via: Link | None, reply: Reply, now: float) -> list[Action]:
        if reply.failure is None and via is not None:
            # {"success": false}: it was unloaded there already; the client, which was not told, leaves all the same.
            self.owners.remove(via)
            reply = Reply(result={"success": True})
            if request.epoch != self.epoch and self.phase in (Phase.LOADED, Phase.SETTLING):
                # It left a loading that has ended; of the present one it was made an owner again.
                return [Answer(request, reply), Release(via), *(self._ended(now) if not self.owners else [])]
        if not self.owners and self.phase in (Phase.LOADED, Phase.LEAVING):
            self.made_with = None
            return [Answer(request, reply), *self._ended(now)]
        return [Answer(request, reply), *(self._flush(now) if self.phase is Phase.LEAVING else [])]

    def _removed(self, request: Request, reply: Reply) -> list[Action]:
        """A client closed or deleted the session. The CLI tells nobody, not even those whose turn this ends."""
        actions: list[Action] = [Answer(request, reply)]
        deleted = request.method == "session.delete"
        if reply.failure is not None or (deleted and not (reply.result or {}).get("success")):
            return actions
        if self.phase is Phase.LOADED and request.epoch == self.epoch:
            self._unloaded()
        was_busy, sends = self.work.running, self.work.clear()
        was_busy = was_busy or any(send.answered for send in sends)
        self.prompts.unloaded()
        self.prompts.clear()
        if was_busy:
            actions += self._tell_died("The session was deleted" if deleted else "The session was closed")
        if deleted and self.phase is Phase.UNLOADED:
            self.made_with = None
            for link in self.owners:
                self.owners.remove(link)
                actions.append(Release(link))
        return actions

    def _remember(self, request: Request, via: Link | None, reply: Reply) -> None:
        """What must be said again when the session is loaded again."""
        if reply.failure is not None:
            return
        owner = self.owners.get(via)
        match request.method:
            case "session.model.switchTo" | "session.model.switchAutoTier" if self.made_with:
                self.made_with.pop("model", None)  # the stored one comes back, unless another is named
            case "session.permissions.setApproveAll":
                self.approve_all = request.params
            case "session.tools.set" if owner and "tools" in request.params:
                owner.own["tools"] = request.params["tools"]
