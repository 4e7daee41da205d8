"""Other installations of the operator in the same cluster, of which only one may act where they meet.

Each has a Lease of the same name in its own namespace. Who serves all namespaces sees those of all others
(:class:`Rivals`). Who serves some of them sees none, and leaves a mark in each of those: another Lease, which its own
namespace holds (:class:`Marks`). Who is alive is judged as in :mod:`lease`: by our own clock since a record last
changed.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent, Conflict, Ending
from copilot_operator.domain.kinds import LEASE
from copilot_operator.domain.manifest import Manifest

log = logging.getLogger(__name__)

MARK: Final = "copilot-operator-mark"  # name of a mark
MARK_S: Final = 30  # a mark is renewed three times as often
TRIES: Final = 3


class Others(Protocol):
    """``every_s``: how often one who acts looks for others, in seconds."""

    every_s: float

    async def acting(self) -> str:
        """Who else acts where we would, and what to do about it; "" if nobody does. Raises an ApiError."""


@dataclass
class Holders:
    """Who holds a Lease, by our own clock since its record changed."""

    _seen: dict[str, tuple[tuple[object, ...], float]] = field(default_factory=dict)  # by namespace: record, since when

    def of(self, lease: Manifest) -> str:
        """Identity of the holder, "" if it was given back, or was not renewed in time."""
        now = asyncio.get_running_loop().time()
        namespace, spec = lease["metadata"]["namespace"], lease.get("spec") or {}
        record = (spec.get("holderIdentity"), spec.get("renewTime"))
        if self._seen.get(namespace, (None,))[0] != record:
            self._seen[namespace] = (record, now)
        expires_at = self._seen[namespace][1] + float(spec.get("leaseDurationSeconds") or 0)
        return spec.get("holderIdentity") or "" if now < expires_at else ""


@dataclass
class Rivals:
    """Of an installation that serves all namespaces. ``namespace`` is its own, ``name`` that of the Leases."""

    api: KubeApi
    namespace: str
    name: str
    every_s: float = 60.0
    _holders: Holders = field(default_factory=Holders)

    async def acting(self) -> str:
        leases = [lease async for lease in self.api.list_pages(LEASE, fields=f"metadata.name={self.name}")]
        others = [lease for lease in leases if lease["metadata"]["namespace"] != self.namespace]
        found = [lease["metadata"]["namespace"] for lease in others if self._holders.of(lease)]
        if not found:
            return ""
        return (
            f"another copilot-operator acts in this cluster, in namespace {found[0]}. Keep one of the two, or give "
            f"each namespaces of its own to watch: this one serves all of them"
        )


@dataclass
class Marks:
    """Of an installation that serves some namespaces, ``watched``; ``namespace`` is its own.

    Who looks renews its own, which proves that the watches of them are alive.
    """

    api: KubeApi
    namespace: str
    watched: tuple[str, ...]
    every_s: float = MARK_S / 3
    _holders: Holders = field(default_factory=Holders)

    async def acting(self) -> str:
        return next(filter(None, await asyncio.gather(*map(self._renew, self.watched))), "")

    async def _renew(self, namespace: str) -> str:
        for _ in range(TRIES - 1):
            try:
                return await self._try(namespace)
            except Conflict:
                continue  # another replica of ours, or an installation that starts as we do
            except Ending:
                return ""
        return await self._try(namespace)

    async def _try(self, namespace: str) -> str:
        try:
            live = await self.api.get(LEASE, namespace, MARK)
        except Absent:
            metadata = {"name": MARK, "namespace": namespace}
            fresh = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": self._spec()}
            await self.api.create(LEASE, namespace, fresh)
            return ""
        holder = self._holders.of(live)
        if holder and holder != self.namespace:
            return (
                f"another copilot-operator acts in namespace {namespace}: its Lease is held by {holder}. "
                f"Take the namespace from those that one of the two watches"
            )
        await self.api.replace(LEASE, live | {"spec": self._spec()})
        return ""

    def _spec(self) -> Manifest:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {"holderIdentity": self.namespace, "leaseDurationSeconds": MARK_S, "renewTime": moment}
