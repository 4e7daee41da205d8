"""The servers of a run as its harness sees them: where they are, when they end, and how to make them ill.

Two kinds: simulated ones, in this process, and real ones, in a cluster's pods.
"""

from dataclasses import dataclass
from typing import Any, Final, Protocol

from copilot_operator.cluster.client import KubeApi
from copilot_operator.domain.desired.service import CLI_PORT
from copilot_operator.domain.manifest import Manifest
from tests.scale.kubelet import Kubelet
from tests.support.standin import Fault, Server

WORN_BYTES: Final = 2 << 30


@dataclass(frozen=True)
class Life:
    """One CLI process: of which pod, and which start in it."""

    pod: str  # UID
    start: int


@dataclass(frozen=True)
class Address:
    host: str
    port: int
    token: str | None
    agent: str  # its pod's address


class Servers(Protocol):
    """By the tenants' names, which are unique in a run."""

    @property
    def options(self) -> dict[str, Any]:
        """With what sessions are created."""

    def seen(self, event: str, pod: Manifest) -> None:
        """Take in an event of the watch of pods."""

    def life(self, tenant: str) -> Life | None:
        """The process that serves a tenant; None if none does."""

    def node(self, life: Life) -> str: ...

    async def address(self, tenant: str) -> Address:
        """Where clients reach the process that serves."""

    def gone_at(self, life: Life) -> float | None:
        """When the process had ended, by the event loop's clock; None: it runs."""

    def cordoned_at(self, life: Life) -> float | None:
        """When its agent was told to drain; None: it was not."""

    async def hang(self, life: Life) -> None: ...

    async def wear_out(self, life: Life) -> None: ...

    async def stop(self) -> None: ...


class SimulatedServers:
    """Stand-ins with real agents."""

    options: Final[dict[str, Any]] = {}

    def __init__(self, api: KubeApi, *, drains: bool) -> None:
        self._kubelet = Kubelet(api, drains=drains)

    async def start(self) -> None:
        await self._kubelet.start()

    async def stop(self) -> None:
        await self._kubelet.stop()

    def seen(self, event: str, pod: Manifest) -> None:
        self._kubelet.seen(event, pod)

    def life(self, tenant: str) -> Life | None:
        for pod in reversed(self._kubelet.pods_of[tenant]):
            if pod.server is not None and pod.server.runs:
                return Life(pod.uid, pod.server.starts)
        return None

    def node(self, life: Life) -> str:
        return self._kubelet.pods[life.pod].node

    async def address(self, tenant: str) -> Address:
        life = self.life(tenant)
        assert life is not None, f"nobody serves {tenant}"
        host = self._kubelet.pods[life.pod].address
        return Address(host, CLI_PORT, None, host)

    def gone_at(self, life: Life) -> float | None:
        server = self._kubelet.pods[life.pod].server
        assert server is not None
        return server.ended_at.get(life.start)

    def cordoned_at(self, life: Life) -> float | None:
        agent = self._kubelet.pods[life.pod].agent
        assert agent is not None
        return agent.told_to_drain_at.get(life.start)

    async def hang(self, life: Life) -> None:
        self._running(life).fault = Fault.HANG

    async def wear_out(self, life: Life) -> None:
        self._running(life).memory_bytes = WORN_BYTES

    def _running(self, life: Life) -> Server:
        server = self._kubelet.pods[life.pod].server
        assert server is not None
        return server
