"""Real CLI servers in pods of a cluster whose node's processes can be seen from here, as an embedded one's can."""

import asyncio
import base64
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from copilot_operator.cluster.client import KubeApi
from copilot_operator.domain.drain import intent_of
from copilot_operator.domain.kinds import SECRET, SERVICE
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import TENANT_ANNOTATION, server_of
from tests.stress.servers import Address, Life

PROCESSES: Final = 60  # that a worn out server has left behind
WORN_AT: Final = 40


class RealServers:
    """What happened to processes is told by their pods; when their drain began, by the intent on the Deployment."""

    def __init__(self, api: KubeApi, namespace: str, options: dict[str, Any]) -> None:
        self.options = options
        self._api, self._namespace = api, namespace
        self._pods: dict[str, Manifest] = {}  # by UID; as last seen
        self._starts: dict[str, int] = {}
        self._gone_at: dict[Life, float] = {}
        self._cordoned_at: dict[Life, float] = {}
        self._litter: dict[Life, list[subprocess.Popen[bytes]]] = {}
        self._clock = asyncio.get_running_loop().time

    async def stop(self) -> None:
        for life in list(self._litter):
            self._clean(life)

    def seen(self, event: str, pod: Manifest) -> None:
        """A pod."""
        uid, container = pod["metadata"]["uid"], _cli(pod)
        if TENANT_ANNOTATION not in annotations_of(pod):
            return
        former = Life(uid, self._starts.get(uid, 1))
        self._pods[uid] = pod
        self._starts[uid] = int(container.get("restartCount", 0)) + 1
        ended = event == "DELETED" or self._starts[uid] != former.start or "terminated" in container.get("state", {})
        if ended and former not in self._gone_at:
            self._gone_at[former] = self._clock()
            self._clean(former)
        if "deletionTimestamp" in pod["metadata"]:
            self._cordoned_at.setdefault(Life(uid, self._starts[uid]), self._clock())

    def deployment_seen(self, event: str, deployment: Manifest) -> None:
        """A Deployment."""
        tenant = annotations_of(deployment).get(TENANT_ANNOTATION, "")
        life = self.life(tenant)
        if life is not None and intent_of(deployment) is not None:
            self._cordoned_at.setdefault(life, self._clock())

    def life(self, tenant: str) -> Life | None:
        for uid, pod in reversed(self._pods.items()):
            life = Life(uid, self._starts[uid])
            ours = annotations_of(pod)[TENANT_ANNOTATION] == tenant
            if ours and life not in self._gone_at and "running" in _cli(pod).get("state", {}):
                return life
        return None

    def node(self, life: Life) -> str:
        return str(self._pods[life.pod]["spec"]["nodeName"])

    async def address(self, tenant: str) -> Address:
        life, server = self.life(tenant), server_of(tenant)
        assert life is not None, f"nobody serves {tenant}"
        service = await self._api.get(SERVICE, self._namespace, server)
        secret = await self._api.get(SECRET, self._namespace, server)
        token = base64.b64decode(secret["data"]["token"]).decode()
        port = int(service["spec"]["ports"][0]["port"])
        return Address(service["spec"]["clusterIP"], port, token, self._pods[life.pod]["status"]["podIP"])

    def gone_at(self, life: Life) -> float | None:
        return self._gone_at.get(life)

    def cordoned_at(self, life: Life) -> float | None:
        return self._cordoned_at.get(life)

    async def hang(self, life: Life) -> None:
        os.kill(_process_of(life), signal.SIGSTOP)

    async def wear_out(self, life: Life) -> None:
        """Processes of nobody, as tools leave them behind."""
        self._litter[life] = _leave_processes(_process_of(life))

    def _clean(self, life: Life) -> None:
        for process in self._litter.pop(life, []):
            process.kill()
            process.wait(timeout=10)


def _leave_processes(beside: int) -> list[subprocess.Popen[bytes]]:
    words = ["nsenter", "--pid", f"--target={beside}", "--", "sleep", "600"]
    return [subprocess.Popen(words) for _ in range(PROCESSES)]


def _cli(pod: Manifest) -> Manifest:
    found = pod.get("status", {}).get("containerStatuses") or ()
    return next((each for each in found if each["name"] == "copilot"), {})


def _process_of(life: Life) -> int:
    """The CLI of a pod; the pod's UID is in its processes' cgroup. Raises LookupError."""
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if not name.isdigit() or b"--headless" not in Path(f"/proc/{name}/cmdline").read_bytes():
                continue
            groups = Path(f"/proc/{name}/cgroup").read_text()
            if life.pod in groups or life.pod.replace("-", "_") in groups:
                return int(name)
    raise LookupError(f"no process of pod {life.pod} can be seen from here")
