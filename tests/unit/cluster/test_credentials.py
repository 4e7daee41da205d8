"""What lies in users' Secrets: keys and tokens as files end, Secrets that are gone, empty, or nobody's to name."""

from typing import Any

import pytest

from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.credentials import Credentials
from copilot_operator.cluster.errors import Absent, ApiError
from copilot_operator.cluster.vault import SecretVault
from copilot_operator.credentials.github import MintError
from copilot_operator.domain.desired.connection import encoded
from copilot_operator.domain.kinds import POOL, Kind
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import Credential
from copilot_operator.servers.agents import state_of
from tests.support.github import GitHubStandIn
from tests.support.snapshots import NAMESPACE, NOW
from tests.unit.cluster.test_nodes import gathered

APP = GitHubStandIn(url="https://api.example.com").app()
OWNER = (POOL, NAMESPACE, "saas")


class Api:
    """An API server with one Secret, or none, or one that does not answer."""

    def __init__(self, secret: Manifest | None, failure: ApiError | None = None) -> None:
        self.secret, self.failure = secret, failure

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        if self.failure:
            raise self.failure
        if self.secret is None:
            raise Absent(f"get {name}", 404, "NotFound", "")
        return self.secret


def a_secret(usable: str = "true", **values: str) -> Manifest:
    labels = {"copilot-operator.io/tenant-usable": usable}
    return {"metadata": {"name": "app", "namespace": NAMESPACE, "labels": labels}, "data": encoded(values)}


def vault(api: Any) -> SecretVault:
    cache = Cache()
    return SecretVault(api, cache, Answers(cache, lambda *_: None))


@pytest.mark.parametrize("key", ["gho_mine", "gho_mine\n", " gho_mine\r\n\n"])
async def test_a_token_or_key_is_taken_without_the_white_space_around_it(key: str) -> None:
    api: Any = Api(a_secret(token=key))
    credentials = Credentials(api, Cache())
    assert await credentials.value(NAMESPACE, Credential("app", "token", digest="0123")) == "gho_mine"


async def test_a_secret_that_went_a_moment_ago_holds_nothing() -> None:
    api: Any = Api(None)
    assert await Credentials(api, Cache()).value(NAMESPACE, Credential("app", "token", digest="0123")) is None


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (None, "SecretNotFound"),
        (a_secret("false", **{"private-key.pem": "secret-pem"}), "SecretNotUsable"),
        (a_secret(pem="secret-pem"), "SecretKeyNotFound"),
        (a_secret(**{"private-key.pem": " \n"}), "SecretEmpty"),
    ],
)
async def test_why_there_is_no_private_key_is_told_without_any_value(secret: Manifest | None, reason: str) -> None:
    with pytest.raises(MintError) as caught:
        await vault(Api(secret)).private_key(OWNER, APP)
    assert caught.value.reason == reason
    assert "secret-pem" not in caught.value.message


async def test_an_api_server_that_does_not_answer_is_no_missing_key() -> None:
    failure = ApiError("get app", 503, "ServiceUnavailable", "")
    with pytest.raises(MintError) as caught:
        await vault(Api(None, failure)).private_key(OWNER, APP)
    assert caught.value.reason == "NotStored"


@pytest.mark.parametrize(
    ("by_gateway", "by_agent", "refused"),
    [(False, None, False), (False, False, False), (False, True, True), (True, None, True)],
)
async def test_a_refusal_is_told_by_whoever_sees_it(by_gateway: bool, by_agent: bool | None, refused: bool) -> None:
    told = None if by_agent is None else state_of({"credentialRefused": by_agent}, "uid", NOW)
    snapshot = await gathered(Cache(), state=told, refused=lambda *_: by_gateway)
    assert snapshot.credential_refused is refused
