"""What a gateway's pool gives each tenant: a token for its applications, and a code in front of its session ids.

Both are made from one key of the pool and the tenant's UID: nothing has to be stored for each tenant, a deleted
tenant's token is dead, and one of the same name that comes later gets another. Only the operator has the key; the
gateway gets the codes, and hashes of the tokens.

A tenant's token can be rotated: the time that it was asked for goes into it, and never an earlier one than before, for
that token is dead. Which rotation its Secret is at, and until
when the token before is taken as well, is noted at that Secret.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from copilot_operator.api.conditions import timestamp
from copilot_operator.api.duration import duration_s
from copilot_operator.api.tenant import ConnectionToken
from copilot_operator.domain.manifest import Manifest, annotations_of, controller_uid
from copilot_operator.domain.naming import BEFORE_ANNOTATION, OVERLAP_ANNOTATION, ROTATION_ANNOTATION

CODE_LENGTH: Final = 16
OVERLAP: Final = "10m"


@dataclass(frozen=True)
class Rotation:
    """Where a tenant's token is: ``current`` (the time of its rotation, "" before the first), and until ``until`` also
    ``before``."""

    current: str = ""
    before: str = ""
    until: datetime | None = None

    @property
    def valid(self) -> tuple[str, ...]:
        """The rotations whose tokens are taken, the newest first."""
        return (self.current,) if self.until is None else (self.current, self.before)

    def annotations(self) -> dict[str, str]:
        """As it is noted at the Secret; nothing before the first rotation."""
        notes = {ROTATION_ANNOTATION: self.current} if self.current else {}
        if self.until is not None:
            notes |= {BEFORE_ANNOTATION: self.before, OVERLAP_ANNOTATION: self.until.isoformat(timespec="seconds")}
        return notes


FIRST_ROTATION: Final = Rotation()


def rotation_of(secret: Manifest | None, tenant_uid: str) -> Rotation:
    """As it is noted at a tenant's connection Secret; what somebody else wrote there counts for nothing."""
    if secret is None or controller_uid(secret) != tenant_uid:
        return Rotation()
    found = annotations_of(secret)
    current = found.get(ROTATION_ANNOTATION, "")
    try:
        until = datetime.fromisoformat(found[OVERLAP_ANNOTATION])
    except (KeyError, ValueError):
        return Rotation(current)
    return Rotation(current, found.get(BEFORE_ANNOTATION, ""), until) if until.tzinfo else Rotation(current)


def rotated(held: Rotation, wanted: ConnectionToken | None, now: datetime) -> Rotation:
    """What ``held`` is to be now."""
    due = latest(wanted, now) if wanted else ""
    if wanted and due and is_later(due, held.current):
        overlap = timedelta(seconds=duration_s(wanted.overlap or OVERLAP))
        until = now.replace(microsecond=0) + overlap
        return Rotation(due, held.current, until) if overlap else Rotation(due)
    if held.until is not None and held.until <= now:
        return Rotation(held.current)
    return held


def changes_at(held: Rotation, wanted: ConnectionToken | None, now: datetime) -> datetime | None:
    """When the passing of time alone changes something; None: never."""
    due = [held.until] if held.until else []
    if wanted:
        first, every = _course(wanted)
        due.append(first if now < first or not every else first + ((now - first) // every + 1) * every)
    return min((at for at in due if at > now), default=None)


def latest(wanted: ConnectionToken, now: datetime) -> str:
    """The time of the rotation that is to be in force; "": the first is to come."""
    first, every = _course(wanted)
    if now < first:
        return ""
    return timestamp(first + (now - first) // every * every) if every else wanted.rotate_at


def is_later(due: str, current: str) -> bool:
    """Than the rotation that is in force; what is no time is earlier than any."""
    try:
        return datetime.fromisoformat(due) > datetime.fromisoformat(current)
    except (ValueError, TypeError):
        return True


def _course(wanted: ConnectionToken) -> tuple[datetime, timedelta | None]:
    """The first time, and after how long again."""
    every = timedelta(seconds=duration_s(wanted.every)) if wanted.every else None
    return datetime.fromisoformat(wanted.rotate_at), every


def token_of(key: str, tenant_uid: str, rotation: str = "") -> str:
    """The connection token of a tenant: 43 characters, 256 bits, base64url (RFC 4648) of an HMAC-SHA256 (RFC 2104)."""
    whose = f"{tenant_uid}:{rotation}" if rotation else tenant_uid
    return base64.urlsafe_b64encode(_derived(key, "token", whose)).decode().rstrip("=")


def code_of(key: str, tenant_uid: str) -> str:
    """What stands in front of a tenant's session ids on servers that it shares with others; says nothing of whose."""
    return base64.b32encode(_derived(key, "code", tenant_uid)[:10]).decode().lower()


def shared_code(key: str, session: str) -> str:
    """What stands in front of the name of a session that tenants share."""
    return base64.b32encode(_derived(key, "shared", session)[:10]).decode().lower()


def fingerprint(token: str) -> str:
    """SHA-256 of a token in hexadecimal, by which a gateway knows it."""
    return hashlib.sha256(token.encode()).hexdigest()


def _derived(key: str, purpose: str, whose: str) -> bytes:
    return hmac.digest(key.encode(), f"{purpose}:{whose}".encode(), "sha256")
