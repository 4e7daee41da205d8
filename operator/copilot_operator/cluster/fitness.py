"""What must be true of a cluster before the operator works in it; asked at its start until it is."""

import logging
from dataclasses import dataclass, field
from http import HTTPStatus

from copilot_operator.api.crd import RESOURCES, definition
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent, Forbidden
from copilot_operator.domain.fitness import as_published, difference, too_old
from copilot_operator.domain.kinds import CRD, GROUP, VERSION
from copilot_operator.domain.manifest import Manifest

log = logging.getLogger(__name__)


@dataclass
class Fitness:
    """``why_not``: what the latest look found wrong, "" if nothing. Every finding is logged once.

    ``sees_crds`` False: the operator may not read them, and takes what the API server publishes of them.
    """

    api: KubeApi
    sees_crds: bool = True
    why_not: str = ""
    _told: set[str] = field(default_factory=set)

    async def look(self) -> bool:
        """Whether the operator may begin. Raises an ApiError: Absent, if a CRD is missing."""
        found = [too_old(await self.api.version())]
        for resource in RESOURCES:
            ours = definition(resource)
            try:
                live = await self._live(ours)
            except Forbidden as error:  # who runs the operator may keep them from it
                self._tell(logging.INFO, f"can't see of which version the CRDs are: {error}")
                continue
            between = difference(live, ours)
            found.append(between.older)
            self._tell(logging.WARNING, between.newer)
        self.why_not = "; ".join(filter(None, found))
        self._tell(logging.ERROR, self.why_not)
        return not self.why_not

    async def _live(self, ours: Manifest) -> Manifest:
        name = ours["metadata"]["name"]
        if self.sees_crds:
            return await self.api.get(CRD, "", name)
        if live := as_published(await self.api.schemas(GROUP, VERSION), ours):
            return live
        raise Absent(f"schema of {name}", HTTPStatus.NOT_FOUND, "NotFound", "the API server publishes none")

    def _tell(self, level: int, message: str) -> None:
        if message and message not in self._told:
            self._told.add(message)
            log.log(level, message)
