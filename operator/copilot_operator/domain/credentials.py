"""Can a referenced Secret be used as a token or key? Says what is wrong and how to mend it, never the value."""

from copilot_operator.domain.manifest import Manifest, labels_of
from copilot_operator.domain.naming import USABLE_LABEL
from copilot_operator.domain.secrets import EMPTY
from copilot_operator.domain.snapshot import Credential, Finding


def check_credential(name: str, key: str, secret: Manifest | None, exists: bool) -> Credential:
    """``secret`` as observed (values are digests), None if it is not watched; ``exists``: it is there all the same.

    Only labelled Secrets are watched and used: else whoever may write a tenant could read any Secret through it.
    """
    if secret is None and not exists:
        return _unusable(name, key, "SecretNotFound", f"Secret {name} does not exist; create it with the key {key}")
    if secret is None or labels_of(secret).get(USABLE_LABEL) != "true":
        message = f'Secret {name} may not be used: its owner must label it {USABLE_LABEL}: "true"'
        return _unusable(name, key, "SecretNotUsable", message)
    data = secret.get("data") or {}
    if key not in data:
        held = ", ".join(sorted(data)[:5]) or "none"
        return _unusable(name, key, "SecretKeyNotFound", f"Secret {name} has no key {key}; it has: {held}")
    if data[key] == EMPTY:
        return _unusable(name, key, "SecretEmpty", f"Key {key} of Secret {name} is empty; put the token or key there")
    return Credential(name, key, data[key])


def _unusable(name: str, key: str, reason: str, message: str) -> Credential:
    return Credential(name, key, finding=Finding(reason, message))
