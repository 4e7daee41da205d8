"""What a pool's gateway knows of one tenant (TenantFile in gateway/config_files.py)."""

import json
from typing import Any

from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.tenant_tokens import fingerprint, token_of


def gateway_entry(tenant: Manifest, key: str) -> str:
    """JSON with the hashes of the tenant's tokens, its name and its server. ``tenant`` as stored; it may be invalid."""
    name, uid = tenant["metadata"]["name"], tenant["metadata"]["uid"]
    entry: dict[str, Any] = {"tokens": [fingerprint(token_of(key, uid))], "name": name, "server": server_of(name)}
    if (tenant.get("spec") or {}).get("suspended") is True:
        entry["suspended"] = True
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))
