"""The operator as a process of the test: in the cluster's network, with the rights of its real ServiceAccount only."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from copilot_operator.domain.kinds import DEPLOYMENT
from tests.cluster.api import Cluster
from tests.support.installation import OPERATOR_NAMESPACE
from tests.support.kube import Kube, write_kubeconfig

ACCOUNT: Final = "copilot-operator"
LEADS_S: Final = 45.0  # a Lease that a killed operator held expires first
STOPS_S: Final = 30.0


@dataclass
class OperatorProcess:
    """Start, stop, kill and start again; the log of all runs is one file of JSON lines."""

    cluster: Cluster
    kube: Kube
    directory: Path
    image: str = "copilot-operator:dev"
    port: int = 0  # of /livez, /readyz and /metrics; 0 is any
    namespace: str = OPERATOR_NAMESPACE  # of its Lease; its account is always that of the manifests
    more: dict[str, str] = field(default_factory=dict)  # further settings, from the next start on
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log_file(self) -> Path:
        return self.directory / "operator.log"

    def start(self, *, wait: bool = True) -> None:
        """Returns when it leads."""
        assert self.process is None, "the operator runs already"
        token = self.kube.token_of(OPERATOR_NAMESPACE, ACCOUNT)
        kubeconfig = write_kubeconfig(self.directory / "kubeconfig", self.cluster.kubeconfig_inside, token)
        settings = {
            "KUBECONFIG": str(kubeconfig),
            "COPILOT_OPERATOR_IMAGE": self.image,
            "POD_NAMESPACE": self.namespace,
            "POD_NAME": "operator-under-test",
            "COPILOT_OPERATOR_PORT": str(self.port),
            "COPILOT_OPERATOR_LOG_LEVEL": "debug",  # secrets are looked for in what it logs
            **self.more,
        }
        words = ["env", *(f"{key}={value}" for key, value in settings.items())]
        began = self.log_size()
        with self.log_file.open("ab") as log:
            argv = [*words, sys.executable, "-m", "copilot_operator", "run"]
            self.process = self.cluster.start_in_network(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            self._wait_for("leads", began)

    def log_size(self) -> int:
        """Bytes; for ``entries`` and ``says`` of what comes later."""
        return self.log_file.stat().st_size if self.log_file.exists() else 0

    def says(self, message: str, since: int = 0) -> bool:
        """Whether a message of its log has this in it."""
        return any(message in str(entry.get("message")) for entry in self.entries(since))

    def kill(self) -> None:
        """As a crash ends it: at once, nothing is given back."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As Kubernetes ends it."""
        self._end(signal.SIGTERM)

    def has_ended(self) -> bool:
        """By itself; it can be started again then."""
        if self.process is not None and self.process.poll() is not None:
            self.process = None
        return self.process is None

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def ensure(self) -> None:
        """Have it running, whatever the test before did."""
        if self.has_ended():
            self.start()

    def log_since(self, began: int) -> str:
        """What it wrote from a size of its log file on."""
        with self.log_file.open("rb") as file:
            file.seek(began)
            return file.read().decode(errors="replace")

    def page(self, path: str) -> str:
        """What it tells who asks, such as /metrics; needs a ``port`` that was chosen."""
        program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
        words = [sys.executable, "-c", program, f"http://127.0.0.1:{self.port}{path}"]
        return str(self.cluster.run_in_network(words, capture_output=True, text=True, timeout=30, check=True).stdout)

    def entries(self, since: int = 0) -> list[dict[str, Any]]:
        """What it logged; a line that is no JSON (a traceback) becomes a message."""
        if not self.log_file.exists():
            return []
        with self.log_file.open("rb") as file:
            file.seek(since)
            return [_entry(line) for line in file.read().decode(errors="replace").splitlines()]

    def said(self, lines: int = 15) -> str:
        """The last of its log, for failures."""
        return "\n".join(json.dumps(entry)[:600] for entry in self.entries()[-lines:])

    def _wait_for(self, message: str, since: int) -> None:
        ends_at = time.monotonic() + LEADS_S
        assert self.process is not None
        while not any(entry.get("message") == message for entry in self.entries(since)):
            ended = self.process.poll()
            assert ended is None, f"the operator ended with {ended}:\n{self.said()}"
            assert time.monotonic() < ends_at, f"the operator did not say {message!r}:\n{self.said()}"
            time.sleep(0.05)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
        try:
            process.wait(timeout=STOPS_S)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(timeout=STOPS_S)
            raise AssertionError(f"the operator did not end within {STOPS_S:g} s:\n{self.said()}") from None


def rest_installed_operator(kube: Kube) -> int:
    """Scale an operator that somebody installed to nothing, since two must not lead; returns its replicas."""
    live = kube.find(DEPLOYMENT, OPERATOR_NAMESPACE, ACCOUNT)
    replicas = int(live["spec"]["replicas"]) if live else 0
    if replicas:
        scale(kube, 0)
        words = ["wait", "pods", "-l=app.kubernetes.io/name=copilot-operator", "--for=delete", "--timeout=60s"]
        kube.kubectl("-n", OPERATOR_NAMESPACE, *words)
    return replicas


def scale(kube: Kube, replicas: int) -> None:
    kube.merge(DEPLOYMENT, OPERATOR_NAMESPACE, ACCOUNT, {"spec": {"replicas": replicas}})


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = line
    return entry if isinstance(entry, dict) else {"message": line}
