"""Sleep and wakes in the cluster's network: ``python3 -m tests.stress.sleepers_run TENANTS WAKES LOGS``.

Prints one JSON object. What is there when all sleep again after the last wake is compared with what was there after the
first: objects of the API server, open files and connections of operator and gateway, their memory, tasks of agents, and
sessions on the volumes. Time passes quicker where it would only be waited for: see ``INTERVALS``.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from copilot_operator.domain import kinds
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest, annotations_of
from tests.scale.client import say
from tests.scale.process import resident_mb
from tests.scale.sleepers import NAMESPACE, Sleepers, sleepers
from tests.support.gateway import RawClient

SESSION: Final = "notes"
UNUSED_S: Final = 7200.0
SETTLE_S: Final = 30.0
RESTLESS_FILES: Final = 8  # connections to the API server that come and go
GROWTH_MB: Final = 16.0  # of a process, over the last three quarters of the wakes
INTERVALS: Final = {
    "operator": {
        "servers.inventory.EVERY_S": 1.0,  # how often agents are asked what they do
        "servers.gateways.KEPT_S": 1.0,  # how long a server counts as wanted after it was
    },
    "gateway": {"gateway.demand.FRESH_S": 1.5},  # likewise
}
OBJECTS: Final = (
    kinds.POD, kinds.DEPLOYMENT, kinds.SERVICE, kinds.SECRET, kinds.CLAIM, kinds.REVISION, kinds.DISRUPTION_BUDGET,
    kinds.NETWORK_POLICY, kinds.ROLE, kinds.ROLE_BINDING, kinds.SERVICE_ACCOUNT, kinds.LEASE, kinds.TENANT, kinds.POOL,
    Kind("apps", "v1", "replicasets", "ReplicaSet"),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Kind("", "v1", "configmaps", "ConfigMap"),
)  # fmt: skip


@dataclass(frozen=True)
class Remains:
    """What is there while all sleep."""

    objects: Counter[str]  # how much each holds that might grow: annotations, and who has written to it
    files: dict[str, int]  # open ones, by process
    kept: tuple[str, ...]  # names in the gateway's cache
    tasks: Counter[str]  # of agents and servers, which run in this process

    def more_than(self, before: "Remains") -> list[str]:
        """In words; empty: nothing was left."""
        found = [f"{count} more of {name}" for name, count in (self.objects - before.objects).items()]
        found += [f"{count} tasks {name}" for name, count in (self.tasks - before.tasks).items()]
        found += [f"file {name} of the gateway" for name in self.kept if name not in before.kept]
        for process, count in self.files.items():
            if count > before.files[process] + RESTLESS_FILES:
                found.append(f"{count} open files of the {process} for {before.files[process]}")
        return found


class Run:
    """``wakes`` of each tenant, all tenants side by side."""

    def __init__(self, at: Sleepers, wakes: int) -> None:
        self._at, self._wakes = at, wakes
        self._clock = asyncio.get_running_loop().time
        self.waits, self.refused = list[float](), list[str]()
        self.early: dict[str, float] = {}  # memory after a quarter of the wakes

    async def play(self, names: list[str]) -> dict[str, Any]:
        at, began = self._at, self._clock()
        for name in names:
            await at.apply_tenant(name)
        await at.until(lambda: all(at.reason(name) == "ServerReady" for name in names), "servers are Ready")
        clients = {name: await at.connect(name) for name in names}
        for name, one in clients.items():
            await one("session.create", sessionId=SESSION, streaming=True)
            await self._turn(name, one, 0)
        await self._rounds(clients, 1, 2)
        before = await self._remains()
        quarter = max(2, self._wakes // 4)
        await self._rounds(clients, 2, quarter)
        early = self._memory()
        await self._rounds(clients, quarter, self._wakes + 1)
        late = self._memory()
        left = (await self._settled(before)).more_than(before)
        grown = {process: round(late[process] - early[process], 1) for process in late}
        left += [f"{mb} MB of memory of the {process}" for process, mb in grown.items() if mb > GROWTH_MB]
        left += [each for name in names for each in self._left_on_volume(name)]
        lost = sum(self._lost(name) for name in names)
        for one in clients.values():
            await one.close()
        for said in sorted(set(self.refused)):
            say(f"REFUSED: {said}")
        return {
            "tenants": len(names), "wakes": self._wakes, "refused": len(self.refused), "lost": lost,
            "wake_p50_s": round(median(self.waits), 2), "wake_max_s": round(max(self.waits), 2),
            "operator_mb": round(late["operator"], 1), "operator_grown_mb": grown["operator"],
            "gateway_mb": round(late["gateway"], 1), "gateway_grown_mb": grown["gateway"],
            "seconds": round(self._clock() - began), "left": left,
        }  # fmt: skip

    async def _rounds(self, clients: dict[str, RawClient], first: int, end: int) -> None:
        """Sleep and wake, from wake number ``first`` to that before ``end``; then all sleep."""
        await asyncio.gather(*(self._life(name, one, first, end) for name, one in clients.items()))
        say(f"stress-wake: {end - 1} of {self._wakes} wakes of each tenant")

    async def _life(self, name: str, one: RawClient, first: int, end: int) -> None:
        for number in range(first, end):
            await self._sleep(name)
            began = self._clock()
            await self._turn(name, one, number)
            self.waits.append(self._clock() - began)
        await self._sleep(name)

    async def _turn(self, name: str, one: RawClient, number: int) -> None:
        reply = await one.ask("session.send", sessionId=SESSION, prompt=_prompt(number), wait=True)
        if "error" in reply:
            self.refused.append(str(reply["error"])[:300])

    async def _sleep(self, name: str) -> None:
        """Until its server, of which nobody has heard anything for hours, is suspended and gone."""
        at = self._at

        def asleep() -> bool:
            if name in at.awake.values() and (agent := at.kubelet.pods_of[name][-1].agent):
                agent.quiet_s = UNUSED_S
            return at.sleeps(name)

        await at.until(asleep, f"{name} sleeps", 120)

    # What is left

    async def _settled(self, before: Remains) -> Remains:
        """As soon as nothing more is left than before; or what is left after a while."""
        ends_at = self._clock() + SETTLE_S
        while True:
            found = await self._remains()
            if not found.more_than(before) or self._clock() > ends_at:
                return found
            await asyncio.sleep(1)

    async def _remains(self) -> Remains:
        objects = Counter[str]()
        for kind in OBJECTS:
            async for each in self._at.api.list_pages(kind, namespace=NAMESPACE):
                objects[f"{kind.kind} {each['metadata']['name']}"] = _held(each)
        names = (task.get_name() for task in asyncio.all_tasks())
        tasks = Counter(name.rpartition("-")[0] or name for name in names if not name.startswith("Task-"))
        tasks["all"] = len(asyncio.all_tasks())
        kept = await asyncio.to_thread(os.listdir, self._at.gateway.cache)
        files = {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in self._processes().items()}
        return Remains(objects, files, tuple(sorted(kept)), tasks)

    def _processes(self) -> dict[str, int]:
        return {"operator": self._at.operator.pid, "gateway": self._at.gateway.pid}

    def _memory(self) -> dict[str, float]:
        """Resident, in millions of bytes."""
        return {name: resident_mb(pid) for name, pid in self._processes().items()}

    def _left_on_volume(self, name: str) -> list[str]:
        sessions = self._at.sessions(name)
        found = [f"session {id} of {name}" for id in sessions if id != SESSION]
        return found + [f"session {id} of {name} is loaded" for id, each in sessions.items() if each.loaded]

    def _lost(self, name: str) -> int:
        """Turns that are not in the session once, in their order."""
        session = self._at.sessions(name).get(SESSION)
        events = session.events if session else []
        said = [each["data"]["content"] for each in events if each["type"] == "user.message"]
        answered = sum(each["type"] == "assistant.message" for each in events)
        wanted = [_prompt(number) for number in range(self._wakes + 1)]
        return 0 if said == wanted and answered == len(wanted) else max(1, len(wanted) - min(len(said), answered))


def _prompt(number: int) -> str:
    return f"ECHO=`turn {number}`"


def _held(manifest: Manifest) -> int:
    """How many things in an object might become more with each wake."""
    metadata = manifest["metadata"]
    lists = [metadata.get("managedFields"), metadata.get("ownerReferences"), metadata.get("finalizers")]
    conditions = (manifest.get("status") or {}).get("conditions")
    return 1 + len(annotations_of(manifest)) + sum(len(each or ()) for each in (*lists, conditions))


async def play(tenants: int, wakes: int, logs: Path) -> dict[str, Any]:
    async with sleepers(logs, INTERVALS) as at:
        return await Run(at, wakes).play([f"tenant-{number}" for number in range(tenants)])


if __name__ == "__main__":
    print(json.dumps(asyncio.run(play(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))))
