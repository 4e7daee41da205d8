"""What a storage class can do, asked when a claim is to be made and remembered for a while: classes seldom change."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent
from copilot_operator.domain.kinds import CSI_DRIVER, STORAGE_CLASS
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.snapshot import Finding, Storage

FRESH_S: Final = 60.0
UNKNOWN: Final = Storage("ReadWriteOnce", grows=False, known=False)
DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"


@dataclass
class StorageClasses:
    """``readable`` False: nobody may be asked. Claims are made as any class takes them, and do not grow."""

    api: KubeApi
    readable: bool = True
    _known: dict[str | None, tuple[float, asyncio.Task[Storage]]] = field(default_factory=dict)

    async def look_up(self, name: str | None) -> Storage:
        """``name`` None is the cluster's default class. Many askers share one question."""
        if not self.readable:
            return UNKNOWN
        now = asyncio.get_running_loop().time()
        asked = self._known.get(name)
        if asked is None or now - asked[0] > FRESH_S or (asked[1].done() and _failed(asked[1])):
            asked = self._known[name] = (now, asyncio.create_task(self._ask(name), name=f"storage-class-{name}"))
        return await asyncio.shield(asked[1])

    async def of(self, claim: Manifest) -> Storage:
        """Whether a live claim may become larger. The API server refuses it where the class does not say so."""
        if not (name := claim["spec"].get("storageClassName")):
            return Storage(grows=False)
        found = await self.look_up(name)
        return Storage(grows=found.finding is None and found.grows, known=found.known)

    async def _ask(self, name: str | None) -> Storage:
        try:
            found = await self.api.get(STORAGE_CLASS, "", name) if name else await self._default()
        except Absent:
            found = None
        if found is None:
            return Storage(finding=_missing(name))
        grows = found.get("allowVolumeExpansion") is True
        if "/" in found["provisioner"]:
            return Storage("ReadWriteOnce", grows)  # rancher.io/local-path: no name that a CSIDriver could have
        try:
            await self.api.get(CSI_DRIVER, "", found["provisioner"])
        except Absent:
            return Storage("ReadWriteOnce", grows)  # ReadWriteOncePod is a promise that only CSI drivers make
        return Storage("ReadWriteOncePod", grows)

    async def _default(self) -> Manifest | None:
        found = [c async for c in self.api.list_pages(STORAGE_CLASS) if annotations_of(c).get(DEFAULT_CLASS) == "true"]
        return max(found, key=lambda each: each["metadata"]["creationTimestamp"], default=None)


def _failed(task: asyncio.Task[Storage]) -> bool:
    return task.cancelled() or task.exception() is not None or task.result().finding is not None


def _missing(name: str | None) -> Finding:
    if name:
        message = f"storage.storageClassName: no StorageClass {name!r}; create it, or make a pool with another"
        return Finding("StorageClassNotFound", message)
    message = "No StorageClass is the default; mark one, or name one in the pool's storage.storageClassName"
    return Finding("NoDefaultStorageClass", message)
