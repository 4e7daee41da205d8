"""kind, where a Docker daemon answers: the same commands, on nodes that are containers."""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.api import Cluster
from tests.cluster.layout import Layout, cache_directory
from tests.cluster.packages import require
from tests.cluster.process import ClusterError, run, wait_until

MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
PARKED = "/etc/kubernetes/kube-apiserver.parked.yaml"
CONFIG = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": [{"role": "control-plane"}]}


class KindCluster(Cluster):
    """A cluster of one node, made by kind."""

    kind = "kind"

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout.name)
        # A user who may speak to Docker need not be root.
        self._base = layout.base if os.geteuid() == 0 else cache_directory() / "clusters" / layout.name
        self.kubeconfig = self._base / "kubeconfig"
        self.kubeconfig_inside = self._base / "kubeconfig.inside"

    @property
    def _node(self) -> str:
        return f"{self.name}-control-plane"

    def up(self, *, audit: bool = False) -> None:
        if self.is_up():
            return
        self._base.mkdir(parents=True, exist_ok=True)
        self._base.chmod(0o700)
        (self._base / "kind").touch()
        config = self._base / "kind.json"
        config.write_text(json.dumps(CONFIG))
        if self._exists():
            self._kind("delete", "cluster", timeout_s=120)
        words = [f"--config={config}", f"--kubeconfig={self.kubeconfig}"]
        if image := os.environ.get("COPILOT_KIND_NODE"):
            words.append(f"--image={image}")
        self._kind("create", "cluster", *words, "--wait=120s", timeout_s=600)
        self._write_inside()

    def down(self) -> None:
        if self._exists():
            self._kind("delete", "cluster", f"--kubeconfig={self.kubeconfig}", timeout_s=120)
        for file in ("kubeconfig", "kubeconfig.inside", "kind.json", "kind"):
            (self._base / file).unlink(missing_ok=True)
        if self._base.is_dir():
            self._base.rmdir()

    def is_up(self) -> bool:
        if not self.kubeconfig_inside.is_file() or not self._exists():
            return False
        return self._ready()

    def status(self) -> dict[str, Any]:
        return {"cluster": self.name, "kind": self.kind, "up": self.is_up(), "kubeconfig": str(self.kubeconfig)}

    def load_image(self, tar: Path) -> None:
        self._kind("load", "image-archive", str(tar), timeout_s=300)

    def in_network(self, argv: Sequence[str | Path]) -> list[str]:
        if os.geteuid() != 0:
            raise ClusterError("reaching the network of kind's node from this machine needs root")
        question = ["docker", "inspect", "--format={{.State.Pid}}", self._node]
        done = run(question, timeout_s=20, what="finding kind's node")
        return [require("nsenter"), "--net", f"--target={done.stdout.strip()}", "--", *map(str, argv)]

    def stop_api_server(self) -> None:
        self._in_node("mv", MANIFEST, PARKED)
        wait_until(lambda: not self._ready(), timeout_s=60, what="the API server gone")

    def start_api_server(self, timeout_s: float = 60) -> None:
        self._in_node("mv", PARKED, MANIFEST)
        wait_until(self._ready, timeout_s=timeout_s, what="API server ready again", every_s=0.5)

    def _ready(self) -> bool:
        command = ["docker", "exec", self._node, "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"]
        options = ["--request-timeout=5s", "get", "--raw=/readyz"]
        done = run([*command, *options], timeout_s=20, check=False)
        return done.returncode == 0 and done.stdout.strip() == "ok"

    def _write_inside(self) -> None:
        """The kubeconfig for processes in the node's network, where the API server listens on 6443."""
        found = subprocess.run(
            ["kind", "get", "kubeconfig", f"--name={self.name}"], capture_output=True, text=True, timeout=30, check=True
        )
        inside = re.sub(r"server: \S+", "server: https://127.0.0.1:6443", found.stdout)
        self.kubeconfig_inside.touch(mode=0o600)
        self.kubeconfig_inside.write_text(inside)

    def _exists(self) -> bool:
        done = run(["kind", "get", "clusters"], timeout_s=30, what="asking kind for its clusters")
        return self.name in done.stdout.split()

    def _in_node(self, *words: str) -> None:
        run(["docker", "exec", self._node, *words], timeout_s=30)

    def _kind(self, *words: str, timeout_s: float) -> None:
        run(["kind", *words, f"--name={self.name}"], timeout_s=timeout_s, what=f"kind {' '.join(words[:2])}")
