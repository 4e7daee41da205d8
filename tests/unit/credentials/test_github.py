"""From a private key to an installation token, over real HTTP with real signatures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from copilot_operator.api.references import GitHubApp
from copilot_operator.credentials import github as module
from copilot_operator.credentials.github import GitHub, MintError, signed
from tests.support.github import GitHubStandIn, github, private_key

TEN_MINUTES = timedelta(minutes=10)


@asynccontextmanager
async def both() -> AsyncIterator[tuple[GitHub, GitHubStandIn]]:
    client = GitHub()
    try:
        async with github() as stand_in:
            yield client, stand_in
    finally:
        await client.aclose()


async def test_a_token_is_minted_and_holds_for_an_hour() -> None:
    async with both() as (client, stand_in):
        token = await client.mint(stand_in.app(), private_key())
        assert [token.value] == stand_in.minted
        assert abs(token.expires_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=30)
        assert token.value not in repr(token)


async def test_the_url_may_end_with_a_slash() -> None:
    async with both() as (client, stand_in):
        await client.mint(stand_in.app(apiUrl=stand_in.url + "/"), private_key())


@pytest.mark.parametrize("ending", ["\n", "", "\n\n  \n", "\r\n"])
async def test_a_key_may_end_with_any_white_space(ending: str) -> None:
    async with both() as (client, stand_in):
        assert await client.mint(stand_in.app(), private_key().strip() + ending)


@pytest.mark.parametrize("ahead", [TEN_MINUTES, -TEN_MINUTES, timedelta(hours=5)])
async def test_clocks_may_differ_and_it_is_learned_once(ahead: timedelta) -> None:
    async with both() as (client, stand_in):
        stand_in.ahead = ahead
        first = await client.mint(stand_in.app(), private_key())
        assert stand_in.asked == 2, "the first was refused, and told the time"
        await client.mint(stand_in.app(), private_key())
        assert stand_in.asked == 3
        assert abs(first.minted_at - datetime.now(UTC) - ahead) < timedelta(seconds=30), "times are GitHub's"


@pytest.mark.parametrize(
    "key", ["", "no key at all", "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----"]
)
def test_a_key_that_is_none_is_told_without_telling_it(key: str) -> None:
    with pytest.raises(MintError) as caught:
        signed(1, key, datetime.now(UTC))
    assert caught.value.reason == "PrivateKeyInvalid"
    assert "c2VjcmV0" not in f"{caught.value}{caught.value.message}"


async def test_the_key_of_another_app_is_not_accepted() -> None:
    async with both() as (client, stand_in):
        with pytest.raises(MintError, match=r"401.*appId") as caught:
            await client.mint(stand_in.app(), private_key("another"))
        assert caught.value.reason == "AppRejected"
        assert stand_in.asked == 1, "clocks agree: nothing would be another time"


async def test_an_app_that_is_not_installed_is_told_with_the_way_out() -> None:
    async with both() as (client, stand_in):
        with pytest.raises(MintError, match=r"has no installation 7 .* correct installationId") as caught:
            await client.mint(stand_in.app(installationId=7), private_key())
        assert caught.value.reason == "AppNotInstalled"


IN_A_MINUTE = str(int((datetime.now(UTC) + timedelta(minutes=1)).timestamp()))


@pytest.mark.parametrize(
    ("status", "headers", "reason", "wait_s"),
    [
        (403, {"Retry-After": "17"}, "RateLimited", (17, 17)),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": IN_A_MINUTE}, "RateLimited", (1, 60)),
        (429, {}, "RateLimited", (0, 0)),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9" * 400}, "InstallationForbidden", (0, 0)),
        (403, {"x-ratelimit-remaining": "7", "x-ratelimit-reset": IN_A_MINUTE}, "InstallationForbidden", (0, 0)),
        (429, {"Retry-After": "999999999"}, "RateLimited", (3600, 3600)),
        (500, {}, "GitHubUnavailable", (0, 0)),
        (503, {"Retry-After": "9"}, "GitHubUnavailable", (9, 9)),
        (302, {"Location": "http://127.0.0.1:1/elsewhere"}, "GitHubUnavailable", (0, 0)),
        (200, {}, "GitHubUnavailable", (0, 0)),
    ],
)
async def test_refusals_have_a_reason_and_a_time(
    status: int, headers: dict[str, str], reason: str, wait_s: tuple[float, float]
) -> None:
    async with both() as (client, stand_in):
        stand_in.always_says(status, headers, message="what an internal service would say")
        with pytest.raises(MintError) as caught:
            await client.mint(stand_in.app(), private_key())
        assert caught.value.reason == reason
        assert wait_s[0] <= caught.value.retry_after_s <= wait_s[1]
        assert "internal" not in caught.value.message


async def test_a_redirect_leads_nowhere() -> None:
    """Else an apiUrl of somebody's own could have any service of the cluster asked, with the App's signature."""
    async with both() as (client, stand_in):
        stand_in.redirects_once()
        with pytest.raises(MintError) as caught:
            await client.mint(stand_in.app(), private_key())
        assert (caught.value.reason, stand_in.asked) == ("GitHubUnavailable", 1)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"token": "ghs_1"},
        {"token": "", "expires_at": "2099-01-01T00:00:00Z"},
        {"token": "two\nlines", "expires_at": "2099-01-01T00:00:00Z"},
        {"token": "ghs_1", "expires_at": "2001-01-01T00:00:00Z"},
        {"token": "ghs_1", "expires_at": "2099-01-01T00:00:00"},
        {"token": "ghs_1", "expires_at": "tomorrow"},
        {"token": "x" * 300_000, "expires_at": "2099-01-01T00:00:00Z"},
    ],
)
async def test_an_answer_without_a_usable_token_is_none(body: dict[str, Any]) -> None:
    async with both() as (client, stand_in):
        stand_in.always_says(201, None, **body)
        with pytest.raises(MintError) as caught:
            await client.mint(stand_in.app(), private_key())
        assert caught.value.reason == "GitHubUnavailable"


async def test_one_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.2)
    async with both() as (client, stand_in):

        async def answer(_: web.Request) -> web.StreamResponse:
            await asyncio.Event().wait()
            raise AssertionError

        stand_in.answer = answer
        with pytest.raises(MintError, match="does not answer"):
            await client.mint(stand_in.app(), private_key())


async def test_one_that_nobody_serves_is_told_by_its_url() -> None:
    client = GitHub()
    ref = {"name": "app", "key": "pem"}
    app = GitHubApp.model_validate(
        {"appId": 1, "installationId": 2, "privateKeySecretRef": ref, "apiUrl": "http://127.0.0.1:1"}
    )
    with pytest.raises(MintError, match=r"http://127\.0\.0\.1:1 can't be reached"):
        await client.mint(app, private_key())
    await client.aclose()
