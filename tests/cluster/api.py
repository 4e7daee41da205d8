"""What tests, the demo and benchmarks may ask of a cluster, whichever kind it is."""

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster import packages
from tests.cluster.layout import DEFAULT_NAME, Layout
from tests.cluster.process import ClusterError

GIVEN = "COPILOT_TEST_KUBECONFIG"
KINDS = ("embedded", "kind")


class Cluster(ABC):
    """A Kubernetes cluster for tests."""

    kind: str
    kubeconfig: Path
    """An administrator's, for processes on this machine."""
    kubeconfig_inside: Path
    """The same for processes that `in_network` starts. An embedded cluster's one file serves both."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def up(self, *, audit: bool = False) -> None:
        """Have the cluster running; audit: keep a log of all writes, and of all that service accounts do (embedded
        only)."""

    @abstractmethod
    def down(self) -> None:
        """Have nothing left of it."""

    @abstractmethod
    def is_up(self) -> bool: ...

    @abstractmethod
    def status(self) -> dict[str, Any]: ...

    def audit_log(self) -> Path | None:
        """The log that ``up(audit=True)`` has the API server keep; None if there is none."""
        return None

    @abstractmethod
    def load_image(self, tar: Path) -> None:
        """Bring an image, a tar that `docker load` would take, into the cluster under the name it carries."""

    @abstractmethod
    def in_network(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line with which `argv` reaches pods and Services (by name, where there is cluster DNS)."""

    @abstractmethod
    def stop_api_server(self) -> None:
        """Take the API server away at once; pods go on."""

    @abstractmethod
    def start_api_server(self, timeout_s: float = 60) -> None:
        """Bring the API server back and wait until it is ready.

        After a longer absence kubelet may take half a minute more to notice, as it would anywhere.
        """

    def run_in_network(self, argv: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a command where pods and Services are reached; `options` are subprocess.run's."""
        return subprocess.run(self.in_network(argv), env=self.environment(options.pop("env", None)), **options)

    def start_in_network(self, argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start a command where pods and Services are reached; `options` are subprocess.Popen's."""
        return subprocess.Popen(self.in_network(argv), env=self.environment(options.pop("env", None)), **options)

    def environment(self, base: dict[str, str] | None = None) -> dict[str, str]:
        """Environment of a process in the cluster's network."""
        return {**(os.environ if base is None else base), "KUBECONFIG": str(self.kubeconfig_inside)}


class GivenCluster(Cluster):
    """Somebody's cluster, named by its kubeconfig: nothing is started or ended here."""

    kind = "given"

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(kubeconfig.name)
        if not kubeconfig.is_file():
            raise ClusterError(f"{GIVEN} names {kubeconfig}, which is not a file")
        self.kubeconfig = self.kubeconfig_inside = kubeconfig.resolve()

    def up(self, *, audit: bool = False) -> None:
        if not self.is_up():
            raise ClusterError(f"the cluster that {GIVEN} names does not answer")

    def down(self) -> None:
        return None

    def is_up(self) -> bool:
        command = [kubectl(), f"--kubeconfig={self.kubeconfig}", "--request-timeout=10s", "version", "--output=json"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
        return done.returncode == 0 and b"serverVersion" in done.stdout

    def status(self) -> dict[str, Any]:
        return {"cluster": self.name, "kind": self.kind, "up": self.is_up(), "kubeconfig": str(self.kubeconfig)}

    def load_image(self, tar: Path) -> None:
        raise ClusterError(f"{tar.name}: images come into a cluster of this kind through a registry that it can reach")

    def in_network(self, argv: Sequence[str | Path]) -> list[str]:
        # COPILOT_TEST_NETWORK: the words before a command that bring it there, "ssh node" for one.
        return [*os.environ.get("COPILOT_TEST_NETWORK", "").split(), *map(str, argv)]

    def stop_api_server(self) -> None:
        raise ClusterError(f"the API server that {GIVEN} names is not ours to stop")

    def start_api_server(self, timeout_s: float = 60) -> None:
        raise ClusterError(f"the API server that {GIVEN} names is not ours to start")


def choose(name: str = DEFAULT_NAME, kind: str | None = None) -> Cluster:
    """The cluster to use: the one that is named, else kind where Docker answers, else the embedded one.

    A cluster that already runs under this name is kept, whatever would be chosen now.
    """
    from tests.cluster.embedded import EmbeddedCluster
    from tests.cluster.kind import KindCluster

    if not name.replace("-", "").isalnum() or not name.isascii() or len(name) > 40:
        raise ClusterError(f"{name!r} is no name for a cluster: up to 40 letters, digits and dashes")
    given = os.environ.get(GIVEN)
    if given and kind is None:
        return GivenCluster(Path(given))
    layout = Layout(name)
    wanted = kind or os.environ.get("COPILOT_TEST_CLUSTER_KIND")
    if wanted not in (None, *KINDS):
        raise ClusterError(f"{wanted!r} is no kind of cluster; there are: {', '.join(KINDS)}")
    if wanted is None and not layout.state.exists() and shutil.which("kind") and packages.docker_answers():
        wanted = "kind"
    if wanted is None and (layout.base / "kind").exists():
        wanted = "kind"
    return KindCluster(layout) if wanted == "kind" else EmbeddedCluster(layout)


def kubectl() -> str:
    """The machine's kubectl, else the one compiled for the embedded cluster."""
    found = shutil.which("kubectl")
    if found:
        return found
    from tests.cluster import programs

    directory = programs.ensure_kube()
    wrapper = directory / "kubectl"
    if not wrapper.exists():
        partial = directory / f".kubectl-{os.getpid()}"
        partial.write_text(f'#!/bin/sh\nexec "{directory}/kube" kubectl "$@"\n')
        partial.chmod(0o755)
        partial.rename(wrapper)
    return str(wrapper)
