"""What a plan consists of: steps that may be repeated, each with its reason."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.subset import first_difference


@dataclass(frozen=True)
class Apply:
    """Server-side apply of ``manifest``."""

    kind: Kind
    manifest: Manifest
    why: str


@dataclass(frozen=True)
class Scale:
    """Set the replicas of the Deployment ``name`` and nothing else of it."""

    namespace: str
    name: str
    replicas: int
    why: str


@dataclass(frozen=True)
class Delete:
    """Delete the object with this ``uid``."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    why: str


@dataclass(frozen=True)
class Note:
    """Remember just these ``annotations`` of ours at the Deployment ``name`` with this ``uid``, by a field manager of
    their own; those that are not among them go."""

    namespace: str
    name: str
    uid: str
    annotations: Mapping[str, str]
    why: str


@dataclass(frozen=True)
class DeletePod:
    """Delete the pod with this ``uid``; ``grace_s`` None: its own grace period."""

    namespace: str
    name: str
    uid: str
    grace_s: int | None
    why: str


@dataclass(frozen=True)
class Label:
    """Set just these ``labels`` of the pod with this ``uid``; None takes one off."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str | None]
    why: str


Step = Apply | Scale | Delete | Note | DeletePod | Label


def converge(
    kind: Kind,
    wanted: Manifest,
    live: Manifest | None,
    differ: Callable[[Manifest, Manifest], str | None] = first_difference,
) -> Iterator[Step]:
    """Makes ``live`` what is ``wanted``: nothing to do if it is that, or is about to go."""
    if live is None:
        yield Apply(kind, wanted, "missing")
    elif "deletionTimestamp" not in live["metadata"] and (difference := differ(wanted, live)):
        yield Apply(kind, wanted, f"differs in {difference}")
