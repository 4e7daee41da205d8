"""The two images that every node has: the one that holds a pod's namespaces, and busybox."""

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.layout import BUSYBOX_IMAGE, PAUSE_IMAGE
from tests.cluster.packages import require


def pause(program: Path, target: Path) -> None:
    """Write the image of the pod's first process."""
    _write(target, PAUSE_IMAGE, {"pause": program.read_bytes()}, {}, ["/pause"])


def busybox(target: Path) -> None:
    """Write an image of the machine's static busybox, every applet a link to it."""
    path = require("busybox")
    said = subprocess.run([path, "--list"], capture_output=True, text=True, timeout=10, check=True)
    links = {f"bin/{applet}": "busybox" for applet in said.stdout.split() if applet != "busybox"}
    files = {
        "bin/busybox": Path(path).read_bytes(),
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": b"root:x:0:\nnobody:x:65534:\n",
    }
    _write(target, BUSYBOX_IMAGE, files, links, ["/bin/sh"])


def _write(target: Path, name: str, files: Mapping[str, bytes], links: Mapping[str, str], command: list[str]) -> None:
    """One layer in the form that `docker save` writes and every runtime imports."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for directory in ("bin", "etc", "tmp", "root"):
            _add(tar, tarfile.TarInfo(directory), tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755)
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            _add(tar, info, tarfile.REGTYPE, 0o755 if content[:4] == b"\x7fELF" else 0o644, content)
        for path, to in links.items():
            info = tarfile.TarInfo(path)
            info.linkname = to
            _add(tar, info, tarfile.SYMTYPE, 0o777)
    layer_bytes = layer.getvalue()
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer_bytes).hexdigest()]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tests.cluster"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {"config.json": _json(config), "layer.tar": layer_bytes, "manifest.json": _json(manifest)}
    with tarfile.open(target, mode="w") as tar:
        for path, content in parts.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            _add(tar, info, tarfile.REGTYPE, 0o644, content)


def _add(tar: tarfile.TarFile, info: tarfile.TarInfo, kind: bytes, mode: int, content: bytes = b"") -> None:
    info.type, info.mode, info.mtime = kind, mode, 0
    tar.addfile(info, io.BytesIO(content) if content else None)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
