"""What lies in users' Secrets: keys and tokens as files end, Secrets that are gone, empty, or nobody's to name."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from copilot_operator.api.references import Auth, UserToken
from copilot_operator.app import Router
from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.credentials import Credentials
from copilot_operator.cluster.errors import Absent, ApiError, Conflict
from copilot_operator.cluster.vault import SecretVault
from copilot_operator.credentials.github import Grant, MintError, Token
from copilot_operator.domain.desired.connection import encoded
from copilot_operator.domain.desired.minted import minted
from copilot_operator.domain.github_app import serial_of, source_of
from copilot_operator.domain.kinds import POOL, SECRET, TENANT, Kind
from copilot_operator.domain.manifest import Manifest, controller_uid
from copilot_operator.domain.naming import minted_token
from copilot_operator.domain.secrets import decoded, value_digest
from copilot_operator.domain.snapshot import Credential
from copilot_operator.engine.queue import WorkQueue
from copilot_operator.servers.agents import state_of
from tests.support.github import GitHubStandIn
from tests.support.snapshots import NAMESPACE, NOW, a_tenant
from tests.unit.cluster.test_nodes import gathered
from tests.unit.cluster.test_spoofing import pools

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


USER = UserToken.model_validate({"secretRef": {"name": "app"}})
ALICE = (TENANT, NAMESPACE, "alice")
OWN = minted_token(TENANT, "alice")
GRANT = {"refreshToken": "ghr_users\n", "clientId": " Iv23.client\n", "clientSecret": "secret\n"}


class Secrets(Api):
    """An API server with Secrets; ``meanwhile`` is done just before a write."""

    def __init__(self, *secrets: Manifest) -> None:
        super().__init__(None)
        self.held = {each["metadata"]["name"]: each for each in secrets}
        self.meanwhile: list[Callable[[], None]] = []

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        self.secret = self.held.get(name)
        return await super().get(kind, namespace, name)

    async def apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        metadata = manifest["metadata"]
        live = self.held.get(metadata["name"], {"metadata": {}})["metadata"].get("resourceVersion")
        if metadata.get("resourceVersion") != live:
            raise Conflict("apply", 409, "Conflict", "")
        stored = manifest | {"metadata": metadata | {"resourceVersion": f"{live}+", "uid": "uid-of-it"}}
        self.held[metadata["name"]] = stored
        return stored


def ours(refresh_token: str, users: str = "ghr_users", uid: str = "uid-alice") -> Manifest:
    made = minted(
        a_tenant(uid=uid), OWN, "ghu_1", NOW, NOW, "source", refresh_token=refresh_token, origin=serial_of(users)
    )
    return made | {"metadata": made["metadata"] | {"resourceVersion": "1", "uid": "uid-of-it"}}


def with_alice(api: Any) -> SecretVault:
    made = vault(api)
    made.cache.put(TENANT, a_tenant(), 0.0)
    return made


def pair(number: int, grant: Grant) -> Token:
    return Token(f"ghu_{number}", NOW, NOW, f"ghr_{number}", grant)


def stored(api: Secrets) -> tuple[str, str]:
    data = api.held[OWN]["data"]
    return decoded(data["token"]), decoded(data["refreshToken"])


async def test_a_grant_is_read_without_white_space_and_leads_to_github_com() -> None:
    grant = await with_alice(Secrets(a_secret(**GRANT))).grant(ALICE, "uid-alice", USER)
    assert grant == Grant("Iv23.client", "secret", "ghr_users", "https://github.com", serial_of("ghr_users"))
    elsewhere = a_secret(**GRANT, url="https://acme.ghe.com/\n")
    assert (await with_alice(Secrets(elsewhere)).grant(ALICE, "uid-alice", USER)).url == "https://acme.ghe.com"


@pytest.mark.parametrize(
    ("own", "used"),
    [
        (None, "ghr_users"),
        (ours("ghr_7"), "ghr_7"),
        (ours("ghr_7", users="ghr_users_of_before"), "ghr_users"),
        (ours(""), "ghr_users"),
    ],
)
async def test_what_follows_from_a_refresh_token_is_used_until_the_user_gives_another(
    own: Manifest | None, used: str
) -> None:
    api = Secrets(a_secret(**GRANT), *([own] if own else []))
    assert (await with_alice(api).grant(ALICE, "uid-alice", USER)).refresh_token == used


@pytest.mark.parametrize(
    ("secrets", "reason"),
    [
        ((), "SecretNotFound"),
        ((a_secret("false", **GRANT),), "SecretNotUsable"),
        ((a_secret(clientId="secret-id"),), "SecretKeyNotFound"),
        ((a_secret(refreshToken="ghr_secret"),), "SecretKeyNotFound"),
        ((a_secret(refreshToken="ghr_secret", clientId="\n"),), "SecretEmpty"),
        ((a_secret(**GRANT), ours("ghr_7", uid="uid-of-another")), "NameTaken"),
    ],
)
async def test_why_a_grant_cant_be_used_is_told_before_it_is(secrets: tuple[Manifest, ...], reason: str) -> None:
    with pytest.raises(MintError) as caught:
        await with_alice(Secrets(*secrets)).grant(ALICE, "uid-alice", USER)
    assert caught.value.reason == reason
    assert "secret-id" not in caught.value.message
    assert "ghr_" not in caught.value.message


async def test_the_next_pair_is_stored_owned_and_for_no_tenant_to_name() -> None:
    api = Secrets(a_secret(**GRANT))
    made = with_alice(api)
    for number, used in enumerate(("ghr_users", "ghr_0")):
        grant = await made.grant(ALICE, "uid-alice", USER)
        assert grant.refresh_token == used
        await made.store(ALICE, "uid-alice", "source", pair(number, grant))
        assert stored(api) == (f"ghu_{number}", f"ghr_{number}")
    metadata = api.held[OWN]["metadata"]
    assert metadata["labels"]["copilot-operator.io/tenant-usable"] == "false"
    assert controller_uid(api.held[OWN]) == "uid-alice"
    kept = made.cache.get(SECRET, NAMESPACE, OWN)
    assert "ghr_" not in str(kept)
    assert "ghu_" not in str(kept)


async def test_who_labels_our_secret_meanwhile_is_no_reason_to_lose_the_pair() -> None:
    api = Secrets(a_secret(**GRANT), ours("ghr_7"))
    made = with_alice(api)
    grant = await made.grant(ALICE, "uid-alice", USER)
    touched = api.held[OWN] | {"metadata": api.held[OWN]["metadata"] | {"resourceVersion": "2"}}
    api.meanwhile = [lambda: api.held.update({OWN: touched})]
    await made.store(ALICE, "uid-alice", "source", pair(8, grant))
    assert stored(api) == ("ghu_8", "ghr_8")


async def test_a_pair_of_another_replica_that_was_faster_stays() -> None:
    api = Secrets(a_secret(**GRANT), ours("ghr_7"))
    made = with_alice(api)
    grant = await made.grant(ALICE, "uid-alice", USER)
    faster = ours("ghr_9") | {"metadata": ours("ghr_9")["metadata"] | {"resourceVersion": "2"}}
    api.meanwhile = [lambda: api.held.update({OWN: faster})]
    with pytest.raises(MintError, match="Another replica") as caught:
        await made.store(ALICE, "uid-alice", "source", pair(8, grant))
    assert caught.value.reason != "NotStored", "it is not to be tried again"
    assert stored(api) == ("ghu_1", "ghr_9")


@pytest.mark.parametrize("shared", [False, True])
async def test_a_persons_token_is_put_into_sessions_wherever_they_run(shared: bool) -> None:
    now, identity = datetime.now(UTC), {"uid": "uid-of-it", "resourceVersion": "1"}
    given = a_secret(**GRANT)
    source = source_of(USER, value_digest(given["data"]["refreshToken"]))
    own = minted(a_tenant(), OWN, "ghu_1", now, now + timedelta(hours=8), source, refresh_token="ghr_1", origin="o")
    found = pools(*(each | {"metadata": each["metadata"] | identity} for each in (given, own)))
    auth = Auth.model_validate({"gitHub": {"userToken": {"secretRef": {"name": "app"}}}})
    assert await found._payment(ALICE, auth, shared=shared) == {"gitHubToken": "ghu_1"}


async def test_a_persons_next_token_is_news_for_the_pool_that_tells_its_gateways() -> None:
    cache, queue = Cache(), WorkQueue[tuple[Kind, str, str]]()
    cache.put(TENANT, a_tenant(), 0.0)
    Router(cache, queue, lambda *_: []).changed(SECRET, ours("ghr_7"))
    async with asyncio.timeout(5):
        assert {await queue.get(), await queue.get()} == {ALICE, (POOL, NAMESPACE, "saas")}


@pytest.mark.parametrize(
    ("by_gateway", "by_agent", "refused"),
    [(False, None, False), (False, False, False), (False, True, True), (True, None, True)],
)
async def test_a_refusal_is_told_by_whoever_sees_it(by_gateway: bool, by_agent: bool | None, refused: bool) -> None:
    told = None if by_agent is None else state_of({"credentialRefused": by_agent}, "uid", NOW)
    snapshot = await gathered(Cache(), state=told, refused=lambda *_: by_gateway)
    assert snapshot.credential_refused is refused
