"""Where downloads and builds are kept, so that a fresh clone of the project reuses them.

An entry is named after what it was made from and appears whole or not at all; two processes that want the same one
make it once.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def cache_directory() -> Path:
    """Return the directory of everything that is kept between runs, made if it is not there."""
    chosen = os.environ.get("COPILOT_OPERATOR_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = Path(chosen) if chosen else base / "copilot-operator"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def digest(*parts: str | bytes | Path) -> str:
    """Name a set of inputs: strings, bytes, and files by their content."""
    total = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()[:16]


def digest_of_tree(root: Path) -> str:
    """Name the content of all files below ``root``, but for what Python makes of its sources."""
    files = sorted(file for file in root.rglob("*") if file.is_file() and file.parent.name != "__pycache__")
    return digest(*(part for file in files for part in (str(file.relative_to(root)), file)))


def lock_of(path: Path) -> Path:
    """Return the file whose lock stands for ``path``."""
    return path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that goes with ``path`` against other processes and threads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(lock_of(path), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_once(path: Path, make: Callable[[Path], None], *, again: bool = False) -> Path:
    """Return ``path``, made by ``make(scratch)`` if it is not there: what ``make`` leaves at ``scratch / path.name``.

    ``scratch`` lies beside ``path``, so the last step is one rename and nobody sees half an entry.
    """
    if path.exists() and not again:
        return path
    with locked(path):
        if path.exists() and not again:
            return path
        with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as scratch:
            made = Path(scratch) / path.name
            make(Path(scratch))
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(made, path)
    return path


def forget_siblings(path: Path, pattern: str, *, keep: int = 2) -> None:
    """Delete older entries of the kind of ``path``; the newest ``keep`` stay, so that two work trees do not fight."""
    others = sorted(
        (entry for entry in path.parent.glob(pattern) if entry != path), key=lambda entry: entry.stat().st_mtime
    )
    for entry in others[: max(0, len(others) - keep + 1)]:
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
        lock_of(entry).unlink(missing_ok=True)
