"""What the session machine knows of methods (CLI 1.0.102), beyond the table of ``methods``."""

from typing import Final

MAKES: Final = frozenset({"session.create", "session.resume"})
"""They make their connection an owner, and load the session."""

LEAVES: Final = frozenset({"session.detach", "session.destroy"})
"""They take an owner away; by the last one the session ends, its turn with it."""

SENDS: Final = frozenset({"session.send", "session.sendMessages"})
"""They begin a turn and are answered before it (but for ``wait``); never to be sent twice."""

CLOSES: Final = frozenset({"sessions.close", "session.delete"})
"""They end the session whoever owns it, its turn with it, and tell nobody."""

READ_RESULTS: Final = SENDS | LEAVES | CLOSES
"""Methods of which the machine looks into ``Reply.result``."""

REMEMBERED: Final = frozenset(
    {
        "session.model.switchAutoTier",
        "session.model.switchTo",
        "session.permissions.setApproveAll",
        "session.tools.set",
    }
)
"""They change what must be said again when the session is loaded again."""

CHANGES: Final = MAKES | LEAVES | SENDS | CLOSES | REMEMBERED
"""Methods that change what is known of the session; all others only pass through."""

_NEED_NOT_BE_LOADED: Final = frozenset({"session.delete", "session.getMetadata"})
_REPEATABLE: Final = (
    "get", "list", "is", "read", "find", "check", "snapshot", "activity", "pending", "tail", "contextInfo", "wait",
    "set", "switchTo", "handlePending", "abort", "select", "deselect", "diff", "update", "save",
)  # fmt: skip


def reads_disk(method: str) -> bool:
    """Whether it works, and does the same, on a session that is not loaded."""
    return method in _NEED_NOT_BE_LOADED or method.startswith("sessions.")


def repeatable(method: str) -> bool:
    """Whether to carry it out twice is as good as once: reads, and writes that say the outcome.

    By the last word of the method's name. What is not known to be so is not, and makes no harm but an error.
    """
    return method.rsplit(".", 1)[-1].startswith(_REPEATABLE)
