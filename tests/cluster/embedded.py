"""A cluster without Docker: real Kubernetes in namespaces of its own, which end with their first process."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.cluster import cgroups, node_images, packages, programs
from tests.cluster.api import Cluster
from tests.cluster.components import Component, Plan, dns_objects, storage_objects
from tests.cluster.kubeapi import KubeApi
from tests.cluster.layout import NODE_NAME, PRIVATE_DIRECTORIES, ROOT, Layout
from tests.cluster.packages import require
from tests.cluster.process import ClusterError, Pid, children, run, tail, wait_until

NAMESPACES = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]


class EmbeddedCluster(Cluster):
    """The cluster that this project starts by itself."""

    kind = "embedded"

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout.name)
        self.layout = layout
        self.kubeconfig = layout.kubeconfig
        self.kubeconfig_inside = layout.kubeconfig

    # --- life ---

    def up(self, *, audit: bool = False) -> None:
        """Start the cluster unless it runs already; what is left of one that does not is removed first."""
        packages.ensure()
        directory = programs.ensure_kube()
        with self._lock():
            if self.is_up():
                return
            self._clear()
            started = time.monotonic()
            try:
                self._start(directory, audit)
            except BaseException:
                if os.environ.get("COPILOT_TEST_KEEP_BROKEN") != "1":
                    kept = self._keep_logs()
                    self._clear()
                    print(f"cluster: the start failed; logs are in {kept}", file=sys.stderr, flush=True)
                raise
            print(f"cluster: {self.name} is up after {time.monotonic() - started:.1f} s", flush=True)

    def down(self) -> None:
        """End the cluster and remove all that it made on the machine."""
        if not self._anything_left():
            return
        if os.geteuid() != 0:
            raise ClusterError("taking the embedded cluster down needs root")
        with self._lock():
            self._clear()
            self.layout.lock.unlink()
        with contextlib.suppress(OSError):
            self.layout.parent.rmdir()

    def is_up(self) -> bool:
        state = self._state()
        if not state.get("ready") or not self._pid("init").alive() or not self._pid("forwarder").alive():
            return False
        return KubeApi.of(self.kubeconfig).ready()

    def status(self) -> dict[str, Any]:
        state = self._state()
        if not state:
            return {"cluster": self.name, "kind": self.kind, "up": False}
        answer: dict[str, Any] = {"cluster": self.name, "kind": self.kind, "up": self.is_up()}
        answer["kubeconfig"] = str(self.kubeconfig)
        answer["logs"] = str(self.layout.logs)
        with contextlib.suppress(ClusterError):
            codes = self._ask({"do": "status"})["components"]
            answer["components"] = {
                name: "runs" if code is None else f"ended with {code}" for name, code in codes.items()
            }
        return answer

    # --- what tests use ---

    def audit_log(self) -> Path | None:
        log = self.layout.logs / "audit.log"
        return log if log.is_file() else None

    def in_network(self, argv: Sequence[str | Path]) -> list[str]:
        resolver = f'mount --bind {self.layout.resolv_conf} "$(readlink -f /etc/resolv.conf)"; exec "$@"'
        own_view = ["unshare", "--mount", "--propagation", "private", "sh", "-c", resolver, "sh"]
        return [require("nsenter"), "--net", f"--target={self._init()}", "--", *own_view, *map(str, argv)]

    def in_node(self, argv: Sequence[str | Path]) -> list[str]:
        """A command line that runs in all of the node's namespaces, files included."""
        spaces = ["--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup"]
        return [require("nsenter"), *spaces, f"--target={self._init()}", "--", *map(str, argv)]

    def load_image(self, tar: Path) -> None:
        """Bring an image into the cluster; one that is there already, unchanged, costs nothing."""
        tar = tar.resolve()
        if not tar.is_file():
            raise ClusterError(f"no such image file: {tar}")
        stat = tar.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        note = self.layout.base / "images.json"
        known = json.loads(note.read_text()) if note.is_file() else {}
        if known.get(str(tar)) == mark:
            return
        importer = [require("nsenter"), "--mount", f"--target={self._init()}", "--", "ctr", "--namespace=k8s.io"]
        with tar.open("rb") as file:
            # Read here: the node has a /run and a /var/log of its own, where the path may mean nothing.
            run(
                [*importer, "images", "import", "--all-platforms", "-"],
                timeout_s=300,
                what=f"importing {tar.name}",
                stdin=file,
            )
        known[str(tar)] = mark
        note.write_text(json.dumps(known))

    def stop_api_server(self) -> None:
        self.stop_component("kube-apiserver")

    def start_api_server(self, timeout_s: float = 60) -> None:
        self.start_component("kube-apiserver")
        ready = KubeApi.of(self.kubeconfig).ready
        hint = lambda: self._log("kube-apiserver")  # noqa: E731
        wait_until(ready, timeout_s=timeout_s, what="API server ready again", hint=hint)
        # Their patience with an absent server grows to half a minute, which a test would wait for.
        for name in ("kube-controller-manager", "kube-scheduler", "local-path-provisioner", "shared-path-provisioner"):
            self.stop_component(name)
            self.start_component(name)

    def stop_component(self, name: str, grace_s: float = 0) -> None:
        """End a component at once, or with SIGTERM and some time; nothing starts it again until asked."""
        self._ask({"do": "stop", "name": name, "grace_s": grace_s}, timeout_s=grace_s + 20)

    def start_component(self, name: str) -> None:
        self._ask({"do": "start", "name": name, "argv": self._state()["components"][name]})

    def signal_component(self, name: str, number: signal.Signals) -> None:
        """Send a component a signal, SIGSTOP for one that hangs."""
        self._ask({"do": "signal", "name": name, "signal": int(number)})

    # --- start ---

    def _start(self, directory: Path, audit: bool) -> None:
        layout = self.layout
        layout.base.mkdir(parents=True, exist_ok=True)
        layout.base.chmod(0o700)
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        with listener:
            plan = Plan(layout, directory, listener.getsockname()[1], audit)
            bulk = layout.bulk
            bulk.mkdir(parents=True, exist_ok=True)
            self._note(bulk=str(bulk), port=plan.port, cgroups=[str(d) for d in cgroups.create(layout.cgroup)])
            plan.write()
            self._make_mount_points()
            self._open_namespaces(bulk)
            self._open_forwarder(listener)
        early = [plan.containerd(), plan.etcd(), plan.api_server()]
        late = [plan.controller_manager(), plan.scheduler(), plan.kubelet(), plan.kube_proxy(), plan.dns()]
        everything = [*early, *late, *plan.provisioners()]
        self._note(components={component.name: component.argv for component in everything})
        for component in early:
            self._run(component)
        api = KubeApi.of(self.kubeconfig)
        with ThreadPoolExecutor(1) as pool:
            images = pool.submit(self._own_images, directory)
            self._await(api.ready, 60, "API server ready", early)
            for component in late:
                self._run(component)
            for path, thing in [*storage_objects(), *dns_objects()]:
                self._create(api, path, thing)
            images.result()
        self._await(lambda: _node_ready(api), 60, f"node {NODE_NAME} Ready", [*early, *late])
        for provisioner in plan.provisioners():
            self._run(provisioner)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._await(lambda: bool(api.get(account)), 30, "the first service account", everything)
        self._note(ready=True)

    def _open_namespaces(self, bulk: Path) -> None:
        """Start the first process of the cluster's namespaces, and wait until it has made a node of them."""
        layout = self.layout
        directories = self._cgroups()
        (layout.logs / "node.log").touch()
        inner = [sys.executable, "-m", "tests.cluster.inside", layout.name, str(bulk)]
        # The cgroups are entered before the cgroup namespace is made: its root is where its maker is.
        script = 'for d in $CGROUPS; do echo 0 > "$d/cgroup.procs" || exit 1; done; exec "$@"'
        unshare = [require("unshare"), *NAMESPACES, "--fork", "--propagation", "private", require("tini"), "--", *inner]
        environment = {key: os.environ[key] for key in ("COPILOT_TEST_CLUSTER_DIR",) if key in os.environ}
        environment |= {
            "PATH": packages.SYSTEM_PATH,
            "CGROUPS": " ".join(map(str, directories)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/root",
        }
        with (layout.logs / "node.log").open("ab") as log:
            holder = subprocess.Popen(
                ["/bin/sh", "-c", script, "sh", *unshare],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )
        self._note(holder=_pid_note(Pid.of(holder.pid)))

        def first() -> int:
            if holder.poll() is not None:
                raise ClusterError(f"the node's namespaces ended at once:\n{self._log('node')}")
            return next(filter(_is_first, children(holder.pid)), 0)

        def up() -> bool:
            if holder.poll() is not None:
                raise ClusterError(f"the node's namespaces ended at once:\n{self._log('node')}")
            with contextlib.suppress(ClusterError):
                return "components" in self._ask({"do": "status"})
            return False

        hint = lambda: self._log("node")  # noqa: E731
        pid = wait_until(first, timeout_s=10, what="the node's namespaces", hint=hint)
        self._note(init=_pid_note(Pid.of(pid)))
        wait_until(up, timeout_s=30, what="the node's mounts and network", hint=hint)

    def _open_forwarder(self, listener: socket.socket) -> None:
        command = [sys.executable, "-m", "tests.cluster.forward"]
        words = [str(listener.fileno()), str(self._state()["port"]), str(self._init())]
        with (self.layout.logs / "forward.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        self._note(forwarder=_pid_note(Pid.of(process.pid)))

    def _own_images(self, directory: Path) -> None:
        files = self.layout.base / "images"
        files.mkdir(exist_ok=True)
        node_images.pause(directory / "pause", files / "pause.tar")
        node_images.busybox(files / "busybox.tar")
        socket_file = f"/proc/{self._init()}/root/run/containerd/containerd.sock"
        self._await(lambda: os.path.exists(socket_file), 20, "containerd's socket", [])
        for name in ("pause", "busybox"):
            self.load_image(files / f"{name}.tar")

    def _create(self, api: KubeApi, path: str, thing: dict[str, Any]) -> None:
        last = ""

        def created() -> bool:
            nonlocal last
            status, last = api.request("POST", path, thing)
            return status in (200, 201, 409)

        what = f"creating {thing['kind']} {thing['metadata']['name']}"
        wait_until(created, timeout_s=20, what=what, hint=lambda: last[:500])

    def _run(self, component: Component) -> None:
        self._ask({"do": "start", "name": component.name, "argv": component.argv})

    def _await(self, condition: Any, timeout_s: float, what: str, needed: list[Component]) -> None:
        """Wait for a condition, and no longer than the components live that it needs."""

        def met() -> bool:
            codes = self._ask({"do": "status"})["components"]
            for component in needed:
                if codes.get(component.name) is not None:
                    said = self._log(component.name)
                    raise ClusterError(f"{component.name} ended (exit {codes[component.name]}):\n{said}")
            return bool(condition())

        hint = lambda: "\n".join(f"--- {c.name}:\n{self._log(c.name, 6)}" for c in needed)  # noqa: E731
        wait_until(met, timeout_s=timeout_s, what=what, hint=hint)

    # --- end ---

    def _clear(self) -> None:
        """End and remove whatever there is of this cluster, however far its start or an earlier end came."""
        self._pid("forwarder").send(signal.SIGKILL)
        init, holder = self._pid("init"), self._pid("holder")
        init.send(signal.SIGKILL)
        if init.number:
            # Its parent ends by itself once it has taken note of the end; else a zombie would stay for a while.
            with contextlib.suppress(ClusterError):
                wait_until(lambda: not holder.alive(), timeout_s=10, what="the end of the namespaces")
        directories = self._cgroups() or [h.directory / self.layout.cgroup for h in cgroups.hierarchies()]
        # Whoever is in our cgroups is ours, on record or not.
        cgroups.remove(directories)
        holder.send(signal.SIGKILL)
        living = [self._pid("forwarder"), init, holder]
        wait_until(lambda: not any(p.alive() for p in living), timeout_s=20, what="the end of the cluster's processes")
        bulk = self._state().get("bulk")
        for directory in {Path(bulk) if bulk else self.layout.bulk, self.layout.base}:
            _remove_tree(directory)
        self._remove_mount_points()

    def _make_mount_points(self) -> None:
        for path in map(Path, PRIVATE_DIRECTORIES):
            if not path.exists():
                with self.layout.made.open("a") as file:
                    file.write(f"{path}\n")
                path.mkdir(parents=True)

    def _remove_mount_points(self) -> None:
        """Remove what was made to mount over; not while another cluster is there: its mounts would go with it."""
        made = self.layout.made
        if not made.is_file() or any(entry.is_dir() for entry in made.parent.iterdir()):
            return
        for line in made.read_text().splitlines():
            with contextlib.suppress(OSError):
                os.rmdir(line)
        made.unlink()

    def _anything_left(self) -> bool:
        places = [hierarchy.directory / self.layout.cgroup for hierarchy in cgroups.hierarchies()]
        files = self.layout.base.exists() or self.layout.lock.exists()
        return files or any(place.exists() for place in places)

    def _keep_logs(self) -> Path:
        kept = Path("/tmp") / f"copilot-operator-cluster-{self.name}-logs"
        shutil.rmtree(kept, ignore_errors=True)
        with contextlib.suppress(OSError):
            shutil.copytree(self.layout.logs, kept)
        return kept

    # --- notes ---

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One start or end at a time."""
        path = self.layout.lock
        with contextlib.ExitStack() as stack:

            def taken() -> bool:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = path.open("w")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Whoever held it may have removed the file since: only the one at the path counts.
                    if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                        stack.enter_context(file)
                        return True
                except OSError:
                    pass
                file.close()
                return False

            wait_until(taken, timeout_s=180, what=f"another start or end of cluster {self.name}")
            yield

    def _state(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.layout.state.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def _note(self, **what: Any) -> None:
        partial = self.layout.state.with_suffix(".partial")
        partial.write_text(json.dumps({**self._state(), **what}))
        partial.rename(self.layout.state)

    def _pid(self, role: str) -> Pid:
        number, started = self._state().get(role) or (0, "")
        return Pid(number, started)

    def _init(self) -> int:
        pid = self._pid("init")
        if not pid.alive():
            raise ClusterError(f"cluster {self.name} is not up (python3 -m tests.cluster up)")
        return pid.number

    def _cgroups(self) -> list[Path]:
        return [Path(word) for word in self._state().get("cgroups", [])]

    def _log(self, name: str, lines: int = 15) -> str:
        return tail(self.layout.logs / f"{name}.log", lines)

    def _ask(self, question: dict[str, Any], timeout_s: float = 20) -> dict[str, Any]:
        """Ask the supervisor inside."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            try:
                connection.connect(str(self.layout.control))
                connection.sendall(json.dumps(question).encode() + b"\n")
                with connection.makefile("rb") as file:
                    answer: dict[str, Any] = json.loads(file.readline())
            except (OSError, ValueError) as error:
                raise ClusterError(f"the node's supervisor does not answer: {error}") from error
        if "error" in answer:
            raise ClusterError(f"{question['do']} {question.get('name', '')}: {answer['error']}")
        return answer


def _pid_note(pid: Pid) -> tuple[int, str]:
    return pid.number, pid.started


def _is_first(number: int) -> bool:
    """Whether a process is the first of a process namespace."""
    try:
        status = Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False
    return any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in status.splitlines())


def _node_ready(api: KubeApi) -> bool:
    conditions = api.get(f"/api/v1/nodes/{NODE_NAME}").get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _remove_tree(directory: Path) -> None:
    """Remove a directory and everything below, which may still be let go of by processes that just ended."""

    def gone() -> bool:
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()

    wait_until(gone, timeout_s=30, what=f"removing {directory}", every_s=0.2)
