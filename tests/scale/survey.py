"""What a survey costs the agent: processor time for one look at a server with loaded and with resting sessions.

The server is a stand-in in a process of its own, so that this process's time is the agent's alone.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from copilot_operator.agent.observer import Observer
from copilot_operator.rpc.client import Connection
from tests.support.eventually import eventually

LOADED, STORED = 20, 200
SURVEYS: Final = 200
CALL_S: Final = 20.0
HOST: Final = "127.0.0.1"


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """The port of a stand-in."""
    words = [sys.executable, "-m", "tests.support.standin", "--host", HOST, "--port", "0"]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(CALL_S):
            line = await process.stdout.readline()
        yield int(line.split()[-1])
    finally:
        process.terminate()
        await process.wait()


async def cpu_ms_per_survey() -> float:
    """Of a full survey, as a drain makes it; in milliseconds."""
    async with served() as port:
        owner = await Connection.open(HOST, port, timeout_s=CALL_S)
        for number in range(STORED):
            id = f"s{number}"
            await owner.call("session.create", {"sessionId": id}, timeout_s=CALL_S)
            await owner.call("session.send", {"sessionId": id, "prompt": "hi", "wait": True}, timeout_s=CALL_S)
            if number >= LOADED:
                await owner.call("sessions.close", {"sessionId": id}, timeout_s=CALL_S)
        observer = Observer(HOST, port, None)
        running = asyncio.create_task(observer.run(lambda: None))

        async def knows_all() -> bool:
            try:
                found = await observer.sessions(max_age_s=0, timeout_s=CALL_S, full=True)
            except Exception:  # it is not connected yet
                return False
            return (found.count.loaded, found.stored) == (LOADED, STORED)

        await eventually(knows_all, within_s=CALL_S, what="all sessions are known")
        began = time.process_time()
        for _ in range(SURVEYS):
            await observer.sessions(max_age_s=0, timeout_s=CALL_S, full=True)
        used_s = time.process_time() - began
        running.cancel()
        await owner.close()
    return used_s / SURVEYS * 1000


if __name__ == "__main__":
    print(asyncio.run(cpu_ms_per_survey()))
