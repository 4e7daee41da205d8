"""The connection Secret: all that an application needs to reach its server with an official SDK."""

import base64

from copilot_operator.domain.desired.common import child, stamped
from copilot_operator.domain.desired.service import CLI_PORT, TLS_PORT, host
from copilot_operator.domain.kinds import SECRET
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import USABLE_LABEL
from copilot_operator.domain.snapshot import TenantSnapshot


def connection(snapshot: TenantSnapshot) -> Manifest:
    """``host``, ``port``, ``cliUrl`` (``host:port``, as the SDKs take it) and ``token``; with TLS ``tlsPort``.

    Without a gateway the tenant's token is its server's.
    """
    token = snapshot.tenant_token or (snapshot.known_token.value if snapshot.known_token else "")
    assert token
    values = {
        "host": host(snapshot),
        "port": str(CLI_PORT),
        "cliUrl": f"{host(snapshot)}:{CLI_PORT}",
        "token": token,
        **({"tlsPort": str(TLS_PORT)} if snapshot.pool and snapshot.pool.spec.gateway.tls else {}),
    }
    manifest = child(SECRET, snapshot, labels={USABLE_LABEL: "false"})
    manifest["metadata"]["annotations"] |= snapshot.rotation.annotations()
    return stamped(manifest | {"type": "Opaque", "data": encoded(values)})


def encoded(values: dict[str, str]) -> dict[str, str]:
    """Secret data as the API takes it (``data``, base64); ``stringData`` is write-only and can't be compared."""
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
