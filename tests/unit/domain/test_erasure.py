"""What deleted tenants have left: when it is noted, who is told to erase it, and when it is done."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.api.pool import PoolStatus
from copilot_operator.domain.desired.tenant_entry import gateway_entry
from copilot_operator.domain.erasure import (
    Departed,
    advanced,
    codes_of,
    departed,
    note,
    noted,
    orders,
    pending,
    seats_with,
)
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.pool_plan import PER_SHARD, sharded
from copilot_operator.domain.pool_status import pool_report
from copilot_operator.domain.seats import seat_name
from copilot_operator.domain.snapshot import Erasure, GatewayView
from copilot_operator.domain.tenant_tokens import code_of
from copilot_operator.gateway.feed.compiled import Seen, compiled
from tests.support.snapshots import a_pool_snapshot, a_tenant

KEY = "the-pools-key"
SINCE = "2026-03-01T12:00:00Z"
ALICE = code_of(KEY, "uid-alice")
GONE = Erasure(ALICE, "alice", (0, 1), SINCE)

erasures = st.builds(
    Erasure,
    code=st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=16, max_size=16),
    tenant=st.just("alice"),
    seats=st.sets(st.integers(0, 999), min_size=1).map(lambda found: tuple(sorted(found))),
    since=st.just(SINCE),
    erased=st.integers(0, 1000),
)


def entry(uid: str = "uid-alice", key: str = KEY, **more: Any) -> str:
    return gateway_entry(a_tenant(uid=uid, **more), key, shared=True)


def of(
    shards: Mapping[str, Mapping[str, str]], entries: Mapping[str, str], *, key_stored: bool = True
) -> list[Departed]:
    return list(departed(shards, entries, key_stored=key_stored))


def test_who_is_gone_is_found_by_what_gateways_knew_last() -> None:
    stored = {"shard-0": {"copilot-alice": entry(status={"homes": ["copilot-x"]})}}
    assert of(stored, {}) == [Departed(ALICE, "alice", "copilot-alice", "shard-0", ("copilot-x",))]
    assert of(stored, {"copilot-alice": entry(status={"homes": []})}) == [], "only its homes have changed"


def test_another_tenant_of_the_same_name_is_another() -> None:
    stored = {"shard-0": {"copilot-alice": entry()}}
    assert [each.code for each in of(stored, {"copilot-alice": entry("uid-2")})] == [ALICE]


def test_a_pool_that_lost_its_key_has_lost_no_tenant() -> None:
    stored = {"shard-0": {"copilot-alice": entry(), "copilot-bob": gateway_entry(a_tenant("bob"), KEY, shared=True)}}
    now = {"copilot-alice": entry(key="another-key")}
    assert [each.tenant for each in of(stored, now, key_stored=False)] == ["bob"]


def test_tenants_with_servers_of_their_own_leave_nothing_on_others() -> None:
    assert of({"shard-0": {"copilot-alice": gateway_entry(a_tenant(), KEY, shared=False)}}, {}) == []


@given(erasures)
def test_a_note_is_read_as_it_was_written_and_fits_into_its_secret(erasure: Erasure) -> None:
    assert noted({"shard-0": {erasure.key: note(erasure)}}) == [erasure]
    assert of({"shard-0": {erasure.key: note(erasure)}}, {}) == [], "nobody is deleted twice"
    assert PER_SHARD * len(note(erasure)) < 1024 * 1024


def test_gateways_take_no_notice_of_a_note() -> None:
    settings = {
        "pool.json": "{}",
        "shards.json": json.dumps({"serverTokens": [], "tenants": ["shard-0"]}),
        "pods.json": json.dumps({"servers": ""}),
    }
    bob = {"copilot-bob": gateway_entry(a_tenant("bob"), KEY, shared=True)}
    without = compiled(Seen(settings, {"shard-0": bob}, listed=True))
    assert compiled(Seen(settings, {"shard-0": bob | {GONE.key: note(GONE)}}, listed=True)) == without


@given(st.integers(0, 3 * PER_SHARD), *[st.integers(0, 3 * PER_SHARD - 1)] * 2)
def test_the_note_takes_the_place_of_the_entry_in_one_write(others: int, which: int, room: int) -> None:
    before = {f"copilot-{n}": f"{n}" for n in range(3 * PER_SHARD)}
    stored = sharded({}, before, lambda n: f"shard-{n}")
    key = f"copilot-{which}"
    shard = next(name for name, held in stored.items() if key in held)
    new = {f"new-{n}": "" for n in range(others)}
    wanted = (
        {name: value for name, value in before.items() if name not in (key, f"copilot-{room}")}
        | new
        | {GONE.key: note(GONE)}
    )
    after = sharded(stored, wanted, lambda n: f"shard-{n}", {GONE.key: shard})
    assert key not in after[shard]
    assert GONE.key in after[shard]


@given(erasures, st.lists(st.tuples(st.integers(0, 999), st.integers(0, 50))))
def test_a_server_is_left_until_it_has_said_that_it_is_done(erasure: Erasure, told: list[tuple[int, int]]) -> None:
    first = {erasure.seats[0]: {erasure.code: 3}}
    after = advanced(erasure, first)
    assert (after.seats, after.erased) == (erasure.seats[1:], erasure.erased + 3)
    assert advanced(after, first) == after, "what was counted is not counted again"
    others = {seat: {"another-code": number} for seat, number in told}
    assert advanced(erasure, others) == erasure


def test_one_that_sees_the_whole_volume_answers_for_all() -> None:
    two = replace(GONE, seats=(0, 1))
    assert advanced(two, {1: {ALICE: 3}}, one_volume=True).seats == ()
    assert advanced(two, {1: {"another-code": 3}}, one_volume=True).seats == (0, 1)


def test_servers_are_told_of_codes_that_nobody_has() -> None:
    other = replace(GONE, code="b" * 16, seats=(1,))
    zero, one = (server_of(seat_name("saas", n)) for n in (0, 1))
    assert orders("saas", [GONE, other], set()) == {zero: (ALICE,), one: (ALICE, "b" * 16)}
    assert orders("saas", [GONE, other], {ALICE}) == {one: ("b" * 16,)}
    assert codes_of({"copilot-alice": entry(), GONE.key: note(replace(GONE, code="b" * 16))}) == {ALICE}


def test_a_home_that_has_lost_its_deployment_is_not_forgotten() -> None:
    homes = [server_of(seat_name("saas", 7))]
    assert seats_with("saas", ["saas/0", "saas/1"], homes) == (0, 1, 7)
    assert seats_with("saas", ["saas/0"], [server_of("saas/0"), "of-another-kind"]) == (0,)


def test_a_pool_tells_what_is_to_be_erased_and_what_is() -> None:
    many = tuple(replace(GONE, tenant=f"t{n}", code=f"{n:016}", seats=tuple(range(30))) for n in range(40))
    found = pool_report(a_pool_snapshot(gateway=GatewayView(erasures=many)))
    assert found.status
    assert found.deletion is None
    told = PoolStatus.model_validate(found.status).pending_erasures
    assert told
    assert (told.count, len(told.oldest), len(told.oldest[0].servers)) == (40, 10, 20)
    assert pending("saas", ()) == {}

    done = (replace(GONE, seats=(), erased=3), replace(GONE, tenant="bob", seats=(), erased=1))
    event = pool_report(a_pool_snapshot(gateway=GatewayView(erased=done))).deletion
    assert event
    assert (event.reason, event.message) == ("TenantErased", "4 sessions of deleted tenants are erased: alice, bob")
