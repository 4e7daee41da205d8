"""From a refresh token to a person's next token, over real HTTP: each is good for one use."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from copilot_operator.api.references import UserToken
from copilot_operator.credentials import github as module
from copilot_operator.credentials.github import NEVER, GitHub, MintError
from tests.support.github import CLIENT, GitHubStandIn
from tests.unit.credentials.test_github import IN_A_MINUTE, TEN_MINUTES, both

USER = UserToken.model_validate({"secretRef": {"name": "ann-grant"}})
EIGHT_HOURS = timedelta(hours=8)


async def refused(client: GitHub, stand_in: GitHubStandIn, **grant: Any) -> MintError:
    """What is told; never anything of the grant, nor of the answer."""
    given = replace(stand_in.grant(), **grant)
    with pytest.raises(MintError) as caught:
        await client.refresh(USER, given)
    for secret in (given.refresh_token, given.client_secret, given.url, "internal"):
        assert secret not in f"{caught.value!r}{caught.value.message}"
    return caught.value


async def test_each_refresh_token_is_used_once_and_the_next_one_comes_with_the_token() -> None:
    async with both() as (client, stand_in):
        stand_in.life = EIGHT_HOURS
        first = await client.refresh(USER, stand_in.grant())
        second = await client.refresh(USER, stand_in.grant(first.refresh_token))
        assert stand_in.grants.uses == ["ghr_first", first.refresh_token]
        assert stand_in.grants.dead == {first.value}, "the one before ends at once"
        assert abs(second.expires_at - datetime.now(UTC) - EIGHT_HOURS) < timedelta(minutes=1)
        assert second.value not in repr(second)
        assert second.refresh_token not in repr(second)
        assert CLIENT[1] not in repr(second)


async def test_one_that_was_used_is_told_with_the_way_out() -> None:
    async with both() as (client, stand_in):
        await client.refresh(USER, stand_in.grant())
        error = await refused(client, stand_in)
        assert error.reason == "RefreshTokenRejected"
        assert error.message.endswith("put the new refresh token into refreshToken of Secret ann-grant")


async def test_the_device_flow_needs_no_client_secret() -> None:
    async with both() as (client, stand_in):
        assert (await client.refresh(USER, stand_in.grant(client=(CLIENT[0], "")))).value


@pytest.mark.parametrize("wrong", [{"client_id": "another"}, {"client_secret": "another"}])
async def test_an_app_that_github_does_not_know_so_is_told(wrong: dict[str, str]) -> None:
    async with both() as (client, stand_in):
        error = await refused(client, stand_in, **wrong)
        assert error.reason == "AppRejected"
        assert "correct clientId and clientSecret of Secret ann-grant" in error.message
        assert stand_in.grants.uses == []


@pytest.mark.parametrize("ahead", [TEN_MINUTES, -TEN_MINUTES, timedelta(hours=9)])
async def test_clocks_may_differ(ahead: timedelta) -> None:
    """GitHub tells for how long a token holds, not until when."""
    async with both() as (client, stand_in):
        stand_in.ahead, stand_in.life = ahead, EIGHT_HOURS
        token = await client.refresh(USER, stand_in.grant())
        assert abs(token.expires_at - datetime.now(UTC) - EIGHT_HOURS) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("status", "headers", "reason", "wait_s"),
    [
        (403, {"Retry-After": "17"}, "RateLimited", (17, 17)),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": IN_A_MINUTE}, "RateLimited", (1, 60)),
        (429, {}, "RateLimited", (0, 0)),
        (401, {}, "AppRejected", (0, 0)),
        (403, {}, "AppRejected", (0, 0)),
        (500, {}, "GitHubUnavailable", (0, 0)),
        (503, {"Retry-After": "9"}, "GitHubUnavailable", (9, 9)),
        (201, {}, "GitHubUnavailable", (0, 0)),
    ],
)
async def test_refusals_have_a_reason_and_a_time(
    status: int, headers: dict[str, str], reason: str, wait_s: tuple[float, float]
) -> None:
    async with both() as (client, stand_in):
        stand_in.always_says(status, headers, message="what an internal service would say")
        error = await refused(client, stand_in)
        assert error.reason == reason
        assert wait_s[0] <= error.retry_after_s <= wait_s[1]


async def test_a_redirect_leads_nowhere() -> None:
    """Else it would carry the refresh token and the App's secret there."""
    async with both() as (client, stand_in):
        stand_in.redirects_once()
        assert (await refused(client, stand_in)).reason == "GitHubUnavailable"
        assert stand_in.asked == 1


GOOD = {"access_token": "ghu_1", "refresh_token": "ghr_1", "expires_in": 28_800}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"error": "internal error of something else"},
        {"error": {"internal": 1}},
        GOOD | {"access_token": ""},
        GOOD | {"access_token": "two\nlines"},
        GOOD | {"refresh_token": "two\nlines"},
        GOOD | {"expires_in": 0},
        GOOD | {"expires_in": "soon"},
        GOOD | {"expires_in": None},
        GOOD | {"expires_in": 10**30},
        GOOD | {"access_token": "x" * 300_000},
    ],
    ids=lambda body: str(body)[:60],
)
async def test_an_answer_without_a_usable_token_is_none(body: dict[str, Any]) -> None:
    async with both() as (client, stand_in):
        stand_in.always_says(200, None, **body)
        assert (await refused(client, stand_in)).reason == "GitHubUnavailable"


@pytest.mark.parametrize("text", [b"[]", b"access_token=ghu_1&expires_in=28800", b"\xff", b"null"])
async def test_an_answer_that_is_no_object_is_none(text: bytes) -> None:
    async with both() as (client, stand_in):

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=text)

        stand_in.answer = answer
        assert (await refused(client, stand_in)).reason == "GitHubUnavailable"


@pytest.mark.parametrize(("expires_in", "life"), [("28800", EIGHT_HOURS), (None, NEVER)])
async def test_the_end_may_be_text_as_it_once_was_and_need_not_be(expires_in: str | None, life: timedelta) -> None:
    """Where the App's tokens do not expire there is neither an end nor a refresh token."""
    async with both() as (client, stand_in):

        async def answer(_: web.Request) -> web.StreamResponse:
            ends = {"expires_in": expires_in, "refresh_token": "ghr_1"} if expires_in else {}
            return stand_in.says(200, None, access_token="ghu_1", token_type="bearer", **ends)

        stand_in.answer = answer
        token = await client.refresh(USER, stand_in.grant())
        assert token.expires_at - token.minted_at == life
        assert bool(token.refresh_token) is bool(expires_in)


async def test_one_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.2)
    async with both() as (client, stand_in):

        async def answer(_: web.Request) -> web.StreamResponse:
            await asyncio.Event().wait()
            raise AssertionError

        stand_in.answer = answer
        error = await refused(client, stand_in)
        assert "does not answer" in error.message
        assert "check url of Secret ann-grant" in error.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ghr_by_mistake", "https://", "https://a b", "file:///etc"])
async def test_a_url_that_leads_nowhere_is_not_quoted(url: str) -> None:
    async with both() as (client, stand_in):
        assert (await refused(client, stand_in, url=url)).reason == "GitHubUnavailable"
