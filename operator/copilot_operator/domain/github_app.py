"""Tokens of GitHub Apps, of an installation or a person: what is known of one, when the next is due, what people are
told of it.

A token lies in a Secret of ours (desired/minted.py) whose annotations tell from which App it is and until when it
holds: whoever takes over goes on from there.
"""

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from copilot_operator.api.conditions import timestamp
from copilot_operator.api.references import GitHubApp, UserToken
from copilot_operator.domain.manifest import Manifest, annotations_of, controller_uid, digest
from copilot_operator.domain.naming import EXPIRES_ANNOTATION, MINTED_ANNOTATION, SERIAL_ANNOTATION, SOURCE_ANNOTATION
from copilot_operator.domain.snapshot import Credential, Finding, MintedToken

GHE_COM: Final = ".ghe.com"
SPARE: Final = timedelta(minutes=3)  # beside the drain: to mint, to start again, and for clocks that differ a little
REFRESH_FAILS: Final = "RefreshFails"
GRANT_LOST: Final = "RefreshTokenRejected"
TOKEN_KEY: Final = "token"
SERIAL_KEY: Final = "serial"


def source_of(app: GitHubApp | UserToken, made_from: str | None = None) -> str:
    """Names what a token is made from; not its key, which may change while tokens made with it go on. ``made_from``:
    of a person's token the digest of the refresh token that the user has given, None if that can't be read."""
    if isinstance(app, UserToken):
        return digest(["user", made_from])
    return digest([app.app_id, app.installation_id, app.url])


def belongs(token: MintedToken | None, app: GitHubApp | UserToken, made_from: str | None) -> bool:
    """Whether it is a token of this App; a person's goes on, too, while nobody can read what was granted."""
    unread = isinstance(app, UserToken) and made_from is None
    return token is not None and (unread or token.source == source_of(app, made_from))


def serial_of(token: str) -> str:
    """Tells one token from the next, and says nothing of it; servers tell it of theirs."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def token_of(secret: Manifest, owner_uid: str | None) -> MintedToken | None:
    """What a Secret says of the token in it; None if it is not its owner's, or somebody wrote nonsense into it."""
    found = annotations_of(secret)
    if owner_uid is None or controller_uid(secret) != owner_uid:
        return None
    try:
        minted, expires = (datetime.fromisoformat(found[name]) for name in (MINTED_ANNOTATION, EXPIRES_ANNOTATION))
        token = MintedToken(found[SERIAL_ANNOTATION], minted, expires, found[SOURCE_ANNOTATION])
    except (KeyError, ValueError):
        return None
    return (
        token
        if token.minted_at.tzinfo and token.expires_at.tzinfo and TOKEN_KEY in (secret.get("data") or {})
        else None
    )


def refresh_at(token: MintedToken, drain_s: float) -> datetime:
    """When the next one is due: so early that all servers can drain before this one ends.

    A third of its life before that at least, which is more than clocks are wrong by; and not in its first third,
    however long drains may take.
    """
    life = token.expires_at - token.minted_at
    before = min(max(timedelta(seconds=drain_s) + SPARE, life / 3), life * 2 / 3)
    return token.expires_at - before


def last_call(token: MintedToken) -> datetime:
    """Until when the exchange of a person's token, which ends the one before at once, waits for turns to end."""
    return token.expires_at - (token.expires_at - token.minted_at) / 24


def restart_at(token: MintedToken, server: str) -> datetime:
    """When a server is to take a new token: those that share one each at a time of their own, not all at once."""
    place = int(hashlib.sha256(server.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return token.minted_at + (token.expires_at - token.minted_at) / 12 * place


def app_credential(
    app: GitHubApp | UserToken,
    key: Credential,
    secret: str,
    token: MintedToken | None,
    trouble: Finding | None,
    now: datetime,
) -> Credential:
    """``key``: what became of its private key, or of a person's refresh token; ``secret``: name of ours; ``trouble``:
    why the last try failed."""
    wrong = key.finding or trouble
    whose = "user access token" if isinstance(app, UserToken) else "token of the GitHub App's installation"
    is_ours = belongs(token, app, key.digest)
    # A refresh token that GitHub does not take was used up, and with it the token, or both were revoked, or are old.
    is_lost = trouble is not None and trouble.reason == GRANT_LOST
    made = Credential(secret, TOKEN_KEY, **_whose(app, key))
    if token is None or not is_ours or is_lost or now >= token.expires_at:
        pending = Finding("TokenPending", f"A {whose} is being made")
        if token and is_ours and not is_lost:
            until = f"The {whose} ended at {timestamp(token.expires_at)}"
            pending = Finding(
                "TokenExpired", f"{until}. {wrong.message}" if wrong else f"{until}; another is being made"
            )
        elif wrong:
            pending = wrong
        return replace(made, finding=pending)
    notice = Finding("TokenMinted", f"The {whose} holds until {timestamp(token.expires_at)}")
    if wrong:
        notice = Finding(REFRESH_FAILS, f"{notice.message}, and no new one can be made: {wrong.message}")
    return replace(made, digest=token.serial, token=token, notice=notice)


def _whose(app: GitHubApp | UserToken, key: Credential) -> dict[str, Any]:
    return {"user": app, "made_from": key.digest} if isinstance(app, UserToken) else {"app": app}


def host_of(app: GitHubApp) -> str | None:
    """The host that a CLI must be told of, if that follows from the API's: SUBDOMAIN.ghe.com."""
    host = urlsplit(app.url).hostname or ""
    return host.removeprefix("api.") if host.startswith("api.") and host.endswith(GHE_COM) else None
