"""The process of a gateway whose pod is simulated: ``python3 -m tests.scale.gateway_pod JSON FLAG...``

The JSON is what kubelet would put into its pod (``access``: where the API server is, the token of its ServiceAccount),
and ``intervals`` that shall be others.
"""

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from copilot_operator.cluster.client import KubeApi
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.naming import gateway_of
from copilot_operator.gateway import main as program
from copilot_operator.gateway.feed.kube import Access
from tests.scale.intervals import set_intervals
from tests.scale.process import resident_mb

PORT: Final = 14321  # of clients: pods' own is taken by servers, on every address
ADMIN_PORT: Final = 4322
TOKEN_S: Final = 7200


class GatewayPod:
    """A gateway of a pool, on the address of a pod that is only said to run."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.cache = directory, directory / "cache"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def memory_mb(self) -> float:
        """Resident, in millions of bytes."""
        return resident_mb(self.pid)

    async def start(
        self, api: KubeApi, namespace: str, pool: str, address: str, intervals: Mapping[str, float]
    ) -> None:
        """With the rights of the pool's gateways; ``address`` is its pod's."""
        self.cache.mkdir(parents=True, exist_ok=True)
        cluster = _cluster()
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        tokens = Kind("", "v1", f"serviceaccounts/{gateway_of(pool)}/token", "TokenRequest")
        answer = await api.create(tokens, namespace, asked | {"spec": {"expirationSeconds": TOKEN_S}})
        access = {
            "url": cluster["server"],
            "token_file": self._file("token", answer["status"]["token"].encode()),
            "ca_file": self._file("ca.crt", base64.b64decode(cluster["certificate-authority-data"])),
            "namespace": namespace,
        }
        given = json.dumps({"access": access, "intervals": dict(intervals)})
        flags = ["--settings", gateway_of(pool), "--cache", str(self.cache), "--listen", f"127.0.0.1:{PORT}"]
        argv = [sys.executable, "-m", "tests.scale.gateway_pod", given, *flags, "--admin", f"{address}:{ADMIN_PORT}"]
        with (self.directory / "gateway.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                await self._process.wait()
                return
        self._process.kill()
        await self._process.wait()

    def _file(self, name: str, content: bytes) -> str:
        file = self.directory / name
        file.touch(0o600)
        file.write_bytes(content)
        return str(file)


def _cluster() -> dict[str, Any]:
    """Of the kubeconfig that we were given: where the API server is, and whom to trust."""
    found: dict[str, Any] = json.loads(Path(os.environ["KUBECONFIG"]).read_text())["clusters"][0]["cluster"]
    return found


def main(argv: list[str]) -> int:
    given: dict[str, Any] = json.loads(argv[0])
    told = given["access"]
    access = Access(told["url"], Path(told["token_file"]), Path(told["ca_file"]), told["namespace"])
    Access.of_pod = staticmethod(lambda: access)  # type: ignore[assignment, method-assign]
    set_intervals(given["intervals"])
    return program.main(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
