"""Where credentials of pools and tenants lie: users' Secrets, and those of ours with tokens that were minted."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from copilot_operator.api.references import Auth, GitHubApp, UserToken
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent
from copilot_operator.cluster.look import look
from copilot_operator.credentials.minter import Owner
from copilot_operator.domain.credentials import check_credential
from copilot_operator.domain.github_app import app_credential, token_of
from copilot_operator.domain.kinds import SECRET
from copilot_operator.domain.manifest import controller_uid
from copilot_operator.domain.naming import minted_token
from copilot_operator.domain.secrets import decoded
from copilot_operator.domain.snapshot import Credential, Finding


@dataclass(frozen=True)
class Credentials:
    """``failures``: why the last try to mint a token for an owner failed."""

    api: KubeApi
    cache: Cache
    failures: Mapping[Owner, Finding] = field(default_factory=dict)

    async def find(self, auth: Auth | None, owner: Owner) -> Credential | None:
        """What ``auth`` of ``owner`` leads to; None without one."""
        if auth is None:
            return None
        namespace = owner[1]
        found = await self._named(namespace, auth)
        if made := auth.app or auth.user_token:
            return self._minted(made, found, owner)
        if (provider := auth.provider) is None:
            return found
        fields = {"type": provider.type, "baseUrl": provider.base_url, "wireApi": provider.wire_api}
        return replace(found, provider={name: value for name, value in fields.items() if value})

    async def _named(self, namespace: str, auth: Auth) -> Credential:
        name, key = auth.secret_ref.name, auth.secret_ref.key
        secret = self.cache.get(SECRET, namespace, name)
        exists = secret is not None or await look(self.api, SECRET, namespace, name) is not None
        return check_credential(name, key, secret, exists)

    def _minted(self, app: GitHubApp | UserToken, key: Credential, owner: Owner) -> Credential:
        kind, namespace, name = owner
        secret = self.cache.get(SECRET, namespace, minted_token(kind, name))
        token = token_of(secret, self.cache.uid(kind, namespace, name)) if secret else None
        now = datetime.now(UTC)
        return app_credential(app, key, minted_token(kind, name), token, self.failures.get(owner), now)

    async def value(self, namespace: str, found: Credential) -> str | None:
        """The token or key itself; None if it is gone."""
        try:
            live = await self.api.get(SECRET, namespace, found.secret)
        except Absent:
            return None
        return decoded((live.get("data") or {}).get(found.key, "")).strip()


async def in_the_way(api: KubeApi, namespace: str, name: str, owner_uid: str) -> bool:
    """Whether there is a Secret of that name which is not the owner's: an apply would make it ours."""
    live = await look(api, SECRET, namespace, name)
    return live is not None and controller_uid(live) != owner_uid
