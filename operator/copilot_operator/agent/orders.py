"""Who asks for a drain, changes it or calls it off: at most one drain runs at a time."""

import asyncio
from collections.abc import Callable
from typing import Final

from copilot_operator.agent.deadline import Deadline, OnTimeout
from copilot_operator.agent.drain import Drain, Phase
from copilot_operator.agent.keeper import Keeper
from copilot_operator.agent.log import log
from copilot_operator.agent.look import Look
from copilot_operator.agent.observer import Observer, Sessions

_GLANCE_TIMEOUT_S: Final = 5.0


class Orders:
    """The drain of the CLI that is there, and those who have a say in it."""

    def __init__(self, observer: Observer, look: Callable[[], Look], keeper: Callable[[], Keeper]) -> None:
        self._observer, self._look, self._keeper = observer, look, keeper
        self._drain: Drain | None = None
        self._running: asyncio.Task[None] | None = None
        self._releases: set[asyncio.Task[None]] = set()  # of what drains that were called off have kept
        self._asking = asyncio.Lock()  # a second look is taken by one caller at a time
        self._told: object = None  # what the operator was told last

    @property
    def drain(self) -> Drain | None:
        """The drain that runs or is done; None while the CLI serves."""
        return self._drain

    async def bind(self, deadline_s: float) -> Drain:
        """Drain, or join the drain that runs, for a caller who ends the pod after that; return when it is done.

        It goes on when the caller hangs up.
        """
        drain = await self._going(lambda deadline: deadline.bind(_now() + deadline_s))
        if self._running is not None:
            await asyncio.wait([self._running])  # waited for, not awaited: it is not the caller's
        return drain

    async def order(self, deadline_s: float, on_timeout: OnTimeout, *, wait_s: float) -> Drain:
        """Drain, or set when and how the drain that runs ends; return when there is news, at the latest in ``wait_s``.

        News is another phase or other counts than when this returned last, and that it is done.
        """
        drain = await self._going(lambda deadline: deadline.order(_now() + deadline_s, on_timeout))
        self._told = await drain.told_more_than(self._told, wait_s=wait_s)
        return drain

    def cancel(self) -> bool:
        """Serve again. False: it is too late, or someone who ends the pod waits for it.

        What is kept stays so until it is idle: a drain that is called off must not kill the turn of a client that
        hung up.
        """
        drain = self._drain
        if drain is None:
            return True
        phase = drain.progress.phase
        if phase is Phase.FLUSHING or (phase is Phase.QUIESCING and drain.deadline.is_bound):
            return False
        log("drain is called off", phase=phase)
        self._drain = None
        if self._running is not None:
            self._running.cancel()
        releasing = asyncio.create_task(drain.keeper.release(self._glance))
        self._releases.add(releasing)
        releasing.add_done_callback(self._releases.discard)
        return True

    def met_new_cli(self) -> None:
        """What was drained is gone; what stands there now serves."""
        if self._drain is not None and self._drain.generation != self._observer.generation:
            log("drain is over: another CLI serves")
            self._drain = None

    async def finish(self) -> None:
        """Return when no drain is under way and nothing is kept."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def stop(self) -> None:
        """End what is under way; the turns that are kept for clients which hung up end with it."""
        for task in self._under_way:
            task.cancel()
        await self.finish()
        if self._drain is not None:
            await self._drain.keeper.close()

    @property
    def _under_way(self) -> set[asyncio.Task[None]]:
        return self._releases if self._running is None else self._releases | {self._running}

    async def _going(self, say: Callable[[Deadline], None]) -> Drain:
        """The drain that runs. One that is done goes on if anything has begun again since."""
        async with self._asking:
            drain = self._drain
            if drain is None:
                drain = self._drain = Drain(self._observer, self._look(), self._keeper(), Deadline())
                self._told = None
            elif drain.progress.phase is not Phase.DONE:
                say(drain.deadline)
                return drain
            elif not await drain.look_again() or drain is not self._drain:
                return drain
            drain.deadline = Deadline()  # that of a drain that was done is of the past
            say(drain.deadline)
            self._running = asyncio.create_task(drain.run())
            return drain

    async def _glance(self) -> Sessions:
        return await self._observer.sessions(max_age_s=1.0, timeout_s=_GLANCE_TIMEOUT_S)


def _now() -> float:
    return asyncio.get_running_loop().time()
