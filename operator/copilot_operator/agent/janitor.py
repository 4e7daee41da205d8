"""The janitor: when the stored sessions are looked through for expired ones, and what came of it.

A pass deletes no more than some hundreds, and the next one follows soon: what a pass costs the CLI does not depend on
how much there is to do.
"""

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

from copilot_operator.agent.deletion import Claiming, all_ours
from copilot_operator.agent.expiry import timestamp
from copilot_operator.agent.log import log
from copilot_operator.agent.observer import Observer
from copilot_operator.agent.policy import Policy
from copilot_operator.agent.sweep import Sweep
from copilot_operator.rpc.errors import ServerError

_SOON_S: Final = 5.0  # after the policy has changed
_AGAIN_S: Final = 300.0  # when there is more to do, or something failed


@dataclass(frozen=True, slots=True)
class Deletion:
    """What the last pass did that deleted anything; ``at`` its end, as the API server writes times."""

    at: str
    sessions: int
    freed_bytes: int


@dataclass(slots=True)
class Tally:
    """What was found and done since the agent started."""

    passes: int = 0
    deleted: int = 0
    freed_bytes: int = 0
    expired: int | None = None  # what the last dry run would have deleted; None: there was none
    pass_s: float | None = None  # the last pass took
    failure: str = ""  # why the last pass did not come to its end
    last: Deletion | None = None


class Janitor:
    """Of the sessions in ``directory``, those of the CLI that ``observer`` sees.

    ``loaded`` tells which need not be asked about, ``may_delete`` whether the CLI is not being drained, ``read_only``
    whether nothing could be deleted anyhow.
    """

    def __init__(
        self,
        observer: Observer,
        directory: Path,
        *,
        every_s: float,
        loaded: Callable[[], Awaitable[set[str]]],
        may_delete: Callable[[], bool],
        claiming: Claiming = all_ours,
        read_only: Callable[[], bool] = lambda: False,
    ) -> None:
        self.tally, self.policy = Tally(), Policy()
        self._observer, self._directory, self._every_s = observer, directory, every_s
        self._loaded, self._may_delete, self._claiming = loaded, may_delete, claiming
        self._read_only = read_only
        self._next_at = inf
        self._changed = asyncio.Event()

    def follow(self, policy: Policy) -> None:
        """Go by this policy from now on."""
        before, self.policy = self.policy, policy
        if (before.ttl_s, before.dry_run) == (policy.ttl_s, policy.dry_run):
            return
        log("sessions expire by another policy", ttlSeconds=policy.ttl_s, dryRun=policy.dry_run)
        self.tally.expired = None
        self._next_at = inf if policy.ttl_s is None else _now() + min(_SOON_S, self._every_s)
        self._changed.set()

    async def run(self) -> None:
        """A pass now and then, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_at if self._next_at < inf else None):
                    await self._changed.wait()
            if self._changed.is_set():
                self._changed.clear()
                continue
            again_s = await self._pass()
            if not self._changed.is_set():
                self._next_at = _now() + again_s

    async def _pass(self) -> float:
        """One pass; seconds to the next."""
        policy, began_at = self.policy, _now()
        again_s, failure = self._every_s, ""
        sweep: Sweep | None = None
        try:
            if self._read_only():  # the CLI would try with each, and go on
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            loaded = await self._loaded()
            observer = self._observer
            sweep = Sweep(
                observer.connection, self._directory, policy, lambda: self._holds(policy), observer.delete,
                self._claiming,
            )  # fmt: skip
            if self._may_delete():
                await sweep.run(loaded)
        except (ServerError, OSError) as error:
            failure = str(error) or type(error).__name__
        if failure or sweep is None or sweep.ended_early or not self._may_delete():
            again_s = min(_AGAIN_S, self._every_s)
        self._take(sweep, policy, failure, _now() - began_at)
        return again_s

    def _holds(self, policy: Policy) -> bool:
        now = self.policy
        return self._may_delete() and (now.ttl_s, now.dry_run) == (policy.ttl_s, policy.dry_run)

    def _take(self, sweep: Sweep | None, policy: Policy, failure: str, took_s: float) -> None:
        tally, deleted, freed_bytes = self.tally, sweep.deleted if sweep else 0, sweep.freed_bytes if sweep else 0
        tally.failure, tally.pass_s = failure, took_s
        tally.passes += 1
        tally.deleted, tally.freed_bytes = tally.deleted + deleted, tally.freed_bytes + freed_bytes
        if sweep and policy.dry_run and not failure and not sweep.ended_early:
            tally.expired = sweep.expired
        if deleted:
            tally.last = Deletion(timestamp(time.time()), deleted, freed_bytes)
        if deleted or failure or tally.expired:
            log(
                "janitor has passed", seconds=round(took_s, 2), deleted=deleted, freedBytes=freed_bytes,
                expired=tally.expired, failure=failure,
            )  # fmt: skip


def _now() -> float:
    return asyncio.get_running_loop().time()
