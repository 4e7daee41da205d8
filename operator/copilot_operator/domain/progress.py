"""How far a changed pool is on its way to its servers, and what is to become of a revision that fails."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import RESTARTED_AT_ANNOTATION
from copilot_operator.domain.revisions import Course, Revision, course_of, read
from copilot_operator.domain.snapshot import Finding, PoolSnapshot, Server


@dataclass(frozen=True)
class Progress:
    """``updated`` of ``running`` servers run the revision that people want; ``away`` are not ready.

    At most one of these holds: ``complete``, ``undone`` (nobody was ever Ready with it: servers go back, and it is not
    tried again), ``halted`` (some were, and may have rewritten their state: people decide).
    """

    course: Course
    running: int
    updated: int
    away: int
    proven: bool = False
    complete: bool = False
    undone: Finding | None = None
    halted: Finding | None = None

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the revisions that are needed on."""
        if self.complete or self.course.current is None:
            return (self.course.update.name,)
        return (self.course.current.name, self.course.update.name)


def progress_of(snapshot: PoolSnapshot) -> Progress:
    """Of a pool whose spec could be read."""
    course = _course(snapshot)
    running = [server for server in snapshot.servers if server.running or server.updating]
    updated = [server for server in running if _runs(server, course) and not server.updating]
    away = sum(not server.ready for server in running)
    found = Progress(course, len(running), len(updated), away)
    if not course.rolling:
        return found
    found = replace(found, proven=course.update.proven or any(server.was_ready for server in updated))
    to_come = [server for server in updated if not server.ready and server.name not in snapshot.failing]
    guilty = {name: each.finding for name, each in snapshot.failing.items() if not each.excused}
    if not snapshot.members or (found.proven and len(updated) == len(running) and not to_come):
        return replace(found, complete=True)
    if not guilty:
        return found
    server, finding = min(guilty.items())
    finding = Finding(finding.reason, f"Server {server} does not become Ready: {finding.message}")
    if found.proven or course.current is None:
        return replace(found, halted=finding)
    return found if to_come else replace(found, undone=finding)


def _course(snapshot: PoolSnapshot) -> Course:
    assert snapshot.spec
    restarted_at = annotations_of(snapshot.raw).get(RESTARTED_AT_ANNOTATION, "")
    status: Manifest = snapshot.raw.get("status") or {}
    return course_of(snapshot.name, snapshot.spec, restarted_at, status, known_revisions(snapshot.revisions))


def known_revisions(manifests: Iterable[Manifest]) -> list[Revision]:
    """Those that can be read."""
    return [revision for manifest in manifests if (revision := read(manifest))]


def _runs(server: Server, course: Course) -> bool:
    """Servers of a time before revisions were noted run what was current when they were."""
    before = course.current.name if course.current else ""
    return (server.revision or before) == course.update.name
