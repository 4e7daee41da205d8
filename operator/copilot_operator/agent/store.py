"""The sessions on the volume, as far as one may see them: names and times of directories, which is all a scan reads.

The directories themselves are open to the CLI's user only. Nothing is followed, opened, or removed here.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from copilot_operator.agent.expiry import Stored
from copilot_operator.rpc.ids import is_id

SESSIONS: Final = Path("copilot") / "session-state"  # below the volume, see ``COPILOT_HOME``
QUARANTINE: Final = Path("copilot") / "quarantine"  # where copilot-server puts what keeps a session from being used


def scan(directory: Path) -> Iterator[Stored]:
    """Each directory that has a session's name; nothing where no CLI has made any yet. Raises OSError."""
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if not is_id(entry.name):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:  # deleted meanwhile
                continue
            if stat.S_ISDIR(found.st_mode):
                yield Stored(entry.name, found.st_mtime)


def quarantined(directory: Path) -> list[str]:
    """Names of what lies in quarantine, ``SESSION.TIME``, those that came last first."""
    try:
        names = os.listdir(directory)
    except OSError:  # made by a CLI that was not started by our script
        return []
    return sorted(names, key=lambda name: (name.rpartition(".")[2], name), reverse=True)


def names(directory: Path) -> set[str]:
    """Names of the directories that ``scan`` finds, without their times, which cost most. Raises OSError."""
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return set()
    with entries:
        return {entry.name for entry in entries if is_id(entry.name) and entry.is_dir(follow_symlinks=False)}
