"""The probe: whether the CLI answers, asked when somebody wants to know."""

import asyncio
from collections import Counter
from typing import Final

from copilot_operator.agent.latency import Latencies
from copilot_operator.agent.log import log
from copilot_operator.rpc.ping import Failure, Reading, ping

_MAX_AGE_S: Final = 0.5  # liveness and readiness are probed side by side; one ping serves both


class Probe:
    """Pings one CLI, at most once at a time; callers at the same time share a reading."""

    def __init__(self, host: str, port: int, token: str | None, *, timeout_s: float) -> None:
        self.failures: Counter[Failure] = Counter()
        self.latencies = Latencies()  # of the CLI process that is there; a new one gets new ones
        self._target = (host, port, token, timeout_s)
        self._pinging = asyncio.Lock()
        self._reading: Reading | None = None
        self._read_at = float("-inf")

    async def reading(self) -> Reading:
        """A reading not older than half a second."""
        asked_at = asyncio.get_running_loop().time()
        async with self._pinging:
            # one that was taken while we waited for the lock is as good as ours
            if self._reading is None or self._read_at < asked_at - _MAX_AGE_S:
                self._take(await ping(*self._target))
            assert self._reading is not None
            return self._reading

    def _take(self, reading: Reading) -> None:
        if reading.failure is not None:
            self.failures[reading.failure] += 1
        if reading.latency_s is not None:
            self.latencies.add(reading.latency_s)
        if self._reading is None or self._reading.failure != reading.failure:
            log("cli answers" if reading.ok else "cli does not answer well", **_fields(reading))
        self._reading, self._read_at = reading, asyncio.get_running_loop().time()


def _fields(reading: Reading) -> dict[str, object]:
    return {"version": reading.version} if reading.ok else {"reason": reading.failure, "message": reading.message}
