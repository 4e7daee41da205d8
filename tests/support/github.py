"""A stand-in for GitHub as Apps use it: real HTTP on loopback, real signatures, and a clock of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from typing import Any, Final

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from copilot_operator.api.conditions import timestamp
from copilot_operator.api.references import GitHubApp
from copilot_operator.credentials.github import Grant
from copilot_operator.domain.github_app import serial_of
from tests.support.model import Grants, minted

APP_ID: Final = 12
INSTALLATION: Final = 3456
CLIENT: Final = ("Iv23.client", "client-secret")
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@cache
def private_key(name: str = "the App's") -> str:
    """A key as GitHub makes it: PEM, PKCS #1, RSA of 2048 bits."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    return made.private_bytes(serialization.Encoding.PEM, form, plain).decode()


def public_key() -> str:
    key = serialization.load_pem_private_key(private_key().encode(), None).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


@dataclass
class GitHubStandIn:
    """``ahead``: its clock before ours. ``answer``, if any, is what it does instead of minting or renewing.

    The stand-in for the model (model.py) refuses its tokens once they have ended.
    """

    url: str = ""
    ahead: timedelta = timedelta()
    life: timedelta = timedelta(hours=1)
    answer: Answer | None = None
    minted: list[str] = field(default_factory=list)
    grants: Grants = field(default_factory=Grants)
    asked: int = 0

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def app(self, **fields: object) -> GitHubApp:
        ref = {"name": "app", "key": "private-key.pem"}
        given = {"appId": APP_ID, "installationId": INSTALLATION, "privateKeySecretRef": ref, "apiUrl": self.url}
        return GitHubApp.model_validate(given | fields)

    def grant(self, refresh_token: str = "ghr_first", client: tuple[str, str] = CLIENT) -> Grant:
        return Grant(*client, refresh_token, self.url, serial_of("ghr_first"))

    async def renew(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.answer:
            return await self.answer(request)
        form = await request.post()
        if form.get("client_id") != CLIENT[0]:
            return self.says(404, error="Not Found")
        if form.get("client_secret", CLIENT[1]) != CLIENT[1]:  # those of the device flow have none
            return self.says(200, error="incorrect_client_credentials")
        if form.get("grant_type") != "refresh_token" or request.query:
            return self.says(200, error="unsupported_grant_type")
        return self.says(200, **self.grants.exchange(str(form["refresh_token"]), self.life.total_seconds()))

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.answer:
            return await self.answer(request)
        if not self._signed(request.headers["Authorization"].removeprefix("Bearer ")):
            return self.says(401, message="A JSON web token could not be decoded")
        if request.match_info["installation"] != str(INSTALLATION):
            return self.says(404, message="Not Found")
        self.minted.append(str(minted(self.life.total_seconds(), len(self.minted))["token"]))
        return self.says(201, token=self.minted[-1], expires_at=timestamp(self.now + self.life))

    def always_says(self, status: int, headers: dict[str, str] | None = None, **body: Any) -> None:
        """From now on, whatever it is asked."""

        async def answer(_: web.Request) -> web.StreamResponse:
            return self.says(status, headers, **body)

        self.answer = answer

    def redirects_once(self) -> None:
        """To where it was asked; whoever comes again is served."""

        async def answer(request: web.Request) -> web.StreamResponse:
            self.answer = None
            return self.says(307, {"Location": str(request.url)})

        self.answer = answer

    def says(self, status: int, headers: dict[str, str] | None = None, **body: Any) -> web.Response:
        date = {"Date": format_datetime(self.now, usegmt=True)}
        return web.json_response(body, status=status, headers=date | (headers or {}))

    def _signed(self, token: str) -> bool:
        """By its key, for its App, not for more than ten minutes, and by its own clock."""
        at = self.now.timestamp()
        try:
            claims = jwt.decode(
                token, public_key(), algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False}
            )
        except jwt.PyJWTError:
            return False
        in_time: bool = claims["iat"] <= at < claims["exp"] <= at + 600
        return in_time and str(claims["iss"]) == str(APP_ID)


@asynccontextmanager
async def github() -> AsyncIterator[GitHubStandIn]:
    stand_in = GitHubStandIn()
    application = web.Application()
    application.router.add_post("/app/installations/{installation}/access_tokens", stand_in.serve)
    application.router.add_post("/login/oauth/access_token", stand_in.renew)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    stand_in.url = f"http://{host}:{port}"
    try:
        yield stand_in
    finally:
        await runner.cleanup()
