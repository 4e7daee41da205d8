"""The minter's way to the API server: keys and grants out of users' Secrets, tokens into ours."""

from dataclasses import dataclass
from typing import Final

from copilot_operator.api.references import (
    CLIENT_ID_KEY,
    CLIENT_SECRET_KEY,
    GITHUB,
    REFRESH_TOKEN_KEY,
    URL_KEY,
    GitHubApp,
    SecretKeyRef,
    UserToken,
)
from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.credentials import in_the_way
from copilot_operator.cluster.errors import Absent, ApiError, Conflict
from copilot_operator.credentials.github import Grant, MintError, Token
from copilot_operator.credentials.minter import NOT_STORED, Owner
from copilot_operator.domain.credentials import check_credential
from copilot_operator.domain.desired.minted import minted
from copilot_operator.domain.github_app import serial_of
from copilot_operator.domain.kinds import SECRET
from copilot_operator.domain.manifest import Manifest, annotations_of, controller_uid
from copilot_operator.domain.naming import ORIGIN_ANNOTATION, minted_token
from copilot_operator.domain.secrets import as_observed, decoded

TRIES: Final = 3  # of a write to an object that others change at that moment


@dataclass(frozen=True)
class SecretVault:
    """Implements ``credentials.minter.Vault``."""

    api: KubeApi
    cache: Cache
    answers: Answers

    async def private_key(self, owner: Owner, app: GitHubApp) -> str:
        """Raises MintError."""
        ref = app.private_key_secret_ref
        return _value(await self._live(owner[1], ref.name), ref)

    async def grant(self, owner: Owner, uid: str, user: UserToken) -> Grant:
        """What is next to be used: what the user has given, or what has come of it since. Raises MintError."""
        kind, namespace, name = owner
        given, secret = await self._live(namespace, user.secret_ref.name), user.secret_ref.name
        refresh_token, client_id = (
            _value(given, SecretKeyRef(name=secret, key=key)).strip() for key in (REFRESH_TOKEN_KEY, CLIENT_ID_KEY)
        )
        client_secret, url = (
            decoded(((given or {}).get("data") or {}).get(key, "")).strip() for key in (CLIENT_SECRET_KEY, URL_KEY)
        )
        own = await self._live(namespace, minted_token(kind, name))
        if own is not None and controller_uid(own) != uid:
            raise _taken(minted_token(kind, name))  # before the refresh token is used up
        origin, held = serial_of(refresh_token), _pair(own)
        if held and held[0] == origin and held[1]:
            refresh_token = held[1]
        return Grant(client_id, client_secret, refresh_token, (url or GITHUB).rstrip("/"), origin, held)

    async def store(self, owner: Owner, uid: str, source: str, token: Token) -> None:
        """Raises MintError."""
        kind, namespace, name = owner
        raw, secret = self.cache.get(kind, namespace, name), minted_token(kind, name)
        if raw is None or raw["metadata"]["uid"] != uid:
            raise MintError("TokenPending", "The owner of the token is gone")
        manifest = minted(
            raw, secret, token.value, token.minted_at, token.expires_at, source,
            refresh_token=token.refresh_token, origin=token.grant.origin if token.grant else "",
        )  # fmt: skip
        try:
            if token.grant:
                live = await self._replace(manifest, uid, token.grant)
            elif await in_the_way(self.api, namespace, secret, uid):
                raise _taken(secret)
            else:
                live = await self.api.apply(SECRET, manifest)
            self.answers.learn(SECRET, live)
        except ApiError as error:
            raise _away(error) from error

    async def _replace(self, manifest: Manifest, uid: str, grant: Grant) -> Manifest:
        """Write a person's next token, unless what ``grant`` was made of has changed: then another replica, which leads
        now, was faster, and what it has is what holds. Raises MintError, ApiError."""
        metadata = manifest["metadata"]
        for _ in range(TRIES):
            own = await self._live(metadata["namespace"], metadata["name"])
            if own is not None and controller_uid(own) != uid:
                raise _taken(metadata["name"])
            if _pair(own) != grant.held:
                raise MintError("TokenPending", "Another replica of the operator has renewed it")
            seen = {"resourceVersion": own["metadata"]["resourceVersion"]} if own else {}
            try:
                return await self.api.apply(SECRET, manifest | {"metadata": metadata | seen})
            except Conflict as error:
                conflict = error
        raise conflict

    async def _live(self, namespace: str, name: str) -> Manifest | None:
        """Raises MintError."""
        try:
            return await self.api.get(SECRET, namespace, name)
        except Absent:
            return None
        except ApiError as error:
            raise _away(error) from error


def _value(live: Manifest | None, ref: SecretKeyRef) -> str:
    """Raises MintError if it can't be used."""
    finding = check_credential(ref.name, ref.key, as_observed(live) if live else None, live is not None).finding
    if finding:
        raise MintError(finding.reason, finding.message)
    assert live
    return decoded(live["data"][ref.key])


def _pair(own: Manifest | None) -> tuple[str, str] | None:
    """Of which refresh token of the user's our Secret tells, and the one that is next."""
    if own is None:
        return None
    return annotations_of(own).get(ORIGIN_ANNOTATION, ""), decoded((own.get("data") or {}).get(REFRESH_TOKEN_KEY, ""))


def _taken(secret: str) -> MintError:
    return MintError("NameTaken", f"Secret {secret} exists and is not the operator's: delete or rename it")


def _away(error: ApiError) -> MintError:
    return MintError(NOT_STORED, f"The API server does not do its part: {error}"[:300], error.retry_after_s)
