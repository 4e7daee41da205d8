"""The agent beside a stand-in server: the real one, in this process, on an address that it shares with its server.

So what drains in a simulation is the code that drains in a pod. Only what it reads of /proc is simulated.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from copilot_operator.agent.agent import Agent
from copilot_operator.agent.settings import Settings
from copilot_operator.agent.web import Response, WebServer
from tests.support.standin_server import Server

DRAIN_DEADLINE_S: Final = 540.0
_WORK: Final = {"turn": 0, "task": 0, "queued": 0, "waiting": 0, "unknown": 0}
_NOTHING_DONE: Final = {
    "phase": "Done", "busy": 0, "waiting": 0, "loaded": 0, "kept": 0, "closed": 0, "cut": 0, "gaveUp": None,
    "secondsToDeadline": 0.0, "onTimeout": "Abort", "work": _WORK,
}  # fmt: skip


class SimulatedAgent:
    """One agent; ``deadline_s`` is that of preStop. ``drains`` False: it says at once that it has, and does nothing."""

    def __init__(
        self,
        server: Server,
        host: str,
        cli_port: int,
        *,
        pod: str = "",
        drains: bool = True,
        deadline_s: float = DRAIN_DEADLINE_S,
    ) -> None:
        self.told_to_drain_at: dict[int, float] = {}  # by the number of its server's start
        self.quiet_s: float | None = None  # since anybody used it, if that shall be longer than it is
        settings = Settings(
            token=server.token, cli_host=host, cli_port=cli_port, host=host, port=0, data=Path("/"),
            drain_deadline_s=deadline_s, probe_timeout_s=3, pod=pod,
        )  # fmt: skip
        self._server, self._host, self._drains = server, host, drains
        self._agent = Agent(settings)
        self._pages = self._agent.pages
        self._web = WebServer(
            self._pages | {"/drain": self._drain, "/drain/cancel": self._cancel, "/state": self._state}
        )
        self._running: asyncio.Task[None] | None = None

    async def start(self, port: int) -> int:
        """Listen and observe; returns the port. Raises OSError."""
        bound = await self._web.start(self._host, port)
        self._running = asyncio.create_task(self._agent.run(), name=f"agent-{self._host}")
        return bound

    async def stop(self) -> None:
        """As its container ends: what its drain keeps is let go."""
        self._web.stop()
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def drain(self, query: Mapping[str, str]) -> None:
        """As kubelet's preStop asks for it."""
        await self._drain(query)

    async def _drain(self, query: Mapping[str, str]) -> Response:
        self.told_to_drain_at.setdefault(self._server.starts, asyncio.get_running_loop().time())
        if not self._drains:
            return Response(200, json.dumps(_NOTHING_DONE) + "\n", "application/json")
        return await self._pages["/drain"](query)

    async def _cancel(self, query: Mapping[str, str]) -> Response:
        self.told_to_drain_at.pop(self._server.starts, None)
        return await self._pages["/drain/cancel"](query)

    async def _state(self, query: Mapping[str, str]) -> Response:
        seen = await self._pages["/state"](query)
        used = {"memoryBytes": self._server.memory_bytes, "processes": self._server.processes}
        told = json.loads(seen.body)
        if self.quiet_s is not None:
            told["sessions"] = (told.get("sessions") or {}) | {"secondsSinceActivity": self.quiet_s}
        return replace(seen, body=json.dumps(told | used) + "\n")
