"""What ``/state`` says. Pure. Null is "could not be found out", never "none"."""

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from copilot_operator.agent.claims import Claimed
from copilot_operator.agent.deep import DeepReading
from copilot_operator.agent.drain import Drain
from copilot_operator.agent.eraser import Erased
from copilot_operator.agent.janitor import Tally
from copilot_operator.agent.observer import Sessions
from copilot_operator.agent.policy import Policy
from copilot_operator.agent.usage import Disk, Processes
from copilot_operator.rpc.busy import Work
from copilot_operator.rpc.ping import Failure, Reading

MOST_QUARANTINED: Final = 5


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
    met_at: float | None = None  # when the CLI process was met
    latency_factor: float | None = None  # how many times slower it answers than at first
    deep: DeepReading | None = None
    policy: Policy = field(default_factory=Policy)
    tally: Tally = field(default_factory=Tally)
    quarantined: Sequence[str] = ()  # broken sessions that copilot-server has set aside
    erased: Erased = field(default_factory=Erased)
    evicted: int = 0  # sessions unloaded for others
    refused: int = 0  # sessions that were one too many
    wait_for_room: int = 0  # sessions that gateways want to load, and may not yet
    wait_to_speak: int = 0  # gateways that want the lock of a shared session
    claims: Claimed | None = None  # where servers share a volume
    ephemeral: int = 0  # ephemeral sessions that are stored
    ephemeral_erased: int = 0  # ephemeral sessions that were deleted, for nobody had them open any more
    token_serial: str = ""  # of the GitHub token that the CLI was started with, if the operator mints it
    credential_refused: bool | None = None  # by GitHub, in the latest turn that told; None: none has
    largest: Sequence[tuple[str, int]] = ()  # sessions and their bytes; looked for on a volume that is getting full

    @property
    def read_only(self) -> bool:
        """Whether nothing can be stored: by the mount, or, where a file server says so, by the CLI's own words."""
        told = "" if self.deep is None else self.deep.message
        return (self.disk is not None and self.disk.read_only) or os.strerror(errno.EROFS) in told

    def document(self) -> dict[str, Any]:
        """The JSON document of ``/state``."""
        return {
            "agentVersion": self.version,
            "cli": {
                "answering": self.reading.ok,
                "latencySeconds": None if self.reading.latency_s is None else round(self.reading.latency_s, 6),
                "version": self.reading.version,
                "failure": self.reading.failure,
                "ageSeconds": None if self.met_at is None else round(self.now - self.met_at, 1),
                "latencyFactor": None if self.latency_factor is None else round(self.latency_factor, 2),
                "deep": self._deep(),
            },
            "sessions": self._sessions(),
            "memoryBytes": self.processes.memory_bytes,
            "processes": self.processes.count,
            "disk": self._disk(),
            "expiry": self._expiry(),
            "erasure": {
                "erased": dict(self.erased.codes),
                "sessions": self.erased.sessions,
                "failure": self.erased.failure or None,
            },
            "quarantined": {"count": len(self.quarantined), "latest": list(self.quarantined[:MOST_QUARANTINED])},
            "ephemeral": {"stored": self.ephemeral, "erased": self.ephemeral_erased},
            "tokenSerial": self.token_serial or None,
            "credentialRefused": self.credential_refused,
            "draining": None if self.drain is None else draining(self.drain, self.now),
        }

    def _sessions(self) -> dict[str, Any]:
        found = self.sessions
        return {
            "loaded": None if found is None else found.count.loaded,
            "busy": None if found is None else found.count.busy,
            "waiting": None if found is None else found.count.waiting,
            "uncounted": None if found is None else found.count.uncounted,
            "waitForRoom": self.wait_for_room,
            "stored": None if found is None else found.stored,
            "secondsSinceActivity": None if self.quiet_s is None else round(self.quiet_s, 1),
            "stalledSeconds": None if found is None or found.silent_s is None else round(found.silent_s, 1),
            "work": None if found is None else kinds_of_work(found),
        }

    def _deep(self) -> dict[str, Any] | None:
        if self.deep is None:
            return None
        return {"ok": self.deep.ok, "secondsAgo": round(self.now - self.deep.at, 1), "message": self.deep.message}

    def _expiry(self) -> dict[str, Any]:
        tally, last = self.tally, self.tally.last
        return {
            "ttlSeconds": self.policy.ttl_s,
            "dryRun": self.policy.dry_run,
            "wouldDelete": tally.expired,
            "deleted": tally.deleted,
            "freedBytes": tally.freed_bytes,
            "passes": tally.passes,
            "lastPassSeconds": None if tally.pass_s is None else round(tally.pass_s, 2),
            "failure": tally.failure or None,
            "lastDeletion": last and {"time": last.at, "sessions": last.sessions, "freedBytes": last.freed_bytes},
        }

    def _disk(self) -> dict[str, Any] | None:
        if self.disk is None:
            return None
        return {
            "capacityBytes": self.disk.capacity_bytes,
            "usedBytes": self.disk.used_bytes,
            "freeBytes": self.disk.free_bytes,
            "readOnly": self.read_only,
            "largestSessions": [{"id": id, "bytes": size} for id, size in self.largest],
        }


def draining(drain: Drain, now: float) -> dict[str, Any]:
    """The JSON document of ``/drain``."""
    progress, found, left_s = drain.progress, drain.progress.sessions, drain.deadline.left_s(now)
    return {
        "phase": progress.phase,
        "secondsRunning": round(now - drain.started_at, 1),
        "secondsToDeadline": None if left_s is None else round(left_s, 1),
        "onTimeout": drain.deadline.on_timeout,
        "loaded": None if found is None else found.count.loaded,
        "busy": None if found is None else found.count.busy,
        "waiting": None if found is None else found.count.waiting,
        "work": None if found is None else kinds_of_work(found),
        "kept": len(progress.kept),
        "closed": len(progress.closed),
        "cut": len(progress.cut),
        "gaveUp": progress.gave_up or None,
    }


def kinds_of_work(sessions: Sessions) -> dict[str, int]:
    """How many busy sessions are so for what."""
    kinds = list(sessions.work.values())
    return {kind: kinds.count(kind) for kind in Work}
