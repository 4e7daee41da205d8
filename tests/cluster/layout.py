"""Names, addresses and directories of the clusters that tests and the demo run on."""

import os
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "1.36.3"
DEFAULT_NAME = "copilot"

# Addresses live in a network namespace of the cluster's own: several clusters may all use the same ones.
NODE_NAME = "copilot-node"
NODE_ADDRESS = "172.31.255.1"
NODE_PREFIX = 24
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_SERVICE_ADDRESS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"

PAUSE_IMAGE = "docker.io/library/cluster-pause:local"
BUSYBOX_IMAGE = "docker.io/library/cluster-busybox:local"
"""Every embedded cluster has this one: busybox with all its applets, for helpers and for tests of any container."""

PRIVATE_DIRECTORIES = ("/var/lib/cni", "/var/lib/kubelet")
"""Paths that node programs write to whatever they are told: in the cluster, directories of its own lie over them."""

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
ROOT = Path(__file__).resolve().parents[2]
"""The checkout: `python3 -m tests.cluster...` works from here."""


def cache_directory() -> Path:
    """Where downloads and builds are kept, so that a fresh clone finds them again."""
    chosen = os.environ.get("COPILOT_OPERATOR_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "copilot-operator"


@dataclass(frozen=True)
class Layout:
    """The directories and files of one cluster."""

    name: str = DEFAULT_NAME

    @property
    def parent(self) -> Path:
        # Containers' layers and volumes lie below: a memory file system would hold them all in memory.
        chosen = os.environ.get("COPILOT_TEST_CLUSTER_DIR")
        return Path(chosen) if chosen else Path("/run/copilot-operator-cluster")

    @property
    def base(self) -> Path:
        return self.parent / self.name

    @property
    def bulk(self) -> Path:
        """Where etcd, containers and volumes keep their data."""
        run = self.parent if self.parent.exists() else self.parent.parent
        if file_system(run) == "tmpfs":
            return Path("/var/tmp/copilot-operator-cluster") / self.name
        return self.base / "data"

    @property
    def lock(self) -> Path:
        return self.parent / f"{self.name}.lock"

    @property
    def made(self) -> Path:
        """Which directories of the machine were made for clusters to lie over, and go with the last cluster."""
        return self.parent / "made"

    @property
    def state(self) -> Path:
        return self.base / "state.json"

    @property
    def kubeconfig(self) -> Path:
        return self.base / "kubeconfig"

    @property
    def config(self) -> Path:
        return self.base / "config"

    @property
    def logs(self) -> Path:
        return self.base / "logs"

    @property
    def control(self) -> Path:
        """The supervisor's socket."""
        return self.base / "node.sock"

    @property
    def resolv_conf(self) -> Path:
        return self.config / "resolv.conf"

    @property
    def cgroup(self) -> str:
        return f"copilot-operator-cluster-{self.name}"


def file_system(path: Path) -> str:
    """The type of the file system that holds an existing path."""
    wanted = os.path.realpath(path)
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        point = before.split()[4]
        inside = wanted == point or point == "/" or wanted.startswith(point + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind
