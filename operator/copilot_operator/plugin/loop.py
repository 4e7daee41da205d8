"""An event loop in a thread of its own, so that the terminal's thread can wait for a person meanwhile."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from copilot_operator.plugin.errors import PluginError

T = TypeVar("T")
END_S: Final = 10.0


class LoopThread:
    """Runs until the block ends; what still runs then is cancelled."""

    def __enter__(self) -> "LoopThread":
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="connections", daemon=True)
        self._thread.start()
        return self

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """The result of a coroutine; Ctrl-C cancels it. Raises PluginError when the time is over."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise PluginError(f"no end within {timeout_s:g} s") from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(END_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_S)
        self._loop.close()

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
