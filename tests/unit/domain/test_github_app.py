"""Tokens of GitHub Apps as decisions see them: when the next is due, who must start again, what people are told."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.api.references import UserToken
from copilot_operator.domain.causes import old_token
from copilot_operator.domain.desired.deployment import changed_intent, deployment
from copilot_operator.domain.desired.minted import minted
from copilot_operator.domain.drain import Ending
from copilot_operator.domain.fit import misfit
from copilot_operator.domain.github_app import (
    app_credential,
    host_of,
    last_call,
    refresh_at,
    restart_at,
    serial_of,
    source_of,
    token_of,
)
from copilot_operator.domain.kinds import POOL, TENANT
from copilot_operator.domain.naming import minted_token, server_of
from copilot_operator.domain.secrets import as_observed
from copilot_operator.domain.snapshot import Credential, Finding, MintedToken, ServerState
from copilot_operator.domain.status import credentials_row
from tests.support.github import GitHubStandIn
from tests.support.snapshots import NOW, a_pod, a_pool, a_pool_object, a_snapshot, a_tenant

APP = GitHubStandIn(url="https://api.example.com").app()
HOUR = timedelta(hours=1)
KEY = Credential("app", "private-key.pem", digest="0123")
NAME = "copilotpool-saas--github-token"
TOKEN = MintedToken("0a1b", NOW, NOW + HOUR, source_of(APP))
TROUBLE = Finding("AppNotInstalled", "install it")


def credential(**more: Any) -> Credential:
    given: dict[str, Any] = {"key": KEY, "token": TOKEN, "trouble": None, "now": NOW} | more
    return app_credential(APP, given["key"], NAME, given["token"], given["trouble"], given["now"])


def test_what_is_stored_tells_the_token_and_not_its_value() -> None:
    pool = a_pool_object()
    manifest = minted(pool, NAME, "ghs_secret", NOW, NOW + HOUR, source_of(APP))
    observed = as_observed(manifest)
    assert token_of(observed, "uid-saas") == MintedToken(serial_of("ghs_secret"), NOW, NOW + HOUR, source_of(APP))
    assert "ghs_secret" not in str(observed)
    assert manifest["metadata"]["labels"]["copilot-operator.io/tenant-usable"] == "false", "nobody may name it"


def test_a_secret_that_is_not_its_owners_holds_no_token() -> None:
    manifest = as_observed(minted(a_pool_object(), NAME, "ghs_secret", NOW, NOW + HOUR, source_of(APP)))
    assert token_of(manifest, "uid-of-another") is None
    assert token_of(manifest | {"metadata": manifest["metadata"] | {"ownerReferences": []}}, "uid-saas") is None
    assert token_of(manifest | {"data": {}}, "uid-saas") is None
    for nonsense in ("", "tomorrow", "2026-03-01T12:00:00"):
        notes = manifest["metadata"]["annotations"] | {"copilot-operator.io/token-expires-at": nonsense}
        assert token_of(manifest | {"metadata": manifest["metadata"] | {"annotations": notes}}, "uid-saas") is None


@given(st.floats(30, 86_400), st.floats(0, 86_400))
def test_a_token_is_refreshed_in_time_and_not_all_the_time(life_s: float, drain_s: float) -> None:
    life = timedelta(seconds=life_s)
    token = replace(TOKEN, expires_at=NOW + life)
    due = refresh_at(token, drain_s)
    assert NOW + life * 0.33 <= due <= token.expires_at - life * 0.33
    if drain_s < life_s / 2 - 180:
        assert due + timedelta(seconds=drain_s) < token.expires_at, "all can drain before it ends"


@given(st.text(max_size=20))
def test_servers_take_a_new_token_at_times_of_their_own_long_before_the_old_one_ends(server: str) -> None:
    assert NOW <= restart_at(TOKEN, server) <= NOW + HOUR / 12
    assert refresh_at(TOKEN, 540) + HOUR / 12 + timedelta(seconds=600) <= TOKEN.expires_at


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, None),
        ({"trouble": TROUBLE}, None),
        ({"token": None}, "TokenPending"),
        ({"token": None, "trouble": TROUBLE}, "AppNotInstalled"),
        ({"token": None, "key": replace(KEY, finding=Finding("SecretNotFound", "gone"))}, "SecretNotFound"),
        ({"token": replace(TOKEN, source="of another")}, "TokenPending"),
        ({"token": replace(TOKEN, source="of another"), "trouble": TROUBLE}, "AppNotInstalled"),
        ({"now": NOW + HOUR}, "TokenExpired"),
        ({"now": NOW + HOUR, "trouble": TROUBLE}, "TokenExpired"),
    ],
)
def test_when_a_token_can_be_used_and_why_not(given: dict[str, Any], reason: str | None) -> None:
    found = credential(**given)
    assert (found.finding.reason if found.finding else None) == reason
    assert found.app == APP, "the minter must know of it all the same"


def test_people_are_told_until_when_it_holds_and_that_no_new_one_can_be_made() -> None:
    holds = Finding("TokenMinted", "The token of the GitHub App's installation holds until 2026-03-01T13:00:00Z")
    assert credentials_row(credential(), of_pool=False) == ("CredentialsReady", True, holds)
    _, status, finding = credentials_row(credential(trouble=TROUBLE), of_pool=False)
    assert (status, finding.reason) == (True, "RefreshFails")
    assert finding.message.endswith("no new one can be made: install it")
    assert credentials_row(credential(), of_pool=True)[2].reason == "TokenFound", "a thousand tenants need not"


USER = UserToken.model_validate({"secretRef": {"name": "ann-grant"}})
GIVEN = Credential("ann-grant", "refreshToken", digest="0123")
OF_PERSON = MintedToken("0a1b", NOW, NOW + 8 * HOUR, source_of(USER, "0123"))
LOST = Finding("RefreshTokenRejected", "put a new one")
GONE = replace(GIVEN, digest=None, finding=Finding("SecretNotFound", "gone"))
tokens = st.sampled_from([None, OF_PERSON, replace(OF_PERSON, source=source_of(USER, "of another"))])


@given(tokens, st.sampled_from([GIVEN, GONE]), st.sampled_from([None, TROUBLE, LOST]), st.floats(0, 9))
def test_a_persons_token_is_used_while_it_holds_belongs_and_was_not_lost(
    token: MintedToken | None, given: Credential, trouble: Finding | None, hours: float
) -> None:
    now = NOW + hours * HOUR
    found = app_credential(USER, given, NAME, token, trouble, now)
    belongs = token is not None and (given is GONE or token is OF_PERSON)  # while nobody can read it, it goes on
    assert (found.finding is None) is bool(belongs and token and now < token.expires_at and trouble is not LOST)
    assert (found.user, found.app, found.made_from) == (USER, None, given.digest), "the minter must know all the same"
    if found.finding is None:
        assert token
        assert (found.digest, found.token) == (token.serial, token), "another token is another value"
    elif trouble is LOST:
        assert found.finding in (LOST, given.finding)
    _, status, told = credentials_row(found, of_pool=False)
    assert status is (found.finding is None)
    assert told.reason == ("RefreshFails" if status and (given.finding or trouble) else told.reason)


def test_a_person_is_told_until_when_and_what_to_do() -> None:
    found = app_credential(USER, GIVEN, NAME, OF_PERSON, None, NOW)
    holds = Finding("TokenMinted", "The user access token holds until 2026-03-01T20:00:00Z")
    assert credentials_row(found, of_pool=False) == ("CredentialsReady", True, holds)
    told = credentials_row(found, of_pool=False, refused=True)[2]
    assert told.message.endswith("put a new refresh token into Secret ann-grant")


@given(st.floats(30, 86_400))
def test_turns_are_waited_for_between_the_time_that_a_token_is_due_and_its_end(life_s: float) -> None:
    token = replace(OF_PERSON, expires_at=NOW + timedelta(seconds=life_s))
    assert refresh_at(token, 0.0) < last_call(token) < token.expires_at


def test_no_server_is_started_with_a_persons_token_or_again_for_it() -> None:
    for token in (OF_PERSON, replace(OF_PERSON, serial="next")):
        found = app_credential(USER, GIVEN, NAME, token, None, NOW)
        assert deployment(a_snapshot(credential=found)) == deployment(a_snapshot(credential=None))


def test_without_a_gateway_nobody_puts_a_persons_token_into_sessions() -> None:
    tenant = a_tenant(fields={"auth": {"gitHub": {"userToken": {"secretRef": {"name": "ann-grant"}}}}})
    without = misfit(a_snapshot(tenant=tenant, pool=a_pool({"gateway": {"enabled": False}})))
    assert without
    assert "write tokenSecretRef instead" in without.message
    assert misfit(a_snapshot(tenant=tenant, pool=a_pool({"gateway": {"enabled": True}}))) is None


def a_state(serial: str, age_s: float = 3600.0) -> ServerState:
    return ServerState("uid-copilot-alice-1", NOW, answering=True, busy=0, age_s=age_s, token_serial=serial)


def a_case(state: ServerState | None, *, later: timedelta = HOUR / 12, token: MintedToken = TOKEN) -> Any:
    snapshot = a_snapshot(pods=(a_pod(),), state=state, now=NOW + later, credential=credential(token=token))
    return old_token(snapshot, {}, {})


def test_a_server_with_an_older_token_starts_again_and_one_with_the_present_does_not() -> None:
    assert a_case(a_state(TOKEN.serial)) is None
    assert a_case(None) is None
    assert a_case(a_state("")) is None, "it does not say: a CLI of another image"
    assert a_case(a_state("older"), later=timedelta(0)) is None, "its time is to come"
    cause = a_case(a_state("older"))
    assert (cause.why.value, cause.ending) == ("Rotation", Ending.RESTART)


def test_kubelet_lets_a_young_container_wait_so_its_pod_is_replaced() -> None:
    assert a_case(a_state("older", age_s=599)).ending is Ending.REPLACE


def test_a_new_token_is_no_other_server_and_another_app_neither() -> None:
    first = deployment(a_snapshot(credential=credential()))
    assert first == deployment(a_snapshot(credential=credential(token=replace(TOKEN, serial="other"))))
    own = replace(credential(), app=APP.model_copy(update={"api_url": "https://api.acme.ghe.com"}))
    assert changed_intent(first, deployment(a_snapshot(credential=own))) == ["gitHubToken"]


def test_the_server_has_the_token_in_its_environment_and_not_by_a_flag() -> None:
    [cli] = deployment(a_snapshot(credential=credential()))["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable for variable in cli["env"]}
    ref = {"name": NAME, "key": "token"}
    assert env["COPILOT_GITHUB_TOKEN"]["valueFrom"]["secretKeyRef"] == ref
    assert "--auth-token-env" not in cli["args"]
    assert "COPILOT_GH_HOST" not in env


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (None, None),
        ("https://api.acme.ghe.com", "acme.ghe.com"),
        ("https://github.example.com/api/v3", None),
        ("https://api.evil.ghe.com.example.com", None),
    ],
)
def test_the_cli_is_told_of_ghe_com(url: str | None, host: str | None) -> None:
    assert host_of(APP.model_copy(update={"api_url": url})) == host


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_names_of_minted_secrets_are_nobody_elses(one: str, other: str) -> None:
    assert minted_token(TENANT, one) not in (server_of(other), minted_token(POOL, other))


def test_a_credential_that_was_refused_on_the_wire_is_a_condition() -> None:
    name, status, finding = credentials_row(KEY, of_pool=False, refused=True)
    assert (name, status, finding.reason) == ("CredentialsReady", False, "CredentialRefused")
    assert "Secret app" in finding.message
    assert credentials_row(None, of_pool=False, refused=True)[1] is True, "what clients bring is their own affair"
