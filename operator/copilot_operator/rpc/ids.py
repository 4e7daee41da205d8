"""What the CLI takes for the id of a session, which is also the name of its directory. Pure."""

import re
from typing import Final

MAX_ID_LENGTH: Final = 250  # 251 is a file name too long

_CHARACTERS: Final = re.compile(r"[A-Za-z0-9_-]+")


def is_id(id: str, *, longest: int = MAX_ID_LENGTH) -> bool:
    """Whether it is one, of at most ``longest`` characters."""
    return len(id) <= longest and _CHARACTERS.fullmatch(id) is not None
