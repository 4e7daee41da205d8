"""The minter's way to the API server: private keys out of users' Secrets, tokens into ours."""

from dataclasses import dataclass

from copilot_operator.api.references import GitHubApp
from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.credentials import in_the_way
from copilot_operator.cluster.errors import Absent, ApiError
from copilot_operator.credentials.github import MintError, Token
from copilot_operator.credentials.minter import Owner
from copilot_operator.domain.credentials import check_credential
from copilot_operator.domain.desired.minted import minted
from copilot_operator.domain.kinds import SECRET
from copilot_operator.domain.naming import minted_token
from copilot_operator.domain.secrets import as_observed, decoded


@dataclass(frozen=True)
class SecretVault:
    """Implements ``credentials.minter.Vault``."""

    api: KubeApi
    cache: Cache
    answers: Answers

    async def private_key(self, owner: Owner, app: GitHubApp) -> str:
        """Raises MintError."""
        ref = app.private_key_secret_ref
        try:
            live = await self.api.get(SECRET, owner[1], ref.name)
        except Absent:
            live = None
        except ApiError as error:
            raise _away(error) from error
        found = check_credential(ref.name, ref.key, as_observed(live) if live else None, live is not None)
        if found.finding or live is None:
            finding = found.finding
            raise MintError(finding.reason if finding else "SecretNotFound", finding.message if finding else "")
        return decoded(live["data"][ref.key])

    async def store(self, owner: Owner, uid: str, source: str, token: Token) -> None:
        """Raises MintError."""
        kind, namespace, name = owner
        raw, secret = self.cache.get(kind, namespace, name), minted_token(kind, name)
        if raw is None or raw["metadata"]["uid"] != uid:
            raise MintError("TokenPending", "The owner of the token is gone")
        manifest = minted(raw, secret, token.value, token.minted_at, token.expires_at, source)
        try:
            if await in_the_way(self.api, namespace, secret, uid):
                message = f"Secret {secret} exists and is not the operator's: delete or rename it"
                raise MintError("NameTaken", message)
            self.answers.learn(SECRET, await self.api.apply(SECRET, manifest))
        except ApiError as error:
            raise _away(error) from error


def _away(error: ApiError) -> MintError:
    return MintError("NotStored", f"The API server does not do its part: {error}"[:300], error.retry_after_s)
