"""GitHub as far as a GitHub App needs it: from a private key to a token of one of its installations, and from a refresh
token to a person's next token.

docs.github.com: "Generating a JSON Web Token (JWT) for a GitHub App", "Create an installation access token for an app",
"Refreshing user access tokens".
"""

import asyncio
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import jwt

from copilot_operator.api.references import GitHubApp, UserToken
from copilot_operator.domain.github_app import GRANT_LOST

DEADLINE_S: Final = 15.0
MOST_BYTES: Final = 256 * 1024  # of an answer; the list of an installation's repositories is a part of it
BACKDATED: Final = timedelta(seconds=60)  # GitHub refuses what is issued in its future
VALID: Final = timedelta(minutes=9)  # it takes ten at most
CLOCKS_DIFFER: Final = timedelta(seconds=30)
MOST_WAIT_S: Final = 3600.0
NEVER: Final = timedelta(days=3650)  # an App may have its tokens not expire: GitHub tells no end then
TOKEN: Final = re.compile(r"[!-~]{1,1024}")


class MintError(Exception):
    """No token was had. ``reason`` for programs, the message for people: without any secret, nor what was answered.

    ``retry_after_s``: GitHub asks us not to come back before.
    """

    expected = True

    def __init__(self, reason: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.reason, self.message, self.retry_after_s = reason, message, retry_after_s


@dataclass(frozen=True)
class Grant:
    """What a person has granted an App: the refresh token that is good for the next use, and the App's identity.

    ``client_secret`` is empty where the person used the device flow. ``url``: GitHub, without a slash at its end.
    ``origin``: fingerprint of the user's refresh token that it descends from. ``held``: origin and refresh token in our
    Secret when it was read; None without one.
    """

    client_id: str
    client_secret: str = field(repr=False)
    refresh_token: str = field(repr=False)
    url: str = field(repr=False)
    origin: str
    held: tuple[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Token:
    """An installation token, whose times are GitHub's; or a person's, with times of ours, the next refresh token, and
    the grant that both were had for."""

    value: str = field(repr=False)
    minted_at: datetime
    expires_at: datetime
    refresh_token: str = field(default="", repr=False)
    grant: Grant | None = None


def signed(app_id: int, private_key: str, now: datetime) -> str:
    """The JSON Web Token (RFC 7519) with which an App shows who it is. Raises MintError."""
    claims = {"iat": int((now - BACKDATED).timestamp()), "exp": int((now + VALID).timestamp()), "iss": str(app_id)}
    try:
        return jwt.encode(claims, private_key.strip() + "\n", algorithm="RS256")
    except (ValueError, TypeError, jwt.PyJWTError) as error:  # what they say may quote the key
        message = "The private key is none that GitHub makes: put the whole .pem file of the App into the Secret"
        raise MintError("PrivateKeyInvalid", message) from error.with_traceback(None)


class GitHub:
    """Asks GitHub; knows how far its clock and ours are apart once it has answered."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(timeout=DEADLINE_S, follow_redirects=False, transport=transport)
        self._ahead: dict[str, timedelta] = {}  # by URL: GitHub's clock before ours

    async def aclose(self) -> None:
        await self._client.aclose()

    async def mint(self, app: GitHubApp, private_key: str) -> Token:
        """A new token of the App's installation. Raises MintError."""
        ahead = self._ahead.get(app.url, timedelta())
        answer, body = await self._ask(app, private_key, ahead)
        if answer.status_code == httpx.codes.UNAUTHORIZED and abs(self._learned(app, answer) - ahead) > CLOCKS_DIFFER:
            answer, body = await self._ask(app, private_key, self._learned(app, answer))
        at_github = datetime.now(UTC) + self._learned(app, answer)
        if answer.status_code != httpx.codes.CREATED:
            raise refusal(app, answer, at_github)
        return token_in(body, at_github)

    async def refresh(self, user: UserToken, grant: Grant) -> Token:
        """A person's next token and refresh token; those before are dead then. Raises MintError; if no answer was had
        they may be dead, too."""
        form = {"grant_type": "refresh_token", "client_id": grant.client_id, "refresh_token": grant.refresh_token}
        if grant.client_secret:
            form["client_secret"] = grant.client_secret
        headers = {"Accept": "application/json"}
        asked_at = datetime.now(UTC)
        where, path = f"url of Secret {user.secret_ref.name}", "/login/oauth/access_token"
        answer, body = await self._post(grant.url + path, "GitHub", where, headers, form)
        if answer.status_code != httpx.codes.OK:
            raise no_pair(user, answer, datetime.now(UTC))
        return pair_in(user, grant, body, asked_at)

    async def _ask(self, app: GitHubApp, private_key: str, ahead: timedelta) -> tuple[httpx.Response, bytes]:
        headers = {
            "Authorization": f"Bearer {signed(app.app_id, private_key, datetime.now(UTC) + ahead)}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        path = f"/app/installations/{app.installation_id}/access_tokens"
        return await self._post(app.url + path, app.url, "apiUrl", headers)

    async def _post(
        self, url: str, what: str, where: str, headers: dict[str, str], form: dict[str, str] | None = None
    ) -> tuple[httpx.Response, bytes]:
        """``what`` is asked, and ``where`` that is said, in the words of errors. Raises MintError."""
        headers = headers | {"User-Agent": "copilot-operator"}
        try:
            async with (
                asyncio.timeout(DEADLINE_S),
                self._client.stream("POST", url, headers=headers, data=form) as answer,
            ):
                return answer, await _bounded(answer)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            how = "does not answer" if isinstance(error, TimeoutError | httpx.TimeoutException) else "can't be reached"
            message = f"{what} {how} ({type(error).__name__}); check {where}, and that the operator may go there"
            raise MintError("GitHubUnavailable", message) from error

    def _learned(self, app: GitHubApp, answer: httpx.Response) -> timedelta:
        """How far GitHub's clock is before ours, from the Date of its answer (RFC 9110, 6.6.1), to the second."""
        try:
            told = parsedate_to_datetime(answer.headers["Date"])
            self._ahead[app.url] = told.astimezone(UTC) - datetime.now(UTC)
        except (KeyError, ValueError):
            pass  # it did not say: what was known before stands
        return self._ahead.get(app.url, timedelta())


async def _bounded(answer: httpx.Response) -> bytes:
    """Raises MintError."""
    body = b""
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise MintError("GitHubUnavailable", f"The answer is longer than {MOST_BYTES} bytes; is that GitHub?")
    return body


def token_in(body: bytes, now: datetime) -> Token:
    """Raises MintError."""
    try:
        found: Any = json.loads(body)
        value, expires = str(found["token"]), datetime.fromisoformat(found["expires_at"])
    except (ValueError, TypeError, LookupError) as error:
        raise MintError("GitHubUnavailable", "The answer holds no token; is apiUrl GitHub's REST API?") from error
    if not TOKEN.fullmatch(value) or expires.tzinfo is None or expires <= now:
        raise MintError("GitHubUnavailable", "The answer holds no usable token; is apiUrl GitHub's REST API?")
    return Token(value, now, expires)


def pair_in(user: UserToken, grant: Grant, body: bytes, now: datetime) -> Token:
    """Raises MintError. Errors, too, come with the status 200 (docs.github.com: "Troubleshooting OAuth app access token
    request errors"). An App whose tokens do not expire gets neither an end nor a next refresh token."""
    try:
        found: Any = json.loads(body)
        error = str(found.get("error") or "")
        value, following = str(found.get("access_token") or ""), str(found.get("refresh_token") or "")
        life = timedelta(seconds=int(found["expires_in"])) if "expires_in" in found else NEVER
    except (ValueError, TypeError, AttributeError, OverflowError) as odd:
        raise MintError("GitHubUnavailable", f"The answer holds no token; {_is_it_github(user)}") from odd
    if error:
        raise refused_pair(user, error)
    if not (TOKEN.fullmatch(value) and TOKEN.fullmatch(following or "none") and timedelta() < life <= NEVER):
        raise MintError("GitHubUnavailable", f"The answer holds no usable token; {_is_it_github(user)}")
    return Token(value, now, now + life, following, grant)


def refused_pair(user: UserToken, error: str) -> MintError:
    """What GitHub's word for an error means; one that is not known is not told."""
    secret = user.secret_ref.name
    match error:
        case "bad_refresh_token":
            message = (
                "GitHub does not take the refresh token: it was used (by another pool or tenant, by an application, or "
                "for an answer that was lost), revoked, or is older than six months. Have the person authorize the App "
                f"again, and put the new refresh token into refreshToken of Secret {secret}"
            )
            return MintError(GRANT_LOST, message)
        case "incorrect_client_credentials":
            return MintError("AppRejected", _not_the_app(user, "the client secret is not accepted"))
    return MintError("GitHubUnavailable", f"GitHub refuses with an error that is not known; {_is_it_github(user)}")


def no_pair(user: UserToken, answer: httpx.Response, now: datetime) -> MintError:
    """What the status of GitHub's answer means, and the way out. Bodies are not told: the URL may lead anywhere."""
    if limited := _limited(answer, now):
        return limited
    status = answer.status_code
    if status in (401, 403, 404):
        return MintError("AppRejected", _not_the_app(user, f"HTTP {status}"))
    return MintError("GitHubUnavailable", f"It answers HTTP {status}; {_is_it_github(user)}", wait_of(answer, now))


def _is_it_github(user: UserToken) -> str:
    return f"is url of Secret {user.secret_ref.name} GitHub's?"


def _not_the_app(user: UserToken, why: str) -> str:
    secret = user.secret_ref.name
    return f"GitHub does not know the App so ({why}): correct clientId and clientSecret of Secret {secret}"


def _limited(answer: httpx.Response, now: datetime) -> MintError | None:
    status, wait_s = answer.status_code, wait_of(answer, now)
    if status == 429 or (status == 403 and wait_s):
        return MintError("RateLimited", f"GitHub limits the App's requests (HTTP {status})", wait_s)
    return None


def refusal(app: GitHubApp, answer: httpx.Response, now: datetime) -> MintError:
    """What GitHub's answer means, and the way out. Bodies are not told: apiUrl may lead anywhere."""
    if limited := _limited(answer, now):
        return limited
    status = answer.status_code
    match status:
        case 401:
            message = (
                f"GitHub does not accept the key of App {app.app_id} (401): is appId right, and the key one of its own?"
            )
            return MintError("AppRejected", message)
        case 403:
            message = f"Installation {app.installation_id} of App {app.app_id} may not be used (403): is it suspended?"
            return MintError("InstallationForbidden", message)
        case 404:
            message = (
                f"App {app.app_id} has no installation {app.installation_id} at {app.url} (404): "
                "install it, or correct installationId"
            )
            return MintError("AppNotInstalled", message)
    return MintError("GitHubUnavailable", f"{app.url} answers HTTP {status}", wait_of(answer, now))


def wait_of(answer: httpx.Response, now: datetime) -> float:
    """Seconds that GitHub asks us to wait: Retry-After, else until the rate limit is reset; 0 if it does not ask."""
    headers = answer.headers
    if (after := headers.get("Retry-After", "")).isdigit():
        return min(float(after), MOST_WAIT_S)
    reset = headers.get("x-ratelimit-reset", "")
    if headers.get("x-ratelimit-remaining") == "0" and reset.isdigit() and len(reset) < 12:
        return min(max(int(reset) - now.timestamp(), 1.0), MOST_WAIT_S)
    return 0.0
