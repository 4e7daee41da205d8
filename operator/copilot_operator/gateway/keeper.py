"""Keeps the turns of other gateways: the server ends a turn when the last connection that owns its session closes, so
this gateway owns it, too, as long as it is used.

The CLI tells every connection of what happens to any session (``session.lifecycle``), so each gateway hears of the
others' sessions over its utility link, and attaches there quietly. Should the other one be killed the turn goes on, and
its client finds it here.

A session that is not loaded is never attached to: that would load it. One that was just created is, so it is not asked
about: a client sends its first message a moment later. It is let go some time after ``session.idle``: a conversation
goes on as a rule, and the next turn is kept from its first moment.

Those who own a session tell each other, by events that reach nobody else and are stored nowhere (``session.log`` with
``ephemeral``): the gateway whose client it is answers the first message once another one keeps the session.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from copilot_operator.gateway.frames import wire
from copilot_operator.rpc import owners
from copilot_operator.rpc.ephemeral import NONE, Ephemeral
from copilot_operator.rpc.errors import ServerError

log = logging.getLogger(__name__)

REST_S: Final = 30.0  # from idle to letting go
MOST_S: Final = 1800.0  # without any event: a turn that waits for a person who does not come back
MOST_KEPT: Final = 1000
ME: Final = secrets.token_hex(8)  # says which gateway keeps a session
CALL_S: Final = 10.0
AGAIN_S: Final = 2.0  # by then whoever attaches to a session as its last client leaves has done so

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]


@dataclass(eq=False, slots=True)
class _Kept:
    """``works`` until it is idle, None until that is known; ``heard_at`` when anything was heard of it; ``heard``
    whether that was since the server last told everybody of it; ``unwanted`` if it is to be let go unless it works."""

    heard_at: float
    heard: bool = True
    works: bool | None = None
    unwanted: bool = False
    leaving: bool = False


class Attachment(Protocol):
    """A way to attach to a session: to be made once, or given up. ``make`` raises ServerError."""

    async def make(self) -> None: ...

    def give_up(self) -> None: ...


class Keeper:
    """Of one server; ids are the server's own. ``call`` asks it over the utility link, and raises ServerError.

    ``works`` tells whether a loaded session does, ``may_attach`` how it may be attached to, if it may, ``owned``
    whether a client of this gateway has it open. ``on`` is False where there is no other gateway.
    """

    def __init__(
        self,
        call: Call,
        works: Callable[[str], Awaitable[bool]],
        may_attach: Callable[[str], Awaitable[Attachment | None]],
        owned: Callable[[str], bool],
        *,
        on: bool,
    ) -> None:
        self._call, self._works, self._may_attach, self._owned, self.on = call, works, may_attach, owned, on
        self.ephemeral: Ephemeral = NONE  # which sessions are
        self._loop = asyncio.get_running_loop()
        self._kept: dict[str, _Kept] = {}
        self._attaching: dict[str, asyncio.Future[None]] = {}  # done when it is kept, or cannot be
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def attaches(self) -> bool:
        """Whether sessions that were heard of are not kept yet."""
        return bool(self._attaching)

    def created(self, id: str) -> None:
        """A session has just been created (``session.created``)."""
        self._heard_of(id, loaded=True)

    def updated(self, id: str) -> None:
        """Something happened to a session, which may be loaded (``session.updated``).

        Who owns it has heard the event just before, over the same connection. If not, it was closed by somebody else,
        which tells nobody, and is loaded anew.
        """
        kept = self._kept.get(id)
        if kept is not None and id not in self._attaching:
            if not kept.heard:
                self._forget(id)
            kept.heard = False
        self._heard_of(id, loaded=False)

    async def keep(self, id: str) -> None:
        """Attach to a loaded session that was our own until now. Returns when that is done, or cannot be.

        Also if a client of ours is about to own it again: it does not yet.
        """
        if (under_way := self._attaching.get(id)) is not None:  # it may be given up, for a client of ours had it
            await asyncio.wait({under_way}, timeout=2 * CALL_S)
        if self.on and id not in self._kept and id not in self._attaching:
            self._attaching[id] = self._loop.create_future()
            await self._attach(id, loaded=True, always=True)

    def _heard_of(self, id: str, *, loaded: bool) -> None:
        known = id in self._kept or id in self._attaching or self._owned(id)
        if self.on and not known and len(self._kept) + len(self._attaching) < MOST_KEPT:
            self._attaching[id] = self._loop.create_future()
            self._start(self._attach(id, loaded))

    def leave(self, id: str) -> None:
        """Nobody needs a session any more: gateways that keep it, if it is idle, need not wait for a client."""
        self._start(self._say_left(id))

    def event(self, body: bytes) -> None:
        """A ``session.event`` over the utility link."""
        head = wire.event_head(body)
        kept = self._kept.get(head.session_id) if head is not None else None
        if head is None or kept is None:
            return
        if head.type == "session.info" and (told := owners.heard(wire.params(body)["event"])):
            if told[0] in (owners.LEFT, owners.EVICT):
                self._is_unwanted(head.session_id, kept)
            return
        kept.heard_at, kept.heard, kept.leaving = self._loop.time(), True, False
        if head.type == "session.idle":
            kept.works = False
        elif head.type == "session.shutdown":
            self._forget(head.session_id)
        elif head.type in ("user.message", "assistant.turn_start"):
            kept.works = True

    def sweep(self, now: float) -> None:
        """Let go of what has rested for long enough. To be called about every second, with the loop's time."""
        for id, kept in list(self._kept.items()):
            if now - kept.heard_at >= (REST_S if kept.works is False else MOST_S):
                self._let_go(id, kept)

    def lost(self) -> None:
        """The utility link has ended, and with it all that was kept."""
        self._kept.clear()

    def end(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()

    def _forget(self, id: str) -> None:
        self._kept.pop(id, None)

    async def _attach(self, id: str, loaded: bool, always: bool = False) -> None:
        try:
            if not loaded:
                await self._call("session.metadata.activity", {"sessionId": id})  # an error: it is not loaded
            attachment = await self._may_attach(id)
            if attachment is None:
                return
            if self._owned(id) and not always:
                attachment.give_up()
                return
            kept = self._kept[id] = _Kept(self._loop.time())  # its events may come before the answer
            await attachment.make()
            await self._tell(id, owners.KEPT)
            works = await self._works(id)
            if kept.works is None:  # no event has told in the meantime
                kept.works = works
            if kept.unwanted:
                self._is_unwanted(id, kept)
        except ServerError as error:
            self._forget(id)
            log.debug("cannot keep a session: %s", error)
        finally:
            self._attaching.pop(id).set_result(None)

    def _is_unwanted(self, id: str, kept: _Kept) -> None:
        kept.unwanted = kept.works is None
        if kept.works is False:
            self._let_go(id, kept)

    def _let_go(self, id: str, kept: _Kept) -> None:
        if not kept.leaving:
            kept.leaving = True
            self._start(self._detach(id, kept))

    async def _detach(self, id: str, kept: _Kept) -> None:
        """Who is told of it after his message went out is told that it is kept all the same; later ones wait again."""
        try:
            await self._tell(id, owners.LET_GO)
            if not kept.leaving:  # something was heard of it
                await self._tell(id, owners.KEPT)
                return
            self._forget(id)
            await self._call("session.detach", {"sessionId": id})
        except ServerError as error:
            self._forget(id)
            log.debug("cannot let go of a session: %s", error)
        else:
            await self._say_left(id)

    async def _say_left(self, id: str) -> None:
        """Twice: who attaches just now owns it too late to hear it the first time, and may even have loaded it anew."""
        with contextlib.suppress(ServerError):  # as a rule: it is not loaded
            await self._call("session.log", owners.said(id, owners.LEFT))
        await asyncio.sleep(AGAIN_S)
        if not self._owned(id):
            with contextlib.suppress(ServerError):
                await self._call("session.log", owners.said(id, owners.LEFT))

    async def _tell(self, id: str, what: str) -> None:
        await self._call("session.log", owners.said(id, what, ME))

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
