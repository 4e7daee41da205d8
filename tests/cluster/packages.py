"""What the machine must bring: says plainly what is missing, and installs Debian packages where it may."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.process import ClusterError, run

NODE_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "tini": "tini",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
}
"""Programs a node needs and the Debian package of each."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(program: str) -> str | None:
    """The path of a program, looked for where the system keeps its own even if the caller's PATH does not."""
    if program.startswith("/"):
        return program if os.access(program, os.X_OK) else None
    return shutil.which(program, path=os.environ.get("PATH", "") + ":" + SYSTEM_PATH)


def require(program: str) -> str:
    """The path of a program that `ensure` has seen to."""
    path = find(program)
    if path is None:
        raise ClusterError(f"{program} is not installed")
    return path


def missing(programs: Iterable[str]) -> dict[str, str]:
    """Which of these programs are not there, with the package that has each."""
    return {program: NODE_PROGRAMS[program] for program in programs if find(program) is None}


def ensure() -> None:
    """Have everything a node needs, or say what is missing and how to get it."""
    if os.geteuid() != 0:
        raise ClusterError(
            "the embedded cluster needs root (namespaces, mounts, cgroups). Run as root, or start a Docker daemon and "
            "install kind, or name a cluster in COPILOT_TEST_KUBECONFIG"
        )
    absent = missing(NODE_PROGRAMS)
    if _busybox_is_dynamic():
        absent["busybox"] = "busybox-static"
    if not absent:
        return
    wanted = sorted(set(absent.values()))
    if shutil.which("apt-get") is None:
        raise ClusterError(f"missing: {', '.join(sorted(absent))}. Debian has them in: {' '.join(wanted)}")
    print(f"cluster: installing {' '.join(wanted)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # An index is often there already; refreshing it first would cost every run the time.
    options = ["-o", "DPkg::Lock::Timeout=300", "-qq", "-y", "--no-install-recommends", "install"]
    first = run(["apt-get", *options, *wanted], timeout_s=600, check=False, env=environment)
    if first.returncode != 0:
        run(["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq", "update"], timeout_s=300, env=environment)
        run(["apt-get", *options, *wanted], timeout_s=600, what=f"installing {' '.join(wanted)}", env=environment)
    absent = missing(NODE_PROGRAMS)
    if absent:
        raise ClusterError(f"still missing after the installation of {' '.join(wanted)}: {', '.join(sorted(absent))}")


def _busybox_is_dynamic() -> bool:
    """A busybox that needs shared libraries can not run in an image of its own."""
    path = find("busybox")
    if path is None:
        return False
    # A program that names a dynamic loader carries its path in the first pages.
    return b"/ld-linux" in Path(path).read_bytes()[:4096] or b"/ld-musl" in Path(path).read_bytes()[:4096]


def docker_answers(timeout_s: float = 5) -> bool:
    """Whether a Docker daemon answers on this machine."""
    try:
        command = ["docker", "info", "--format", "{{.ServerVersion}}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and bool(done.stdout.strip())
