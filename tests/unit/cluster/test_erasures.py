"""Who is taken for deleted: the API server is asked before anything is noted, and what servers have erased counts."""

from typing import Any, cast

import pytest

from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent
from copilot_operator.cluster.members import Members
from copilot_operator.cluster.pools import Pools
from copilot_operator.domain.desired.tenant_entry import gateway_entry
from copilot_operator.domain.erasure import note
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.snapshot import Erasure, GatewayView, ServerState
from copilot_operator.domain.tenant_tokens import code_of
from tests.support.snapshots import NAMESPACE, NOW, NOW_TEXT, a_tenant

KEY = "the-pools-key"
SHARD = "copilotpool-saas-gateway-tenants-0"
CODE = code_of(KEY, "uid-alice")


class Api:
    """Knows one tenant, or none."""

    def __init__(self, tenant: dict[str, Any] | None) -> None:
        self.tenant = tenant

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        if self.tenant is None:
            raise Absent(f"get {name}", 404, "NotFound", "")
        return self.tenant


def pools(tenant: dict[str, Any] | None = None, erased: dict[str, dict[str, int]] | None = None) -> Pools:
    def state(namespace: str, server: str) -> ServerState | None:
        told = (erased or {}).get(server)
        return ServerState("pod", NOW, True, erased=tuple(told.items())) if told is not None else None

    members = Members(Cache(), state, lambda *_: False, lambda *_: None)
    members.names = lambda namespace, pool: [f"{pool}/0", f"{pool}/1"]  # type: ignore[method-assign]
    nothing: Any = None
    return Pools(cast(KubeApi, Api(tenant)), Cache(), nothing, nothing, members, nothing, nothing)


async def with_erasures(pools: Pools, view: GatewayView) -> GatewayView:
    return await pools._with_erasures(NAMESPACE, "saas", view, one_volume=False)


def view(**held: str) -> GatewayView:
    stored = {key.replace("_", "-"): text for key, text in held.items()}
    return GatewayView(tenant_key=KEY, key_stored=True, tenants={SHARD: stored}, entries={})


async def test_who_is_gone_is_noted_where_his_entry_was() -> None:
    found = await with_erasures(pools(), view(copilot_alice=gateway_entry(a_tenant(), KEY, shared=True)))
    (made,) = found.erasures
    assert (made.code, made.tenant, made.seats, made.erased) == (CODE, "alice", (0, 1), 0)
    assert (dict(found.entries), dict(found.homes)) == ({made.key: note(made)}, {made.key: SHARD})


async def test_who_is_there_though_no_watch_has_told_is_left_alone() -> None:
    entry = gateway_entry(a_tenant(), KEY, shared=True)
    found = await with_erasures(pools(a_tenant()), view(copilot_alice=entry))
    assert (dict(found.entries), found.erasures) == ({"copilot-alice": entry}, ())


async def test_a_namesake_of_another_uid_is_not_who_is_gone() -> None:
    entry = gateway_entry(a_tenant(), KEY, shared=True)
    found = await with_erasures(pools(a_tenant(uid="uid-2")), view(copilot_alice=entry))
    assert [each.code for each in found.erasures] == [CODE]


@pytest.mark.parametrize(("servers", "left", "erased"), [((), (0, 1), 0), ((0,), (1,), 2), ((0, 1), (), 4)])
async def test_what_servers_have_erased_is_not_noted_any_more(
    servers: tuple[int, ...], left: tuple[int, ...], erased: int
) -> None:
    told = {server_of(f"saas/{ordinal}"): {CODE: 2} for ordinal in servers}
    stored = Erasure(CODE, "alice", (0, 1), NOW_TEXT)
    before = GatewayView(tenant_key=KEY, key_stored=True, tenants={SHARD: {stored.key: note(stored)}})
    found = await with_erasures(pools(erased=told), before)
    if left:
        assert [(each.seats, each.erased) for each in found.erasures] == [(left, erased)]
        assert found.entries.keys() == {stored.key}
    else:
        assert [each.erased for each in found.erased] == [erased]
        assert (dict(found.entries), found.erasures) == ({}, ())
