"""Drains and replacements under measurement, on simulated servers with real agents.

``python3 -m tests.scale.drain_subject SERVERS HUNG LOG COMMAND...`` in the cluster's network; prints one JSON object.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from statistics import median
from typing import Any, Final

from copilot_operator.cluster.client import KubeApi
from copilot_operator.domain.kinds import POD, POOL, TENANT
from copilot_operator.domain.manifest import Manifest
from tests.scale.client import apply_all, client, condition, make_namespace, say, watching
from tests.scale.objects import TENANTS_IN, pool, tenant
from tests.scale.process import OperatorProcess
from tests.stress.clients import Client
from tests.stress.servers import Life, SimulatedServers

DYING: Final = 10  # servers that stop answering, to be found and replaced
WORKING: Final = 40  # servers with a turn
TURN_S: Final = 10.0
AT_EASE_S: Final = 30.0  # until those that hang have been found
LONGEST_S: Final = 300.0
LOOK_EVERY_S: Final = 0.02


class Bench:
    """The steps of the measurement. Times are the event loop's."""

    def __init__(self, api: KubeApi, servers: SimulatedServers, names: list[str], hung: list[str]) -> None:
        self._api, self._servers, self._names, self._hung = api, servers, names, hung
        self._live: dict[str, Manifest] = {}
        self._unready_at: dict[str, float] = {}  # since it was last Ready
        self._clock = asyncio.get_running_loop().time

    def seen(self, event: str, manifest: Manifest) -> None:
        """Take in an event of the watch of tenants."""
        name = manifest["metadata"]["name"]
        self._live[name] = manifest
        if condition(manifest, "Ready") == "True":
            self._unready_at.pop(name, None)
        else:
            self._unready_at.setdefault(name, self._clock())

    async def measure(self) -> dict[str, Any]:
        started = self._clock()
        await apply_all(self._api, [[(TENANT, _tenant(name, of_hung=True))] for name in self._hung])
        await self._suspend(self._names, suspended=False)
        await self._until_ready([*self._names, *self._hung])
        say(f"drain: {len(self._live)} servers are Ready after {self._clock() - started:.0f} s")
        return await self._idle() | await self._working() | await self._dying()

    async def _idle(self) -> dict[str, Any]:
        """All at once, with nothing to wait for."""
        lives = {name: self._life(name) for name in self._names}
        began = self._clock()
        await self._suspend(self._names, suspended=True)
        gone = await self._until_gone(lives)
        seconds = max(gone.values()) - began
        say(f"drain: {len(gone)} idle servers drained and gone in {seconds:.1f} s")
        await self._suspend(self._names, suspended=False)
        await self._until_ready(self._names)
        return {"drains_per_s": round(len(gone) / seconds, 1)}

    async def _working(self) -> dict[str, Any]:
        """How much later than its turn's end a server is gone."""
        names = self._names[:WORKING]
        lives = {name: self._life(name) for name in names}
        clients = [await Client.begin(await self._servers.address(name), "a", {}) for name in names]
        turns = await asyncio.gather(*(client.say(TURN_S) for client in clients))
        await self._suspend(names, suspended=True)
        gone = await self._until_gone(lives)
        for each in clients:
            await each.hang_up()
        over = sorted(gone[name] - turn.sent_at - TURN_S for name, turn in zip(names, turns, strict=True))
        await self._suspend(names, suspended=False)
        await self._until_ready(names)
        return {"overhead_s_p50": round(median(over), 2), "overhead_s_max": round(over[-1], 2)}

    async def _dying(self) -> dict[str, Any]:
        """How soon a hung server is found and replaced while many others hang for good."""
        for name in self._hung:
            await self._servers.hang(self._life(name))
        await asyncio.sleep(AT_EASE_S)  # the load of many hung servers is what this is about
        say(f"drain: {sum(name in self._unready_at for name in self._hung)} of {len(self._hung)} found to hang")
        lives = {name: self._life(name) for name in self._names[:DYING]}
        hung_at, found, replaced = self._clock(), dict[str, float](), dict[str, float]()
        for life in lives.values():
            await self._servers.hang(life)

        def all_replaced() -> bool:
            for name, former in lives.items():
                if name in self._unready_at:
                    found.setdefault(name, self._unready_at[name] - hung_at)
                elif name in found and self._servers.life(name) not in (None, former):
                    replaced.setdefault(name, self._clock() - hung_at)
            return len(replaced) == len(lives)

        await self._until(all_replaced, "hung servers are replaced")
        return {"found_dead_s_max": round(max(found.values()), 1), "replaced_s_max": round(max(replaced.values()), 1)}

    async def _suspend(self, names: Collection[str], *, suspended: bool) -> None:
        await apply_all(self._api, [[(TENANT, _tenant(name, suspended=suspended))] for name in names])

    def _life(self, name: str) -> Life:
        life = self._servers.life(name)
        assert life is not None, f"{name} has no server"
        return life

    async def _until_ready(self, names: Collection[str]) -> None:
        def ready() -> bool:
            those = [name for name in names if name in self._live and name not in self._unready_at]
            return len(those) == len(names) and all(self._servers.life(name) for name in names)

        try:
            await self._until(ready, "servers are Ready")
        except TimeoutError as error:
            left = [name for name in names if name in self._unready_at or not self._servers.life(name)]
            status = json.dumps(self._live.get(left[0], {}).get("status")) if left else ""
            raise TimeoutError(f"{error}; {len(left)} are not, {left[:1]}: {status}") from None

    async def _until_gone(self, lives: dict[str, Life]) -> dict[str, float]:
        await self._until(lambda: all(self._servers.gone_at(life) for life in lives.values()), "servers are gone")
        return {name: self._servers.gone_at(life) or 0.0 for name, life in lives.items()}

    async def _until(self, met: Callable[[], bool], what: str) -> None:
        ends_at = self._clock() + LONGEST_S
        while True:
            if met():
                return
            if self._clock() > ends_at:
                raise TimeoutError(f"{what}: not within {LONGEST_S:.0f} s")
            await asyncio.sleep(LOOK_EVERY_S)


def _pool(name: str, restarts_per_hour: int) -> Manifest:
    made = pool()
    made["metadata"]["name"] = name
    made["spec"]["health"] = {"maxRestartsPerHour": restarts_per_hour}
    return made


def _tenant(name: str, *, suspended: bool = False, of_hung: bool = False) -> Manifest:
    made = tenant(0)
    made["metadata"]["name"] = name
    made["spec"] = {"poolRef": {"name": "hung" if of_hung else "drained"}, "suspended": suspended}
    return made


async def measure(servers: int, hung: int, log: Path, command: tuple[str, ...]) -> dict[str, Any]:
    operator = OperatorProcess(log, command)
    async with client() as api:
        await make_namespace(api, TENANTS_IN)
        simulated = SimulatedServers(api, drains=True)
        await simulated.start()
        names = [[f"{kind}-{number:03d}" for number in range(count)] for kind, count in (("d", servers), ("h", hung))]
        bench = Bench(api, simulated, *names)
        try:
            await operator.start()
            await operator.until("the operator leads", 60)
            await api.apply(POOL, _pool("drained", 60))
            await api.apply(POOL, _pool("hung", 0))
            async with (
                watching(api, POD, TENANTS_IN, simulated.seen),
                watching(api, TENANT, TENANTS_IN, bench.seen),
            ):
                return await bench.measure()
        finally:
            await operator.stop()
            await simulated.stop()


if __name__ == "__main__":
    found = asyncio.run(measure(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), tuple(sys.argv[4:])))
    print(json.dumps(found))
