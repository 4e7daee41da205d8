"""Until when turns may run on once a server is to stop. Pure; times are seconds of one clock."""

from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite


class OnTimeout(StrEnum):
    """What becomes of turns that still run at the deadline."""

    ABORT = "Abort"
    WAIT = "Wait"


@dataclass(slots=True)
class Deadline:
    """Two kinds of callers have a say. Who ends the pod anyway (``preStop``) *binds*: the earliest bound counts, turns
    are aborted then, and nobody can lift it. Who only wants the server stopped (the operator) *orders*: the last order
    counts, later or earlier, Abort or Wait.
    """

    bound_at: float = inf
    ordered_at: float = inf
    ordered: OnTimeout = OnTimeout.ABORT

    def bind(self, at: float) -> None:
        """Everything ends at ``at``."""
        self.bound_at = min(self.bound_at, at)

    def order(self, at: float, on_timeout: OnTimeout) -> None:
        """Everything should have ended at ``at``."""
        self.ordered_at, self.ordered = at, on_timeout

    @property
    def is_bound(self) -> bool:
        return isfinite(self.bound_at)

    @property
    def abort_at(self) -> float:
        """When turns are aborted; infinity: never."""
        return min(self.bound_at, self.ordered_at if self.ordered is OnTimeout.ABORT else inf)

    @property
    def on_timeout(self) -> OnTimeout:
        return OnTimeout.ABORT if isfinite(self.abort_at) else self.ordered

    def left_s(self, now: float) -> float | None:
        """Seconds until turns are aborted or, if they never are, until that was asked for; None: no deadline."""
        at = self.abort_at if isfinite(self.abort_at) else self.ordered_at
        return max(0.0, at - now) if isfinite(at) else None
