"""A cluster of simulated nodes: the real API server and controllers, kwok for kubelets, a stand-in for CLI servers.

Every measurement gets a fresh one: it is up in seconds, and nothing of one run is left to slow the next.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Final

import yaml

from copilot_operator.domain.desired.service import CLI_PORT
from copilot_operator.domain.kinds import CRD, SERVICE_ACCOUNT, STORAGE_CLASS, Kind
from tests.cluster import programs
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.kubeapi import KubeApi
from tests.cluster.layout import NODE_NAME, ROOT, Layout
from tests.cluster.process import run, wait_until
from tests.scale.objects import CLASS_NAME, NAMESPACE, OPERATOR_IN

NODES: Final = 10
POD_ADDRESSES: Final = "10.128.0.0/9"
FAKE: Final = {"kwok.x-k8s.io/node": "fake"}
VOLUMES: Final = Path("/tmp/hostpath_pv")  # where controller-manager's provisioner makes its directories
NOT_NEEDED: Final = ("kubelet", "kube-proxy", "local-path-provisioner")
OPERATOR_ACCOUNT: Final = "copilot-operator"
RBAC: Final = ("rbac.authorization.k8s.io", "v1")
BASE: Final = {
    kind.kind: kind
    for kind in (
        NAMESPACE,
        SERVICE_ACCOUNT,
        Kind(*RBAC, "clusterroles", "ClusterRole", namespaced=False),
        Kind(*RBAC, "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
        Kind(*RBAC, "roles", "Role"),
        Kind(*RBAC, "rolebindings", "RoleBinding"),
    )
}


class SimulatedCluster(EmbeddedCluster):
    """Without a real node; its controller-manager provisions volumes itself."""

    def __init__(self, name: str) -> None:
        super().__init__(Layout(name))
        self._companions: list[subprocess.Popen[bytes]] = []

    def simulate(self, *, served: bool) -> None:
        """After ``up``: replace the node by simulated ones and let every pod's address answer.

        ``served`` False: whoever measures plays the servers, and kubelet's part in their pods' ends.
        """
        for name in NOT_NEEDED:
            self.stop_component(name)
        self.stop_component("kube-controller-manager")
        run(self.in_node(["mount", "-t", "tmpfs", "tmpfs", VOLUMES]), timeout_s=20)
        argv = [*self._state()["components"]["kube-controller-manager"], "--enable-hostpath-provisioner"]
        self._ask({"do": "start", "name": "kube-controller-manager", "argv": argv})
        run(self.in_network(["ip", "route", "add", "local", POD_ADDRESSES, "dev", "lo"]), timeout_s=20)
        api = KubeApi.of(self.kubeconfig)
        api.request("DELETE", f"/api/v1/nodes/{NODE_NAME}")
        for path, manifest in _objects():
            _create(api, path, manifest)
        program, stages = programs.ensure_kwok()
        stages = _stages(stages, self.layout.base / "stages.yaml", ends=served)
        selector = ",".join(f"{key}={value}" for key, value in FAKE.items())
        flags = [
            f"--kubeconfig={self.kubeconfig}",
            f"--config={stages}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={selector}",
            "--node-lease-duration-seconds=40",  # without renewals the nodes would be lost after a minute
            f"--cidr={POD_ADDRESSES}",
        ]
        self._accompany("kwok", [program, *flags])
        standin = [sys.executable, "-m", "tests.support.standin", "--host", "0.0.0.0", "--port", str(CLI_PORT)]
        if served:
            self._accompany("standin", standin)
        wait_until(lambda: _nodes_ready(api) == NODES, timeout_s=60, what=f"{NODES} simulated nodes Ready")
        wait_until(lambda: _established(api), timeout_s=30, what="the CRDs established")

    def measured(self, argv: Sequence[str | Path], *, with_operator: bool = True) -> dict[str, Any]:
        """Run a measurement in the cluster's network; the last line it prints is its answer. ``with_operator``: it runs
        one, which gets in as the operator."""
        access = {"COPILOT_BENCH_OPERATOR_KUBECONFIG": str(self.operator_kubeconfig())} if with_operator else {}
        done = subprocess.run(
            self.in_network(argv), env=self.environment() | access, cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def operator_kubeconfig(self) -> Path:
        """What lets a process in as the operator's ServiceAccount, with the rights of manifests/base and no others."""
        account = f"/api/v1/namespaces/{OPERATOR_IN}/serviceaccounts/{OPERATOR_ACCOUNT}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        content = json.loads(self.kubeconfig.read_text())
        answer = _create(KubeApi.of(self.kubeconfig), account, asked)
        content["users"][0]["user"] = {"token": answer["status"]["token"]}
        file = self.layout.base / "operator.kubeconfig"
        file.touch(0o600)
        file.write_text(json.dumps(content))
        return file

    def _accompany(self, name: str, argv: Sequence[str | Path]) -> None:
        with (self.layout.logs / f"{name}.log").open("ab") as log:
            options: dict[str, Any] = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL, "cwd": ROOT}
            self._companions.append(self.start_in_network(argv, **options))

    def end_companions(self) -> None:
        for process in self._companions:
            process.terminate()
        for process in self._companions:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()


@contextmanager
def logs_in(chosen: Path | None) -> Iterator[Path]:
    """The directory that somebody wants the logs in, or one that is gone at the end."""
    with tempfile.TemporaryDirectory() as temporary:
        logs = chosen or Path(temporary)
        logs.mkdir(parents=True, exist_ok=True)
        yield logs


@contextmanager
def simulated_cluster(name: str, *, served: bool = True) -> Iterator[SimulatedCluster]:
    """A fresh cluster with simulated nodes and the CRDs, gone at the end. ``served``: see ``simulate``."""
    programs.ensure_kwok()
    cluster = SimulatedCluster(name)
    cluster.down()
    made = not VOLUMES.exists()
    VOLUMES.mkdir(exist_ok=True)
    try:
        with redirect_stdout(sys.stderr):  # what starts a cluster speaks there; here it is for figures
            cluster.up()
            cluster.simulate(served=served)
        yield cluster
    finally:
        cluster.end_companions()
        cluster.down()
        if made:
            shutil.rmtree(VOLUMES, ignore_errors=True)


def _stages(kwoks: Path, file: Path, *, ends: bool) -> Path:
    """kwok's stages, with containers that have started as kubelet says it. ``ends`` False: no deleted pod goes."""
    stages = {stage["metadata"]["name"]: stage for stage in yaml.safe_load_all(kwoks.read_text())}
    ready = stages["pod-ready"]["spec"]["next"]
    ready["statusTemplate"], found = re.subn(
        r"(\n *)ready: true", r"\1ready: true\1started: true", ready["statusTemplate"], count=1
    )
    assert found, "kwok's stage pod-ready has become another"
    if not ends:
        del stages["pod-delete"]
    file.write_text(yaml.safe_dump_all(stages.values()))
    return file


def _objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """(path of the collection, object)"""
    for number in range(NODES):
        metadata = {"name": f"simulated-{number}", "annotations": FAKE}
        yield "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
    yield (
        STORAGE_CLASS.path(),
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": CLASS_NAME},
            "provisioner": "kubernetes.io/host-path",
            "volumeBindingMode": "Immediate",
        },
    )
    for file in sorted((ROOT / "crds").glob("copilot-operator.io_*.yaml")):
        yield CRD.path(), yaml.safe_load(file.read_text())
    for name in ("namespace", "rbac"):
        for manifest in yaml.safe_load_all((ROOT / "manifests" / "base" / f"{name}.yaml").read_text()):
            yield BASE[manifest["kind"]].path(manifest["metadata"].get("namespace", "")), manifest


def _create(api: KubeApi, path: str, manifest: dict[str, Any]) -> dict[str, Any]:
    status, text = api.request("POST", path, manifest)
    if status not in (200, 201):
        raise RuntimeError(f"creating {manifest['kind']} in {path}: {status} {text[:500]}")
    stored: dict[str, Any] = json.loads(text)
    return stored


def _nodes_ready(api: KubeApi) -> int:
    nodes = api.get("/api/v1/nodes").get("items", [])
    return sum(_has(node, "Ready") for node in nodes)


def _established(api: KubeApi) -> bool:
    crds = api.get(CRD.path()).get("items", [])
    return len(crds) == 2 and all(_has(crd, "Established") for crd in crds)


def _has(manifest: dict[str, Any], condition: str) -> bool:
    rows = manifest.get("status", {}).get("conditions", [])
    return any(row["type"] == condition and row["status"] == "True" for row in rows)
