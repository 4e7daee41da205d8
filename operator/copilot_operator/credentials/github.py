"""GitHub's REST API as far as a GitHub App needs it: from a private key to a token of one of its installations.

docs.github.com: "Generating a JSON Web Token (JWT) for a GitHub App", "Create an installation access token for an app".
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

from copilot_operator.api.references import GitHubApp

DEADLINE_S: Final = 15.0
MOST_BYTES: Final = 256 * 1024  # of an answer; the list of an installation's repositories is a part of it
BACKDATED: Final = timedelta(seconds=60)  # GitHub refuses what is issued in its future
VALID: Final = timedelta(minutes=9)  # it takes ten at most
CLOCKS_DIFFER: Final = timedelta(seconds=30)
MOST_WAIT_S: Final = 3600.0
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
class Token:
    """An installation token; times are GitHub's."""

    value: str = field(repr=False)
    minted_at: datetime
    expires_at: datetime


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

    async def _ask(self, app: GitHubApp, private_key: str, ahead: timedelta) -> tuple[httpx.Response, bytes]:
        url = f"{app.url}/app/installations/{app.installation_id}/access_tokens"
        headers = {
            "Authorization": f"Bearer {signed(app.app_id, private_key, datetime.now(UTC) + ahead)}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            "User-Agent": "copilot-operator",
        }
        try:
            async with asyncio.timeout(DEADLINE_S), self._client.stream("POST", url, headers=headers) as answer:
                return answer, await _bounded(answer)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            how = "does not answer" if isinstance(error, TimeoutError | httpx.TimeoutException) else "can't be reached"
            message = f"{app.url} {how} ({type(error).__name__}); check apiUrl, and that the operator may go there"
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
            raise MintError("GitHubUnavailable", f"The answer is longer than {MOST_BYTES} bytes; is apiUrl GitHub's?")
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


def refusal(app: GitHubApp, answer: httpx.Response, now: datetime) -> MintError:
    """What GitHub's answer means, and the way out. Bodies are not told: apiUrl may lead anywhere."""
    status, wait_s = answer.status_code, wait_of(answer, now)
    if status == 429 or (status == 403 and wait_s):
        return MintError("RateLimited", f"GitHub limits the App's requests (HTTP {status})", wait_s)
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
    return MintError("GitHubUnavailable", f"{app.url} answers HTTP {status}", wait_s)


def wait_of(answer: httpx.Response, now: datetime) -> float:
    """Seconds that GitHub asks us to wait: Retry-After, else until the rate limit is reset; 0 if it does not ask."""
    headers = answer.headers
    if (after := headers.get("Retry-After", "")).isdigit():
        return min(float(after), MOST_WAIT_S)
    reset = headers.get("x-ratelimit-reset", "")
    if headers.get("x-ratelimit-remaining") == "0" and reset.isdigit() and len(reset) < 12:
        return min(max(int(reset) - now.timestamp(), 1.0), MOST_WAIT_S)
    return 0.0
