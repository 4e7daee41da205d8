"""How long the turns of one session take: for the metrics, and for nothing else."""

from typing import Final

from copilot_operator.gateway.metrics import Fault, Metrics

_TEXT: Final = frozenset({"assistant.message_delta", "assistant.message"})

TIMED: Final = _TEXT | {"session.idle", "session.error"}
"""Types of events that are of interest here."""


class TurnWatch:
    """Times are seconds of one monotonic clock. What is queued behind a turn counts from that turn's beginning."""

    __slots__ = ("_began_at", "_metrics", "_spoke")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._began_at: float | None = None
        self._spoke = False

    def began(self, at: float) -> None:
        """A message was sent on."""
        if self._began_at is None:
            self._began_at, self._spoke = at, False

    def event(self, type: str, now: float) -> None:
        """An event of the session; one that several owners get may come several times."""
        if type == "session.error":
            self._metrics.fault(Fault.TURN)
        if self._began_at is None:
            return
        if type == "session.idle":
            self._metrics.whole_turn.observe(now - self._began_at)
            self._metrics.turns.inc()
            self._began_at = None
        elif not self._spoke and type in _TEXT:
            self._spoke = True
            self._metrics.first_token.observe(now - self._began_at)
