"""The minter in virtual time: tokens in time, no storms, nothing remembered that a successor needs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from copilot_operator.api.references import GitHubApp, UserToken
from copilot_operator.credentials.github import GitHub, Grant, MintError, Token
from copilot_operator.credentials.minter import Minter, Owner, Wanted, retry_in_s
from copilot_operator.domain.github_app import source_of
from copilot_operator.domain.kinds import POOL
from copilot_operator.domain.snapshot import Finding, MintedToken
from tests.support.eventually import eventually
from tests.support.github import GitHubStandIn

SAAS: Owner = (POOL, "apps", "saas")
EPOCH = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
APP = GitHubStandIn(url="https://api.example.com").app()
PERSON = UserToken.model_validate({"secretRef": {"name": "grant"}})
HOUR = timedelta(hours=1)
EIGHT_HOURS = timedelta(hours=8)


def clock() -> datetime:
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


class Mint(GitHub):
    """GitHub in virtual time."""

    def __init__(self) -> None:
        self.made: list[datetime] = []
        self.tried: list[float] = []
        self.used: list[str] = []
        self.trouble: MintError | None = None

    async def mint(self, app: GitHubApp, private_key: str) -> Token:
        self.tried.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.5)
        if self.trouble:
            raise self.trouble
        self.made.append(clock())
        return Token(f"ghs_{len(self.made)}", clock(), clock() + HOUR)

    async def refresh(self, user: UserToken, grant: Grant) -> Token:
        self.tried.append(asyncio.get_running_loop().time())
        self.used.append(grant.refresh_token)
        await asyncio.sleep(0.5)
        if self.trouble:
            raise self.trouble
        self.made.append(clock())
        return Token(f"ghu_{len(self.made)}", clock(), clock() + EIGHT_HOURS, f"ghr_{len(self.made)}", grant)


@dataclass
class World:
    """Also the vault."""

    mint: Mint = field(default_factory=Mint)
    stored: list[MintedToken] = field(default_factory=list)
    failures: dict[Owner, Finding] = field(default_factory=dict)
    told: list[Owner] = field(default_factory=list)
    leads: bool = True
    refresh_token: str = "ghr_first"
    storing: int = 0
    trouble: Exception | None = None  # of the vault
    works: list[bool] = field(default_factory=list)  # what is said of turns; at the end none is under way

    async def in_a_turn(self, owner: Owner) -> bool:
        return self.works.pop(0) if self.works else False

    async def private_key(self, owner: Owner, app: GitHubApp) -> str:
        return "key"

    async def grant(self, owner: Owner, uid: str, user: UserToken) -> Grant:
        return Grant("client", "secret", self.refresh_token, "https://github.com", "origin")

    async def store(self, owner: Owner, uid: str, source: str, token: Token) -> None:
        self.storing += 1
        if self.trouble:
            raise self.trouble
        if token.grant:
            await asyncio.sleep(0.5)
            self.refresh_token = token.refresh_token
        self.stored.append(MintedToken(token.value, token.minted_at, token.expires_at, source))

    @asynccontextmanager
    async def minter(self) -> AsyncIterator[Minter]:
        minter = Minter(
            self.mint, self, self.failures, self.told.append, lambda: self.leads, clock, works=self.in_a_turn
        )
        task = asyncio.create_task(minter.run())
        try:
            yield minter
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.5)


def wanted(token: MintedToken | None = None, **more: Any) -> Wanted:
    return replace(Wanted(APP, "uid-saas", 540.0, token), **more)


@pytest.mark.looptime
async def test_a_token_is_minted_at_once_and_the_next_a_third_of_its_life_before_its_end() -> None:
    world = World()
    async with world.minter() as minter:
        minter.follow(SAAS, wanted())
        await asyncio.sleep(3 * 3600)
    gaps = [(b - a).total_seconds() for a, b in pairwise(world.mint.made)]
    assert len(gaps) >= 3
    assert all(2400 <= gap <= 2402 for gap in gaps), gaps
    assert world.failures == {}


@pytest.mark.looptime
async def test_who_takes_over_mints_when_the_stored_one_says_and_not_before() -> None:
    world = World()
    async with world.minter() as minter:
        token = MintedToken("s", clock() - timedelta(minutes=30), clock() + timedelta(minutes=30), source_of(APP))
        minter.follow(SAAS, wanted(token))
        await asyncio.sleep(599)
        assert world.mint.made == []
        await asyncio.sleep(2)
        assert len(world.mint.made) == 1


@pytest.mark.looptime
async def test_the_token_of_another_app_is_replaced_at_once() -> None:
    world = World()
    async with world.minter() as minter:
        minter.follow(SAAS, wanted(MintedToken("s", clock(), clock() + HOUR, "of another")))
        await asyncio.sleep(1)
        assert len(world.stored) == 1
        assert world.stored[0].source == source_of(APP)


@pytest.mark.looptime
async def test_only_who_leads_mints() -> None:
    world = World(leads=False)
    async with world.minter() as minter:
        minter.follow(SAAS, wanted())
        await asyncio.sleep(60)
        assert (world.mint.tried, world.stored) == ([], [])
        world.leads = True
        await asyncio.sleep(2)
        assert len(world.stored) == 1


@pytest.mark.looptime
async def test_a_lease_lost_while_github_answers_stores_nothing() -> None:
    world = World()
    async with world.minter() as minter:
        minter.follow(SAAS, wanted())
        await eventually(lambda: world.mint.tried, within_s=1, what="asked")
        world.leads = False
        await asyncio.sleep(10)
        assert world.stored == []


@pytest.mark.looptime
async def test_failures_are_told_once_and_tried_again_ever_more_seldom() -> None:
    world = World()
    world.mint.trouble = MintError("AppNotInstalled", "install it")
    async with world.minter() as minter:
        minter.follow(SAAS, wanted())
        await asyncio.sleep(3600)
        assert world.failures == {SAAS: Finding("AppNotInstalled", "install it")}
        assert world.told == [SAAS]
        gaps = [b - a for a, b in pairwise(world.mint.tried)]
        assert gaps[0] < 6
        assert gaps == sorted(gaps)
        assert 200 <= gaps[-1] <= 301
        world.mint.trouble = None
        minter.follow(SAAS, wanted())  # any cycle of the pool: it brings nothing forward
        asked = len(world.mint.tried)
        await asyncio.sleep(5)
        assert len(world.mint.tried) == asked
        await asyncio.sleep(300)
        assert (world.failures, world.told) == ({}, [SAAS, SAAS])


@pytest.mark.looptime
async def test_github_is_not_asked_before_it_said() -> None:
    world = World()
    world.mint.trouble = MintError("RateLimited", "later", retry_after_s=1800)
    async with world.minter() as minter:
        minter.follow(SAAS, wanted())
        await asyncio.sleep(1799)
        assert len(world.mint.tried) == 1


@pytest.mark.looptime
async def test_a_changed_key_or_app_is_tried_at_once() -> None:
    world = World()
    world.mint.trouble = MintError("PrivateKeyInvalid", "no key")
    async with world.minter() as minter:
        minter.follow(SAAS, wanted())
        await asyncio.sleep(1000)
        asked = len(world.mint.tried)
        minter.try_now(SAAS)
        await asyncio.sleep(0.6)
        assert len(world.mint.tried) == asked + 1
        minter.follow(SAAS, wanted(app=APP.model_copy(update={"installation_id": 9})))
        assert world.failures == {}
        await asyncio.sleep(0.6)
        assert len(world.mint.tried) == asked + 2


@pytest.mark.looptime
async def test_who_has_no_app_any_more_gets_no_token() -> None:
    world = World()
    async with world.minter() as minter:
        minter.follow(SAAS, wanted())
        await asyncio.sleep(1)
        minter.follow(SAAS, None)
        await asyncio.sleep(7200)
        assert len(world.mint.tried) == 1


def granted(**more: Any) -> Wanted:
    return replace(Wanted(PERSON, "uid-saas", 0.0, None, "digest"), **more)


def held(minutes: float) -> MintedToken:
    """The token of a person, which ends in so many minutes."""
    ends = clock() + timedelta(minutes=minutes)
    return MintedToken("s", ends - EIGHT_HOURS, ends, source_of(PERSON, "digest"))


@pytest.mark.looptime
async def test_a_refresh_token_is_used_once_and_the_next_one_well_before_the_token_ends() -> None:
    world = World()
    async with world.minter() as minter:
        minter.follow(SAAS, granted())
        await asyncio.sleep(48 * 3600)
    assert world.mint.used[:3] == ["ghr_first", "ghr_1", "ghr_2"]
    assert len(set(world.mint.used)) == len(world.mint.used) == len(world.stored) == 9
    assert {b - a for a, b in pairwise(world.mint.made)} == {timedelta(seconds=19_200.5)}, "two thirds of eight hours"


@pytest.mark.looptime
async def test_a_pair_that_cant_be_stored_is_kept_until_it_can_and_github_not_asked_again() -> None:
    world = World(trouble=MintError("NotStored", "the API server is away"))
    async with world.minter() as minter:
        minter.follow(SAAS, granted())
        await asyncio.sleep(3600)
        assert world.failures[SAAS].reason == "NotStored"
        world.trouble = None
        await asyncio.sleep(600)
    assert world.mint.used == ["ghr_first"]
    assert world.storing > 5
    assert [token.serial for token in world.stored] == ["ghu_1"]
    assert world.failures == {}


@pytest.mark.looptime
async def test_a_pair_is_not_forgotten_whatever_goes_wrong_while_it_is_stored() -> None:
    world = World(trouble=ValueError("an answer that is no JSON"))
    async with world.minter() as minter:
        minter.follow(SAAS, granted())
        await asyncio.sleep(10)
        world.trouble = None
        await asyncio.sleep(600)
    assert (world.mint.used, [token.serial for token in world.stored]) == (["ghr_first"], ["ghu_1"])


@pytest.mark.looptime
async def test_a_failure_is_over_when_the_token_turns_out_to_be_stored() -> None:
    world = World(trouble=MintError("NotStored", "its answer was lost"))
    async with world.minter() as minter:
        minter.follow(SAAS, granted())
        await asyncio.sleep(10)
        assert world.failures[SAAS].reason == "NotStored"
        minter.follow(SAAS, granted(token=held(480)))
        await asyncio.sleep(600)
    assert world.failures == {}


@pytest.mark.looptime
@pytest.mark.parametrize("ends", [False, True])
async def test_who_ends_or_leads_no_more_stores_what_github_has_answered(ends: bool) -> None:
    world = World()
    async with world.minter() as minter:
        minter.follow(SAAS, granted())
        await eventually(lambda: world.mint.tried, within_s=1, what="asked")
        world.leads = ends
        await asyncio.sleep(0.0 if ends else 10)
    assert [token.serial for token in world.stored] == ["ghu_1"], "what it was had for is dead"


@pytest.mark.looptime
async def test_of_one_refresh_token_there_are_never_two_uses_at_once() -> None:
    world = World()
    async with world.minter() as minter:
        for _ in range(5):  # the tenant's auth comes and goes while GitHub answers
            minter.follow(SAAS, granted())
            await asyncio.sleep(0.1)
            minter.follow(SAAS, None)
        minter.follow(SAAS, granted())
        await asyncio.sleep(60)
    assert world.mint.used == ["ghr_first"]


@pytest.mark.looptime
async def test_turns_are_waited_for_as_long_as_the_token_holds() -> None:
    world = World(works=[True] * 7)
    async with world.minter() as minter:
        minter.follow(SAAS, granted(token=held(minutes=160)))
        await asyncio.sleep(69)
        assert world.mint.tried == []
        await asyncio.sleep(2)
        assert len(world.mint.tried) == 1
        world.works = [True] * 100_000
        await asyncio.sleep(7.5 * 3600)
        assert len(world.mint.tried) == 1
        await asyncio.sleep(600)
        assert len(world.mint.tried) == 2, "its end would end them, too"


@pytest.mark.looptime
async def test_another_grant_waits_for_nobody() -> None:
    world = World(works=[True] * 100)
    async with world.minter() as minter:
        minter.follow(SAAS, granted(token=held(minutes=400)))
        await asyncio.sleep(60)
        assert world.mint.tried == []
        minter.follow(SAAS, granted(token=held(minutes=400), made_from="another"))
        await asyncio.sleep(1)
        assert len(world.mint.tried) == 1


@pytest.mark.looptime
async def test_a_refresh_token_that_is_used_up_is_told_and_another_one_tried_at_once() -> None:
    world = World()
    world.mint.trouble = MintError("RefreshTokenRejected", "put a new one")
    async with world.minter() as minter:
        minter.follow(SAAS, granted(token=held(minutes=1)))
        await asyncio.sleep(1000)
        assert world.failures[SAAS].reason == "RefreshTokenRejected"
        asked, world.mint.trouble = len(world.mint.tried), None
        minter.follow(SAAS, granted(made_from="another"))
        await asyncio.sleep(1.5)
        assert len(world.mint.tried) == asked + 1
        assert (world.failures, world.stored[-1].source) == ({}, source_of(PERSON, "another"))


def test_retries_are_spread_and_never_before_what_was_asked() -> None:
    assert [retry_in_s(n, 0, 0.0) for n in (1, 2, 3)] == [2.5, 5.0, 10.0]
    assert [retry_in_s(n, 0, 1.0) for n in (1, 2, 3)] == [5.0, 10.0, 20.0]
    assert retry_in_s(10_000, 0, 1.0) == 300.0
    assert retry_in_s(1, 100, 0.0) == 100.0
    assert retry_in_s(1, 100, 1.0) == 102.5
