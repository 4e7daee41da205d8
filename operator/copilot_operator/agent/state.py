"""What ``/state`` says. Pure. Null is "could not be found out", never "none"."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from copilot_operator.agent.drain import Drain
from copilot_operator.agent.observer import Sessions
from copilot_operator.agent.usage import Disk, Processes
from copilot_operator.rpc.ping import Failure, Reading


@dataclass(frozen=True, slots=True)
class State:
    """Everything the agent knows at one moment."""

    version: str
    reading: Reading
    probe_failures: Mapping[Failure, int]
    sessions: Sessions | None
    quiet_s: float | None  # since anything was heard of a session
    processes: Processes
    disk: Disk | None
    drain: Drain | None
    now: float

    def document(self) -> dict[str, Any]:
        """The JSON document of ``/state``."""
        return {
            "agentVersion": self.version,
            "cli": {
                "answering": self.reading.ok,
                "latencySeconds": None if self.reading.latency_s is None else round(self.reading.latency_s, 6),
                "version": self.reading.version,
                "failure": self.reading.failure,
            },
            "sessions": self._sessions(),
            "memoryBytes": self.processes.memory_bytes,
            "processes": self.processes.count,
            "disk": self._disk(),
            "draining": self._draining(),
        }

    def _sessions(self) -> dict[str, Any]:
        found = self.sessions
        return {
            "loaded": None if found is None else found.count.loaded,
            "busy": None if found is None else found.count.busy,
            "waiting": None if found is None else found.count.waiting,
            "uncounted": None if found is None else found.count.uncounted,
            "stored": None if found is None else found.stored,
            "secondsSinceActivity": None if self.quiet_s is None else round(self.quiet_s, 1),
        }

    def _disk(self) -> dict[str, int] | None:
        if self.disk is None:
            return None
        return {
            "capacityBytes": self.disk.capacity_bytes,
            "usedBytes": self.disk.used_bytes,
            "freeBytes": self.disk.free_bytes,
        }

    def _draining(self) -> dict[str, Any] | None:
        if self.drain is None:
            return None
        progress = self.drain.progress
        return {
            "phase": progress.phase,
            "secondsRunning": round(self.now - self.drain.started_at, 1),
            "secondsToDeadline": max(0.0, round(self.drain.deadline_at - self.now, 1)),
            "busy": progress.busy,
            "kept": len(progress.kept),
            "closed": len(progress.closed),
            "cut": len(progress.cut),
            "gaveUp": progress.gave_up or None,
        }
