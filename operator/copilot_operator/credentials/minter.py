"""Keeps the installation tokens of all GitHub Apps fresh: one agenda, an appointment for each pool or tenant with one.

Nothing is remembered that a Secret does not tell: who takes over finds when the next token is due, and mints it then.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from copilot_operator.api.references import GitHubApp
from copilot_operator.credentials.github import GitHub, MintError, Token
from copilot_operator.domain.github_app import refresh_at, source_of
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.snapshot import Finding, InstallationToken
from copilot_operator.engine.agenda import Agenda

log = logging.getLogger(__name__)

Owner = tuple[Kind, str, str]  # pool or tenant, namespace, name
MOST_AT_ONCE: Final = 8
FIRST_RETRY_S: Final = 5.0
LAST_RETRY_S: Final = 300.0
NOT_LEADING_S: Final = 1.0


@dataclass(frozen=True)
class Wanted:
    """What is to be minted for an owner, and what it has. ``drain_s``: how long its servers may take to stop."""

    app: GitHubApp
    uid: str
    drain_s: float
    token: InstallationToken | None = None


class Vault(Protocol):
    """Where keys are found and tokens go."""

    async def private_key(self, owner: Owner, app: GitHubApp) -> str:
        """Raises MintError if it can't be used."""

    async def store(self, owner: Owner, uid: str, source: str, token: Token) -> None:
        """Raises MintError if there is something in the way."""


class Minter:
    """``failures`` holds why the last try for an owner failed; ``changed(owner)`` is called when that changes.

    ``may_write``: only who leads mints.
    """

    def __init__(
        self,
        github: GitHub,
        vault: Vault,
        failures: dict[Owner, Finding],
        changed: Callable[[Owner], None],
        may_write: Callable[[], bool],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._github, self._vault, self.failures = github, vault, failures
        self._changed, self._may_write, self._clock = changed, may_write, clock
        self._wanted: dict[Owner, Wanted] = {}
        self._tries: dict[Owner, int] = {}  # failed in a row
        self._agenda: Agenda[Owner] = Agenda(self._visit, MOST_AT_ONCE)

    async def run(self) -> None:
        """Until cancelled."""
        await self._agenda.run()

    def follow(self, owner: Owner, wanted: Wanted | None) -> None:
        """Mint for ``owner`` from now on, or no more."""
        before = self._wanted.get(owner)
        if wanted is None:
            if before:
                del self._wanted[owner]
                self._forget(owner)
                self._agenda.drop(owner)
            return
        self._wanted[owner] = wanted
        if before is None or (before.app, before.uid) != (wanted.app, wanted.uid):
            self._forget(owner)  # another App: what failed before says nothing of it
        elif owner in self.failures:
            return  # its next try is on the agenda
        self._agenda.put(owner, max(0.0, self._due_s(wanted)))

    def try_now(self, owner: Owner) -> None:
        """Its private key has changed: what failed before may not fail again."""
        if owner in self._wanted and owner in self.failures:
            self._tries.pop(owner, None)
            self._agenda.put(owner)

    def _forget(self, owner: Owner) -> None:
        self._tries.pop(owner, None)
        self.failures.pop(owner, None)

    def _due_s(self, wanted: Wanted) -> float:
        token = wanted.token
        if token is None or token.source != source_of(wanted.app):
            return 0.0
        return (refresh_at(token, wanted.drain_s) - self._clock()).total_seconds()

    async def _visit(self, owner: Owner) -> float | None:
        wanted = self._wanted.get(owner)
        if wanted is None:
            return None
        if (left_s := self._due_s(wanted)) > 0:
            return left_s
        if not self._may_write():
            return NOT_LEADING_S
        try:
            token = await self._github.mint(wanted.app, await self._vault.private_key(owner, wanted.app))
            if not self._may_write():
                return NOT_LEADING_S
            await self._vault.store(owner, wanted.uid, source_of(wanted.app), token)
        except MintError as error:
            return self._failed(owner, wanted, error)
        log.info("token minted", extra={"owner": str(owner), "expires": token.expires_at.isoformat()})
        return self._minted(owner, wanted, token)

    def _minted(self, owner: Owner, wanted: Wanted, token: Token) -> float | None:
        failed = owner in self.failures
        self._forget(owner)
        if failed:
            self._changed(owner)
        made = InstallationToken("", token.minted_at, token.expires_at, source_of(wanted.app))
        if (now_wanted := self._wanted.get(owner)) is None:
            return None
        self._wanted[owner] = Wanted(now_wanted.app, now_wanted.uid, now_wanted.drain_s, made)
        return max(1.0, self._due_s(self._wanted[owner]))

    def _failed(self, owner: Owner, wanted: Wanted, error: MintError) -> float | None:
        if self._wanted.get(owner) is None:
            return None
        tries = self._tries[owner] = self._tries.get(owner, 0) + 1
        finding = Finding(error.reason, error.message)
        log.warning("no token minted", extra={"owner": str(owner), "reason": error.reason, "error": error.message})
        if self.failures.get(owner) != finding:
            self.failures[owner] = finding
            self._changed(owner)
        return retry_in_s(tries, error.retry_after_s, random.random())


def retry_in_s(tries: int, asked_s: float, chance: float) -> float:
    """Seconds to the next try after ``tries`` failed in a row: twice as many each time, not the same for all
    (``chance``, 0 to 1), and not before GitHub asked us to."""
    backoff_s = min(FIRST_RETRY_S * 2.0 ** min(tries - 1, 10), LAST_RETRY_S)
    return max(asked_s, backoff_s / 2) + backoff_s / 2 * chance
