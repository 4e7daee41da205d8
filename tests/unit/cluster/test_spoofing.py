"""Names, labels and owner references that anybody may write make nothing ours: Secrets, tokens, pods."""

import base64
from typing import Any

import pytest

from copilot_operator.cluster.bundles import Bundles
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.credentials import Credentials, in_the_way
from copilot_operator.cluster.errors import Absent
from copilot_operator.cluster.members import Members
from copilot_operator.cluster.pods import runs_server
from copilot_operator.cluster.pools import Pools
from copilot_operator.cluster.reconcile import Reconciler
from copilot_operator.cluster.rollouts import Rollouts
from copilot_operator.domain.kinds import POOL, SECRET, TENANT, Kind
from copilot_operator.domain.manifest import Manifest, owner_reference
from copilot_operator.domain.naming import server_of, tenant_key, token_shard
from copilot_operator.domain.pool_plan import plan_pool
from copilot_operator.gateway.feed.compiled import seen
from tests.support.snapshots import NAMESPACE, SETTINGS, a_pool_object, a_pool_snapshot, a_tenant, pool_spec

POOL_OBJECT = a_pool_object()
ALICE = a_tenant()


class Api:
    """An API server with a few objects."""

    def __init__(self, *objects: Manifest) -> None:
        self.objects = {each["metadata"]["name"]: each for each in objects}

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        if name not in self.objects:
            raise Absent(f"get {name}", 404, "NotFound", "")
        return self.objects[name]


def a_secret(name: str, owner: Manifest | None, **values: str) -> Manifest:
    metadata: Manifest = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "resourceVersion": "7",
        "labels": {"copilot-operator.io/tenant": "alice", "copilot-operator.io/tenant-usable": "false"},
    }
    if owner:
        metadata["ownerReferences"] = [owner_reference(owner)]
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"metadata": metadata, "data": data}


def pools(*secrets: Manifest) -> Pools:
    cache, nothing = Cache(), (lambda *_: None)
    api: Any = Api(*secrets)
    unknown: Any = nothing
    cache.put(POOL, POOL_OBJECT, 0.0)
    cache.put(TENANT, ALICE, 0.0)
    for secret in secrets:
        cache.put(SECRET, secret, 0.0)
    rollouts = Rollouts(lambda *_: [], unknown, unknown, lambda: 0.0)
    members = Members(cache, unknown, unknown, unknown)
    return Pools(api, cache, SETTINGS, rollouts, members, Credentials(api, cache), Bundles(api, unknown))


async def test_a_lost_token_comes_back_from_the_tenants_own_secret() -> None:
    found = pools(a_secret(server_of("alice"), ALICE, token="lost"))
    assert await found._adopt_or_mint(NAMESPACE, "alice", pool_spec()) == "lost"


@pytest.mark.parametrize("owner", [None, POOL_OBJECT, a_tenant(uid="uid-of-another")])
async def test_nobody_chooses_the_token_of_a_server_with_a_secret_of_its_name(owner: Manifest | None) -> None:
    found = pools(a_secret(server_of("alice"), owner, token="chosen"))
    assert await found._adopt_or_mint(NAMESPACE, "alice", pool_spec()) != "chosen"


async def test_behind_a_gateway_the_applications_token_never_becomes_the_servers() -> None:
    found = pools(a_secret(server_of("alice"), ALICE, token="the application's"))
    made = await found._adopt_or_mint(NAMESPACE, "alice", pool_spec({"gateway.enabled": True}))
    assert made != "the application's"


async def test_secrets_with_the_names_of_ours_that_others_made_are_left_alone() -> None:
    fields = {"gateway.enabled": True}
    snapshot = a_pool_snapshot(fields=fields, new_tokens={"copilot-bob": "t"}, members=frozenset({"copilot-bob"}))
    steps = plan_pool(snapshot)
    for name in (token_shard("saas", 0), tenant_key("saas")):
        for foreign in (a_secret(name, None, **{"copilot-bob": "chosen"}), a_secret(name, ALICE)):
            reconciler: Any = Reconciler.__new__(Reconciler)
            reconciler.api = Api(foreign)
            found = await reconciler._in_the_way(snapshot, steps)
            assert found.reason == "NameTaken"
            assert name in found.message
    reconciler.api = Api(a_secret(token_shard("saas", 0), POOL_OBJECT))
    assert await reconciler._in_the_way(snapshot, steps) is None, "ours, which the cache has not heard of"


async def test_a_minted_token_is_not_put_into_somebody_elses_secret() -> None:
    api: Any = Api(a_secret("copilotpool-saas--github-token", None))
    assert await in_the_way(api, NAMESPACE, "copilotpool-saas--github-token", "uid-saas")
    assert not await in_the_way(api, NAMESPACE, "of-nobody", "uid-saas")


OF_ALICE = {"kind": "ReplicaSet", "name": "copilot-alice-5d4f7"}


@pytest.mark.parametrize(
    ("owner", "ours"),
    [
        (OF_ALICE, True),
        (None, False),
        (OF_ALICE | {"name": "copilot-alice-b-5d4f7"}, False),
        (OF_ALICE | {"kind": "Job"}, False),
    ],
)
def test_a_pod_with_a_tenants_label_is_no_server_of_his(owner: Manifest | None, ours: bool) -> None:
    pod = {
        "metadata": {
            "name": "pod",
            "labels": {"copilot-operator.io/tenant": "alice"},
            **({"ownerReferences": [owner]} if owner else {}),
        },
        "status": {"podIP": "10.0.0.9"},
    }
    assert runs_server(pod, "copilot-alice") is ours
    assert (seen(pod).server == "copilot-alice") is ours, "the gateway leads nobody there"
