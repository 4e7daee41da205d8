"""Which of the namespaces that are to be watched may be read.

A namespace that was deleted, or whose Role is gone, must not keep the others from being served; and what may not be
read must never count as gone. So it is left out as a whole, and the operator begins anew when that changes.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, Never

from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import ApiError, Unavailable
from copilot_operator.cluster.observe import SELECTORS
from copilot_operator.cluster.rivals import MARK
from copilot_operator.domain.kinds import ACCESS_REVIEW, LEASE, Kind

log = logging.getLogger(__name__)

PERIOD_S: Final = 60.0
NEEDED: Final = (*(kind for kind in SELECTORS if kind.namespaced), LEASE)
NAMESPACED: Final = (
    "serves single namespaces, and reads nothing of the cluster itself: nothing is known of nodes that are being "
    "emptied, of what storage classes can do, and of an installation that serves all namespaces"
)
LEFT_OUT: Final = "a namespace is left out: it does not exist, or lacks the Role; what runs there runs on"


class ReachChanged(Exception):
    """The operator may read other namespaces than when it began."""


@dataclass
class Reach:
    """``wanted``: namespaces that are to be watched, all if empty; ``served``: those of them that may be read;
    ``why_not``: what the latest look found wrong if there are none."""

    api: KubeApi
    wanted: tuple[str, ...]
    served: tuple[str, ...] = ()
    why_not: str = ""
    _told: str = ""

    async def look(self) -> bool:
        """Whether there is a namespace to work in; what is left out is logged. Raises an ApiError."""
        if not self.wanted:
            return True  # who may not list all of them finds out by listing
        refused = await self._refused()
        self.served = tuple(each for each in self.wanted if each not in refused)
        if self._told != str(refused):
            self._told = str(refused)
            log.warning(NAMESPACED, extra={"namespaces": self.served})
            for namespace, plurals in refused.items():
                log.error(LEFT_OUT, extra={"namespace": namespace, "may_not_list": plurals})
        named = "; ".join(f"{namespace}: may not list {plurals}" for namespace, plurals in refused.items())
        self.why_not = "" if self.served else f"none of the namespaces to watch may be read: {named}"
        return not self.why_not

    async def follow(self) -> Never:
        """Look again and again; raises ReachChanged."""
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                refused = await self._refused()
            except ApiError as error:
                log.warning("can't see which namespaces may be read", extra={"error": str(error)})
                continue
            served = {each for each in self.wanted if each not in refused}
            if changed := sorted(served.symmetric_difference(self.served)):
                raise ReachChanged(f"other namespaces may be read than when it began: {', '.join(changed)}")

    async def _refused(self) -> dict[str, str]:
        """What may not be listed, by namespace; only those where something may not.

        The API server is asked about rights and not for objects, so that it has nothing to refuse.
        """
        asked = [(namespace, kind) for namespace in self.wanted for kind in NEEDED]
        answers = await asyncio.gather(*(self._may_list(kind, namespace) for namespace, kind in asked))
        found: dict[str, list[str]] = {}
        for (namespace, kind), may in zip(asked, answers, strict=True):
            if not may:
                found.setdefault(namespace, []).append(kind.plural)
        return {namespace: ", ".join(plurals) for namespace, plurals in found.items()}

    async def _may_list(self, kind: Kind, namespace: str) -> bool:
        wanted = {"namespace": namespace, "verb": "list", "group": kind.group, "resource": kind.plural}
        if kind == LEASE:
            wanted["name"] = MARK
        body = {
            "apiVersion": ACCESS_REVIEW.api_version,
            "kind": ACCESS_REVIEW.kind,
            "spec": {"resourceAttributes": wanted},
        }
        status = (await self.api.create(ACCESS_REVIEW, "", body))["status"]
        if not status["allowed"] and (why := status.get("evaluationError")):  # nobody knows: a webhook that is away
            raise Unavailable("create selfsubjectaccessreview", 0, "", why)
        return bool(status["allowed"])
