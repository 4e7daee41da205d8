"""A list of everything, at the start and every ten minutes: the barrier before work begins, and the cure for ghosts.

kopf never reports what vanished during a gap of its watch; a list does. What a list knows and the watch has not told
us within a minute means that the watch is dead, which liveness must say.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from copilot_operator.cluster.cache import Cache, Key
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Expired, Forbidden
from copilot_operator.cluster.observe import OPTIONAL, SELECTORS
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest

log = logging.getLogger(__name__)
PERIOD_S = 600.0


@dataclass
class Resync:
    """``changed`` is called for every object the cache did not know as listed, or that is gone.

    ``namespaces``: those that are served, all if empty; of the cluster itself nothing is asked then.
    ``forbidden``: optional kinds that could not be listed for want of the right to; nothing is known of them.
    """

    api: KubeApi
    cache: Cache
    changed: Callable[[Kind, Manifest], None]
    namespaces: tuple[str, ...] = ()
    missed: dict[Kind, int] = field(default_factory=dict)  # objects the watch had not told us of, at the last pass
    forbidden: set[Kind] = field(default_factory=set)

    async def run_once(self) -> None:
        """Raises an ApiError if one of the lists could not be completed; what was listed before that stays."""
        for kind, selector in SELECTORS.items():
            if kind.namespaced or not self.namespaces:
                await self._kind(kind, selector)
            else:
                self.forbidden.add(kind)

    async def _kind(self, kind: Kind, selector: str) -> None:
        while True:
            started_at = asyncio.get_running_loop().time()
            try:
                await self._list(kind, selector, started_at)
                self.forbidden.discard(kind)
                return
            except Forbidden as error:
                if kind not in OPTIONAL:
                    raise
                self._forget(kind, started_at, error)
                return
            except Expired:
                log.info("list took too long for the server's history, starts anew", extra={"kind": str(kind)})

    def _forget(self, kind: Kind, started_at: float, error: Forbidden) -> None:
        if kind not in self.forbidden:
            log.warning("may not be read, works on without it", extra={"kind": str(kind), "error": str(error)})
        self.forbidden.add(kind)
        self.missed[kind] = 0
        for ghost in self.cache.replace(kind, (), started_at):
            self.changed(kind, ghost)

    async def _list(self, kind: Kind, selector: str, started_at: float) -> None:
        seen: list[Key] = []
        missed = 0
        for namespace in self.namespaces or ("",):
            async for item in self.api.list_pages(kind, namespace=namespace, selector=selector):
                metadata = item["metadata"]
                seen.append((metadata.get("namespace", ""), metadata["name"]))
                item |= {"apiVersion": kind.api_version, "kind": kind.kind}
                if self.cache.put(kind, item, started_at):
                    missed += 1
                    self.changed(kind, item)
        for ghost in self.cache.replace(kind, seen, started_at):
            missed += 1
            self.changed(kind, ghost)
        self.missed[kind] = missed
