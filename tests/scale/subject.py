"""The operator under measurement: N tenants applied to all Ready, an idle minute, a restart.

``python3 -m tests.scale.subject N LOG COMMAND...`` in the cluster's network; prints one JSON object.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from copilot_operator.cluster.client import FIELD_MANAGER, KubeApi
from copilot_operator.domain.kinds import EVENT, POOL, TENANT
from copilot_operator.domain.manifest import Manifest
from tests.scale.client import Countdown, apply_all, client, condition, make_namespace, say, watching
from tests.scale.objects import TENANTS_IN, pool, tenant
from tests.scale.process import Figures, OperatorProcess

IDLE_S: Final = float(os.environ.get("COPILOT_BENCH_IDLE_S", "60"))
QUIET_S: Final = 20.0  # longer than whatever the operator puts off


async def measure(count: int, log: Path, command: tuple[str, ...]) -> dict[str, Any]:
    operator = OperatorProcess(log, command)
    async with client() as api:
        await make_namespace(api, TENANTS_IN)
        try:
            await operator.start()
            await operator.until("the operator leads", 60)
            await api.apply(POOL, pool())
            return await _measure(count, api, operator)
        finally:
            await operator.stop()


async def _measure(count: int, api: KubeApi, operator: OperatorProcess) -> dict[str, Any]:
    ready = Countdown(count, "tenants are Ready")
    changes: Counter[str] = Counter()  # a tenant changes by writes of its status only
    words: Counter[str] = Counter()  # what those writes said

    def seen(event: str, manifest: Manifest) -> None:
        name = manifest["metadata"]["name"]
        if event == "MODIFIED":
            changes[name] += 1
            words[" ".join(f"{row['type']}={row['status']}/{row['reason']}" for row in _rows(manifest))] += 1
        if condition(manifest, "Ready") == "True":
            ready.tell(name)

    clock = asyncio.get_running_loop().time
    async with watching(api, TENANT, TENANTS_IN, seen):
        before = await operator.until("the pool is done", 30)
        cpu_before, started = operator.cpu_s(), clock()
        await apply_all(api, [[(TENANT, tenant(number))] for number in range(count)])
        applied_s = clock() - started
        await _either(ready.wait(), operator.ended())
        ready_s, cpu_s = ready.last_at - started, operator.cpu_s() - cpu_before
        at_ready = operator.memory_mb()
        say(f"operator: {count} applied in {applied_s:.1f} s, Ready in {ready_s:.1f} s, {cpu_s:.1f} CPU-s")
        after = await operator.settled(QUIET_S, 180)
        await asyncio.sleep(IDLE_S)
        idle = await operator.until("metrics", 30)
        cpu_idle = operator.cpu_s()
    rss_mb, rss_now = operator.memory_mb(), operator.memory_mb("VmRSS")
    say(
        f"operator: cycles a tenant {(after.reconciled - before.reconciled) / count:.1f}, failed {after.failed}, "
        f"peak MB at Ready {at_ready:.0f}, later {rss_mb:.0f}, now {rss_now:.0f}, CPU in all {cpu_idle:.1f} s"
    )
    say(f"operator: {_by_resource(before, after)}")
    for said, times in words.most_common(5):
        say(f"{times} times in status: {said}")
    restart = await _restart(count, operator)
    events = await _events(api)
    requests = Counter[str]()
    for (verb, resource), number in (after.requests - before.requests).items():
        if resource != "leases":
            requests[verb] += number
    return {
        "ready_s": ready_s,
        "cpu_s": cpu_s,
        "rss_mb": max(rss_mb, restart.pop("rss_mb")),
        "requests_per_tenant": {verb: number / count for verb, number in sorted(requests.items())},
        "idle_writes": idle.writes - after.writes,
        **restart,
        "most_status_writes": max(changes.values(), default=0),
        "status_writes": sum(changes.values()),
        "most_events": max(events.values(), default=0),
        "events": sum(events.values()),
    }


def _rows(manifest: Manifest) -> list[Manifest]:
    return (manifest.get("status") or {}).get("conditions") or []


async def _either(wanted: Coroutine[Any, Any, None], failure: Coroutine[Any, Any, None]) -> None:
    """Until the first has come; raises what the second raises before that."""
    tasks = [asyncio.create_task(wanted), asyncio.create_task(failure)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()


async def _restart(count: int, operator: OperatorProcess) -> dict[str, Any]:
    """Told to stop and started anew, with everything in place: nothing is to be written."""
    clock = asyncio.get_running_loop().time
    told_at = clock()
    await operator.stop()
    started = clock()
    await operator.start()
    await operator.until("the restarted operator leads", 60)
    led_s = clock() - started
    await operator.until("the restarted operator looked at every tenant", 180, queue_empty_after=count)
    restart_s, cpu_s = clock() - started, operator.cpu_s()
    say(f"restart: stopped in {started - told_at:.1f} s, led after {led_s:.1f} s, done after {restart_s:.1f} s")
    after = await operator.settled(QUIET_S, 120)
    if after.writes:
        say(f"after the restart: {dict(after.requests)}")
    return {
        "restart_s": restart_s,
        "restart_cpu_s": cpu_s,
        "restart_writes": after.writes,
        "rss_mb": operator.memory_mb(),
    }


async def _events(api: KubeApi) -> Counter[str]:
    """How many Events of ours each tenant has."""
    found: Counter[str] = Counter()
    async for event in api.list_pages(EVENT, namespace=TENANTS_IN):
        if event.get("source", {}).get("component") == FIELD_MANAGER and event["involvedObject"]["kind"] == TENANT.kind:
            found[event["involvedObject"]["name"]] += event.get("count", 1)
    return found


def _by_resource(before: Figures, after: Figures) -> str:
    delta = after.requests - before.requests
    return ", ".join(f"{verb} {resource} {number}" for (verb, resource), number in sorted(delta.items()))


if __name__ == "__main__":
    figures = asyncio.run(measure(int(sys.argv[1]), Path(sys.argv[2]), tuple(sys.argv[3:])))
    print(json.dumps(figures))
