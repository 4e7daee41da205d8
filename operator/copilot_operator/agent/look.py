"""Looks at all sessions of a CLI, with patience for one that is busy, and little for one that is dead."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

from copilot_operator.agent.observer import Observer, Sessions
from copilot_operator.rpc.errors import ConnectionLost, ServerError, ServerSilent

LOOK_EVERY_S: Final = 0.5
_SURVEY_TIMEOUT_S: Final = 10.0  # 1,000 stored sessions take half a second on an idle machine
_SURVEY_USUALLY_S: Final = 0.7
_TRIES: Final = 3  # unanswered surveys in a row, then the CLI is taken for dead: 7 s for one that hangs
_TRIES_IF_PINGED: Final = 10  # ... of one that answers ping

AnswersPing = Callable[[], Awaitable[bool]]


class PingUnanswered(ServerSilent):
    """The CLI does not even answer ping."""


class Look:
    """Surveys of the CLI process that is there when this is made."""

    def __init__(self, observer: Observer, answers_ping: AnswersPing) -> None:
        self.generation = observer.generation
        self.answers_ping = answers_ping
        self._observer = observer

    async def at_all(self, *, full: bool = True, patient_until: float = inf) -> Sessions:
        """Where the sessions stand. ``full``: those too that were found at rest and not heard of since.

        ``patient_until``, of the event loop's clock: after that a CLI that answers only ping is given up as well.
        Raises ServerError when the CLI is silent, or is another process by now.
        """
        tried = 0
        while True:
            try:
                sessions = await self._survey(full)
                if self._observer.generation == self.generation and not everyone_is_silent(sessions):
                    return sessions
                silence: ServerError = ServerSilent("any question about its sessions", _SURVEY_TIMEOUT_S)
            except ServerError as error:
                silence = error
            if self._observer.generation != self.generation:
                raise ConnectionLost("the CLI was restarted meanwhile")
            tried += 1
            # One that still answers ping may only be busy beyond measure, or its agent new: it gets more patience.
            alive = not isinstance(silence, PingUnanswered) and await self.answers_ping()
            patient = alive and asyncio.get_running_loop().time() < patient_until
            if tried >= (_TRIES_IF_PINGED if patient else _TRIES):
                raise silence
            await asyncio.sleep(LOOK_EVERY_S)

    async def _survey(self, full: bool) -> Sessions:
        """As long as it takes, but no longer than the CLI answers ping while it is waited for."""
        surveying = asyncio.create_task(self._observer.sessions(max_age_s=0, timeout_s=_SURVEY_TIMEOUT_S, full=full))
        try:
            await asyncio.wait([surveying], timeout=_SURVEY_USUALLY_S)
            if not surveying.done() and not await self.answers_ping():
                raise PingUnanswered("ping during a survey of the sessions", _SURVEY_USUALLY_S)
            return await surveying
        finally:
            surveying.cancel()


def everyone_is_silent(sessions: Sessions) -> bool:
    """Whether there are sessions and the server spoke of none: it hangs."""
    return 0 < sessions.count.uncounted == len(sessions.standings)
