"""Keeps the tokens of all GitHub Apps fresh: one agenda, an appointment for each pool or tenant with one.

Nothing is remembered that a Secret does not tell: who takes over finds when the next token is due, and mints it then.
But for a person's token that can't be stored yet: what it was had for is dead.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from copilot_operator.api.references import GitHubApp, UserToken
from copilot_operator.credentials.github import GitHub, Grant, MintError, Token
from copilot_operator.domain.github_app import belongs, last_call, refresh_at, source_of
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.snapshot import Finding, MintedToken
from copilot_operator.engine.agenda import Agenda

log = logging.getLogger(__name__)

Owner = tuple[Kind, str, str]  # pool or tenant, namespace, name
MOST_AT_ONCE: Final = 8
FIRST_RETRY_S: Final = 5.0
LAST_RETRY_S: Final = 300.0
NOT_LEADING_S: Final = 1.0
TURNS_S: Final = 10.0  # until it is looked again whether turns have ended
ENDS_S: Final = 25.0  # what GitHub was asked for may take so long to be stored when we end; kubelet leaves us 30 s
NOT_STORED: Final = "NotStored"


@dataclass(frozen=True)
class Wanted:
    """What is to be minted for an owner, and what it has. ``drain_s``: how long its servers may take to stop.
    ``made_from``: as ``source_of`` takes it."""

    app: GitHubApp | UserToken
    uid: str
    drain_s: float
    token: MintedToken | None = None
    made_from: str | None = None


class Vault(Protocol):
    """Where keys are found and tokens go."""

    async def private_key(self, owner: Owner, app: GitHubApp) -> str:
        """Raises MintError if it can't be used."""

    async def grant(self, owner: Owner, uid: str, user: UserToken) -> Grant:
        """Raises MintError if there is none that can be used, or what follows from it could not be stored."""

    async def store(self, owner: Owner, uid: str, source: str, token: Token) -> None:
        """Raises MintError if there is something in the way; NotStored: it may be tried again."""


class Minter:
    """``failures`` holds why the last try for an owner failed; ``changed(owner)`` is called when that changes.

    ``may_write``: only who leads mints. ``works``: whether sessions that an owner pays for are in a turn.
    """

    def __init__(
        self,
        github: GitHub,
        vault: Vault,
        failures: dict[Owner, Finding],
        changed: Callable[[Owner], None],
        may_write: Callable[[], bool],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        works: Callable[[Owner], Awaitable[bool]] | None = None,
    ) -> None:
        self._github, self._vault, self.failures = github, vault, failures
        self._changed, self._may_write, self._clock, self._works = changed, may_write, clock, works
        self._renewals: dict[Owner, asyncio.Task[Token]] = {}  # under way: of one refresh token never two
        self._unstored: dict[Owner, tuple[str, str, Token]] = {}  # what ``store`` takes
        self._wanted: dict[Owner, Wanted] = {}
        self._tries: dict[Owner, int] = {}  # failed in a row
        self._agenda: Agenda[Owner] = Agenda(self._visit, MOST_AT_ONCE)

    async def run(self) -> None:
        """Until cancelled, and what GitHub was asked for is stored."""
        try:
            await self._agenda.run()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(ENDS_S):
                    await self._end()

    async def _end(self) -> None:
        if self._renewals:
            await asyncio.wait(self._renewals.values())
        for owner, made in self._unstored.items():
            with suppress(MintError):
                await self._vault.store(owner, *made)

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
        if before is None or _of_what(before) != _of_what(wanted):
            self._forget(owner)  # another App, or grant: what failed before says nothing of it
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
        if token is None or not belongs(token, wanted.app, wanted.made_from):
            return 0.0
        return (refresh_at(token, wanted.drain_s) - self._clock()).total_seconds()

    async def _visit(self, owner: Owner) -> float | None:
        wanted = self._wanted.get(owner)
        if wanted is None:
            return None
        if (left_s := self._due_s(wanted)) > 0:
            if owner in self.failures:  # it was stored all the same, or by another replica
                self._forget(owner)
                self._unstored.pop(owner, None)
                self._changed(owner)
            return left_s
        if isinstance(wanted.app, UserToken) and await self._waits_for_turns(owner, wanted):
            return TURNS_S
        if not self._may_write():
            return NOT_LEADING_S
        try:
            if isinstance(wanted.app, UserToken):
                token = await self._renewed(owner, wanted, wanted.app)
            else:
                token = await self._github.mint(wanted.app, await self._vault.private_key(owner, wanted.app))
                if not self._may_write():
                    return NOT_LEADING_S
                await self._vault.store(owner, wanted.uid, source_of(wanted.app), token)
        except MintError as error:
            return self._failed(owner, wanted, error)
        log.info("token minted", extra={"owner": str(owner), "expires": token.expires_at.isoformat()})
        return self._minted(owner, wanted, token)

    async def _waits_for_turns(self, owner: Owner, wanted: Wanted) -> bool:
        """A turn goes on with the token that it began with, which is dead once there is another one."""
        token = wanted.token
        if self._works is None or token is None or not belongs(token, wanted.app, wanted.made_from):
            return False
        return self._clock() < last_call(token) and owner not in self._unstored and await self._works(owner)

    async def _renewed(self, owner: Owner, wanted: Wanted, user: UserToken) -> Token:
        """Not to be cancelled: what GitHub answers it answers once. Raises MintError."""
        work = self._renewals.get(owner)
        if work is None:
            work = self._renewals[owner] = asyncio.create_task(self._renew(owner, wanted, user))
            work.add_done_callback(lambda done: self._has_ended(owner, done))
        return await asyncio.shield(work)

    def _has_ended(self, owner: Owner, work: asyncio.Task[Token]) -> None:
        del self._renewals[owner]
        if not work.cancelled():
            work.exception()  # whoever waited for it may have been cancelled

    async def _renew(self, owner: Owner, wanted: Wanted, user: UserToken) -> Token:
        """Stored even if we lead no more: the vault knows whether somebody else was faster. Raises MintError."""
        made = self._unstored.get(owner)
        if made is None:
            grant = await self._vault.grant(owner, wanted.uid, user)
            if not self._may_write():
                raise MintError("TokenPending", "Another replica of the operator leads")
            token = await self._github.refresh(user, grant)
            made = self._unstored[owner] = (wanted.uid, source_of(user, wanted.made_from), token)
        try:
            await self._vault.store(owner, *made)
        except MintError as error:
            if error.reason != NOT_STORED:
                del self._unstored[owner]
            raise
        del self._unstored[owner]
        return made[2]

    def _minted(self, owner: Owner, wanted: Wanted, token: Token) -> float | None:
        failed = owner in self.failures
        self._forget(owner)
        if failed:
            self._changed(owner)
        made = MintedToken("", token.minted_at, token.expires_at, source_of(wanted.app, wanted.made_from))
        if (now_wanted := self._wanted.get(owner)) is None:
            return None
        self._wanted[owner] = replace(now_wanted, token=made)
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


def _of_what(wanted: Wanted) -> tuple[object, ...]:
    return wanted.app, wanted.uid, wanted.made_from


def retry_in_s(tries: int, asked_s: float, chance: float) -> float:
    """Seconds to the next try after ``tries`` failed in a row: twice as many each time, not the same for all
    (``chance``, 0 to 1), and not before GitHub asked us to."""
    backoff_s = min(FIRST_RETRY_S * 2.0 ** min(tries - 1, 10), LAST_RETRY_S)
    return max(asked_s, backoff_s / 2) + backoff_s / 2 * chance
