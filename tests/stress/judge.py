"""Whether a turn was lost. Pure: what the harness saw goes in, a verdict comes out.

All times are seconds of one clock. A turn is only sent while its server is up, and its client hangs up only once the
drain has the session: what a client throws away itself is nobody's to save.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any, Final

SLACK_S: Final = 2.0  # deadlines are written in whole seconds, and a busy machine is a little late


@dataclass
class Turn:
    """One message and what became of it, as its client saw it."""

    session: str
    mark: str  # is in the message, and in its answer
    lasts_s: float
    sent_at: float  # when the server had said that it has the message
    aborted_at: float | None = None  # when its client was told so
    answered: bool = False  # whether the answer is in the session after the stop
    behind: "Turn | None" = field(default=None, repr=False)  # of the same session, which takes one after the other

    @property
    def ends_at(self) -> float:
        """The earliest moment at which it can have ended."""
        return max(self.sent_at, self.behind.ends_at if self.behind else self.sent_at) + self.lasts_s


@dataclass(frozen=True)
class Stop:
    """One stop of one server. ``deadline_at`` is the earliest moment at which its turns may be cut; None: never."""

    asked_at: float
    deadline_at: float | None
    cordoned_at: float | None = None  # when its agent was told to drain
    gone_at: float | None = None  # when its process had ended


class Verdict(StrEnum):
    """What became of a turn. Only LOST breaks the promise."""

    KEPT = "kept"
    CUT_AFTER_CORDON = "cut_after_cordon"
    ABORTED_AT_DEADLINE = "aborted_at_deadline"
    LOST = "lost"


def verdict(turn: Turn, stop: Stop) -> Verdict:
    """Of a turn that was under way, or begun, when its server was to stop."""
    if turn.answered:
        return Verdict.KEPT
    if stop.cordoned_at is not None and turn.sent_at > stop.cordoned_at:
        return Verdict.CUT_AFTER_CORDON
    return Verdict.ABORTED_AT_DEADLINE if _ran_into_deadline(turn, stop) else Verdict.LOST


def _ran_into_deadline(turn: Turn, stop: Stop) -> bool:
    """Whether it would have gone on beyond the deadline, and was left alone until then."""
    if stop.deadline_at is None:
        return False
    cut_at = min((at for at in (turn.aborted_at, stop.gone_at) if at is not None), default=None)
    if cut_at is None:
        return False
    return min(turn.ends_at, cut_at) >= stop.deadline_at - SLACK_S


@dataclass(frozen=True)
class Outcome:
    """One stop and its turns, judged."""

    cause: str
    verdicts: tuple[Verdict, ...]
    stuck: bool
    killed: bool  # the operator was, while this stop was under way
    overhead_s: float | None  # from the end of its last turn (or the wish, if that was later) to the end of the process


def summary(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """The figures of a run: counts, and seconds of overhead."""
    those = list(outcomes)
    verdicts = Counter(verdict for outcome in those for verdict in outcome.verdicts)
    overheads = sorted(outcome.overhead_s for outcome in those if outcome.overhead_s is not None)
    return {
        "stops": len(those),
        "turns": verdicts.total(),
        "lost": verdicts[Verdict.LOST],
        "stuck": sum(outcome.stuck for outcome in those),
        "cut_after_cordon": verdicts[Verdict.CUT_AFTER_CORDON],
        "aborted_at_deadline": verdicts[Verdict.ABORTED_AT_DEADLINE],
        "operator_killed_in": sum(outcome.killed for outcome in those),
        "overhead_s_p50": round(median(overheads), 1) if overheads else None,
        "overhead_s_max": round(overheads[-1], 1) if overheads else None,
        "causes": dict(sorted(Counter(outcome.cause for outcome in those).items())),
    }
