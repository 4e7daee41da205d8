"""What a pool's gateway knows of one tenant (TenantFile in gateway/config_files.py)."""

import json
from typing import Any

from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.tenant_tokens import code_of, fingerprint, token_of


def gateway_entry(tenant: Manifest, key: str, *, shared: bool) -> str:
    """JSON with the hashes of the tenant's tokens, its name, and its server or, where servers are ``shared``, its code.

    ``tenant`` as stored; it may be invalid.
    """
    name, uid = tenant["metadata"]["name"], tenant["metadata"]["uid"]
    place = {"code": code_of(key, uid)} if shared else {"server": server_of(name)}
    entry: dict[str, Any] = {"tokens": [fingerprint(token_of(key, uid))], "name": name, **place}
    if (tenant.get("spec") or {}).get("suspended") is True:
        entry["suspended"] = True
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))
