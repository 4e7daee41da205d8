"""The cache: newest version wins, ghosts go, indexes follow, and no user's secret is kept."""

import base64
from typing import Any

import pytest

from copilot_operator.cluster.cache import Cache, transform
from copilot_operator.domain.kinds import DEPLOYMENT, POD, POOL, SECRET, TENANT
from copilot_operator.domain.manifest import Manifest

POOL_LABEL, TENANT_LABEL = "copilot-operator.io/pool", "copilot-operator.io/tenant"


def an_object(name: str = "a", *, version: int = 1, uid: str = "1", **more: Any) -> Manifest:
    metadata = {"name": name, "namespace": "apps", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata | more.pop("metadata", {})} | more


def labelled(tenant: str) -> Manifest:
    return {"labels": {TENANT_LABEL: tenant}}


def test_an_older_version_is_ignored_whatever_came_first() -> None:
    cache = Cache()
    assert cache.put(DEPLOYMENT, an_object(version=10, spec={"replicas": 1}), 0.0)
    assert not cache.put(DEPLOYMENT, an_object(version=9, spec={"replicas": 0}), 1.0)
    assert not cache.put(DEPLOYMENT, an_object(version=10, spec={"replicas": 0}), 1.0), "the same is no news"
    found = cache.get(DEPLOYMENT, "apps", "a")
    assert found
    assert found["spec"] == {"replicas": 1}
    assert cache.put(DEPLOYMENT, an_object(version=100, spec={"replicas": 2}), 1.0), "versions are numbers, not text"
    assert cache.version(DEPLOYMENT, "apps", "a") == "100"


def test_a_namesake_with_another_uid_replaces_what_was_there() -> None:
    cache = Cache()
    cache.put(DEPLOYMENT, an_object(version=10), 0.0)
    assert cache.put(DEPLOYMENT, an_object(version=20, uid="2"), 1.0)
    assert cache.uid(DEPLOYMENT, "apps", "a") == "2"


def test_the_end_of_a_former_object_does_not_drop_its_namesake() -> None:
    cache = Cache()
    cache.put(DEPLOYMENT, an_object(version=20, uid="2"), 0.0)
    cache.drop(DEPLOYMENT, an_object(version=15, uid="1"))
    assert cache.keys(DEPLOYMENT) == [("apps", "a")]
    cache.drop(DEPLOYMENT, an_object(version=25, uid="2"))
    assert cache.keys(DEPLOYMENT) == []
    cache.drop(DEPLOYMENT, an_object(version=25, uid="2"))


def test_a_list_drops_ghosts_but_nothing_that_was_seen_since_it_began() -> None:
    cache = Cache()
    cache.put(TENANT, an_object("listed"), 5.0)
    cache.put(TENANT, an_object("ghost"), 5.0)
    cache.put(TENANT, an_object("made while we listed"), 10.5)
    cache.put(POOL, an_object("of another kind"), 5.0)
    gone = cache.replace(TENANT, [("apps", "listed")], started_at=10.0)
    assert [each["metadata"]["name"] for each in gone] == ["ghost"]
    assert sorted(cache.keys(TENANT)) == [("apps", "listed"), ("apps", "made while we listed")]
    assert cache.keys(POOL) == [("apps", "of another kind")]


def test_what_the_watch_repeats_counts_as_seen() -> None:
    cache = Cache()
    cache.put(TENANT, an_object(), 5.0)
    cache.put(TENANT, an_object(), 11.0)
    assert cache.replace(TENANT, [], started_at=10.0) == []


def test_pods_are_found_by_their_tenant_and_follow_their_labels() -> None:
    cache = Cache()
    cache.put(POD, an_object("b", metadata=labelled("alice")), 0.0)
    cache.put(POD, an_object("a", metadata=labelled("alice")), 0.0)
    cache.put(POD, an_object("c", metadata=labelled("bob")), 0.0)

    def pods_of(tenant: str) -> list[str]:
        return [each["metadata"]["name"] for each in cache.labelled(POD, "apps", TENANT_LABEL, tenant)]

    assert pods_of("alice") == ["a", "b"]
    cache.put(POD, an_object("a", version=2, metadata=labelled("bob")), 0.0)
    assert (pods_of("alice"), pods_of("bob")) == (["b"], ["a", "c"])
    cache.drop(POD, an_object("b"))
    cache.put(POD, an_object("a", version=3), 0.0)
    assert (pods_of("alice"), pods_of("bob")) == ([], ["c"])
    assert list(cache.labelled(POD, "elsewhere", TENANT_LABEL, "bob")) == []


def test_tenants_are_found_by_their_pool_and_users_by_their_secret() -> None:
    auth = {"auth": {"gitHub": {"tokenSecretRef": {"name": "github", "key": "token"}}}}
    cache = Cache()
    cache.put(TENANT, an_object("b", spec={"poolRef": {"name": "saas"}}), 0.0)
    cache.put(TENANT, an_object("a", spec={"poolRef": {"name": "saas"}} | auth), 0.0)
    cache.put(POOL, an_object("saas", spec=auth), 0.0)
    assert cache.tenants_of("apps", "saas") == ["a", "b"]
    assert cache.users_of(TENANT, "apps", "github") == ["a"]
    assert cache.users_of(POOL, "apps", "github") == ["saas"]
    cache.put(TENANT, an_object("a", version=2, spec={"poolRef": {"name": "saas"}}), 0.0)
    assert cache.users_of(TENANT, "apps", "github") == []
    cache.replace(TENANT, [], started_at=1.0)
    assert cache.tenants_of("apps", "saas") == []


@pytest.mark.parametrize("spec", [None, {}, {"poolRef": None}, {"auth": {"gitHub": None}}, {"auth": {}}])
def test_a_spec_that_says_little_is_indexed_under_nothing(spec: Any) -> None:
    cache = Cache()
    cache.put(TENANT, an_object(spec=spec), 0.0)
    assert cache.tenants_of("apps", "saas") == []


def test_an_older_list_does_not_bring_back_what_was_deleted() -> None:
    cache = Cache()
    cache.put(TENANT, an_object("a", version=3), 0.0)
    cache.drop(TENANT, an_object("a", version=4))
    assert not cache.put(TENANT, an_object("a", version=3), 1.0)
    assert cache.get(TENANT, "apps", "a") is None


def test_what_only_left_its_watch_comes_back_with_a_newer_version() -> None:
    cache = Cache()
    cache.put(TENANT, an_object("a", version=3), 0.0)
    cache.drop(TENANT, an_object("a", version=4))  # the label that the watch selects was removed
    assert cache.put(TENANT, an_object("a", version=5), 1.0)


def test_late_news_of_an_object_that_was_asked_for_in_vain_do_not_bring_it_back() -> None:
    cache = Cache()
    cache.put(POD, an_object("a", version=3), 0.0)
    cache.drop(POD, an_object("a", version=3), for_good=True)
    assert not cache.put(POD, an_object("a", version=5), 1.0), "its last change, of before the question"
    cache.drop(POD, an_object("a", version=6))
    assert not cache.put(POD, an_object("a", version=7), 1.0)
    assert cache.put(POD, an_object("a", version=8, uid="2"), 1.0), "a namesake is another object"


def test_only_so_many_that_left_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("copilot_operator.cluster.cache.MOST_GONE", 2)
    cache = Cache()
    for name in "abc":
        cache.drop(TENANT, an_object(name, uid=name, version=4))
    assert cache.put(TENANT, an_object("a", uid="a", version=3), 1.0)
    assert not cache.put(TENANT, an_object("c", uid="c", version=3), 1.0)


# ---- what is kept


def a_secret(value: str, labels: dict[str, str]) -> Manifest:
    encoded = base64.b64encode(value.encode()).decode()
    metadata = {
        "labels": {"copilot-operator.io/tenant-usable": "true"} | labels,
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": f'{{"data":{{"token":"{encoded}"}}}}'},
        "managedFields": [{"manager": "kubectl"}],
    }
    return an_object("github", metadata=metadata, data={"token": encoded}, type="Opaque")


@pytest.mark.parametrize("labels", [{}, {TENANT_LABEL: "alice"}, {TENANT_LABEL: "alice", POOL_LABEL: "saas"}], ids=str)
def test_of_a_users_or_a_connection_secret_no_value_is_kept(labels: dict[str, str]) -> None:
    cache = Cache()
    cache.put(SECRET, a_secret("gho_verysecret", labels), 0.0)
    held = b"".join(record.body for records in cache._records.values() for record in records.values())
    assert b"github" in held
    for trace in (b"gho_verysecret", base64.b64encode(b"gho_verysecret"), base64.b64encode(b"gho_verysecret")[:8]):
        assert trace not in held


def test_of_a_pools_tokens_the_values_are_kept_since_pings_need_them() -> None:
    cache = Cache()
    cache.put(SECRET, a_secret("x", {POOL_LABEL: "saas"}), 0.0)
    (found,) = cache.labelled(SECRET, "apps", POOL_LABEL, "saas")
    assert found["data"] == {"token": "eA=="}


def test_transform_drops_what_nobody_reads_and_keeps_the_rest() -> None:
    metadata = {"name": "a", "uid": "1", "managedFields": [{}], "selfLink": "/x", "labels": {"a": "b"}}
    kept = {"name": "a", "uid": "1", "labels": {"a": "b"}}
    deployment = {"metadata": metadata, "spec": {"replicas": 1}, "status": {"replicas": 1}}
    head = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": kept}
    assert transform(DEPLOYMENT, deployment) == deployment | head
    pod = {"metadata": metadata, "spec": {"containers": [{}], "nodeName": "n1"}, "status": {"podIP": "10.0.0.1"}}
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": kept}
    assert transform(POD, pod) == pod | head | {"spec": {"nodeName": "n1"}}
    assert "managedFields" in metadata, "the object itself is left alone"
