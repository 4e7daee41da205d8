"""Credentials, ownership, health, Secrets as observed, what fits together: tables."""

import base64
from typing import Any

import pytest

from copilot_operator.domain.credentials import check_credential
from copilot_operator.domain.fit import misfit
from copilot_operator.domain.health import Watched, after_answer, after_failure, next_ping_s
from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, Kind
from copilot_operator.domain.manifest import Manifest, digest
from copilot_operator.domain.ownership import obstacle
from copilot_operator.domain.secrets import EMPTY, as_observed
from copilot_operator.domain.snapshot import Credential, Finding, Health, Reading
from tests.support.snapshots import a_pool, a_snapshot, a_tenant

# ---- credentials

USABLE = {"copilot-operator.io/tenant-usable": "true"}


def secret(labels: dict[str, str] | None = None, **values: str) -> Manifest:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return as_observed({"metadata": {"name": "github", "labels": labels or USABLE}, "data": data})


@pytest.mark.parametrize(
    ("found", "exists", "reason", "message"),
    [
        (None, False, "SecretNotFound", "Secret github does not exist; create it with the key token"),
        (
            None,
            True,
            "SecretNotUsable",
            'Secret github may not be used: its owner must label it copilot-operator.io/tenant-usable: "true"',
        ),
        (secret({"copilot-operator.io/tenant-usable": "false"}, token="x"), True, "SecretNotUsable", None),
        (secret(), True, "SecretKeyNotFound", "Secret github has no key token; it has: none"),
        (secret(b="1", a="2"), True, "SecretKeyNotFound", "Secret github has no key token; it has: a, b"),
        (secret(token=""), True, "SecretEmpty", "Key token of Secret github is empty; put the token or key there"),
        (secret(token=" \n"), True, "SecretEmpty", None),
    ],
)
def test_an_unusable_secret_says_what_is_wrong_and_how_to_mend_it(
    found: Manifest | None, exists: bool, reason: str, message: str | None
) -> None:
    credential = check_credential("github", "token", found, exists)
    assert credential.digest is None
    assert credential.finding
    assert credential.finding.reason == reason
    if message:
        assert credential.finding.message == message


def test_a_usable_secret_gives_the_digest_of_its_value() -> None:
    expected = Credential("github", "token", digest=digest("gho_x"))
    assert check_credential("github", "token", secret(token="gho_x"), True) == expected


# ---- Secrets as the cache holds them


def test_an_observed_secret_holds_digests_and_of_annotations_only_ours() -> None:
    applied = '{"data":{"token":"Z2hvX3NlY3JldA=="}}'
    found = as_observed(
        {
            "metadata": {
                "name": "github",
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": applied,
                    "copilot-operator.io/tenant-name": "alice",
                },
            },
            "data": {"token": "Z2hvX3NlY3JldA==", "blank": "", "not base64": "%", "bytes": "/w=="},
        }
    )
    assert found == {
        "metadata": {"name": "github", "annotations": {"copilot-operator.io/tenant-name": "alice"}},
        "data": {"token": digest("gho_secret"), "blank": EMPTY, "not base64": EMPTY, "bytes": digest("�")},
    }


@pytest.mark.parametrize("data", [None, {}])
def test_a_secret_without_data_has_none(data: Any) -> None:
    assert as_observed({"metadata": {"name": "x"}, "data": data})["data"] == {}


# ---- ownership


def owner(uid: str, *, name: str = "alice", kind: str = "CopilotTenant", controller: bool = True) -> Manifest:
    return {"kind": kind, "name": name, "uid": uid, "controller": controller}


def child(*owners: Manifest, **metadata: Any) -> Manifest:
    return {"metadata": {"name": "copilot-alice", "ownerReferences": list(owners)} | metadata}


KEPT: Manifest = {
    "labels": {"app.kubernetes.io/managed-by": "copilot-operator", "copilot-operator.io/pool": "saas"},
    "annotations": {"copilot-operator.io/tenant-name": "alice"},
}


@pytest.mark.parametrize(
    ("kind", "live", "reason"),
    [
        pytest.param(DEPLOYMENT, child(owner("uid-alice")), None, id="ours"),
        pytest.param(DEPLOYMENT, child(), "NameTaken", id="nobody's"),
        pytest.param(DEPLOYMENT, child(owner("1", kind="Release")), "NameTaken", id="somebody else's"),
        pytest.param(DEPLOYMENT, child(owner("1", name="bob")), "NameTaken", id="another tenant's"),
        pytest.param(DEPLOYMENT, child(owner("1")), "PreviousRemains", id="a former tenant's of this name"),
        pytest.param(DEPLOYMENT, child(owner("uid-alice"), deletionTimestamp="x"), "PreviousRemains", id="ours, going"),
        pytest.param(CLAIM, child(owner("uid-alice"), deletionTimestamp="x"), None, id="our claim, going"),
        pytest.param(
            CLAIM,
            child(**(KEPT | {"labels": KEPT["labels"] | {"copilot-operator.io/pool": "other"}})),
            "NameTaken",
            id="a claim that was retained in another pool",
        ),
        pytest.param(DEPLOYMENT, child(**KEPT), "NameTaken", id="only claims are kept"),
        pytest.param(DEPLOYMENT, child(owner("uid-alice", controller=False)), "PreviousRemains", id="not controlled"),
        pytest.param(CLAIM, child(**KEPT), None, id="a retained claim"),
        pytest.param(CLAIM, child(**KEPT, deletionTimestamp="x"), None, id="a retained claim, going"),
        pytest.param(CLAIM, child(**(KEPT | {"labels": {}})), "NameTaken", id="a claim that was never ours"),
        pytest.param(
            CLAIM,
            child(**(KEPT | {"annotations": {"copilot-operator.io/tenant-name": "alicE"}})),
            "NameTaken",
            id="a retained claim of another tenant",
        ),
        pytest.param(CLAIM, child(owner("1"), **KEPT), "PreviousRemains", id="a former tenant's claim that goes"),
    ],
)
def test_only_the_controllers_uid_and_retention_make_a_child_ours(kind: Kind, live: Manifest, reason: str) -> None:
    found = obstacle(kind, live, a_snapshot())
    assert (found.reason if found else None) == reason
    assert found is None or "copilot-alice" in found.message


# ---- what fits together


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"requests": {"memory": "1Gi"}}, None),
        ({"limits": {"memory": "384Mi"}}, None),
        ({"requests": {"memory": "3Gi"}, "limits": {"memory": "4Gi"}}, None),
        (
            {"requests": {"memory": "3Gi"}},
            "spec.server.resources: with the pool's resources, the request of 3Gi memory is above the limit of 2Gi",
        ),
        (
            {"limits": {"cpu": "50m"}},
            "spec.server.resources: with the pool's resources, the request of 100m cpu is above the limit of 50m",
        ),
    ],
)
def test_a_tenants_resources_must_go_with_its_pools(resources: Manifest, message: str | None) -> None:
    found = misfit(a_snapshot(tenant=a_tenant(fields={"server.resources": resources})))
    assert found == (Finding("InvalidSpec", message) if message else None)


def test_an_app_is_refused_where_servers_read_no_apps_token() -> None:
    app = {"appId": 12, "installationId": 3456, "privateKeySecretRef": {"name": "app", "key": "pem"}}
    runs = {"server.runtime": "CopilotRuntime", "gateway": {}, "sessions.maxConcurrent": 20}
    tenant = a_tenant(fields={"auth": {"gitHub": {"app": app}}})
    assert misfit(a_snapshot(tenant=tenant, pool=a_pool({"gateway": {}}))) is None
    found = misfit(a_snapshot(tenant=tenant, pool=a_pool(runs)))
    assert found is not None
    assert "spec.auth.gitHub.app: write tokenSecretRef instead" in found.message


def test_an_overlap_is_refused_where_nobody_could_take_two_tokens() -> None:
    for overlap, taken in (("10m", False), ("0s", True), (None, True)):
        wish = {"rotateAt": "2026-11-24T04:00:00Z"} | ({"overlap": overlap} if overlap else {})
        tenant = a_tenant(fields={"connectionToken": wish})
        assert misfit(a_snapshot(tenant=tenant, pool=a_pool({"gateway": {}}))) is None
        found = misfit(a_snapshot(tenant=tenant))
        assert found is None if taken else found and "spec.connectionToken.overlap: leave it out" in found.message


# ---- health

HEALTHY = Watched(0, Reading(Health.HEALTHY))


def test_one_good_answer_is_health() -> None:
    assert after_answer(Watched()) == HEALTHY
    assert after_answer(Watched(5, Reading(Health.UNHEALTHY, "x"))) == HEALTHY
    assert after_answer(HEALTHY) is HEALTHY


def test_failures_in_a_row_are_illness_at_the_threshold_and_not_before() -> None:
    once = after_failure(HEALTHY, 3, "a")
    twice = after_failure(once, 3, "b")
    thrice = after_failure(twice, 3, "c")
    assert [once.reading, twice.reading] == [HEALTHY.reading] * 2
    assert thrice == Watched(3, Reading(Health.UNHEALTHY, "3 pings in a row failed: c"))
    assert after_failure(thrice, 3, "d") == Watched(4, thrice.reading), "the first message stays"


def test_an_answer_in_between_starts_the_count_anew() -> None:
    assert after_failure(after_answer(after_failure(HEALTHY, 2, "a")), 2, "b").reading == HEALTHY.reading


def test_a_server_that_never_answered_is_ill_at_the_threshold_too() -> None:
    assert after_failure(Watched(), 1, "a").reading == Reading(Health.UNHEALTHY, "1 pings in a row failed: a")


@pytest.mark.parametrize(
    ("failures", "interval_s", "expected"), [(0, 5.0, 5.0), (1, 5.0, 1.0), (2, 5.0, 5.0), (9, 5.0, 5.0), (1, 0.5, 0.5)]
)
def test_a_first_failure_is_confirmed_soon(failures: int, interval_s: float, expected: float) -> None:
    assert next_ping_s(Watched(failures), interval_s, threshold=2) == expected
