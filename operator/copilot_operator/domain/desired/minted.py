"""The Secret with a token that the operator makes or renews: of a pool, or of a tenant with an App of its own."""

from datetime import datetime
from typing import Any

from copilot_operator.api.conditions import timestamp
from copilot_operator.api.references import REFRESH_TOKEN_KEY
from copilot_operator.domain.desired.connection import encoded
from copilot_operator.domain.github_app import SERIAL_KEY, TOKEN_KEY, serial_of
from copilot_operator.domain.kinds import SECRET
from copilot_operator.domain.manifest import Manifest, owner_reference
from copilot_operator.domain.naming import (
    EXPIRES_ANNOTATION,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    MINTED_ANNOTATION,
    ORIGIN_ANNOTATION,
    SERIAL_ANNOTATION,
    SOURCE_ANNOTATION,
    USABLE_LABEL,
)


def minted(
    owner: dict[str, Any],
    name: str,
    token: str,
    minted_at: datetime,
    expires_at: datetime,
    source: str,
    *,
    refresh_token: str = "",
    origin: str = "",
) -> Manifest:
    """``owner``: the pool or tenant as stored. ``refresh_token``: what the next token is had with; ``origin``: the
    fingerprint of the user's refresh token that it descends from."""
    serial = serial_of(token)
    renewal = {REFRESH_TOKEN_KEY: refresh_token} if refresh_token else {}
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, USABLE_LABEL: "false"},
            "annotations": {
                SERIAL_ANNOTATION: serial,
                MINTED_ANNOTATION: timestamp(minted_at),
                EXPIRES_ANNOTATION: timestamp(expires_at),
                SOURCE_ANNOTATION: source,
                **({ORIGIN_ANNOTATION: origin} if origin else {}),
            },
            "ownerReferences": [owner_reference(owner)],
        },
        "type": "Opaque",
        "data": encoded({TOKEN_KEY: token, SERIAL_KEY: serial, **renewal}),
    }
