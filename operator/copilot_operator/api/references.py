"""References to objects of the same namespace, and the credentials behind them."""

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field

from copilot_operator.api.model import Model
from copilot_operator.api.names import DataKey, ObjectName
from copilot_operator.api.rules import Rule

ONE_KIND_OF_AUTH: Final = Rule(
    "has(self.gitHub) != has(self.provider)",
    "write exactly one of gitHub and provider",
    lambda auth: (auth.git_hub is None) != (auth.provider is None),
)

GITHUB_COM: Final = "https://api.github.com"
GITHUB: Final = "https://github.com"
REFRESH_TOKEN_KEY: Final = "refreshToken"
CLIENT_ID_KEY: Final = "clientId"
CLIENT_SECRET_KEY: Final = "clientSecret"
URL_KEY: Final = "url"
ONE_KIND_OF_IDENTITY: Final = Rule(
    "[has(self.tokenSecretRef), has(self.app), has(self.userToken)].exists_one(given, given)",
    "write exactly one of tokenSecretRef, app and userToken",
    lambda identity: (
        sum(given is not None for given in (identity.token_secret_ref, identity.app, identity.user_token)) == 1
    ),
)


def is_http_url(text: str) -> bool:
    """The Python twin of ``IS_HTTP_URL``."""
    try:
        found = urlsplit(text)
    except ValueError:
        return False
    return found.scheme in ("http", "https") and bool(found.hostname) and not any(c.isspace() for c in text)


IS_HTTP_URL: Final = Rule(
    "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",
    "write a URL such as https://api.openai.com/v1",
    is_http_url,
)


class SecretKeyRef(Model):
    """One key of a Secret in the same namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey
    """Key in the Secret."""


class SecretRef(Model):
    """A Secret in the same namespace."""

    name: ObjectName
    """Name of the Secret."""


class ConfigMapKeyRef(Model):
    """One key of a ConfigMap in the same namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: DataKey
    """Key in the ConfigMap."""


class ImagePullSecret(Model):
    """A Secret with the credentials of a registry."""

    name: ObjectName
    """Name of a Secret of type kubernetes.io/dockerconfigjson in the same namespace."""


class GitHubApp(Model):
    """An installation of a GitHub App. The operator makes tokens of it, and new ones well before they expire; each new
    one restarts the servers that use it, through a drain."""

    app_id: Annotated[int, Field(ge=1)]
    """The App's id, which its settings page shows."""
    installation_id: Annotated[int, Field(ge=1)]
    """Id of its installation: the number at the end of the URL of the installation's settings page."""
    private_key_secret_ref: SecretKeyRef
    """The key that holds the App's private key, in PEM, as GitHub made it. The Secret must carry the label
    copilot-operator.io/tenant-usable: "true"."""
    api_url: Annotated[str, Field(min_length=1, max_length=2048), IS_HTTP_URL] | None = None
    """GitHub's REST API, https://api.github.com if absent: https://api.SUBDOMAIN.ghe.com for GHE.com,
    https://HOST/api/v3 for a GitHub Enterprise Server."""

    @property
    def url(self) -> str:
        """Where the API is, without a slash at its end."""
        return (self.api_url or GITHUB_COM).rstrip("/")


class UserToken(Model):
    """A user access token of a GitHub App (ghu_...), which ends after eight hours. The operator uses the refresh token
    that came with it, and then the ones that come after that, in time. The gateway puts the token into sessions; no
    server is started with it, or restarted for it."""

    secret_ref: SecretRef
    """The Secret with the keys refreshToken (ghr_...), clientId, clientSecret (not if the person authorized the App by
    the device flow), and url (not for https://github.com: https://SUBDOMAIN.ghe.com, or https://HOST of a GitHub
    Enterprise Server). It must carry the label copilot-operator.io/tenant-usable: "true". A refresh token is good for
    one use: give it to one pool or tenant alone. Those that follow lie in a Secret of the operator's; with another one
    here it starts afresh."""


class GitHubAuth(Model):
    """A GitHub identity with Copilot."""

    rules = (ONE_KIND_OF_IDENTITY,)

    token_secret_ref: SecretKeyRef | None = None
    """The key that holds a GitHub token (gho_..., ghu_... or github_pat_...; classic tokens, ghp_..., are not accepted
    by Copilot). The Secret must carry the label copilot-operator.io/tenant-usable: "true". In a Dedicated pool a
    changed token restarts the server through a drain."""
    app: GitHubApp | None = None
    """A GitHub App instead of a token. Its tokens are given to servers, not to sessions: of a pool, or of a tenant with
    a server of its own."""
    user_token: UserToken | None = None
    """A person's token of a GitHub App, which the operator renews. Needs the pool's gateway."""


class ProviderAuth(Model):
    """A model provider of one's own (bring your own key). The gateway puts the key into each session; neither clients
    nor the server's environment hold it."""

    type: Literal["openai", "azure", "anthropic"]
    """Kind of the provider's API."""
    base_url: Annotated[str, Field(min_length=1, max_length=2048), IS_HTTP_URL]
    """URL of the API, such as https://api.openai.com/v1."""
    wire_api: Literal["completions", "responses"] | None = None
    """Which of OpenAI's APIs to speak; the CLI's choice if absent."""
    api_key_secret_ref: SecretKeyRef
    """The key that holds the API key. The Secret must carry the label copilot-operator.io/tenant-usable: "true"."""


class Auth(Model):
    """What sessions are paid with: a GitHub identity, or a model provider's key."""

    rules = (ONE_KIND_OF_AUTH,)

    git_hub: GitHubAuth | None = None
    """GitHub identity that pays for and answers requests."""
    provider: ProviderAuth | None = None
    """Model provider that answers requests. Needs the pool's gateway."""

    @property
    def secret_ref(self) -> SecretKeyRef:
        """Where its secret is."""
        if self.provider:
            return self.provider.api_key_secret_ref
        assert self.git_hub
        if self.git_hub.app:
            return self.git_hub.app.private_key_secret_ref
        if self.git_hub.user_token:
            return SecretKeyRef(name=self.git_hub.user_token.secret_ref.name, key=REFRESH_TOKEN_KEY)
        assert self.git_hub.token_secret_ref
        return self.git_hub.token_secret_ref

    @property
    def app(self) -> GitHubApp | None:
        """The GitHub App, if it is one."""
        return self.git_hub.app if self.git_hub else None

    @property
    def user_token(self) -> UserToken | None:
        """The person's token that is renewed, if it is one."""
        return self.git_hub.user_token if self.git_hub else None

    @property
    def is_for_sessions(self) -> bool:
        """Whether the gateway puts it into sessions wherever they run, and servers are started without it."""
        return bool(self.provider or self.user_token)
