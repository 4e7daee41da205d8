"""``python -m tests.scale.gateway``: the gateway on loopback beside HAProxy and beside nothing, one line of JSON.

Server and clients are processes of their own; what is measured for each way is

* round trips of a request and an answer of 1 KB each at 1,000 messages/s (milliseconds),
* messages per CPU second of the proxy with as many round trips under way as go, and with events that a server pushes,
* the memory of an idle client connection,
* what a gateway that keeps another's turns is sent for each, by a stand-in of the CLI.

Figures go to stdout, everything else to stderr; the exit code is 1 when an aim is missed.
"""

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.packages import SYSTEM_PATH, find
from tests.cluster.process import ClusterError, run, wait_until
from tests.contract.gateway_bed import Server, Tenant, accepts, code_of, free_port, gateway_command, write_config
from tests.scale.client import say
from tests.scale.gateway_keeping import kb_per_turn

TICKS: Final = os.sysconf("SC_CLK_TCK")
SECONDS: Final = 6.0
LATENCY_SECONDS, LATENCY_ROUNDS = 2.0, 5
IDLE: Final = 2000
TOKENS: Final = tuple(f"tenant-{number}" for number in range(20))
SERVER_TOKEN: Final = "server-token"
LEAST_RATIO, MOST_LATENCY_RATIO, MOST_KB = 0.3, 1.5, 40.0

HAPROXY: Final = """
global
    maxconn 4000
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend front
    bind 127.0.0.1:{front}
    default_backend back
backend back
    server echo 127.0.0.1:{back}
"""


@dataclass(frozen=True)
class Way:
    """How the clients reach the server: through whom (None: directly), where, with which tokens."""

    name: str
    port: int
    tokens: list[str]
    pid: int | None = None

    def cpu_s(self) -> float:
        """User and system time of the process in between so far."""
        words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICKS

    def memory_kb(self) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


class Load:
    """The process with the clients."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def order(self, what: str, way: Way, **more: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        order = {"what": what, "host": "127.0.0.1", "port": way.port, "token": way.tokens, **more}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "the clients have ended"}')
        if "error" in answer:
            raise ClusterError(f"{way.name}, {what}: {answer['error']}")
        if answer.get("failed"):
            raise ClusterError(f"{way.name}, {what}: {answer['failed']} failed")
        return answer


@contextlib.contextmanager
def process(argv: list[str], **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """A process that is ended with the block."""
    started = subprocess.Popen(argv, text=True, **options)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def pinned(core: int) -> list[str]:
    """A prefix that keeps a command on one core, the proxy's or the others', where there are two."""
    taskset = find("taskset")
    return [taskset, "-c", str(core)] if taskset and (os.cpu_count() or 1) > 1 else []


def ensure_haproxy() -> str:
    """HAProxy of Debian, installed where that may be."""
    if path := find("haproxy"):
        return path
    say("installing haproxy")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "PATH": f"{os.environ['PATH']}:{SYSTEM_PATH}"}
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq", "-y", "--no-install-recommends", "install", "haproxy"]
    run(command, timeout_s=600, what="installing haproxy (Debian has it)", env=environment)
    if path := find("haproxy"):
        return path
    raise ClusterError("haproxy is not there after its installation")


def latency(load: Load, ways: list[Way]) -> dict[str, dict[str, float]]:
    """The best of some rounds, all ways in each: what else the machine does must not fall on one of them."""

    def one_round() -> dict[str, dict[str, float]]:
        return {way.name: load.order("latency", way, messages_per_s=1000, seconds=LATENCY_SECONDS) for way in ways}

    rounds = [one_round() for _ in range(LATENCY_ROUNDS)]
    return {way.name: min((each[way.name] for each in rounds), key=lambda figures: figures["p50_ms"]) for way in ways}


def per_core(load: Load, way: Way, what: str, **more: Any) -> float:
    """Messages per CPU second of the process in between; the best of two rounds."""
    best = 0.0
    for _ in range(2):
        before = way.cpu_s()
        seen = load.order(what, way, connections=8, **more)
        used = way.cpu_s() - before
        rate, took = seen["messages"] / seen["seconds"], seen["seconds"]
        say(f"{way.name}, {what}: {rate:,.0f} messages/s, CPU {used:.1f} of {took:.1f} s")
        best = max(best, seen["messages"] / used)
    return best


def idle_kb(load: Load, way: Way) -> float:
    """What one connection that has authenticated and is silent takes of the process in between."""
    load.order("idle", way, count=50)  # what the first ones make a process load belongs to none of them
    before = way.memory_kb()
    opened = load.order("idle", way, count=IDLE)["open"]
    took = way.memory_kb() - before
    if opened != IDLE + 50:
        raise ClusterError(f"{way.name}: {opened} of {IDLE + 50} idle connections are open")
    load.order("forget", way)
    return took / IDLE


def measure(load: Load, direct: Way, haproxy: Way, gateway: Way) -> dict[str, Any]:
    """The line of figures."""
    memory = {way.name: round(idle_kb(load, way), 1) for way in (haproxy, gateway)}  # before memory was used and freed
    found = latency(load, [direct, haproxy, gateway])
    line: dict[str, Any] = {"bench": "gateway", "message_bytes": 1000}
    for name in ("direct", "haproxy", "gateway"):
        line |= {f"{name}_{part}": round(found[name][part], 3) for part in ("p50_ms", "p99_ms")}
    added = {name: found[name]["p50_ms"] - found["direct"]["p50_ms"] for name in ("haproxy", "gateway")}
    line["added_p50_ms"] = round(added["gateway"], 3)
    line["added_p50_ratio"] = round(added["gateway"] / added["haproxy"], 2)
    for what, prefix, more in (
        ("requests", "", {"window": 16, "seconds": SECONDS}),
        ("events", "events_", {"count": 100_000}),
    ):
        figures = {way.name: per_core(load, way, what, **more) for way in (haproxy, gateway)}
        line |= {f"{name}_{prefix}msgs_per_core_s": round(figures[name]) for name in figures}
        line[f"{prefix}ratio"] = round(figures["gateway"] / figures["haproxy"], 3)
    return line | {"kb_per_connection": memory["gateway"], "haproxy_kb_per_connection": memory["haproxy"]}


def misses(line: dict[str, Any]) -> list[str]:
    """The aims that this run missed."""
    aims = {
        f"ratio >= {LEAST_RATIO}": line["ratio"] >= LEAST_RATIO,
        f"added_p50_ratio <= {MOST_LATENCY_RATIO}": line["added_p50_ratio"] <= MOST_LATENCY_RATIO,
        f"kb_per_connection <= {MOST_KB:.0f}": line["kb_per_connection"] <= MOST_KB,
    }
    for aim, reached in aims.items():
        say(f"{'reached' if reached else 'MISSED'}: {aim}")
    return [aim for aim, reached in aims.items() if not reached]


def main() -> int:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    say(f"load average before: {os.getloadavg()[0]:.1f}")
    module = [sys.executable, "-m"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        echo = stack.enter_context(process([*pinned(0), *module, "tests.scale.gateway_echo"], **pipes))
        assert echo.stdout
        back = int(echo.stdout.readline())

        front, conf = free_port(), directory / "haproxy.cfg"
        conf.write_text(HAPROXY.format(front=front, back=back))
        command = [*pinned(1), ensure_haproxy(), "-db", "-f", str(conf)]
        haproxy = stack.enter_context(process(command, stdout=sys.stderr, stderr=sys.stderr))

        config, door = directory / "config", free_port()
        servers = {"echo": Server("127.0.0.1", back, SERVER_TOKEN)}
        write_config(config, servers, {token: Tenant(token, code=code_of(token)) for token in TOKENS})
        command = [*pinned(1), *gateway_command(config, f"127.0.0.1:{door}", f"127.0.0.1:{free_port()}")]
        gateway = stack.enter_context(process(command, stdout=sys.stderr, stderr=sys.stderr))
        for what, port in (("haproxy", front), ("the gateway", door)):
            wait_until(lambda port=port: accepts("127.0.0.1", port), timeout_s=20, what=f"{what} takes connections")  # type: ignore[misc]

        load = Load(stack.enter_context(process([*pinned(0), *module, "tests.scale.gateway_load"], **pipes)))
        line = measure(
            load,
            Way("direct", back, [SERVER_TOKEN]),
            Way("haproxy", front, [SERVER_TOKEN], haproxy.pid),
            Way("gateway", door, list(TOKENS), gateway.pid),
        )
    line["keeper_kb_per_turn"] = round(asyncio.run(kb_per_turn()), 1)
    print(json.dumps(line), flush=True)
    return 1 if misses(line) else 0


if __name__ == "__main__":
    sys.exit(main())
