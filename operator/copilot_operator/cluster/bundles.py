"""Certificates of authorities in users' ConfigMaps, asked for and remembered for a while.

Asked for by name, not watched: that takes no right to list ConfigMaps, of which clusters are full, and no label from
those who write them (trust-manager, OpenShift). So a change is seen within ``FRESH_S``.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from copilot_operator.api.outside import CABundleRef
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.look import look
from copilot_operator.domain.authorities import check_bundle
from copilot_operator.domain.kinds import CONFIG_MAP
from copilot_operator.domain.snapshot import Bundle

FRESH_S: Final = 60.0
MENDED_S: Final = 5.0  # how long one that can't be used is remembered: somebody is about to mend it
MOST_REMEMBERED: Final = 1000

Asked = tuple[str, str, CABundleRef]  # namespace, pool, what it names


@dataclass
class _Known:
    """``task`` asks since ``at`` (the loop's time), or has its answer; ``last`` is what the latest one found."""

    at: float
    task: asyncio.Task[Bundle]
    last: Bundle | None = None


@dataclass
class Bundles:
    """``changed`` hears of each pool (namespace, name) whose servers are to look again."""

    api: KubeApi
    changed: Callable[[str, str], None]
    _known: dict[Asked, _Known] = field(default_factory=dict)

    async def find(self, namespace: str, pool: str, ref: CABundleRef | None) -> Bundle | None:
        """What ``ref`` of a pool leads to; None without one. Many askers share one question. Raises ApiError."""
        if ref is None:
            return None
        asked, now = (namespace, pool, ref), asyncio.get_running_loop().time()
        known = self._known.get(asked)
        if known is None or _is_stale(known, now):
            if known is None and len(self._known) >= MOST_REMEMBERED:
                self._known.clear()  # of pools that are gone, mostly
            last = known.last if known else None
            known = _Known(now, asyncio.create_task(self._ask(asked, last), name=f"ca-bundle-{ref.name}"), last)
            self._known[asked] = known
        known.last = await asyncio.shield(known.task)
        return known.last

    async def _ask(self, asked: Asked, last: Bundle | None) -> Bundle:
        namespace, pool, ref = asked
        found = check_bundle(ref.name, ref.key, await look(self.api, CONFIG_MAP, namespace, ref.name))
        if last and found != last:
            self.changed(namespace, pool)
        return found


def look_again_s(bundle: Bundle | None) -> float | None:
    """When a pool is to look at its bundle again."""
    if bundle is None:
        return None
    return MENDED_S if bundle.finding else FRESH_S


def _is_stale(known: _Known, now: float) -> bool:
    if not known.task.done():
        return False
    if known.task.cancelled() or known.task.exception():
        return True
    return now - known.at >= (look_again_s(known.task.result()) or 0.0)
