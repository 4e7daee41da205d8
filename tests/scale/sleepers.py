"""A pool whose unused servers sleep, on simulated nodes: real operator, gateway and agents; stand-ins for the CLI."""

import asyncio
import base64
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from copilot_operator.cluster.client import KubeApi
from copilot_operator.domain.kinds import POD, POOL, SECRET, TENANT
from copilot_operator.domain.manifest import Manifest, annotations_of, condition_of
from copilot_operator.domain.naming import TENANT_ANNOTATION, gateway_of, server_of
from tests.scale.client import client, make_namespace, say, watching
from tests.scale.gateway_pod import PORT, GatewayPod
from tests.scale.kubelet import Kubelet
from tests.scale.objects import CLASS_NAME, CLI_IMAGE
from tests.scale.process import OperatorProcess
from tests.support.eventually import eventually
from tests.support.gateway import RawClient

NAMESPACE: Final = "sleepers"
POOL_NAME: Final = "saas"
LONGEST_S: Final = 600.0
LOOK_EVERY_S: Final = 0.02
CONNECTS_S: Final = 60.0
HELD_S: Final = 58.0  # for which a gateway may keep an answer back, and a little


@dataclass
class Sleepers:
    """What is known of the pool and its pods, as watches tell it. ``most_awake``: pods of servers at one time."""

    api: KubeApi
    operator: OperatorProcess
    gateway: GatewayPod
    kubelet: Kubelet
    tenants: dict[str, Manifest] = field(default_factory=dict)
    awake: dict[str, str] = field(default_factory=dict)  # tenants by the UIDs of their servers' pods
    most_awake: int = 0
    gateway_address: str = ""

    def pod_seen(self, event: str, pod: Manifest) -> None:
        """Take in an event of the watch of pods."""
        uid, tenant = pod["metadata"]["uid"], annotations_of(pod).get(TENANT_ANNOTATION)
        if tenant is None:
            if pod["metadata"]["name"].startswith(f"{gateway_of(POOL_NAME)}-"):
                self.gateway_address = (pod.get("status") or {}).get("podIP") or ""
            return
        if event == "DELETED":
            self.awake.pop(uid, None)
        else:
            self.awake[uid] = tenant
        self.most_awake = max(self.most_awake, len(self.awake))
        self.kubelet.seen(event, pod)

    def tenant_seen(self, event: str, tenant: Manifest) -> None:
        self.tenants[tenant["metadata"]["name"]] = tenant

    def reason(self, name: str) -> str:
        """Of the condition Ready."""
        return str(condition_of(self.tenants.get(name, {}).get("status") or {}, "Ready").get("reason", ""))

    def reasons(self) -> Counter[str]:
        return Counter(map(self.reason, self.tenants))

    def sleeps(self, name: str) -> bool:
        return self.reason(name) == "SuspendedWhenIdle" and name not in self.awake.values()

    def sessions(self, name: str) -> dict[str, Any]:
        """What lies on a tenant's volume, by id."""
        return self.kubelet.volume(NAMESPACE, server_of(name))

    async def apply_tenant(self, name: str, *, suspended: bool = False) -> None:
        spec = {"poolRef": {"name": POOL_NAME}, "suspended": suspended}
        await self.api.apply(TENANT, _object(TENANT.kind, name, spec))

    async def connect(self, name: str) -> RawClient:
        """A client of a tenant at the gateway, as soon as that runs and has heard of the tenant."""
        secret = await self.api.get(SECRET, NAMESPACE, server_of(name))
        token, why = base64.b64decode(secret["data"]["token"]).decode(), ""
        async with asyncio.timeout(CONNECTS_S):
            while True:
                try:
                    one = await RawClient.open("127.0.0.1", PORT)
                    one.answer_s = HELD_S
                    if "result" in (reply := await one.connect(token)):
                        return one
                    await one.close()
                    why = str(reply)
                except OSError as error:
                    why = str(error)
                say(f"{name} cannot connect yet: {why[:200]}")
                await asyncio.sleep(1.0)

    async def until(self, met: Callable[[], Any], what: str, within_s: float = LONGEST_S) -> None:
        try:
            await eventually(met, within_s=within_s, what=what, every_s=LOOK_EVERY_S)
        except AssertionError as error:
            raise AssertionError(f"{error}; {dict(self.reasons())}\n{self.operator.tail()}") from None


@asynccontextmanager
async def sleepers(logs: Path, intervals: Mapping[str, Mapping[str, float]] | None = None) -> AsyncIterator[Sleepers]:
    """Operator, pool and gateway run. ``intervals`` that shall be others in ``operator`` and ``gateway``."""
    given: dict[str, Mapping[str, float]] = {"operator": {}, "gateway": {}} | dict(intervals or {})
    words = (sys.executable, "-m", "tests.scale.intervals", json.dumps(dict(given["operator"])))
    operator, gateway = OperatorProcess(logs / "operator.log", words), GatewayPod(logs)
    async with client() as api, AsyncExitStack() as stack:
        await make_namespace(api, NAMESPACE)
        kubelet = Kubelet(api)
        stack.push_async_callback(kubelet.stop)
        await kubelet.start()
        made = Sleepers(api, operator, gateway, kubelet)
        stack.push_async_callback(operator.stop)
        await operator.start()
        await operator.until("the operator leads", 60)
        await stack.enter_async_context(watching(api, POD, NAMESPACE, made.pod_seen))
        await stack.enter_async_context(watching(api, TENANT, NAMESPACE, made.tenant_seen))
        await api.apply(POOL, _object(POOL.kind, POOL_NAME, _pool()))
        await made.until(lambda: made.gateway_address, "the gateway's pod has an address", 60)
        stack.push_async_callback(gateway.stop)
        await gateway.start(api, NAMESPACE, POOL_NAME, made.gateway_address, given["gateway"])
        yield made


def _pool() -> dict[str, Any]:
    return {
        "isolation": "Dedicated",
        "server": {"image": CLI_IMAGE},
        "storage": {"size": "1Gi", "storageClassName": CLASS_NAME},
        "gateway": {"replicas": 1},
        "suspend": {"afterIdle": "1m"},
    }


def _object(kind: str, name: str, spec: dict[str, Any]) -> Manifest:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": POOL.api_version, "kind": kind, "metadata": metadata, "spec": spec}
