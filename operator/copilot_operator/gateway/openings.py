"""Says to the agent beside a server which ephemeral sessions the clients of this gateway have open: those stay.

Told what is open now, as often as one likes; says what is new and what was left, and all of it again every few seconds.
What could not be said is said later; an agent that hears nothing of a session deletes it some time after (``held``).
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Final

from copilot_operator.gateway.agent_client import ERRORS, AgentClient
from copilot_operator.gateway.keeper import ME

log = logging.getLogger(__name__)

SAY_EVERY_S: Final = 10.0
ANSWER_S: Final = 5.0
MOST_AT_ONCE: Final = 24  # ids of 250 characters; the head of a request has 8 KiB


class Openings:
    """Of one server; ids are the server's own."""

    def __init__(self, agent: AgentClient) -> None:
        self._agent = agent
        self._loop = asyncio.get_running_loop()
        self._open: dict[str, float] = {}  # when that is to be said (again)
        self._left: dict[str, None] = {}  # to be said
        self._saying: asyncio.Task[None] | None = None

    def opens(self, id: str) -> None:
        """A client is about to create or resume a session: the agent hears of it before the server is done."""
        self._left.pop(id, None)
        self._open[id] = self._loop.time()
        self._say()

    def are(self, ids: Collection[str]) -> None:
        """All that are open now. To be called about every second."""
        now = self._loop.time()
        self._left |= {id: None for id in self._open if id not in ids}
        for id in ids:
            self._left.pop(id, None)
        self._open = {id: self._open.get(id, now) for id in ids}
        self._say()

    def end(self) -> None:
        """Nothing is there to be told."""
        if self._saying is not None:
            self._saying.cancel()

    def _due(self) -> list[str]:
        now = self._loop.time()
        return [id for id, at in self._open.items() if at <= now]

    def _say(self) -> None:
        if (self._left or self._due()) and (self._saying is None or self._saying.done()):
            self._saying = self._loop.create_task(self._say_all())

    async def _say_all(self) -> None:
        try:
            while (opened := self._due()[:MOST_AT_ONCE]) or self._left:
                left = list(self._left)[: MOST_AT_ONCE - len(opened)]
                again_at = self._loop.time() + SAY_EVERY_S
                page = f"/ephemeral?gateway={ME}&open={','.join(opened)}&left={','.join(left)}"
                await self._agent.get(page, timeout_s=ANSWER_S)
                for id in opened:
                    if id in self._open:
                        self._open[id] = again_at
                for id in left:
                    self._left.pop(id, None)
        except ERRORS as error:  # tried again in a second
            log.warning("an agent cannot be told which ephemeral sessions are open: %r", error)
