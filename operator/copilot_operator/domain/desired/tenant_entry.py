"""What a pool's gateway knows of one tenant (TenantFile in gateway/config_files.py)."""

import json
from collections.abc import Mapping
from typing import Any

from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.snapshot import Credential, Finding
from copilot_operator.domain.tenant_tokens import code_of, fingerprint, token_of

Payment = Mapping[str, Any] | Finding


def paid_with(credential: Credential | None, secret: str | None) -> Payment | None:
    """What a gateway puts into sessions (CredentialFile in gateway/config_files.py); ``secret`` is the credential's."""
    if credential is None:
        return None
    if credential.finding:
        return credential.finding
    if credential.provider is not None:
        return {"provider": {**credential.provider, "apiKey": secret}}
    return {"gitHubToken": secret}


def gateway_entry(tenant: Manifest, key: str, *, shared: bool, credential: Payment | None = None) -> str:
    """JSON with the hashes of the tenant's tokens, its name, and its server or, where servers are ``shared``, its code.

    ``tenant`` as stored; it may be invalid. ``credential``: its own; a finding if that can't be used: sessions are not
    paid for by the pool instead.
    """
    name, uid = tenant["metadata"]["name"], tenant["metadata"]["uid"]
    place = {"code": code_of(key, uid)} if shared else {"server": server_of(name)}
    entry: dict[str, Any] = {"tokens": [fingerprint(token_of(key, uid))], "name": name, **place}
    if homes := (tenant.get("status") or {}).get("homes"):
        entry["homes"] = homes
    if (tenant.get("spec") or {}).get("suspended") is True:
        entry["suspended"] = True
    if isinstance(credential, Finding):
        entry |= {"suspended": True, "message": credential.message}
    elif credential:
        entry["credential"] = credential
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))
