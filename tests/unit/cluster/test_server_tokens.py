"""The token of a server without a gateway is exchanged: what its pool makes and drops, and what the server is told."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from copilot_operator.api.conditions import timestamp
from copilot_operator.cluster.pools import Pools
from copilot_operator.cluster.starts import Starts
from copilot_operator.cluster.storage import StorageClasses
from copilot_operator.cluster.tenants import Tenants
from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.kinds import DEPLOYMENT, POOL, SECRET, TENANT
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import POOL_LABEL
from copilot_operator.domain.server_tokens import compact
from copilot_operator.domain.snapshot import (
    DrainReading,
    PoolSnapshot,
    Reading,
    ServerState,
    ServerToken,
    TenantSnapshot,
)
from tests.support.snapshots import NAMESPACE, SETTINGS, a_snapshot, a_tenant
from tests.unit.cluster.test_spoofing import POOL_OBJECT, a_secret, pools

SHARD, SERVER = "copilotpool-saas-server-tokens-0", "copilot-alice"
PAST = timestamp(datetime.now(UTC) - timedelta(minutes=5))
TO_COME = timestamp(datetime.now(UTC) + timedelta(hours=5))
ROTATED = f"{SERVER}.{compact(PAST)}"


def some(rotate_at: str | None, stored: dict[str, str], named: str | None = None) -> Pools:
    """A pool with alice; ``stored``: tokens by key; ``named``: the rotation of her Deployment."""
    shard = a_secret(SHARD, POOL_OBJECT, **stored)
    shard["metadata"]["labels"] = {POOL_LABEL: "saas", "copilot-operator.io/tenant-usable": "false"}
    found = pools(shard)
    wish = {"connectionToken": {"rotateAt": rotate_at}} if rotate_at else {}
    found.cache.put(TENANT, a_tenant(fields=wish, resourceVersion="8"), 0.0)
    if named is not None:
        live: Manifest = deployment(a_snapshot(token=ServerToken("any", SHARD, named)))
        live["metadata"] |= {"uid": "uid-server", "resourceVersion": "7"}
        found.cache.put(DEPLOYMENT, live, 0.0)
    return found


async def of_pool(found: Pools) -> PoolSnapshot:
    made = await found.snapshot(NAMESPACE, "saas")
    assert made
    return made


def of_tenant(found: Pools) -> TenantSnapshot:
    def view(namespace: str, server: str) -> tuple[Reading, ServerState | None, DrainReading | None]:
        return Reading(), None, None

    unknown: Any = lambda *_: None  # noqa: E731
    starts = Starts(1, unknown, unknown, lambda: 0.0)
    tenants = Tenants(found.api, found.cache, SETTINGS, StorageClasses(found.api), view, found, starts)
    raw = found.cache.get(TENANT, NAMESPACE, "alice")
    assert raw
    return tenants._wishes(TenantSnapshot(raw, datetime.now(UTC), SETTINGS, SERVER))


@pytest.mark.parametrize("rotate_at", [None, TO_COME], ids=["none is asked for", "to come"])
async def test_until_its_time_nothing_is_made(rotate_at: str | None) -> None:
    found = some(rotate_at, {SERVER: "old"}, "")
    assert ((await of_pool(found)).new_tokens, (await of_pool(found)).spent_tokens) == ({}, frozenset())
    told = of_tenant(found)
    assert (told.token, told.former_token, told.token_told) == (ServerToken("old", SHARD), None, True)


async def test_what_is_due_is_made_and_until_it_is_stored_nothing_changes() -> None:
    found = some(PAST, {SERVER: "old"}, "")
    pool = await of_pool(found)
    assert ([*pool.new_tokens], pool.spent_tokens) == ([ROTATED], frozenset())
    told = of_tenant(found)
    assert (told.token, told.former_token, told.token_told) == (ServerToken("old", SHARD), None, False)


async def test_once_it_is_stored_the_server_shall_have_it_and_keeps_the_old_one_until_it_was_drained() -> None:
    found = some(PAST, {SERVER: "old", ROTATED: "new"}, "")
    assert ((await of_pool(found)).new_tokens, (await of_pool(found)).spent_tokens) == ({}, frozenset())
    told = of_tenant(found)
    assert told.token == ServerToken("new", SHARD, compact(PAST))
    assert (told.former_token, told.known_token, told.token_told) == (*[ServerToken("old", SHARD)] * 2, True)


async def test_the_old_one_goes_once_the_deployment_names_the_new_one() -> None:
    found = some(PAST, {SERVER: "old", ROTATED: "new"}, compact(PAST))
    assert ((await of_pool(found)).new_tokens, (await of_pool(found)).spent_tokens) == ({}, frozenset({SERVER}))
    told = of_tenant(found)
    assert (told.token, told.former_token) == (ServerToken("new", SHARD, compact(PAST)), None)


async def test_who_takes_the_field_away_in_between_gets_no_new_token_and_afterwards_keeps_it() -> None:
    between, after = some(None, {SERVER: "old", ROTATED: "new"}, ""), some(None, {ROTATED: "new"}, compact(PAST))
    assert (await of_pool(between)).spent_tokens == {ROTATED}
    assert of_tenant(between).token == ServerToken("old", SHARD)
    assert (await of_pool(after)).spent_tokens == frozenset()
    assert of_tenant(after).token == ServerToken("new", SHARD, compact(PAST))


async def test_a_lost_token_comes_back_under_the_key_that_its_server_names() -> None:
    found = some(None, {}, compact(PAST))
    found.cache.put(SECRET, (told := a_secret(SERVER, a_tenant(), token="the one that it had")), 0.0)
    found.api.objects[SERVER] = told  # type: ignore[attr-defined]
    pool = await of_pool(found)
    assert pool.new_tokens == {ROTATED: "the one that it had"}
    assert pool.shard_of == {ROTATED: SHARD}


def behind_a_gateway(found: Pools) -> Pools:
    gateway = POOL_OBJECT | {"spec": POOL_OBJECT["spec"] | {"gateway": {"enabled": True}}}
    found.cache.put(POOL, gateway | {"metadata": gateway["metadata"] | {"resourceVersion": "8"}}, 0.0)
    return found


async def test_behind_a_gateway_it_is_not_the_servers_token_that_rotates() -> None:
    assert (await of_pool(behind_a_gateway(some(PAST, {SERVER: "old"}, "")))).new_tokens == {}


async def test_the_token_that_a_deployment_names_stays_when_its_pool_gets_a_gateway() -> None:
    still, then = (behind_a_gateway(some(None, {SERVER: "a", ROTATED: "b"}, named)) for named in (compact(PAST), ""))
    assert (await of_pool(still)).spent_tokens == frozenset()
    assert (await of_pool(then)).spent_tokens == {ROTATED}
