"""Installation tokens of GitHub Apps: what is known of one, when the next is due, and what people are told of it.

A token lies in a Secret of ours (desired/minted.py) whose annotations tell from which App it is and until when it
holds: whoever takes over goes on from there.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from copilot_operator.api.conditions import timestamp
from copilot_operator.api.references import GitHubApp
from copilot_operator.domain.manifest import Manifest, annotations_of, controller_uid, digest
from copilot_operator.domain.naming import EXPIRES_ANNOTATION, MINTED_ANNOTATION, SERIAL_ANNOTATION, SOURCE_ANNOTATION
from copilot_operator.domain.snapshot import Credential, Finding, InstallationToken

GHE_COM: Final = ".ghe.com"
SPARE: Final = timedelta(minutes=3)  # beside the drain: to mint, to start again, and for clocks that differ a little
REFRESH_FAILS: Final = "RefreshFails"
TOKEN_KEY: Final = "token"
SERIAL_KEY: Final = "serial"


def source_of(app: GitHubApp) -> str:
    """Names what a token is minted from; not its key, which may change while tokens made with it go on."""
    return digest([app.app_id, app.installation_id, app.url])


def serial_of(token: str) -> str:
    """Tells one token from the next, and says nothing of it; servers tell it of theirs."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def token_of(secret: Manifest, owner_uid: str | None) -> InstallationToken | None:
    """What a Secret says of the token in it; None if it is not its owner's, or somebody wrote nonsense into it."""
    found = annotations_of(secret)
    if owner_uid is None or controller_uid(secret) != owner_uid:
        return None
    try:
        minted, expires = (datetime.fromisoformat(found[name]) for name in (MINTED_ANNOTATION, EXPIRES_ANNOTATION))
        token = InstallationToken(found[SERIAL_ANNOTATION], minted, expires, found[SOURCE_ANNOTATION])
    except (KeyError, ValueError):
        return None
    return (
        token
        if token.minted_at.tzinfo and token.expires_at.tzinfo and TOKEN_KEY in (secret.get("data") or {})
        else None
    )


def refresh_at(token: InstallationToken, drain_s: float) -> datetime:
    """When the next one is due: so early that all servers can drain before this one ends.

    A third of its life before that at least, which is more than clocks are wrong by; and not in its first third,
    however long drains may take.
    """
    life = token.expires_at - token.minted_at
    before = min(max(timedelta(seconds=drain_s) + SPARE, life / 3), life * 2 / 3)
    return token.expires_at - before


def restart_at(token: InstallationToken, server: str) -> datetime:
    """When a server is to take a new token: those that share one each at a time of their own, not all at once."""
    place = int(hashlib.sha256(server.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return token.minted_at + (token.expires_at - token.minted_at) / 12 * place


def app_credential(
    app: GitHubApp,
    key: Credential,
    secret: str,
    token: InstallationToken | None,
    trouble: Finding | None,
    now: datetime,
) -> Credential:
    """``key``: what became of its private key; ``secret``: name of ours; ``trouble``: why the last try failed."""
    wrong = key.finding or trouble
    if token is None or token.source != source_of(app) or now >= token.expires_at:
        pending = Finding("TokenPending", "A token of the GitHub App's installation is being made")
        if token and token.source == source_of(app):
            until = f"The token of the GitHub App's installation ended at {timestamp(token.expires_at)}"
            pending = Finding(
                "TokenExpired", f"{until}. {wrong.message}" if wrong else f"{until}; another is being made"
            )
        elif wrong:
            pending = wrong
        return Credential(secret, TOKEN_KEY, finding=pending, app=app)
    notice = Finding("TokenMinted", f"The installation's token holds until {timestamp(token.expires_at)}")
    if wrong:
        notice = Finding(REFRESH_FAILS, f"{notice.message}, and no new one can be made: {wrong.message}")
    return Credential(secret, TOKEN_KEY, token.source, app=app, token=token, notice=notice)


def host_of(app: GitHubApp) -> str | None:
    """The host that a CLI must be told of, if that follows from the API's: SUBDOMAIN.ghe.com."""
    host = urlsplit(app.url).hostname or ""
    return host.removeprefix("api.") if host.startswith("api.") and host.endswith(GHE_COM) else None
