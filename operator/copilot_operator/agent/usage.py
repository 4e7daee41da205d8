"""What a server uses: memory and processes of the pod, its volume. Reads /proc and statvfs only.

All containers of the pod share a process name space, so /proc shows the CLI and whatever its tools have started.
Files of other users' processes that need ptrace rights are not touched: ``stat`` and ``statm`` are readable by all.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PAUSE_PID: Final = 1  # the pod's pause process; on a machine of its own, init


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes of the pod without the agent and the pause process. Shared pages count for each who maps them."""

    count: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Disk:
    """A volume, in bytes. What is free for root only counts as used, as it does for the CLI.

    ``read_only``: its file system takes no writes, as most do after an error of their disk; however we have mounted it.
    """

    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    read_only: bool = False

    @property
    def used_percent(self) -> float:
        return 100 * self.used_bytes / self.capacity_bytes if self.capacity_bytes else 0.0


def read_processes(proc: Path = Path("/proc"), *, own_pid: int | None = None) -> Processes:
    """Count the processes and add up their resident memory."""
    left_out = {_PAUSE_PID, os.getpid() if own_pid is None else own_pid}
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    sizes = [
        pages * page_bytes
        for name in os.listdir(proc)
        if name.isdigit() and int(name) not in left_out and (pages := _resident_pages(proc / name)) is not None
    ]
    return Processes(count=len(sizes), memory_bytes=sum(sizes))


def _resident_pages(process: Path) -> int | None:
    """Resident pages; None if the process is gone or a zombie, which has no memory and is pause's to reap."""
    try:
        pages = (process / "statm").read_text().split()
        return int(pages[1]) if int(pages[0]) else None
    except (OSError, IndexError, ValueError):
        return None


def read_line(path: Path) -> str:
    """The first line of a small file of the server's, at most 64 characters of it; "" if there is none.

    What runs in the server may have put anything in its place: no link is followed, no pipe waited for.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return os.read(file, 64).decode("ascii", "replace").partition("\n")[0].strip()
    except OSError:
        return ""
    finally:
        os.close(file)


def read_disk(path: Path) -> Disk | None:
    """The volume that holds ``path``; None if it cannot be read."""
    try:
        at = os.statvfs(path)
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None
    capacity, free = at.f_blocks * at.f_frsize, at.f_bavail * at.f_frsize
    return Disk(capacity, used_bytes=capacity - free, free_bytes=free, read_only=takes_no_writes(path, mounts))


def takes_no_writes(path: Path, mountinfo: str) -> bool:
    """Whether the file system that holds ``path`` is read-only, by ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)).

    The options of one mount say nothing: the agent's own is read-only always. Those of the file system do; ext4 has
    another word for itself after an error (Linux 6.15). One without a source has none: gVisor tells the mount's again.
    """
    deepest, options = "", ""
    for line in mountinfo.splitlines():
        mount, _, of_file_system = line.partition(" - ")
        point = mount.split(" ")[4].replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= len(deepest):  # of two at one place the later one counts
            _, source, said = of_file_system.split(" ")[:3]
            deepest, options = point, "" if source == "none" else said
    return not {"ro", "emergency_ro"}.isdisjoint(options.split(","))
