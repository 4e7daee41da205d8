"""Many tenants that sleep, and a few that work: ``python3 -m tests.scale.idle_subject TENANTS ACTIVE LOGS``.

In the cluster's network; prints one JSON object. Tenants begin asleep, as if their servers had run and been stopped as
idle: 1,000 stand-ins that start together would only tell how fast this machine is.
"""

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, quantiles
from typing import Any, Final

from copilot_operator.domain.drain import Intent, Why
from copilot_operator.domain.kinds import DEPLOYMENT, TENANT
from copilot_operator.domain.naming import server_of
from tests.scale.client import say
from tests.scale.sleepers import NAMESPACE, Sleepers, sleepers
from tests.support.standin import Server

SESSION: Final = "notes"
BEFORE: Final = "ECHO=`of before`"
ALL_STAY_S: Final = 240.0  # the first to leave has been active for so long
CHANGE_EVERY_S: Final = 30.0  # then one leaves and another one comes, so often
CHANGES: Final = 5
AT_ONCE: Final = 32
LOOK_EVERY_S: Final = 1.0


class User:
    """One tenant's application: its session comes back, and has a turn every few seconds."""

    def __init__(self, at: Sleepers, name: str) -> None:
        self.name, self.sent, self.lost, self.wake_s = name, [BEFORE], list[str](), 0.0
        self._at, self._choice, self._stop = at, random.Random(name), asyncio.Event()
        self._working = asyncio.create_task(self._work(), name=f"user {name}")

    async def leave(self) -> None:
        self._stop.set()
        await self._working

    @property
    def whole(self) -> bool:
        """Whether all that was said, before its server slept and since, is in its session once, and answered."""
        session = self._at.sessions(self.name).get(SESSION)
        events = session.events if session else []
        said = [each["data"]["content"] for each in events if each["type"] == "user.message"]
        return said == self.sent and sum(each["type"] == "assistant.message" for each in events) == len(said)

    async def _work(self) -> None:
        one, began = await self._at.connect(self.name), asyncio.get_running_loop().time()
        await self._ask(one, "session.resume", streaming=True)
        self.wake_s = asyncio.get_running_loop().time() - began
        while not self._stop.is_set():
            self.sent.append(f"ECHO=`{len(self.sent)}` SLEEP=0.5")
            await self._ask(one, "session.send", prompt=self.sent[-1], wait=True)
            try:
                async with asyncio.timeout(self._choice.uniform(1.0, 8.0)):
                    await self._stop.wait()
            except TimeoutError:
                continue
        await one.close()

    async def _ask(self, one: Any, method: str, **params: Any) -> None:
        try:
            reply = await one.ask(method, sessionId=SESSION, **params)
        except TimeoutError:
            reply = {"error": "no answer"}
        if "error" in reply:
            self.lost.append(f"{self.name}: {method}: {reply['error']}"[:300])


async def lull(at: Sleepers, names: list[str]) -> None:
    """Have all tenants there, each asleep."""
    await _each(names, lambda name: at.apply_tenant(name, suspended=True))
    await at.until(lambda: at.reasons()["Suspended"] == len(names), "all are suspended")
    say(f"idle: {len(names)} tenants are there")
    await at.operator.stop()  # else it would undo what is written for it here
    now = datetime.now(UTC)
    note = {"metadata": {"annotations": Intent(Why.IDLE, now, now).annotations()}}

    async def put_to_sleep(name: str) -> None:
        await at.api.merge(DEPLOYMENT, NAMESPACE, server_of(name), note)
        await at.api.merge(TENANT, NAMESPACE, name, {"spec": {"suspended": False}})

    await _each(names, put_to_sleep)
    await at.operator.start()
    await at.until(lambda: at.reasons()["SuspendedWhenIdle"] == len(names), "all sleep")
    assert not at.awake, at.awake
    at.most_awake = 0
    say("idle: all of them sleep")


async def _each(names: list[str], work: Any) -> None:
    waiting = iter(names)

    async def some() -> None:
        for name in waiting:
            await work(name)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def remember(at: Sleepers, name: str) -> None:
    """Have a session on its volume, of an earlier life of its server."""
    server = Server(None, at.kubelet.volume(NAMESPACE, server_of(name)))
    server.sessions.create("owner", {"sessionId": SESSION})
    await server.sessions.send("owner", {"sessionId": SESSION, "prompt": BEFORE, "wait": True})
    server.end()


@asynccontextmanager
async def counted(at: Sleepers, found: list[int]) -> AsyncIterator[None]:
    """How many servers are awake, every second."""

    async def look() -> None:
        while True:
            found.append(len(at.awake))
            await asyncio.sleep(LOOK_EVERY_S)

    looking = asyncio.create_task(look())
    yield
    looking.cancel()


async def measure(tenants: int, active: int, logs: Path) -> dict[str, Any]:
    names = [f"tenant-{number:04d}" for number in range(tenants)]
    workers = random.Random(7).sample(names, active + CHANGES)
    async with sleepers(logs) as at:
        await lull(at, names)
        for name in workers:
            await remember(at, name)
        awake = list[int]()
        async with counted(at, awake):
            users = [User(at, name) for name in workers[:active]]
            await asyncio.sleep(ALL_STAY_S)
            for number in range(CHANGES):
                await users[number].leave()
                users.append(User(at, workers[active + number]))
                await asyncio.sleep(CHANGE_EVERY_S)
            for user in users[CHANGES:]:
                await user.leave()
        lost = [each for user in users for each in user.lost]
        for each in lost:
            say(f"LOST: {each}")
        cuts = quantiles([user.wake_s for user in users], n=100, method="inclusive")
        return {
            "users": len(users), "requests": sum(len(user.sent) for user in users), "lost": len(lost),
            "whole": sum(user.whole for user in users),
            "awake_most": at.most_awake, "awake_mean": round(mean(awake), 1),
            "wake_p50_s": round(cuts[49], 2), "wake_p95_s": round(cuts[94], 2),
            "operator_mb": round(at.operator.memory_mb("VmRSS"), 1), "gateway_mb": round(at.gateway.memory_mb(), 1),
        }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))))
