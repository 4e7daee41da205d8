"""The intent to stop a server: cause, since when, until when. The only thing of a drain that is remembered.

It lies in annotations of the Deployment. Where the drain stands is what the agent says; what comes after it follows
from the cause, which is looked for anew in every cycle.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import DRAIN_CAUSE_ANNOTATION, DRAIN_DEADLINE_ANNOTATION, DRAIN_SINCE_ANNOTATION


class Why(StrEnum):
    """Kinds of causes to stop a server; also the ``cause`` label of metrics."""

    SUSPENSION = "Suspension"
    CHANGE = "Change"  # of the tenant, its credential or token, or asked for by its annotation
    UPDATE = "Update"  # of the pool: servers take turns
    EDITED = "Edited"  # somebody changed the pod template by hand
    NODE_DRAIN = "NodeDrain"
    ROTATION = "Rotation"  # a new token of the GitHub App is there, and the one it was started with will end
    RECYCLE = "Recycle"  # worn out: servers take turns
    HEALTH = "Health"  # answers, but can't work
    IDLE = "Idle"  # nobody uses it; the next request for a session starts it again
    SCALE_IN = "ScaleIn"  # of a Shared pool


class Ending(StrEnum):
    """What is done with a server once it is drained."""

    STOP = "Stop"  # replicas 0; it starts again, with what its Deployment shall be by then, unless it is held down
    REPLACE = "Replace"  # the pod is deleted, its ReplicaSet makes another, perhaps on another node
    RESTART = "Restart"  # in place: the CLI ends, kubelet starts the container again


@dataclass(frozen=True)
class Cause:
    """Why a server is to stop; ``message`` is what people are told."""

    why: Why
    message: str
    ending: Ending = Ending.STOP

    @property
    def takes_turns(self) -> bool:
        """Whether its pool decides when it may begin."""
        return self.why in (Why.UPDATE, Why.RECYCLE)


@dataclass(frozen=True)
class Intent:
    """A drain as it was decided. ``deadline``: when turns that still run are cut, or waited for, as the pool says."""

    why: Why
    since: datetime
    deadline: datetime

    def annotations(self) -> dict[str, str]:
        return {
            DRAIN_CAUSE_ANNOTATION: self.why.value,
            DRAIN_SINCE_ANNOTATION: self.since.isoformat(timespec="seconds"),
            DRAIN_DEADLINE_ANNOTATION: self.deadline.isoformat(timespec="seconds"),
        }


def intent_of(deployment: Manifest | None) -> Intent | None:
    """The intent that a Deployment carries; None if there is none, or if somebody wrote nonsense into it."""
    found = annotations_of(deployment) if deployment else {}
    try:
        return Intent(
            Why(found[DRAIN_CAUSE_ANNOTATION]),
            datetime.fromisoformat(found[DRAIN_SINCE_ANNOTATION]),
            datetime.fromisoformat(found[DRAIN_DEADLINE_ANNOTATION]),
        )
    except (KeyError, ValueError):
        return None
