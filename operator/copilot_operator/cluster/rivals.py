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
from copilot_operator.cluster.errors import Absent, ApiError, Conflict, Ending
from copilot_operator.domain.kinds import LEASE
from copilot_operator.domain.manifest import Manifest

log = logging.getLogger(__name__)

MARK: Final = "copilot-operator-mark"  # name of a mark
MARK_S: Final = 30  # a mark is renewed three times as often
TRIES: Final = 3


class Others(Protocol):
    """Both methods say who else acts where we would, and what to do about it; "" if nobody does. Both raise ApiErrors.

    ``every_s``: how often one who acts looks for others, in seconds.
    """

    every_s: float

    async def acting(self) -> str:
        """Asked before one begins."""

    async def keep(self) -> str:
        """Asked while one acts."""


@dataclass
class Holders:
    """Who holds a Lease, by our own clock since its record changed."""

    _seen: dict[str, tuple[tuple[object, ...], float]] = field(default_factory=dict)  # by namespace: record, since when

    def of(self, lease: Manifest) -> str:
        """Identity of the holder, "" if it was given back, or was not renewed in time."""
        now = _now()
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

    async def keep(self) -> str:
        return await self.acting()


@dataclass
class Marks:
    """Of an installation that serves some namespaces, ``watched``; ``namespace`` is its own.

    That marks are renewed proves that the watches of them are alive.
    """

    api: KubeApi
    namespace: str
    watched: tuple[str, ...]
    every_s: float = MARK_S / 3
    _holders: Holders = field(default_factory=Holders)
    _set_at: dict[str, float] = field(default_factory=dict)  # by this process; what another set may expire any moment

    async def acting(self) -> str:
        """Mark all namespaces if none is another's; one by one, so that of two who begin at once one gets on."""
        looks = await asyncio.gather(*map(self._look, self.watched))
        found = dict(zip(self.watched, looks, strict=True))
        for namespace, (_, holder) in found.items():
            if told := self._told(namespace, holder):
                return told  # and what nobody serves yet stays free
        for namespace, (live, _) in found.items():
            old = _now() - self._set_at.get(namespace, float("-inf")) > self.every_s
            if old and (told := await self._mark(namespace, live)):
                return told
        return ""

    async def keep(self) -> str:
        """Renews every mark that nobody has taken meanwhile, also where another can't be: they expire."""
        found = await asyncio.gather(*map(self._renew, self.watched), return_exceptions=True)
        if errors := [each for each in found if isinstance(each, BaseException)]:
            raise errors[0]
        return next((str(each) for each in found if each), "")

    async def _renew(self, namespace: str) -> str:
        live, holder = await self._look(namespace)
        return self._told(namespace, holder) or await self._mark(namespace, live)

    async def _look(self, namespace: str) -> tuple[Manifest | None, str]:
        """The mark of a namespace, and who holds it."""
        try:
            live = await self.api.get(LEASE, namespace, MARK)
        except Absent:
            return None, ""
        return live, self._holders.of(live)

    async def _mark(self, namespace: str, live: Manifest | None) -> str:
        """Set it as it was looked at; "" if it is ours, else who was faster."""
        for _ in range(TRIES):
            try:
                await self._set(namespace, live)
                self._set_at[namespace] = _now()
                return ""
            except Ending:
                return ""
            except Absent as error:
                if live is None:  # the namespace is not there
                    return ""
                failed: ApiError = error
            except Conflict as error:  # another replica of ours, or an installation that begins as we do
                failed = error
            live, holder = await self._look(namespace)
            if told := self._told(namespace, holder):
                return told
        raise failed

    def _told(self, namespace: str, holder: str) -> str:
        """Of another than us, and "" of nobody else."""
        if holder in ("", self.namespace):
            return ""
        return (
            f"another copilot-operator acts in namespace {namespace}: its Lease is held by {holder}. "
            f"Take the namespace from those that one of the two watches"
        )

    async def _set(self, namespace: str, live: Manifest | None) -> None:
        if live:
            await self.api.replace(LEASE, live | {"spec": self._spec()})
            return
        metadata = {"name": MARK, "namespace": namespace}
        fresh = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": self._spec()}
        await self.api.create(LEASE, namespace, fresh)

    def _spec(self) -> Manifest:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {"holderIdentity": self.namespace, "leaseDurationSeconds": MARK_S, "renewTime": moment}


def _now() -> float:
    return asyncio.get_running_loop().time()
