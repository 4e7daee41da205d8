"""Questions to the API server itself, about what no watch may have told."""

from dataclasses import replace

from copilot_operator.api.references import Auth
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent
from copilot_operator.domain.credentials import check_credential
from copilot_operator.domain.kinds import SECRET, Kind
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.secrets import as_observed
from copilot_operator.domain.snapshot import Credential


async def look(api: KubeApi, kind: Kind, namespace: str, name: str) -> Manifest | None:
    """The object as the API server has it now; None if there is none. Of a Secret the digests, as from the cache."""
    try:
        live = await api.get(kind, namespace, name)
    except Absent:
        return None
    return as_observed(live) if kind == SECRET else live


async def credential(api: KubeApi, cache: Cache, namespace: str, auth: Auth | None) -> Credential | None:
    """What a reference to a token or key leads to; None without one."""
    if auth is None:
        return None
    name, key = auth.secret_ref.name, auth.secret_ref.key
    secret = cache.get(SECRET, namespace, name)
    exists = secret is not None or await look(api, SECRET, namespace, name) is not None
    found = check_credential(name, key, secret, exists)
    if (provider := auth.provider) is None:
        return found
    fields = {"type": provider.type, "baseUrl": provider.base_url, "wireApi": provider.wire_api}
    return replace(found, provider={name: value for name, value in fields.items() if value})
