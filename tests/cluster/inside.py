"""Runs in the cluster's own namespaces: makes a node of them, then starts, stops and watches the components.

`python3 -m tests.cluster.inside NAME DATA` is what the namespaces' first process (tini) runs. It listens on a socket;
one line of JSON asks, one line of JSON answers.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.cluster import cgroups
from tests.cluster.layout import NODE_ADDRESS, NODE_NAME, NODE_PREFIX, PRIVATE_DIRECTORIES, SERVICE_CIDR, Layout
from tests.cluster.packages import SYSTEM_PATH, require
from tests.cluster.process import ClusterError, run

# kubelet sets these for the whole machine and does not start if it can't: let it read what it wants to see.
SYSCTLS = {"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
BRIDGE = "node0"


def _do(*words: str | Path) -> None:
    run([require(str(words[0])), *words[1:]], timeout_s=20, what=" ".join(map(str, words)))


def set_up(layout: Layout, bulk: Path) -> None:
    """Mounts, network and kernel settings of the node; nothing of it is seen from outside."""
    base = layout.base
    _do("mount", "-t", "proc", "proc", "/proc")
    _do("mount", "-t", "sysfs", "sysfs", "/sys")
    cgroups.mount_inside()
    (bulk / "log").mkdir(parents=True, exist_ok=True)
    _do("mount", "--bind", bulk / "log", "/var/log")
    for path in map(Path, PRIVATE_DIRECTORIES):
        own = bulk / f"private-{path.name}"
        own.mkdir()
        _do("mount", "--bind", own, path)
    for name, value in SYSCTLS.items():
        file = layout.config / "sysctl" / name.replace("/", ".")
        file.write_text(value + "\n")
        _do("mount", "--bind", file, Path("/proc/sys") / name)
    _private_run(base)
    resolver = Path("/etc/resolv.conf").resolve()
    if resolver.is_relative_to("/run"):
        # A link to what the machine's resolver keeps there.
        resolver.parent.mkdir(parents=True, exist_ok=True)
        resolver.touch()
    if resolver.exists():
        _do("mount", "--bind", layout.resolv_conf, resolver)
    # Last: mounts made from here on reach containers, which the ones above (copies of each other) must not do twice.
    _do("mount", "--make-rshared", "/")
    _network()


def _private_run(base: Path) -> None:
    """An empty /run in memory that still has the cluster's own directory in it, at the same path."""
    fresh = base / "run"
    fresh.mkdir(exist_ok=True)
    _do("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", fresh)
    (fresh / "lock").mkdir()
    if base.is_relative_to("/run"):
        again = fresh / base.relative_to("/run")
        again.mkdir(parents=True)
        _do("mount", "--rbind", base, again)
        # The copy of the copy would keep the old /run busy.
        _do("umount", again / "run")
    _do("mount", "--rbind", fresh, "/run")


def _network() -> None:
    _do("ip", "link", "set", "lo", "up")
    _do("ip", "link", "add", BRIDGE, "type", "bridge")
    _do("ip", "address", "add", f"{NODE_ADDRESS}/{NODE_PREFIX}", "dev", BRIDGE)
    _do("ip", "link", "set", BRIDGE, "up")
    # Service addresses are rewritten after the route is chosen, so they need one; all else ends here, at once.
    _do("ip", "route", "add", SERVICE_CIDR, "dev", BRIDGE)
    _do("ip", "route", "add", "unreachable", "default")
    for name, value in {"ip_forward": "1", "ip_local_port_range": "32768 60999"}.items():
        Path(f"/proc/sys/net/ipv4/{name}").write_text(value)


def _search_path(base: Path) -> str:
    """PATH of the components; an iptables that works comes first."""
    own = base / "config" / "bin"
    own.mkdir(exist_ok=True)
    if run(["iptables", "-t", "nat", "-S"], timeout_s=10, check=False).returncode != 0:
        names = [family + verb for family in ("iptables", "ip6tables") for verb in ("", "-save", "-restore")]
        for name in names:
            legacy = shutil.which(name.replace("tables", "tables-legacy", 1))
            if legacy:
                (own / name).unlink(missing_ok=True)
                (own / name).symlink_to(legacy)
        if not (own / "iptables").exists():
            raise ClusterError("iptables works neither with nftables nor with the old tables of this kernel")
    return f"{own}:{SYSTEM_PATH}"


class Supervisor:
    """The components as child processes, by name."""

    def __init__(self, logs: Path, path: str) -> None:
        self._logs = logs
        self._environment = {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._guard = threading.Lock()

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        action = question["do"]
        with self._guard:
            if action == "start":
                return self._start(question["name"], question["argv"])
            if action == "stop":
                return self._stop(question["name"], question["grace_s"])
            if action == "signal":
                self._running[question["name"]].send_signal(question["signal"])
                return {}
            return {"components": {name: process.poll() for name, process in self._running.items()}}

    def _start(self, name: str, argv: list[str]) -> dict[str, Any]:
        old = self._running.get(name)
        if old is not None and old.poll() is None:
            return {"pid": old.pid}
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )
        self._running[name] = process
        return {"pid": process.pid}

    def _stop(self, name: str, grace_s: float) -> dict[str, Any]:
        process = self._running.get(name)
        if process is None:
            return {"exit": None}
        process.send_signal(signal.SIGTERM if grace_s > 0 else signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return {"exit": process.wait(timeout=grace_s or 10)}
        process.kill()
        return {"exit": process.wait(timeout=10)}


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        try:
            answer = self.server.supervisor.answer(json.loads(self.rfile.readline()))
        except Exception as error:  # told to whoever asked: this process must go on
            answer = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        super().__init__(str(path), _Handler)


def main() -> None:
    layout, bulk = Layout(sys.argv[1]), Path(sys.argv[2])
    os.environ["PATH"] = SYSTEM_PATH
    socket.sethostname(NODE_NAME)
    set_up(layout, bulk)
    supervisor = Supervisor(layout.logs, _search_path(layout.base))
    layout.control.unlink(missing_ok=True)
    with _Server(layout.control, supervisor) as server:
        server.serve_forever(poll_interval=3600)


if __name__ == "__main__":
    main()
