"""Under which keys of its pool's Secrets the connection tokens of a server lie, and when it is started with another.

The CLI knows one token, so without a gateway a rotation is a drained restart. The new token lies beside the old one,
under a key with the time of the rotation, until the server was stopped and its Deployment names it. No key ever gets
another value: a container that starts again while the old token is named still, or from what kubelet has cached of the
Secret, has the token that its agent has and applications were told.
"""

from collections.abc import Collection
from typing import Final

from copilot_operator.domain.tenant_tokens import is_later

SEPARATOR: Final = "."  # no name of a server holds one


def key_of(server: str, rotation: str) -> str:
    """``copilot-alice``, after a rotation ``copilot-alice.20261124T040000Z``."""
    return f"{server}{SEPARATOR}{compact(rotation)}" if rotation else server


def parts_of(key: str) -> tuple[str, str]:
    """The server and the rotation ("" before the first) of a key."""
    server, _, rotation = key.partition(SEPARATOR)
    return server, rotation


def compact(time: str) -> str:
    """A time in RFC 3339 as keys of Secrets can hold it, the basic format of ISO 8601."""
    return time.replace("-", "").replace(":", "")


def rotations(held: Collection[str], named: str | None, due: str) -> tuple[str, str]:
    """The rotation that a server is at, and the one that it shall be at.

    ``held``: those whose tokens are there; ``named`` by its Deployment, None: there is none; ``due`` by now, "": none.
    Once named, a rotation is not taken back. If all tokens were lost the named one is to be made again.
    """
    current = named if named is not None and (named in held or not held) else max(held, default="")
    return current, compact(due) if due and is_later(due, current) else current
