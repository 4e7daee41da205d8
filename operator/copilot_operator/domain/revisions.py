"""Revisions of a pool: what its servers are rendered from, kept in ControllerRevisions, so that there is a way back.

A revision holds what people wrote and nothing else: neither the operator's version nor its settings. Two are the same
when they read the same, so an operator that names them otherwise, or knows one field more, restarts nobody.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from copilot_operator.api.pool import PoolSpec, ServerSpec
from copilot_operator.api.sessions import SessionsSpec
from copilot_operator.domain.desired.common import pool_labels
from copilot_operator.domain.drain import Why, intent_of
from copilot_operator.domain.kinds import REVISION
from copilot_operator.domain.live import is_up, observed_status, progress_of
from copilot_operator.domain.manifest import Manifest, annotations_of, digest, owner_reference
from copilot_operator.domain.naming import PROVEN_ANNOTATION, pool_revision
from copilot_operator.domain.snapshot import PoolView


@dataclass(frozen=True)
class Revision:
    """``number`` grows with each new one; ``proven``: a server was Ready with it, and may have rewritten its state."""

    name: str
    number: int
    server: ServerSpec
    idle_timeout: str
    restarted_at: str = ""
    proven: bool = False

    def reads_as(self, other: "Revision") -> bool:
        """Whether servers are rendered from both alike."""
        return self._content() == other._content()

    def into(self, spec: PoolSpec) -> PoolSpec:
        """The pool's ``spec``, with what this revision says of servers."""
        sessions = spec.sessions.model_copy(update={"idle_timeout": self.idle_timeout})
        return spec.model_copy(update={"server": self.server, "sessions": sessions})

    def _content(self) -> tuple[ServerSpec, str, str]:
        return self.server, self.idle_timeout, self.restarted_at


@dataclass(frozen=True)
class Course:
    """Where a pool is going: ``update`` is what people want; ``current`` what it replaces, None if that is not known.

    ``rolling``: servers change to update; ``failed``: it was given up, and they go back to current.
    """

    update: Revision
    current: Revision | None
    rolling: bool = False
    failed: bool = False

    @property
    def target(self) -> Revision:
        """What servers shall run."""
        return self.current if self.failed and self.current else self.update


def wanted_revision(pool: str, spec: PoolSpec, restarted_at: str, number: int = 1) -> Revision:
    """What people want now, as a revision with the name it gets unless it has one already."""
    made = Revision("", number, spec.server, spec.sessions.idle_timeout, restarted_at)
    return replace(made, name=pool_revision(pool, digest(data_of(made))[:10]))


def course_of(pool: str, spec: PoolSpec, restarted_at: str, status: Manifest, stored: Iterable[Revision]) -> Course:
    """``status`` as the pool carries it. Without one (a new or restored pool) what is wanted counts as current."""
    known = sorted(stored, key=lambda revision: revision.number)
    wanted = wanted_revision(pool, spec, restarted_at, max((each.number for each in known), default=0) + 1)
    update = next((each for each in reversed(known) if each.reads_as(wanted)), wanted)
    named = {each.name: each for each in known}
    name, last = status.get("currentRevision"), named.get(status.get("updateRevision", ""))
    if last and last.proven and last.name != update.name:
        name = last.name  # the wishes changed on the way: nobody is taken back behind what servers were Ready with
    if name in (None, update.name):
        return Course(update, update)
    current = named.get(name)
    given_up = (status.get("failedRevision") or {}).get("revision") == update.name and current is not None
    return Course(update, current, rolling=not given_up, failed=given_up)


def revision_for(course: Course, live: Manifest | None, admitted: bool) -> Revision:
    """What a server with the Deployment ``live`` is compared with, or starts from.

    Who starts while it is unknown whether the new revision works gets it only in its turn.
    """
    if not course.rolling or course.current is None or course.update.proven or admitted:
        return course.target
    intent = intent_of(live)
    in_its_turn = intent is not None and intent.why == Why.UPDATE
    return course.target if is_up(live) or in_its_turn else course.current


def view_of(spec: PoolSpec, paused: bool, course: Course, revision: Revision) -> PoolView:
    """The pool as a server of ``revision`` sees it."""
    rolling = course.rolling and revision.name == course.update.name
    return PoolView(revision.into(spec), paused, revision.restarted_at, revision.name, rolling)


def was_ready(deployment: Manifest, replica_sets: Callable[[], Collection[str]]) -> bool:
    """Whether the server has been Ready with the template that its Deployment has now (apps/v1 DeploymentStatus).

    ``replica_sets``: names of those that its pods are of. The condition Progressing counts only if it speaks of one of
    them: when the controller's note of a new ReplicaSet meets a conflict, the word about the last one stays
    (seen with Kubernetes 1.36.3).
    """
    status = observed_status(deployment)
    if status is None or not is_up(deployment):
        return False
    if status.get("readyReplicas"):
        return True
    progress = progress_of(status)
    said = progress.get("message", "") if progress.get("reason") == "NewReplicaSetAvailable" else ""
    return bool(said) and any(f'"{name}"' in said for name in replica_sets())


def as_manifest(pool: Manifest, revision: Revision) -> Manifest:
    """The ControllerRevision (apps/v1), owned by its pool. Its data never changes."""
    metadata = pool["metadata"]
    return {
        "apiVersion": REVISION.api_version,
        "kind": REVISION.kind,
        "metadata": {
            "name": revision.name,
            "namespace": metadata["namespace"],
            "labels": pool_labels(metadata["name"]),
            "annotations": {PROVEN_ANNOTATION: "true"} if revision.proven else {},
            "ownerReferences": [owner_reference(pool)],
        },
        "revision": revision.number,
        "data": data_of(revision),
    }


def data_of(revision: Revision) -> Manifest:
    """What is kept of a revision, in the words of the pool's spec."""
    server: dict[str, Any] = revision.server.model_dump(by_alias=True, exclude_none=True, mode="json")
    found: Manifest = {"server": server, "sessions": {"idleTimeout": revision.idle_timeout}}
    return found | ({"restartedAt": revision.restarted_at} if revision.restarted_at else {})


def read(manifest: Manifest) -> Revision | None:
    """A stored ControllerRevision; None if this operator can't read it."""
    data = manifest.get("data")
    try:
        assert isinstance(data, dict)
        return Revision(
            name=str(manifest["metadata"]["name"]),
            number=int(manifest.get("revision", 0)),
            server=ServerSpec.model_validate(data["server"]),
            idle_timeout=SessionsSpec.model_validate(data["sessions"]).idle_timeout,
            restarted_at=str(data.get("restartedAt", "")),
            proven=annotations_of(manifest).get(PROVEN_ANNOTATION) == "true",
        )
    except (AssertionError, KeyError, TypeError, ValueError, ValidationError):
        return None
