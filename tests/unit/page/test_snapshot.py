"""The document of the status page: complete, kept up to date, and made without holding up anybody."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from copilot_operator.domain.kinds import DEPLOYMENT, TENANT
from copilot_operator.domain.manifest import Manifest
from copilot_operator.page import recent, snapshot
from copilot_operator.page.rows import Row, tenant_row
from copilot_operator.page.snapshot import SLICE, Snapshots
from tests.support.status_page import World, condition, many


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "FRESH_S", -1.0)


async def shown(snapshots: Snapshots) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await snapshots.document()).body)
    return found


async def test_all_is_there_and_gateways_are_no_servers() -> None:
    world = World()
    world.event(world.pool(), "PoolReady", "All is well")
    world.tenant()
    world.server()
    world.put(
        DEPLOYMENT, "copilotpool-saas-gateway", metadata={"labels": {"app.kubernetes.io/name": "copilot-gateway"}}
    )
    found = await shown(world.snapshots())
    assert [found[part][0]["name"] for part in ("pools", "tenants", "servers")] == ["saas", "alice", "copilot-alice"]
    assert len(found["servers"]) == 1
    assert found["live"]["team/copilot-alice"]["busy"] == 1
    assert found["events"][0]["reason"] == "PoolReady"
    assert found["replica"]["leads"] is True


async def test_changes_are_seen_and_what_is_gone_is_gone() -> None:
    world = World()
    gone = world.tenant("gone")
    world.server("alice")
    snapshots = world.snapshots()
    before = await snapshots.document()
    assert (await snapshots.document()).tag == before.tag, "nothing has changed"
    world.tenant("alice", drain={"cause": "Update"})
    world.cache.drop(TENANT, gone)
    found = await shown(snapshots)
    assert [each["name"] for each in found["tenants"]] == ["alice"]
    assert found["servers"][0]["drain"]["cause"] == "Update", "a server's row follows its tenant"
    world.server("alice", replicas=0)
    assert (await shown(snapshots))["servers"][0]["replicas"] == [0, 0]
    assert (await snapshots.document()).tag != before.tag


async def test_a_seats_row_follows_what_is_found_of_it() -> None:
    world = World()
    world.server("saas/0")
    snapshots = world.snapshots()
    assert (await shown(snapshots))["servers"][0]["conditions"] == []
    world.seats["team", "saas/0"] = {"conditions": [condition(reason="CrashLooping")]}
    assert (await shown(snapshots))["servers"][0]["conditions"][0]["reason"] == "CrashLooping"


async def test_who_stands_by_tells_all_but_what_only_the_leader_hears() -> None:
    world = World(leads=False)
    world.tenant()
    world.server()
    found = await shown(world.snapshots())
    assert found["replica"] == {"name": "operator-a", "leads": False, "leader": "operator-b", "synced": True}
    assert found["live"] == {}
    assert found["tenants"][0]["conditions"][0]["reason"] == "ServerReady"


async def test_others_are_served_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: how often somebody else had his turn while a document was made."""
    world, turns = World(), 0
    many(world, 4 * SLICE)

    async def somebody_else() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def at_once(packed: Callable[..., tuple[bytes, str]], *parts: bytes) -> tuple[bytes, str]:
        return packed(*parts)  # while a thread works all others have their turns

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    other = asyncio.create_task(somebody_else())
    await world.snapshots().document()
    other.cancel()
    assert turns >= 2 * 4


async def test_a_row_is_made_once_for_each_version(monkeypatch: pytest.MonkeyPatch) -> None:
    world, made = World(), list[str]()
    many(world, 30)

    def counted(tenant: Manifest) -> Row:
        made.append(tenant["metadata"]["name"])
        return tenant_row(tenant)

    monkeypatch.setattr(snapshot, "tenant_row", counted)
    snapshots = world.snapshots()
    await snapshots.document()
    assert len(made) == 30
    world.tenant("tenant-0007", phase="Draining")
    await snapshots.document()
    assert made[30:] == ["tenant-0007"]


async def test_viewers_of_the_same_second_share_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "FRESH_S", 3600.0)
    snapshots = World().snapshots()
    found = await asyncio.gather(*(snapshots.document() for _ in range(5)))
    assert all(each is found[0] for each in found)


def test_only_the_last_events_are_kept() -> None:
    world = World()
    for number in range(recent.MOST + 5):
        world.event({"kind": "CopilotPool", "metadata": {"name": "saas", "namespace": "team"}}, "Told", str(number))
    found = world.recent.events()
    assert (len(found), found[0]["message"]) == (recent.MOST, str(recent.MOST + 4))
