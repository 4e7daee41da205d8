"""Asks the agent beside a server for room before a session is loaded there: it decides for all gateways together.

One request at a time carries all sessions that wait, and comes back when one of them may be loaded.

Where servers share their sessions the agent claims them (``agent/claims.py``), and gives a permission with a name of
ours. It counts until we say that it is over: that what was sent with it was answered, or that nothing will be sent.
"""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, Protocol

from copilot_operator.gateway.agent_client import ERRORS, AgentClient
from copilot_operator.gateway.session.actions import ELSEWHERE, GATEWAY_ERROR, Failure

log = logging.getLogger(__name__)

WAIT_S: Final = 2.0  # how long an agent may keep its answer back
ANSWER_S: Final = 5.0  # beyond that
AGAIN_S: Final = 0.5  # after a failure
MOST_AT_ONCE: Final = 24  # ids of 250 characters; the head of a request has 8 KiB
RETRY_AFTER_S: Final = 5

SETTLE_S: Final = 0.3  # what is over is told by then; it is no hurry
SETTLED_AT_ONCE: Final = 100
CARRIED: Final = 12  # of them with another request
GONE_AT_ONCE: Final = 8

_US: Final = secrets.token_hex(6)
_numbers = itertools.count()


class Permit:
    """A permission to load a session, for ``users``. Each has to say once that it is ``over``.

    One that was used and not answered never is: the server may load the session at any time, as long as it lives.
    """

    def __init__(self, name: str = "", users: int = 1, settle: Callable[[str], None] = lambda name: None) -> None:
        self._name, self._users, self._settle, self._unanswered = name, users, settle, False

    def over(self, answered: bool = True) -> None:
        self._users -= 1
        self._unanswered = self._unanswered or not answered
        if self._users <= 0 and not self._unanswered:
            self._settle(self._name)


Done = Callable[[Failure | None, bool, Permit], None]
"""Called once: None, it may be loaded; else why not, and whether another try may succeed."""


class Holders(Protocol):
    """Who hears where sessions are that cannot be claimed (``holders.py``)."""

    def held(self, id: str, holder: str) -> str:
        """Returns why, for people."""

    def free(self, id: str) -> None: ...

    def gone(self, ids: Collection[str]) -> list[str]:
        """UIDs of pods that are gone and held any of these."""


class NoHolders:
    """Where no server has what another could want."""

    def held(self, id: str, holder: str) -> str:
        return f"it is held by {holder}"

    def free(self, id: str) -> None: ...

    def gone(self, ids: Collection[str]) -> list[str]:
        return []


@dataclass(frozen=True, slots=True)
class Rules:
    """``spec.sessions.maxConcurrent`` and ``whenFull``; ``code_length``: that of the tenants' codes in ids.

    ``waiting_s``: after how long a session that waits for a person or a client's tool goes if no idle one is left.
    """

    most: int
    evict: bool = True
    code_length: int = 0
    waiting_s: float | None = None
    claims: bool = False  # other servers have the same sessions


@dataclass(slots=True)
class _Wish:
    of_tenant: int | None
    done: Done
    until: float


class Permits:
    """Of one server; ids are the server's own. ``rules`` None: any number may be loaded."""

    def __init__(self, agent: AgentClient, rules: Rules | None, holders: Holders | None = None) -> None:
        self._agent, self.rules, self._holders = agent, rules, holders or NoHolders()
        self._over: dict[str, None] = {}  # names of permissions, the agent has yet to be told
        self._settling: asyncio.Task[None] | None = None
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._wishes: dict[str, list[_Wish]] = {}
        self._asking: asyncio.Task[None] | None = None

    def ask(self, id: str, of_tenant: int | None, done: Done, *, within_s: float) -> None:
        """Have a session let in. ``done`` may be called before this returns."""
        if self.rules is None:
            done(None, True, Permit())
            return
        wish = _Wish(of_tenant, done, self._loop.time() + within_s)
        self._wishes.setdefault(id, []).append(wish)
        if self._asking is None or self._asking.done():
            self._asking = self._loop.create_task(self._ask_until_done())

    @property
    def claims(self) -> bool:
        """Whether sessions must be claimed before they are loaded, over connections that are open before."""
        return self.rules is not None and self.rules.claims

    async def may_attach(self, id: str) -> Permit | None:
        """Whether a session that is loaded may be attached to: it is not about to be unloaded for another."""
        if self.rules is None:
            return Permit()
        name = _new_name()
        query = {"id": id} | ({"permits": name} if self.claims else {})
        may = False
        try:
            may = (await self._get(_page("/slots/attach", query)))["attach"] is True
        except ERRORS as error:
            log.warning("an agent does not say what may be attached to: %r", error)
        finally:
            if not may:  # it was given perhaps, and nobody heard of it
                self._settle(name)
        return Permit(name, settle=self._settle) if may else None

    async def release(self, id: str) -> bool:
        """Have the agent give up a session, for another server. False: it may be loaded there, or nobody says."""
        over = list(self._over)[:CARRIED]
        try:
            answer = await self._get(_page("/claims/release", {"ids": id, "settled": ",".join(over)}))
            self._told(over)
            return answer["free"][id] is True
        except ERRORS as error:
            log.warning("an agent does not say whether a session is free: %r", error)
            return False

    def end(self) -> "asyncio.Task[None] | None":
        """Nothing is loaded there by us any more. Returns what tells the agent so, where it claims sessions: the server
        may be there still, for other gateways or with another address, and would have them until its end."""
        self._ended = True
        if self._asking is not None:
            self._asking.cancel()
        for id in list(self._wishes):
            self._answer(id, _failure("the server has left", "NoServer"), True)
        if self.claims and (self._settling is None or self._settling.done()):
            self._settling = self._loop.create_task(self._tell_over())
        return self._settling

    async def _get(self, page: str) -> Any:
        """Raises httpx.HTTPError, ValueError."""
        return await self._agent.get(page, timeout_s=WAIT_S + ANSWER_S)

    async def _ask_until_done(self) -> None:
        while self._wishes:
            trouble = ""
            try:
                await self._ask()
            except ERRORS as error:
                log.warning("an agent does not say what may be loaded: %r", error)
                trouble = str(error) or type(error).__name__
                await asyncio.sleep(AGAIN_S)
            self._give_up(self._loop.time(), trouble)

    async def _ask(self) -> None:
        rules = self.rules
        if rules is None:  # not any more
            for id in list(self._wishes):
                self._answer(id, None, True)
            return
        ids = list(self._wishes)[:MOST_AT_ONCE]
        names, over = {id: _new_name() for id in ids}, list(self._over)[:CARRIED]
        most = {id: self._wishes[id][-1].of_tenant for id in ids}
        query = {
            "most": str(rules.most),
            "code_length": str(rules.code_length),
            "evict": str(rules.evict).lower(),
            "wait_s": f"{WAIT_S:g}",
            **({} if rules.waiting_s is None else {"waiting_s": f"{rules.waiting_s:g}"}),
            "ids": ",".join(id if most[id] is None else f"{id}:{most[id]}" for id in ids),
        }
        if rules.claims:
            query |= {"permits": ",".join(names.values()), "settled": ",".join(over)}
            query |= {"gone": ",".join(self._holders.gone(ids)[:GONE_AT_ONCE])}
        unused = dict(names)
        try:
            answer = await self._get(_page("/slots", query))
            lacks, held = answer["lacks"], answer.get("held") or {}
            self._told(over)
            for id in ids:
                if id in held:
                    self._answer(id, _failure(self._holders.held(id, held[id]), ELSEWHERE), True)
                elif not lacks[id]:
                    self._holders.free(id)
                    self._answer(id, None, True, unused.pop(id))
                elif not rules.evict:
                    self._answer(id, _full(lacks[id], rules.most if lacks[id] == "server" else most[id]), False)
        finally:
            for name in unused.values():
                self._settle(name)  # given perhaps, and nobody heard of it
        later = [id for id in ids if id in self._wishes]
        self._wishes = {id: self._wishes[id] for id in (*(self._wishes.keys() - later), *later)}  # all are asked for

    def _give_up(self, now: float, trouble: str) -> None:
        full = _failure("no session could be closed for this one; all work", "TooManySessions")
        failure = _failure(f"the server lets nothing in: {trouble}", "NotLetIn") if trouble else full
        for id, wishes in list(self._wishes.items()):
            late = [wish for wish in wishes if wish.until <= now]
            self._wishes[id] = [wish for wish in wishes if wish.until > now]
            if not self._wishes[id]:
                del self._wishes[id]
            for wish in late:
                wish.done(failure, True, Permit())

    def _answer(self, id: str, failure: Failure | None, again: bool, name: str = "") -> None:
        wishes = self._wishes.pop(id, [])
        permit = Permit(name, len(wishes), self._settle) if name else Permit()
        if name and not wishes:
            self._settle(name)
        for wish in wishes:
            wish.done(failure, again, permit)

    # What is over

    def _settle(self, name: str) -> None:
        if self.claims:
            self._over[name] = None
            if self._settling is None or self._settling.done():
                self._settling = self._loop.create_task(self._tell_over())

    def _told(self, names: list[str]) -> None:
        for name in names:
            self._over.pop(name, None)

    async def _tell_over(self) -> None:
        """Until the agent has heard it, or the server has left and nobody hears it there."""
        await asyncio.sleep(SETTLE_S)
        while names := list(self._over)[:SETTLED_AT_ONCE]:
            try:
                await self._get(_page("/claims/settle", {"settled": ",".join(names)}))
                self._told(names)
            except ERRORS as error:
                log.warning("an agent does not hear what is over: %r", error)
                if self._ended:
                    return
                await asyncio.sleep(AGAIN_S)


def _new_name() -> str:
    return f"{_US}-{next(_numbers)}"


def _page(path: str, query: dict[str, str]) -> str:
    """Agents take queries as they stand; nothing here needs to be quoted."""
    return path + "?" + "&".join(f"{key}={value}" for key, value in query.items())


def _full(lacks: str, most: int | None) -> Failure:
    whose = "this tenant has" if lacks == "tenant" else "this server has"
    text = f"{whose} {most} sessions loaded, which is the most; close one, or try again in {RETRY_AFTER_S} s"
    return _failure(text, "TooManySessions", retryAfterSeconds=RETRY_AFTER_S)


def _failure(text: str, reason: str, **data: int) -> Failure:
    return Failure(GATEWAY_ERROR, text, {"reason": reason, **data})
