"""What a gateway's pool gives each tenant: a token for its applications, and a code in front of its session ids.

Both are made from one key of the pool and the tenant's UID: nothing has to be stored for each tenant, a deleted
tenant's token is dead, and one of the same name that comes later gets another. Only the operator has the key; the
gateway gets the codes, and hashes of the tokens.
"""

import base64
import hashlib
import hmac
from typing import Final

CODE_LENGTH: Final = 16


def token_of(key: str, tenant_uid: str) -> str:
    """The connection token of a tenant: 43 characters, 256 bits, base64url (RFC 4648) of an HMAC-SHA256 (RFC 2104)."""
    return base64.urlsafe_b64encode(_derived(key, "token", tenant_uid)).decode().rstrip("=")


def code_of(key: str, tenant_uid: str) -> str:
    """What stands in front of a tenant's session ids on servers that it shares with others; says nothing of whose."""
    return base64.b32encode(_derived(key, "code", tenant_uid)[:10]).decode().lower()


def fingerprint(token: str) -> str:
    """SHA-256 of a token in hexadecimal, by which a gateway knows it."""
    return hashlib.sha256(token.encode()).hexdigest()


def _derived(key: str, purpose: str, tenant_uid: str) -> bytes:
    return hmac.digest(key.encode(), f"{purpose}:{tenant_uid}".encode(), "sha256")
