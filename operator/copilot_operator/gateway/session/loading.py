"""How a session comes back: it is loaded again behind its clients' backs. Part of the machine in ``machine``.

A session is unloaded when its server has gone, when somebody closed it there (a drain, an eviction, the CLI's own
idle timeout: no one is told, a request finds out), or by ourselves. It is loaded again when something wants it: a
request that waits, a send in doubt, a turn that waits for a permission or a client's tool and so outlives a reload.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final

from copilot_operator.gateway.session.actions import (
    Action,
    Answer,
    Attach,
    Close,
    Disconnect,
    Failure,
    Link,
    Load,
    Release,
    Replay,
    Reply,
    Request,
    refusal,
)
from copilot_operator.gateway.session.owners import common_fields
from copilot_operator.gateway.session.settling import RETRY_S, SettlingState
from copilot_operator.gateway.session.state import Loading, Phase

STORED_WITHIN_S: Final = 0.5  # what a server has taken in it has stored, or at least says, by then (0.15 s seen)
ANSWERED_S: Final = 5.0  # from an answer to the event that tells of it, at most; and to a turn that goes on
_MOST_RETRY_S: Final = 1.0

TOO_LONG: Final = "The session was unloaded for another one, for its question had waited too long for an answer"
LOST: Final = "The server of this session ended while it worked on this"


class LoadingState(SettlingState):
    """The part of the machine that loads and unloads."""

    @abstractmethod
    def _send(self, request: Request, now: float) -> list[Action]:
        """Carry out a request on the loaded session."""

    @abstractmethod
    def _start(self, request: Request, now: float) -> list[Action]:
        """Carry out a request on the unloaded session."""

    # Loading

    def _load(self, now: float, not_before: float = 0.0) -> list[Action]:
        """Load the session again with what it was made with."""
        via = self.owners.any_link()
        if via is None or self.made_with is None:
            self.made_with = None
            return self._give_up_doubts(self.work.doubts) + self._start_held(now)
        self.may_go_on = self.may_go_on or self.parked
        params = {"sessionId": self.session_id} | self.made_with | self.owners[via].own
        return self._begin_loading(Load(via, "session.resume", params, not_before=not_before), None)

    def _begin_loading(self, action: Load, request: Request | None) -> list[Action]:
        self.phase, self.loading, self.parked = Phase.LOADING, Loading(action, request), False
        return [action]

    def on_loaded(self, server: str, reply: Reply, now: float) -> list[Action]:
        """The ``Load`` was answered well by ``server``; ``reply`` is what its client gets, if one asked for it."""
        loading, self.loading = self.loading, None
        if self.phase is not Phase.LOADING or loading is None:
            return []
        via, actions = loading.action.via, list[Action]()
        if via not in self.owners:  # its client was told in the meantime that it took too long
            self.phase = Phase.UNLOADED
            if self.owners:
                return [Release(via), *self._need(now)]
            return [Release(via), *self._give_up_doubts(self.work.doubts), *self._start_held(now)]
        self.server, self.phase, self.used_at = server, Phase.LOADED, now
        self.owners[via].joining = False
        if loading.request:
            self.made_with = common_fields(loading.action.params)
            self.is_stored = self.unsure = loading.action.method == "session.resume"
            actions.append(Answer(loading.request, reply))
        elif self.approve_all:
            actions.append(Replay(via, "session.permissions.setApproveAll", self.approve_all))
        return actions + self._attach_others(via) + self._settle_or_flush(now)

    def _attach_others(self, loader: Link) -> list[Action]:
        """One that lingers is enough."""
        actions = self._let_go([link for link in self.owners.lingering if link != loader])
        return actions + [self._attach(link) for link in self.owners if link != loader]

    def _attach(self, link: Link) -> Attach:
        """With all that makes the session what it is: should it be unloaded by then, this would load it."""
        return Attach(link, {"sessionId": self.session_id} | (self.made_with or {}) | self.owners[link].own)

    def on_attach_failed(self, link: Link, now: float, failure: Failure | None = None) -> list[Action]:
        """An ``Attach`` was answered with an error: the client would hear nothing of its session any more."""
        owner = self.owners.get(link)
        if owner is None or self.phase not in (Phase.SETTLING, Phase.LOADED):
            return []
        if len(self.owners) == 1 or (failure and failure.says_not_stored):
            return self._ended(now)  # nobody owns it there: to be loaded again when it is wanted
        self.owners.remove(link)
        if owner.client is None:
            return []
        return [Disconnect(owner.client, f"session {self.session_id} could not be resumed for it")]

    def on_load_failed(self, failure: Failure, transient: bool, now: float) -> list[Action]:
        """The ``Load`` failed. ``transient``: another try may succeed (no server serves, none answers, link lost);
        otherwise ``failure`` is the server's own answer."""
        loading = self.loading
        if self.phase is not Phase.LOADING or loading is None:
            return []
        if loading.action.by_client and (loading.request is None or loading.request.abandoned):
            self.phase, self.loading = Phase.UNLOADED, None  # nobody is there who could want it
            self.owners.remove(loading.action.via)
            return self._start_held(now)
        loading.failed = failure.message
        if transient and self._wanted:
            return self._try_again(loading, now)
        self.phase, self.loading = Phase.UNLOADED, None
        if transient:
            return self._need(now)
        if loading.request:
            self.owners.remove(loading.action.via)
            return [Answer(loading.request, Reply(failure=failure)), *self._start_held(now)]
        if failure.says_not_stored and not self.is_stored and loading.action.method == "session.resume":
            # Nothing of it has reached the disk, so there is nothing to resume: it is made anew.
            again = Load(loading.action.via, "session.create", loading.action.params)
            return self._begin_loading(again, None)
        return self._cannot_be_loaded(failure)

    def _try_again(self, loading: Loading, now: float) -> list[Action]:
        wait_s = min(RETRY_S * 2 ** min(loading.tries, 10), _MOST_RETRY_S)
        loading.tries += 1
        last = loading.action
        via = last.via if last.via in self.owners else self.owners.any_link()
        if via is None:
            self.phase, self.loading = Phase.UNLOADED, None
            return self._load(now)
        loading.action = Load(via, last.method, last.params, last.by_client, not_before=now + wait_s)
        return [loading.action]

    def _cannot_be_loaded(self, failure: Failure) -> list[Action]:
        """The server refuses what the session was made with. Clients find it unloaded, as with a CLI alone."""
        held, self.held = self.held, []
        actions: list[Action] = [Answer(request, Reply(failure=failure)) for request in held]
        if self.may_go_on:
            self.may_go_on = False
            actions += self._tell_died(failure.message)
        actions += self._give_up_doubts(self.work.doubts) + self._tell_idle()
        self.made_with = None
        for link in self.owners:
            self.owners.remove(link)
            actions.append(Release(link))
        return actions

    # Unloading

    @property
    def _wanted(self) -> bool:
        """Whether anything needs the session to be loaded."""
        return bool(self._waiting or self.work.doubts or self.may_go_on)

    def _need(self, now: float, not_before: float = 0.0) -> list[Action]:
        """Load the unloaded session if anything wants it; nobody lingers on one that nothing wants."""
        if self._wanted:
            return self._load(now, not_before)
        return self._tell_idle() + self._let_go(self.owners.lingering)

    def _let_go(self, links: Sequence[Link]) -> list[Action]:
        """Release these links, save those over which an answer is still to come."""
        links = [link for link in links if link not in self.flying.values()]
        for link in links:
            self.owners.remove(link)
        return [Release(link) for link in links]

    def _ended(self, now: float, *, perhaps: bool = False) -> list[Action]:
        """It is loaded nowhere any more, or ``perhaps``. Turns that may live are looked for, others have died."""
        self._unloaded()
        died, sends = self.work.unloaded(now)
        outlives = perhaps or self.prompts.outlive
        self.prompts.unloaded()
        self.is_stored = self.is_stored or died
        actions: list[Action] = [Answer(send.request, refusal(LOST, "ServerLost")) for send in sends if send.orphan]
        if died and outlives:
            self.may_go_on = True
        elif died:
            actions += self._tell_died(LOST)
        return actions + self._need(now, now + STORED_WITHIN_S if self.work.doubts else 0.0)

    # Closing

    def on_draining(self, now: float) -> list[Action]:
        """The session is to leave its server: at once if idle, else when it becomes so. May be repeated."""
        self.leaving = self.server is not None
        return self._rest(now)

    def close(self, now: float) -> list[Action]:
        """Unload it if it is idle (idle timeout, eviction). Its owners keep it; its next request loads it again."""
        if self.phase is not Phase.LOADED or self.busy or self.server is None:
            return []
        self.phase = Phase.CLOSING
        return [Close(self.server)]

    def close_waiting(self, now: float) -> list[Action]:
        """Unload it if it is idle, or its turn waits for a person or a tool of a client who is there (eviction).

        What it waits for stays open, and the answer loads it again. A question of the CLI's tool ask_user does not
        outlive that: its turn ends.
        """
        if self.phase is not Phase.LOADED or self.server is None or not self._only_waits(now):
            return self.close(now)
        self.phase = Phase.CLOSING
        return [Close(self.server)]

    def _only_waits(self, now: float) -> bool:
        turns = self.work.running and self.work.count == 1 and not self.work.doubts and not self.work.unbegun
        unsettled = self.unsure or self.flying or self.owners.lingering or now - self.used_at < ANSWERED_S
        return turns and self.prompts.open and not unsettled

    def on_closed(self, closed: bool, now: float) -> list[Action]:
        """The answer to ``Close``; False: it failed, the session is as before."""
        if self.phase is not Phase.CLOSING:
            return []
        if closed:
            waited = self.work.busy
            self._unloaded()
            self.work.clear()
            self.prompts.unloaded()
            self.parked = waited and self.prompts.outlive
            self.is_stored = self.is_stored or waited
            died = self._tell_died(TOO_LONG) if waited and not self.parked else []
            return died + self._need(now)
        self.leaving = False  # else it would be tried without end; on_draining may be repeated
        return [self._attach(link) for link in self.owners if self.owners[link].client is not None] + self._flush(now)

    # After each of them

    def _flush(self, now: float) -> list[Action]:
        """The session is there: send what was held, in order."""
        self.phase = Phase.LOADED
        held, self.held = self.held, []
        actions = list[Action]()
        for request in held:
            actions += self._send(request, now) if self.phase is Phase.LOADED else self._hold(request)
        return actions + self._rest(now)

    def _start_held(self, now: float) -> list[Action]:
        """The session is unloaded and nothing is known of it: each request that waited is as a first one."""
        held, self.held = self.held, []
        actions = list[Action]()
        for request in held:
            actions += self._start(request, now) if self.phase is Phase.UNLOADED else self._hold(request)
        return actions

    def _rest(self, now: float) -> list[Action]:
        """Nothing runs: let go of links that only lingered for it, and leave a server that drains."""
        if self.phase is Phase.UNLOADED:
            return self._need(now)
        if self.phase is not Phase.LOADED or self.busy:
            return []
        actions = self._tell_idle() + self._let_go(self.owners.lingering)
        if not self.owners:
            self._unloaded()
            self.made_with = None
            return actions + self._start_held(now)
        return actions + (self.close(now) if self.leaving else [])
