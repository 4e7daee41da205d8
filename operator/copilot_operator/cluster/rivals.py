"""Other installations of the operator in the same cluster: each has a Lease of the same name in its own namespace.

All of them would serve all pools and tenants, so only one may act. Who is alive is judged as in :mod:`lease`: by our
own clock since a record last changed.
"""

import asyncio
from dataclasses import dataclass, field

from copilot_operator.cluster.client import KubeApi
from copilot_operator.domain.kinds import LEASE


@dataclass
class Rivals:
    """``namespace`` is our own, ``name`` that of the Leases."""

    api: KubeApi
    namespace: str
    name: str
    _seen: dict[str, tuple[tuple[object, ...], float]] = field(default_factory=dict)  # record and when it changed

    async def acting(self) -> str:
        """Namespace of an installation whose Lease is held, "" if there is none. Raises an ApiError."""
        now, found = asyncio.get_running_loop().time(), ""
        async for lease in self.api.list_pages(LEASE, fields=f"metadata.name={self.name}"):
            namespace, spec = lease["metadata"]["namespace"], lease.get("spec") or {}
            if namespace == self.namespace:
                continue
            record = (spec.get("holderIdentity"), spec.get("renewTime"))
            if self._seen.get(namespace, (None,))[0] != record:
                self._seen[namespace] = (record, now)
            expires_at = self._seen[namespace][1] + float(spec.get("leaseDurationSeconds") or 0)
            if spec.get("holderIdentity") and now < expires_at:
                found = found or namespace
        return found
