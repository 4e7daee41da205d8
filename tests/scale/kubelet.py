"""What kubelet does for servers' pods on simulated nodes, where kwok only says that they run.

A pod's process starts when its volume is free, as the image's lock sees to it. When somebody deletes the pod, preStop
asks its agent for a drain, within the grace; then the process ends, and only then the pod is gone.
"""

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent, Conflict
from copilot_operator.domain.desired.service import AGENT_PORT, CLI_PORT
from copilot_operator.domain.kinds import POD
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import TENANT_ANNOTATION
from tests.support.standin import Server, StandIn
from tests.support.standin_agent import SimulatedAgent
from tests.support.standin_sessions import Volume


@dataclass(eq=False)
class SimulatedPod:
    """A pod, and the process and agent in it."""

    uid: str
    namespace: str
    name: str
    tenant: str
    node: str
    address: str
    claim: str
    drain_deadline_s: float  # of preStop
    server: Server | None = None  # None: its volume is still in use
    agent: SimulatedAgent | None = None
    grace_s: float = 30.0
    told_to_end: asyncio.Event = field(default_factory=asyncio.Event)


class Kubelet:
    """Of all nodes. ``seen`` takes the events of a watch of pods. ``drains`` False: agents and preStop do nothing.

    ``port`` of every CLI, on the pod's address; 0: any that is free.
    """

    def __init__(self, api: KubeApi, *, drains: bool = True, port: int = CLI_PORT) -> None:
        self.pods: dict[str, SimulatedPod] = {}  # by UID, also those that have ended
        self.pods_of: defaultdict[str, list[SimulatedPod]] = defaultdict(list)  # by tenant, the newest last
        self.stand_in = StandIn(everywhere=False)
        self._api, self._drains, self._port = api, drains, port
        self._volumes: dict[str, Volume] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._lives: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self.stand_in.start("0.0.0.0", self._port)

    async def stop(self) -> None:
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)
        await self.stand_in.stop()

    def volume(self, namespace: str, claim: str) -> Volume:
        """What lies on it."""
        return self._volumes.setdefault(f"{namespace}/{claim}", {})

    def seen(self, event: str, manifest: Manifest) -> None:
        """Take in an event of the watch."""
        metadata, address = manifest["metadata"], manifest.get("status", {}).get("podIP")
        pod = self.pods.get(metadata["uid"])
        ends = event == "DELETED" or "deletionTimestamp" in metadata
        if pod is None and address and not ends:
            pod = self.pods[metadata["uid"]] = _pod(manifest)
            self.pods_of[pod.tenant].append(pod)
            life = asyncio.create_task(self._live(pod), name=f"pod-{pod.name}")
            self._lives.add(life)
            life.add_done_callback(self._lives.discard)
        elif ends and pod is not None:
            pod.grace_s = float(metadata.get("deletionGracePeriodSeconds") or 0)
            pod.told_to_end.set()
        elif ends and event != "DELETED":
            self._let_go(metadata)  # it never ran

    async def _live(self, pod: SimulatedPod) -> None:
        claim = f"{pod.namespace}/{pod.claim}"
        async with self._locks[claim]:
            volume = self._volumes.setdefault(claim, {})
            pod.server = self.stand_in.run(pod.address, volume)
            pod.agent = SimulatedAgent(
                pod.server, pod.address, CLI_PORT, pod=pod.name, drains=self._drains, deadline_s=pod.drain_deadline_s
            )
            await pod.agent.start(AGENT_PORT)
            await pod.told_to_end.wait()
            if self._drains:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pod.grace_s):
                        await pod.agent.drain({})
            self.stand_in.remove(pod.address)
            await pod.agent.stop()
        await self._forget(pod.namespace, pod.name, pod.uid)

    def _let_go(self, metadata: Manifest) -> None:
        going = asyncio.create_task(self._forget(metadata["namespace"], metadata["name"], metadata["uid"]))
        self._lives.add(going)
        going.add_done_callback(self._lives.discard)

    async def _forget(self, namespace: str, name: str, uid: str) -> None:
        with suppress(Absent, Conflict):
            await self._api.delete(POD, namespace, name, uid=uid, grace_s=0)


def _pod(manifest: Manifest) -> SimulatedPod:
    metadata, spec = manifest["metadata"], manifest["spec"]
    claims = [each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "persistentVolumeClaim" in each]
    (agent,) = spec["initContainers"]
    environment = {each["name"]: each.get("value", "") for each in agent["env"]}
    return SimulatedPod(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        tenant=annotations_of(manifest).get(TENANT_ANNOTATION, ""),
        node=spec.get("nodeName", ""),
        address=manifest["status"]["podIP"],
        claim=claims[0],
        drain_deadline_s=float(environment["COPILOT_AGENT_DRAIN_DEADLINE_S"]),
    )
