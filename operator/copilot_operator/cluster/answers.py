"""What the API server answers to our writes goes into the cache, and whoever must know of others' changes hears of it.

An answer may hold somebody else's change whose watch event is still to come. That event would find the cache newer
than itself, or merged with the echo of our write (kopf delivers the latest of those that arrive together): no news.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from copilot_operator.cluster.cache import Cache
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest


@dataclass(frozen=True)
class Answers:
    """``changed`` is called as for a watch event that is news."""

    cache: Cache
    changed: Callable[[Kind, Manifest], None]

    def keep(self, kind: Kind, live: Manifest, *, of_status: bool = False) -> None:
        """Record the answer to a write; ``of_status``: to the status subresource, else to the object itself."""
        namespace, name = live["metadata"].get("namespace", ""), live["metadata"]["name"]
        before = self.cache.get(kind, namespace, name)
        self.cache.put(kind, live | {"apiVersion": kind.api_version, "kind": kind.kind}, _now())
        after = self.cache.get(kind, namespace, name)
        if before and after and _of_others(before, of_status) != _of_others(after, of_status):
            self.changed(kind, after)

    def learn(self, kind: Kind, live: Manifest) -> None:
        """Record what was asked for."""
        if self.cache.put(kind, live, _now()):
            self.changed(kind, live)


def _of_others(manifest: Manifest, of_status: bool) -> object:
    """The part that our write did not touch."""
    if not of_status:
        return manifest.get("status"), manifest["metadata"].get("deletionTimestamp")
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "resourceVersion"}
    return {key: value for key, value in manifest.items() if key != "status"} | {"metadata": metadata}


def _now() -> float:
    return asyncio.get_running_loop().time()
