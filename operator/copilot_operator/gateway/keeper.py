"""Keeps the turns of other gateways: the server ends a turn when the last connection that owns its session closes, so
this gateway owns it, too, while it works.

No gateway has to tell another anything: the CLI tells every connection of what happens to any session
(``session.lifecycle``), so each gateway hears of the others' turns over its utility link, and attaches there quietly.
Should the other one be killed the turn goes on, and its client finds it here.

Attaching to a session that is not loaded would load it, so only one that works is attached to; it is let go some time
after ``session.idle``: a conversation goes on as a rule, and the next turn is kept from its first moment.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from copilot_operator.gateway.frames import wire
from copilot_operator.rpc.errors import ServerError

log = logging.getLogger(__name__)

REST_S: Final = 30.0  # from idle to letting go
MOST_S: Final = 1800.0  # without any event: a turn that waits for a person who does not come back
LOOK_EVERY_S: Final = 0.1  # a session that is heard of and does not work is asked about so often at most
LOOK_AGAIN_S: Final = 0.25  # what is heard of may begin to work just after that
MOST_KEPT: Final = 1000
CALL_S: Final = 10.0

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]


@dataclass(eq=False, slots=True)
class _Kept:
    """``works`` until it is idle; ``heard_at`` when anything was heard of it."""

    works: bool
    heard_at: float


class Keeper:
    """Of one server; ids are the server's own. ``call`` asks it over the utility link, and raises ServerError.

    ``works`` tells whether a session does; ``owned`` whether a client of this gateway has it open. ``on`` is False
    where there is no other gateway.
    """

    def __init__(
        self, call: Call, works: Callable[[str], Awaitable[bool]], owned: Callable[[str], bool], *, on: bool
    ) -> None:
        self._call, self._works, self._owned, self.on = call, works, owned, on
        self._loop = asyncio.get_running_loop()
        self._kept: dict[str, _Kept] = {}
        self._looked_at: dict[str, float] = {}
        self._looks: dict[str, asyncio.TimerHandle] = {}  # that are due
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def heard_of(self, id: str) -> None:
        """Something happened to a session (``session.updated``)."""
        if not self.on or id in self._kept or id in self._looks or len(self._kept) >= MOST_KEPT or self._owned(id):
            return
        due_in_s = self._looked_at.get(id, float("-inf")) + LOOK_EVERY_S - self._loop.time()
        self._look_in(max(0.0, due_in_s), id, again=True)

    def event(self, body: bytes) -> None:
        """A ``session.event`` over the utility link."""
        head = wire.event_head(body)
        kept = self._kept.get(head.session_id) if head is not None else None
        if head is None or kept is None:
            return
        kept.heard_at = self._loop.time()
        if head.type == "session.idle":
            kept.works = False
        elif head.type == "session.shutdown":
            self._forget(head.session_id)
        elif head.type in ("user.message", "assistant.turn_start"):
            kept.works = True

    def sweep(self, now: float) -> None:
        """Let go of what has rested for long enough. To be called about every second, with the loop's time."""
        for id, kept in list(self._kept.items()):
            if now - kept.heard_at >= (MOST_S if kept.works else REST_S):
                self._forget(id)
                self._start(self._detach(id))
        self._looked_at = {id: at for id, at in self._looked_at.items() if now - at < LOOK_EVERY_S}

    def lost(self) -> None:
        """The utility link has ended, and with it all that was kept."""
        self._kept.clear()
        self._looked_at.clear()
        self._no_looks()

    def end(self) -> None:
        """Ask no more."""
        self._no_looks()
        for task in self._tasks:
            task.cancel()

    def _forget(self, id: str) -> None:
        self._kept.pop(id, None)

    def _no_looks(self) -> None:
        for due in self._looks.values():
            due.cancel()
        self._looks.clear()

    def _look_in(self, seconds: float, id: str, *, again: bool) -> None:
        def look() -> None:
            del self._looks[id]
            self._looked_at[id] = self._loop.time()
            self._start(self._attach(id, again))

        self._looks[id] = self._loop.call_later(seconds, look)

    async def _attach(self, id: str, again: bool) -> None:
        try:
            works = await self._works(id)
            if self._owned(id) or id in self._kept:
                return
            if not works:
                if again and id not in self._looks:
                    self._look_in(LOOK_AGAIN_S, id, again=False)
                return
            self._kept[id] = _Kept(works=True, heard_at=self._loop.time())  # its events may come before the answer
            await self._call("session.resume", {"sessionId": id, "disableResume": True})
        except ServerError as error:
            self._forget(id)
            log.debug("cannot keep a session: %s", error)

    async def _detach(self, id: str) -> None:
        try:
            await self._call("session.detach", {"sessionId": id})
        except ServerError as error:
            log.debug("cannot let go of a session: %s", error)

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
