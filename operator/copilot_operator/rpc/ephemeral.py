"""Which sessions are ephemeral: nothing of them stays once no client has them open. Known by their ids alone, so that
everybody who sees a session knows it, whatever has died in between.
"""

from dataclasses import dataclass
from typing import Any, Final

PREFIX: Final = "ephemeral-"  # of a client's id: it wishes that this session be ephemeral, in any pool

UNSTORED: Final[dict[str, Any]] = {"enableSessionStore": False}
"""What each create and resume of one must say: a resume without it writes what is said then to the session store
(CLI 1.0.102), which no deletion reaches. To a session that is loaded it changes nothing."""


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """``all``: every session is. ``code_length``: of the tenant's code before the client's id."""

    all: bool = False
    code_length: int = 0

    def __contains__(self, id: object) -> bool:
        return self.all or (isinstance(id, str) and id.startswith(PREFIX, self.code_length))


NONE: Final = Ephemeral(code_length=1_000)  # ids have at most 250 characters
