"""Secrets as the cache holds them: a digest for each value, so that we can compare without keeping what we needn't."""

import base64
import binascii
from typing import Final

from copilot_operator.domain.kinds import GROUP
from copilot_operator.domain.manifest import Manifest, annotations_of, digest

EMPTY: Final = "empty"


def as_observed(secret: Manifest) -> Manifest:
    """The Secret with each value of ``data`` replaced by its digest, ``empty`` for a blank one (white space too).

    Of annotations only ours stay: in others values are found again (kubectl.kubernetes.io/last-applied-configuration).
    """
    metadata = secret["metadata"]
    annotations = {key: value for key, value in annotations_of(secret).items() if key.startswith(f"{GROUP}/")}
    data = {key: value_digest(value) for key, value in (secret.get("data") or {}).items()}
    return {**secret, "metadata": {**metadata, "annotations": annotations}, "data": data}


def value_digest(encoded: str) -> str:
    return digest(decoded(encoded)) if decoded(encoded).strip() else EMPTY


def decoded(encoded: str) -> str:
    """The text of a base64 value; bytes that are no text are replaced, such a value is nobody's token."""
    try:
        return base64.b64decode(encoded or "").decode(errors="replace")
    except binascii.Error:
        return ""
