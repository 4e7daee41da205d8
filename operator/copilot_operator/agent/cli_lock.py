"""The lock that a CLI process holds as long as it lives (``copilot-server``), and no longer: which process it is, and
whether it has ended. Nothing else tells: a connection may end without its server, a port may close before it."""

import fcntl
import os
from pathlib import Path


class CliLock:
    """At ``path``; the CLI's process writes into it once it has it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def incarnation(self) -> str | None:
        """Names the process that holds it, or held it last; None: there was none."""
        try:
            return f"{os.stat(self._path).st_mtime_ns:x}"
        except OSError:
            return None

    def is_free(self) -> bool:
        """Whether nobody holds it. A CLI that starts meanwhile waits for it for a moment."""
        try:
            lock = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(lock)
        return True
