"""Leader election by a Lease: two replicas observe, the holder acts.

Expiry of another holder is judged by our own monotonic clock since the record last changed, as client-go does it; the
remote clock is never compared. A lease is no fence: a write under way may land after its loss, so what can't be
undone carries preconditions of its own.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent, ApiError, Conflict
from copilot_operator.domain.kinds import LEASE
from copilot_operator.domain.manifest import Manifest

log = logging.getLogger(__name__)

DURATION_S: Final = 10.0
RENEW_DEADLINE_S: Final = 7.0
RETRY_S: Final = 1.5
SILENCE_S: Final = 10.0  # so long without an answer means that the API server is away


class LeaseLost(Exception):
    """Somebody else holds the lease, or it could not be renewed in time: stop acting, at once."""


class Lease:
    """One candidate. ``identity`` must be unique among the replicas and their restarts.

    ``acting`` tells of another installation that acts, "" if none does: if one does, nobody here takes the lease.
    """

    def __init__(
        self, api: KubeApi, namespace: str, name: str, identity: str, acting: Callable[[], Awaitable[str]] | None = None
    ) -> None:
        self._api, self._namespace, self._name, self.identity = api, namespace, name, identity
        self._acting = acting or _nobody
        self.rival = ""  # another installation that acts, as it is told
        self._seen: tuple[object, ...] = ()
        self._seen_at = 0.0
        self._renewed_at = float("-inf")
        self._ours: Manifest | None = None  # as our last write left it: a renewal is one request, not two
        self.answered_at = float("-inf")  # when the API server last answered us, monotonic seconds
        self.answering_since = float("-inf")  # when it began to, after a silence
        self.holder = ""  # identity of who held the lease when we looked last

    def valid(self) -> bool:
        """Whether we may act now; asked before each write."""
        return _now() < self._renewed_at + RENEW_DEADLINE_S

    async def hold(self, acquired: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease, then run ``acquired`` while renewing; raises LeaseLost, or what ``acquired`` raises.

        On a clean end (cancellation) the lease is given back, so that the other replica takes over at once.
        """
        while not await self._take():  # noqa: ASYNC110 - the other holder is in another process
            await asyncio.sleep(RETRY_S * (0.8 + 0.4 * random.random()))
        log.info("leads", extra={"identity": self.identity})
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._renew(), name="lease")
                group.create_task(_run(acquired), name="leading")
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await self._release()

    async def _take(self) -> bool:
        """One try to begin. Two installations that took their leases at once see each other now, and step back."""
        if not await self._attempt():
            return False
        try:
            async with asyncio.timeout(RENEW_DEADLINE_S):
                alone = await self._alone()
        except (ApiError, TimeoutError) as error:
            log.warning("can't see whether another installation acts", extra={"error": str(error)})
            alone = False
        if not alone:
            await self._release()
        if alone and self.valid():
            return True
        self._renewed_at = float("-inf")  # nothing is held: the next try has all the time that there is
        return False

    async def _alone(self) -> bool:
        return not self.hears_of(await self._acting())

    def hears_of(self, rival: str) -> str:
        """Remember what is told of another installation, and log it once."""
        if rival and rival != self.rival:
            log.error(rival)
        self.rival = rival
        return rival

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            if not await self._attempt() and not self.valid():
                raise LeaseLost(f"lease {self._namespace}/{self._name} was not renewed within {RENEW_DEADLINE_S:g} s")

    async def _attempt(self) -> bool:
        """One try to take or renew; False when another holds it or the API server gave no answer in time."""
        started = _now()
        held = self._renewed_at > float("-inf")
        left_s = max(0.5, self._renewed_at + RENEW_DEADLINE_S - started) if held else RENEW_DEADLINE_S
        try:
            async with asyncio.timeout(left_s):
                won = await self._write()
        except (ApiError, TimeoutError) as error:
            log.warning("lease not renewed", extra={"error": str(error)})
            return False
        if _now() - self.answered_at > SILENCE_S:
            self.answering_since = _now()
        self.answered_at = _now()
        if won:
            self._renewed_at, self.holder = started, self.identity
        elif held:
            raise LeaseLost("another replica holds the lease")
        return won

    async def _write(self) -> bool:
        if (ours := self._ours) and await self._won(self._api.replace(LEASE, self._renewed(ours))):
            return True
        try:
            lease = await self._api.get(LEASE, self._namespace, self._name)
        except Absent:
            if not await self._alone():
                return False
            metadata = {"name": self._name, "namespace": self._namespace}
            fresh = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": self._spec({})}
            return await self._won(self._api.create(LEASE, self._namespace, fresh))
        spec = lease.get("spec") or {}
        self.holder = spec.get("holderIdentity") or ""
        if not self._may_take(spec):
            return False
        if spec.get("holderIdentity") != self.identity and not await self._alone():
            return False
        return await self._won(self._api.replace(LEASE, self._renewed(lease)))

    def _renewed(self, lease: Manifest) -> Manifest:
        return lease | {"spec": self._spec(lease.get("spec") or {})}

    def _may_take(self, spec: Manifest) -> bool:
        record = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._seen:
            self._seen, self._seen_at = record, _now()
        holder = spec.get("holderIdentity")
        if not holder or holder == self.identity:
            return True
        return _now() >= self._seen_at + float(spec.get("leaseDurationSeconds") or DURATION_S)

    def _spec(self, before: Manifest) -> Manifest:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same = before.get("holderIdentity") == self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(DURATION_S),
            "acquireTime": before.get("acquireTime", moment) if same else moment,
            "renewTime": moment,
            "leaseTransitions": (before.get("leaseTransitions") or 0) + (0 if same else 1),
        }

    async def _won(self, write: Awaitable[Manifest]) -> bool:
        self._ours = None  # unless the answer tells us: a write that is given up may land all the same
        try:
            self._ours = await write
        except Conflict:
            return False  # somebody was faster
        return True

    async def _release(self) -> None:
        if not self.valid():
            return
        self._renewed_at = float("-inf")
        try:
            async with asyncio.timeout(2.0):
                lease = await self._api.get(LEASE, self._namespace, self._name)
                if lease["spec"].get("holderIdentity") == self.identity:
                    spec = lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._api.replace(LEASE, lease | {"spec": spec})
        except (ApiError, TimeoutError) as error:
            log.warning("lease not given back, it expires by itself", extra={"error": str(error)})


async def _nobody() -> str:
    return ""


async def _run(action: Callable[[], Awaitable[None]]) -> None:
    await action()


def _now() -> float:
    return asyncio.get_running_loop().time()
