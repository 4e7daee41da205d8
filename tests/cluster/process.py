"""Processes and waiting: every wait has a deadline and every failure says what the other side logged last."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar


class ClusterError(Exception):
    """The cluster could not do what was asked; the message is for people."""


def run(
    argv: Sequence[str | Path], *, timeout_s: float, what: str = "", check: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its output captured, and raise with the last of what it said when it fails."""
    words = [str(word) for word in argv]
    options.setdefault("stdin", subprocess.DEVNULL)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False, **options)
    except FileNotFoundError as error:
        raise ClusterError(f"{what or words[0]}: {words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{what or ' '.join(words[:4])}: no end after {timeout_s:.0f} s") from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-3000:]
        raise ClusterError(f"{what or ' '.join(words[:4])} failed (exit {done.returncode}):\n{said}")
    return done


T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], *, timeout_s: float, what: str, every_s: float = 0.05, hint: Callable[[], str] = str
) -> T:
    """Ask again and again until the answer is true-ish; past the deadline raise, with a hint of why."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise ClusterError(f"{what}: not within {timeout_s:.0f} s\n{hint()}".rstrip())
        time.sleep(every_s)


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except OSError:
        return f"({path} can not be read)"
    return "\n".join(line[:400] for line in text.splitlines()[-lines:])


@dataclass(frozen=True)
class Pid:
    """A process that can be told from a later one with the same number."""

    number: int
    started: str

    @classmethod
    def of(cls, number: int) -> "Pid":
        return cls(number, _start_time(number))

    def alive(self) -> bool:
        return self.started != "" and _start_time(self.number) == self.started

    def send(self, what: signal.Signals) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.number, what)


def _start_time(number: int) -> str:
    """Start time of a living process in clock ticks since boot; nothing for a dead or finished one."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def children(number: int) -> list[int]:
    """Direct children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == number:
                    found.append(int(entry.name))
    return found
