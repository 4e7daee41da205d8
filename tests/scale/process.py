"""The operator as a process: started as its Deployment would start it, and looked at from outside."""

import asyncio
import os
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.scale.client import say
from tests.scale.objects import AGENT_IMAGE, OPERATOR_IN

PORT: Final = 18080
TICKS: Final = os.sysconf("SC_CLK_TCK")
WRITES: Final = frozenset({"create", "update", "patch", "delete"})


@dataclass(frozen=True)
class Figures:
    """What /metrics says."""

    requests: Counter[tuple[str, str]]  # by verb and resource
    leading: bool
    queued: int
    reconciled: int  # tenants, cycles
    failed: int

    @property
    def writes(self) -> int:
        """The Lease's are not counted: they say that the operator lives."""
        return sum(n for (verb, resource), n in self.requests.items() if verb in WRITES and resource != "leases")


class OperatorProcess:
    """One run of ``copilot-operator run``. ``command`` comes before it (a profiler)."""

    def __init__(self, log: Path, command: tuple[str, ...]) -> None:
        self._log, self._command = log, command
        self._process: asyncio.subprocess.Process | None = None
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        environment = os.environ | {
            "COPILOT_OPERATOR_IMAGE": AGENT_IMAGE,
            "COPILOT_OPERATOR_PORT": str(PORT),
            "POD_NAMESPACE": OPERATOR_IN,
        }
        if kubeconfig := os.environ.get("COPILOT_BENCH_OPERATOR_KUBECONFIG"):
            environment["KUBECONFIG"] = kubeconfig
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, "run", env=environment, stdout=output, stderr=output, stdin=asyncio.subprocess.DEVNULL
            )
        self._http = self._http or aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))

    async def stop(self) -> None:
        """SIGTERM, and the time it is given by a pod; killed after that."""
        if self._http:
            await self._http.close()
            self._http = None
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(30):
                code = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            say("the operator did not end within 30 s of SIGTERM")
        else:
            if code != 0:
                say(f"the operator ended with {code} after SIGTERM")

    async def kill(self) -> None:
        """As a crash ends it: at once, nothing is given back."""
        assert self._process
        self._process.kill()
        await self._process.wait()

    async def figures(self) -> Figures | None:
        """None as long as it does not answer."""
        assert self._http
        assert self._process
        if self._process.returncode is not None:
            raise RuntimeError(f"the operator ended with {self._process.returncode}:\n{self.tail()}")
        text = ""
        with suppress(aiohttp.ClientConnectionError, TimeoutError):
            async with self._http.get(f"http://127.0.0.1:{PORT}/metrics") as answer:
                text = await answer.text()
        return _parsed(text) if text else None

    async def until(self, what: str, within_s: float, every_s: float = 0.05, *, queue_empty_after: int = 0) -> Figures:
        """Until it leads, has run at least ``queue_empty_after`` cycles of tenants and has nothing left in line."""
        ends_at = asyncio.get_running_loop().time() + within_s
        while True:
            found = await self.figures()
            if found and found.leading and found.reconciled >= queue_empty_after and not found.queued:
                return found
            if asyncio.get_running_loop().time() > ends_at:
                raise TimeoutError(f"{what}: not within {within_s:.0f} s; last {found}\n{self.tail()}")
            await asyncio.sleep(every_s)

    async def settled(self, quiet_s: float, within_s: float) -> Figures:
        """Until it has not written for ``quiet_s``; the figures are those of the last write."""
        clock = asyncio.get_running_loop().time
        started = changed_at = clock()
        last = await self.until("metrics", 30)
        while clock() - changed_at < quiet_s:
            await asyncio.sleep(0.5)
            now = await self.until("metrics", 30)
            if now.writes != last.writes:
                changed_at = clock()
            last = now
            if clock() - started > within_s:
                say(f"the operator goes on writing for {within_s:.0f} s")
                break
        return last

    async def ended(self) -> None:
        """Raises when it ends by itself."""
        assert self._process
        code = await self._process.wait()
        raise RuntimeError(f"the operator ended with {code}:\n{self.tail()}")

    def cpu_s(self) -> float:
        """User and system time of the process so far."""
        words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICKS

    def memory_mb(self, field: str = "VmHWM") -> float:
        """VmHWM: the most it ever had resident; VmRSS: now. In millions of bytes."""
        return resident_mb(self.pid, field)

    def tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid


def resident_mb(pid: int, field: str = "VmRSS") -> float:
    """Memory of a process, in millions of bytes; ``field`` of its status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:"))


def _parsed(text: str) -> Figures:
    requests: Counter[tuple[str, str]] = Counter()
    leading, queued, reconciled, failed = False, 0, 0, 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            match sample.name:
                case "copilot_operator_api_requests_total":
                    requests[sample.labels["verb"], sample.labels["resource"]] += int(sample.value)
                case "copilot_operator_leading":
                    leading = sample.value == 1
                case "copilot_operator_queue_length":
                    queued = int(sample.value)
                case "copilot_operator_reconcile_seconds_count" if sample.labels["kind"] == "CopilotTenant":
                    reconciled = int(sample.value)
                case "copilot_operator_reconcile_errors_total":
                    failed += int(sample.value)
    return Figures(requests, leading, queued, reconciled, failed)
