"""A volume that fails: a small ext4 in a file, mounted in a mount namespace of its own, which ends with its holder."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.eventually import eventually

_SIZE: Final = "64M"
_MOUNT_S: Final = 20.0


@dataclass
class Volume:
    """Mounted at ``path`` for who is started with the words of ``inside`` in front, and for nobody else."""

    path: Path
    holder: int  # a process in its name space

    @property
    def inside(self) -> tuple[str, ...]:
        return ("nsenter", f"--mount=/proc/{self.holder}/ns/mnt", "--")

    @property
    def seen(self) -> Path:
        """``path``, for us."""
        return Path(f"/proc/{self.holder}/root{self.path}")

    def fail(self) -> None:
        """An error of the disk: the kernel lets nobody write any more (ext4(5), ``errors=remount-ro``)."""
        lines = Path(f"/proc/{self.holder}/mountinfo").read_text().splitlines()
        [device] = [line.partition(" - ")[2].split(" ")[1] for line in lines if line.split(" ")[4] == str(self.path)]
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("a test")


@asynccontextmanager
async def volume(directory: Path) -> AsyncIterator[Volume]:
    """Below ``directory``. Needs root and a loop device."""
    image, path = directory / "image", directory / "volume"
    path.mkdir(parents=True)
    for command in (("truncate", "-s", _SIZE, str(image)), ("mkfs.ext4", "-q", "-F", str(image))):
        await asyncio.to_thread(subprocess.run, command, check=True, timeout=_MOUNT_S)
    script = 'mount -o loop,errors=remount-ro "$0" "$1" && exec sleep infinity'
    holder = await asyncio.create_subprocess_exec(
        "unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(image), str(path)
    )
    try:
        mounts = Path(f"/proc/{holder.pid}/mountinfo")
        await eventually(lambda: f" {path} " in mounts.read_text(), within_s=_MOUNT_S, what="the volume is mounted")
        yield Volume(path, holder.pid)
    finally:
        holder.kill()
        await holder.wait()
