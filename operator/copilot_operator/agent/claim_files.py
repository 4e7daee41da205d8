"""Claims on disk: ``<directory>/<session>/<holder>``. Each step is one call of the file system, decided by whoever
serves it, so that neither caches nor a process that stood still in between can make two holders of a session.

    claim      rename a private directory, with ``<holder>`` in it, onto ``<session>``: fails if that is not empty
    take over  rename ``<session>/<old holder>`` to ``<session>/<holder>``: fails for whoever comes second
    release    unlink ``<session>/<holder>``, then rmdir ``<session>``

An answer may be lost on the way and the call be made again by the file system's client, which is told of an error then.
So after an error it is looked whether the own file is there: nobody else ever makes it.
"""

import asyncio
import errno
import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

PRIVATE: Final = ".new-"
TRIES: Final = 20  # each time somebody else was quicker

_TAKEN: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})

Run = Callable[..., Awaitable[Any]]  # carries out a call of the file system: function, arguments


class Contended(OSError):
    """Others claimed and released a session all the time."""


def name_of(session: str) -> str:
    """The name of a session on disk: one of 64 characters, for any id, also where names know no case."""
    return sha256(session.encode()).hexdigest()


class ClaimFiles:
    """``directory`` lies on the volume of the sessions. All raise OSError for what they did not expect."""

    def __init__(self, directory: Path, run: Run = asyncio.to_thread) -> None:
        self._directory, self._run = directory, run

    async def claim(self, name: str, holder: str, may_replace: Callable[[str], bool]) -> str:
        """Claim a session. Returns "" if ``holder`` has it, else who does; it stays so, unless ``may_replace``."""
        for _ in range(TRIES):
            if await self._enter(name, holder):
                return ""
            found = await self.holders(name)
            if holder in found:
                return ""
            if not found:  # released a moment ago; or the server renames onto no directory, not even an empty one
                await self._try(os.rmdir, self._directory / name)
            elif not may_replace(other := min(found)):
                return other
            elif await self._try(os.rename, self._directory / name / other, self._directory / name / holder):
                return ""
        raise Contended(errno.EBUSY, "others claim and release the session all the time")

    async def release(self, name: str, holder: str) -> None:
        """``holder`` has the session no more; whether it had it does not matter."""
        await self._try(os.unlink, self._directory / name / holder)
        await self._try(os.rmdir, self._directory / name)

    async def holders(self, name: str) -> list[str]:
        """Who has a session: nobody or one."""
        try:
            found: list[str] = await self._run(os.listdir, self._directory / name)
        except FileNotFoundError:
            return []
        return found

    async def all(self) -> list[str]:
        """The names of all sessions that are claimed, and perhaps some that were."""
        names: list[str] = await self._run(os.listdir, self._directory)
        return [name for name in names if not name.startswith(PRIVATE)]

    async def tidy(self, mine: Callable[[str], bool]) -> None:
        """Remove what earlier processes left half done. ``mine`` tells whether a holder is none that still works."""
        for name in await self._run(os.listdir, self._directory):
            holder = name.removeprefix(PRIVATE).partition("-at-")[2]
            if name.startswith(PRIVATE) and mine(holder):
                await self.release(name, holder)

    async def _enter(self, name: str, holder: str) -> bool:
        private = f"{PRIVATE}{secrets.token_hex(8)}-at-{holder}"
        path = self._directory / private
        await self._run(os.mkdir, path, 0o770)
        try:
            await self._run(_make, path / holder)
            await self._run(os.rename, path, self._directory / name)
        except OSError as error:
            with suppress(OSError):
                await self.release(private, holder)
            if error.errno in _TAKEN or isinstance(error, FileNotFoundError):
                return False
            raise
        return True

    async def _try(self, call: Callable[..., None], *paths: Path) -> bool:
        """Whether it was done; False: it was not there, or somebody else's is."""
        try:
            await self._run(call, *paths)
        except OSError as error:
            if error.errno in _TAKEN or isinstance(error, FileNotFoundError):
                return False
            raise
        return True


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o660))
