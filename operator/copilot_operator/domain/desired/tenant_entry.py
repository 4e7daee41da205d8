"""What a pool's gateway knows of one tenant (TenantFile in gateway/config_files.py)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from copilot_operator.domain.manifest import Manifest, condition_of
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.snapshot import Credential, Finding
from copilot_operator.domain.tenant_tokens import code_of, fingerprint, token_of

Payment = Mapping[str, Any] | Finding
KEEPS_DOWN: Final = frozenset(
    {
        "ContainerNotStarted",
        "CrashLooping",
        "ImagePullFailed",
        "NoDefaultStorageClass",
        "PodNotPrepared",
        "PodRefused",
        "Refused",
        "StorageClassNotFound",
        "Unschedulable",
        "VolumeLost",
    }
)  # reasons of Ready that those are told whose requests wait in vain
MAX_TROUBLE: Final = 300  # characters: it stands in a Secret with those of other tenants, and in an error


def paid_with(credential: Credential | None, secret: str | None) -> Payment | None:
    """What a gateway puts into sessions (CredentialFile in gateway/config_files.py); ``secret`` is the credential's."""
    if credential is None:
        return None
    if credential.finding:
        return credential.finding
    if credential.provider is not None:
        return {"provider": {**credential.provider, "apiKey": secret}}
    return {"gitHubToken": secret}


def trouble_of(finding: Finding | None) -> str:
    """What keeps a server from starting, in one line; "" if it is nothing that those are told who wait for it."""
    if finding is None or finding.reason not in KEEPS_DOWN:
        return ""
    return f"{finding.reason}: {' '.join(finding.message.split())}"[:MAX_TROUBLE]


def gateway_entry(
    tenant: Manifest,
    key: str,
    *,
    shared: bool,
    credential: Payment | None = None,
    shares: Sequence[str] = (),
    rotations: tuple[str, ...] = ("",),
) -> str:
    """JSON with the hashes of the tenant's tokens of these ``rotations``, its name, and its server or, where servers
    are ``shared``, its code.

    ``tenant`` as stored; it may be invalid. ``credential``: its own; a finding if that can't be used: sessions are not
    paid for by the pool instead. ``shares``: names of sessions that it shares with other tenants.
    """
    name, uid = tenant["metadata"]["name"], tenant["metadata"]["uid"]
    place = {"code": code_of(key, uid)} if shared else {"server": server_of(name)}
    tokens = [fingerprint(token_of(key, uid, each)) for each in rotations]
    entry: dict[str, Any] = {"tokens": tokens, "name": name, **place}
    if homes := (tenant.get("status") or {}).get("homes"):
        entry["homes"] = homes
    most = ((tenant.get("spec") or {}).get("sessions") or {}).get("maxConcurrent")
    if type(most) is int and most > 0:
        entry["limits"] = {"sessions": most}
    if shares:
        entry["shares"] = list(shares)
    ready = condition_of(tenant.get("status") or {}, "Ready")
    down = Finding(ready["reason"], ready["message"]) if ready and ready["status"] != "True" and not shared else None
    if trouble := trouble_of(down):
        entry["trouble"] = trouble
    if (tenant.get("spec") or {}).get("suspended") is True:
        entry["suspended"] = True
    if isinstance(credential, Finding):
        entry |= {"suspended": True, "message": credential.message}
    elif credential:
        entry["credential"] = credential
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))
