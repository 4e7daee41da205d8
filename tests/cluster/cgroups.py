"""The cluster's own corner of the machine's cgroups: made on the way up, emptied and removed on the way down.

With cgroup v1, kubelet wants cpu and memory at the same path in their hierarchies, which the caller's rarely are.
One child below the caller's own cgroup in each hierarchy, seen through a cgroup namespace, reads `/` everywhere.
"""

import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.process import ClusterError, Pid, wait_until

NEEDED_V1 = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids"}


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy: its controllers as the kernel writes them, and the caller's own directory in it."""

    controllers: str
    directory: Path
    version: int

    @property
    def mount_point(self) -> str:
        """The name below /sys/fs/cgroup that programs look for."""
        return self.controllers.removeprefix("name=")


def hierarchies() -> list[Hierarchy]:
    """The machine's hierarchies as this process sees them: several of v1, or the one of v2."""
    mounts: list[tuple[str, str, set[str], str]] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        fields, (kind, _, options) = before.split(), after.split(" ", 2)
        mounts.append((fields[3], fields[4], set(options.split(",")), kind))
    first: list[Hierarchy] = []
    second: list[Hierarchy] = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        version = 1 if controllers else 2
        wanted = set(filter(None, controllers.split(",")))
        for root, point, present, kind in mounts:
            if kind == ("cgroup" if controllers else "cgroup2") and wanted <= present:
                inner = os.path.relpath(own, root) if own.startswith(root) else "."
                hierarchy = Hierarchy(controllers, Path(point) / inner, version)
                (first if controllers else second).append(hierarchy)
                break
    if first:
        absent = NEEDED_V1 - {name for found in first for name in found.controllers.split(",")}
        if absent:
            raise ClusterError(f"this machine has cgroup v1 without {', '.join(sorted(absent))}: kubelet needs them")
        return first
    if not second:
        raise ClusterError("no cgroup file system is mounted (/sys/fs/cgroup): kubelet can not run")
    # Below the caller's own cgroup no controller could be handed on (it has processes in it): start from the top.
    top = next(Path(point) for _, point, _, kind in mounts if kind == "cgroup2")
    return [Hierarchy("", top, 2)]


def create(name: str) -> list[Path]:
    """Make the cluster's cgroup in every hierarchy."""
    made = []
    for hierarchy in hierarchies():
        directory = hierarchy.directory / name
        directory.mkdir(exist_ok=True)
        made.append(directory)
        if hierarchy.version == 2:
            # Where this is the root of a container's own view, its processes keep us from this; said by kubelet then.
            for controller in (hierarchy.directory / "cgroup.controllers").read_text().split():
                with contextlib.suppress(OSError):
                    (hierarchy.directory / "cgroup.subtree_control").write_text(f"+{controller}")
        if "cpuset" in hierarchy.controllers.split(","):
            for file in ("cpuset.cpus", "cpuset.mems"):
                (directory / file).write_text((hierarchy.directory / file).read_text())
    return made


def join(directories: list[Path]) -> None:
    """Move this process into the cluster's cgroups."""
    for directory in directories:
        (directory / "cgroup.procs").write_text(str(os.getpid()))


def members(directories: list[Path]) -> set[int]:
    """Every process in these cgroups and below."""
    found: set[int] = set()
    for directory in directories:
        for file in directory.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(word) for word in file.read_text().split() if word != "0")
    return found


def remove(directories: list[Path], timeout_s: float = 20) -> None:
    """End whatever still runs in these cgroups and remove them with everything below."""
    present = [directory for directory in directories if directory.is_dir()]

    def emptied() -> bool:
        for directory in present:
            for state in directory.rglob("freezer.state"):
                with contextlib.suppress(OSError):
                    state.write_text("THAWED")  # a frozen process can not be killed
        for number in members(present):
            Pid.of(number).send(signal.SIGKILL)
        return not members(present)

    def gone() -> bool:
        for top in present:
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
        return not any(directory.is_dir() for directory in present)

    if present:
        wait_until(emptied, timeout_s=timeout_s, what="ending the processes of the cluster")
        wait_until(gone, timeout_s=timeout_s, what=f"removing {', '.join(map(str, present))}")


def mount_inside() -> None:
    """In the cluster's namespaces: show its own cgroups, and only them, at /sys/fs/cgroup."""
    found = hierarchies()
    if found[0].version == 2:
        _mount("cgroup2", Path("/sys/fs/cgroup"), "")
        leaf = Path("/sys/fs/cgroup/init")
        leaf.mkdir(exist_ok=True)
        # A cgroup that hands controllers on must hold no process itself.
        for word in Path("/sys/fs/cgroup/cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (leaf / "cgroup.procs").write_text(word)
        for controller in Path("/sys/fs/cgroup/cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                Path("/sys/fs/cgroup/cgroup.subtree_control").write_text(f"+{controller}")
        return
    _mount("tmpfs", Path("/sys/fs/cgroup"), "mode=755")
    for hierarchy in found:
        target = Path("/sys/fs/cgroup") / hierarchy.mount_point
        target.mkdir()
        named = hierarchy.controllers.startswith("name=")
        _mount("cgroup", target, f"none,{hierarchy.controllers}" if named else hierarchy.controllers)
        for controller in hierarchy.mount_point.split(","):
            if controller != hierarchy.mount_point:
                (Path("/sys/fs/cgroup") / controller).symlink_to(hierarchy.mount_point)


def _mount(kind: str, target: Path, options: str) -> None:
    program = shutil.which("mount") or "/bin/mount"
    command = [program, "-t", kind, *(["-o", options] if options else []), kind, str(target)]
    if os.spawnv(os.P_WAIT, program, command) != 0:
        raise ClusterError(f"can not mount {kind} ({options}) at {target}")
