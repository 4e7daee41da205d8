"""A run, in the cluster's network: pools play their rounds side by side while the operator is killed now and then.

``python3 -m tests.stress.run JSON`` with the fields of Plan; prints one line of figures.
"""

import asyncio
import json
import random
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from copilot_operator.cluster.client import KubeApi
from copilot_operator.domain.kinds import DEPLOYMENT, NODE, POD, TENANT, Kind
from tests.scale.bed import FAKE
from tests.scale.client import Seen, client, make_namespace, say, watching
from tests.scale.objects import CLASS_NAME, CLI_IMAGE
from tests.scale.process import OperatorProcess
from tests.stress.judge import summary
from tests.stress.real import WORN_AT, RealServers
from tests.stress.rounds import Pool, Run
from tests.stress.servers import Servers, SimulatedServers
from tests.stress.wishes import Cause, PoolWish, TenantWish

NAMESPACE: Final = "stress"
LIVES_S: Final = (5.0, 45.0)  # how long an operator leads before it is killed
LEADS_S: Final = 60.0  # until it leads
LONGEST_S: Final = 3600.0
NODE_LABEL: Final = "stress/pool"
DRAINS: Final = ((20, "Abort"), (90, "Abort"), (30, "Wait"))  # timeout in seconds, onTimeout; in turn


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    stops: int
    seed: int
    pools: int
    servers: int  # of each pool
    drains: bool
    real: dict[str, Any] | None  # with what sessions of real servers are created; None: simulated ones
    log: str
    operator: list[str]

    @property
    def causes(self) -> frozenset[Cause]:
        """A real server has one image only, and nobody to ask whether its credential is good."""
        return frozenset(Cause) - ({Cause.IMAGE, Cause.CREDENTIAL} if self.real else frozenset())


def pool_wishes(plan: Plan) -> Iterator[PoolWish]:
    for number in range(plan.pools):
        name = f"p{number:02d}"
        timeout_s, on_timeout = DRAINS[number % len(DRAINS)]
        common: dict[str, Any] = {
            "namespace": NAMESPACE,
            "name": name,
            "timeout_s": timeout_s,
            "on_timeout": on_timeout,
            "tenants": [TenantWish(f"{name}-t{each}") for each in range(plan.servers)],
        }
        yield PoolWish(**common, **(REAL if plan.real else _simulated(name)))


REAL: Final[dict[str, Any]] = {
    "server": {"resources": {"requests": {"cpu": "20m", "memory": "256Mi"}}},
    "images": ("copilot-cli:1.0.102",),
    "storage": {"size": "128Mi"},
    "recycle": {"maxProcesses": WORN_AT},
    "credentials": False,
}


def _simulated(pool: str) -> dict[str, Any]:
    return {
        "server": {"template": {"spec": {"nodeSelector": {NODE_LABEL: pool}}}},
        "images": (CLI_IMAGE, f"{CLI_IMAGE}-again"),
        "storage": {"size": "1Gi", "storageClassName": CLASS_NAME},
        "recycle": {"maxMemory": "1Gi"},
        "credentials": True,
    }


async def make_nodes(api: KubeApi, pool: str) -> None:
    """Two for each pool, so that a drained node concerns nobody else."""
    for number in range(2):
        metadata = {"name": f"{pool}-{number}", "annotations": FAKE, "labels": {NODE_LABEL: pool}}
        await api.create(NODE, "", {"apiVersion": "v1", "kind": "Node", "metadata": metadata})


async def keep_running(operator: OperatorProcess, run: Run) -> None:
    """Let the operator lead for a while, kill it, start another: as kubelet does, also when it ends by itself."""
    chance = random.Random(f"{run.seed} kills")
    while True:
        await operator.start()
        try:
            await operator.until("it leads", LEADS_S, every_s=0.2)
            async with asyncio.timeout(chance.uniform(*LIVES_S)):
                await operator.ended()
        except TimeoutError:
            run.killed_at.append(asyncio.get_running_loop().time())
            await operator.kill()
        except RuntimeError as error:
            run.crashes += 1
            say(f"CRASHED: {error}")


async def play(plan: Plan) -> dict[str, Any]:
    """Raises when a pool can't even begin, or the operator ends by itself."""
    operator = OperatorProcess(Path(plan.log), tuple(plan.operator))
    clock = asyncio.get_running_loop().time
    started_at = clock()
    async with client() as api, AsyncExitStack() as stack:
        servers, watches = await _servers(plan, api, stack)
        run = Run(api, servers, plan.seed, plan.stops, plan.causes)
        stack.push_async_callback(operator.stop)
        await stack.enter_async_context(asyncio.timeout(LONGEST_S))
        for kind, seen in [*watches, (TENANT, run.tenant_seen)]:
            await stack.enter_async_context(watching(api, kind, NAMESPACE, seen))
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(each) for each in (keep_running(operator, run), tell(run))]
            await asyncio.wait([group.create_task(Pool(run, wish).play()) for wish in pool_wishes(plan)])
            for task in beside:
                task.cancel()
    others = {"kills": len(run.killed_at), "crashes": run.crashes}
    return summary(run.outcomes) | others | {"seconds": round(clock() - started_at)}


async def _servers(plan: Plan, api: KubeApi, stack: AsyncExitStack) -> tuple[Servers, list[tuple[Kind, Seen]]]:
    """The servers, and what they have to be told of."""
    if plan.real is not None:
        real = RealServers(api, NAMESPACE, plan.real)
        stack.push_async_callback(real.stop)
        return real, [(POD, real.seen), (DEPLOYMENT, real.deployment_seen)]
    await make_namespace(api, NAMESPACE)
    for wish in pool_wishes(plan):
        await make_nodes(api, wish.name)
    simulated = SimulatedServers(api, drains=plan.drains)
    stack.push_async_callback(simulated.stop)
    await simulated.start()
    return simulated, [(POD, simulated.seen)]


async def tell(run: Run) -> None:
    while True:
        await asyncio.sleep(20)
        far = summary(run.outcomes)
        say(f"{len(run.outcomes)} of {run.stops} stops, {far['lost']} lost, {far['stuck']} stuck")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(play(Plan(**json.loads(sys.argv[1]))))))
