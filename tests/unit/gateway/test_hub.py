"""A whole gateway in front of stand-in servers: what clients see, and what they do not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.gateway import limits
from copilot_operator.gateway.house import Bounds
from copilot_operator.gateway.session import loading
from tests.support.eventually import eventually
from tests.support.gateway import (
    SERVER_TOKEN,
    House,
    RawClient,
    house,
    server_entry,
    servers_file,
    sha256,
    tenants_file,
)
from tests.support.standin import Fault, StandIn, standin


@pytest.fixture
async def one() -> AsyncIterator[StandIn]:
    async with standin(token=SERVER_TOKEN) as server:
        yield server


@pytest.fixture
async def two() -> AsyncIterator[StandIn]:
    async with standin(token=SERVER_TOKEN) as server:
        yield server


@pytest.fixture
async def at(one: StandIn, tmp_path: Path) -> AsyncIterator[House]:
    """A Shared pool of one server."""
    async with house(tmp_path, {"one": one}) as made:
        yield made


async def heard(client: RawClient, session: str, *types: str, times: int = 1) -> None:
    """Wait until a client was told so."""
    for type in types:
        what = f"{type} of {session}"
        await eventually(lambda: client.types(session).count(type) >= times, within_s=10, what=what)  # noqa: B023


def prompts(server: StandIn) -> list[str]:
    """All messages that a server has stored."""
    events = [event for session in server.server.volume.values() for event in session.events]
    return [event["data"]["content"] for event in events if event["type"] == "user.message"]


# What one client sees


async def test_a_conversation_is_as_it_is_without_a_gateway(at: House, one: StandIn) -> None:
    client = await at.client()
    created = await client("session.create", sessionId="s-1")
    assert (created["sessionId"], created["nativeSessionId"]) == ("s-1", "s-1")
    sent = await client("session.send", sessionId="s-1", prompt="hello")
    await heard(client, "s-1", "user.message", "assistant.message", "session.idle")
    message = next(event for event in client.events("s-1") if event["type"] == "user.message")
    assert message["data"] == {"content": "hello", "messageId": sent["messageId"]}
    assert [event["type"] for event in (await client("session.getMessages", sessionId="s-1"))["events"]]
    assert list(one.server.volume) == [f"{sha256('alice')[:6]}-s-1"]
    assert await client("session.delete", sessionId="s-1") == {"success": True}
    assert one.server.volume == {}


async def test_a_session_without_an_id_gets_one(at: House) -> None:
    client = await at.client()
    for missing in ({}, {"sessionId": ""}, {"sessionId": None}):
        assert len((await client("session.create", **missing))["sessionId"]) == 36


async def test_what_the_gateway_answers_itself(at: House) -> None:
    client = await at.client()
    pong = await client("ping", message="hi")
    assert (pong["message"], pong["protocolVersion"]) == ("pong: hi", 3)
    assert await client("status.get") == {"version": "1.0.102", "protocolVersion": 3}
    assert await client("session.getForeground") == {}
    assert await client("session.getLastId") == {}
    for method in ("no.such", "runtime.shutdown", "session.shell.exec", "sessions.pruneOld"):
        reply = await client.ask(method, sessionId="x")
        assert reply["error"] == {"code": -32601, "message": f"Unhandled method {method}"}


async def test_lists_hold_the_own_sessions_of_all_servers_newest_first(
    one: StandIn, two: StandIn, tmp_path: Path
) -> None:
    pool = {"isolation": "Shared", "routing": "RoundRobin"}
    async with house(tmp_path, {"one": one, "two": two}, pool=pool) as at:
        client, other = await at.client("alice"), await at.client("bob")
        for n in range(4):
            for each in (client, other):
                await each("session.create", sessionId=f"s-{n}")
                await each("session.send", sessionId=f"s-{n}", prompt="x", wait=True)
        assert {len(server.server.volume) for server in (one, two)} == {4}
        listed = (await client("session.list"))["sessions"]
        assert [each["sessionId"] for each in listed] == ["s-3", "s-2", "s-1", "s-0"]
        assert await client("session.getLastId") == {"sessionId": "s-3"}

        def told() -> list[tuple[int, list[str]]]:
            return [(each["stored"], each["homes"]) for each in at.hub.numbers().values()]

        await eventually(lambda: told() == [(4, ["one"]), (4, ["two"])], within_s=10, what="what each of them stores")


async def test_a_permission_is_asked_for_and_given(at: House) -> None:
    client = await at.client()
    await client("session.create", sessionId="s", requestPermission=True)
    await client("session.send", sessionId="s", prompt="TOOL=`sleep 0`")
    await heard(client, "s", "permission.requested")
    asked = next(event for event in client.events("s") if event["type"] == "permission.requested")["data"]["requestId"]
    answer = {"sessionId": "s", "requestId": asked, "result": {"kind": "approve-once"}}
    assert await client("session.permissions.handlePendingPermissionRequest", **answer) == {"success": True}
    await heard(client, "s", "session.idle")


async def test_requests_of_one_client_are_answered_side_by_side(at: House) -> None:
    client = await at.client()
    for id in ("slow", "quick"):
        await client("session.create", sessionId=id)
    slow = client.begin("session.send", sessionId="slow", prompt="SLEEP=1", wait=True)
    await client("session.send", sessionId="quick", prompt="x", wait=True)
    assert "session.idle" not in client.types("slow"), "the quick one did not wait for it"
    await client.reply(slow)


# Tenants


async def test_another_tenants_session_is_as_one_that_nobody_has(at: House, one: StandIn) -> None:
    alice, bob = await at.client("alice"), await at.client("bob")
    await alice("session.create", sessionId="secret")
    await alice("session.send", sessionId="secret", prompt="plans", wait=True)
    before = len(one.server.volume[f"{sha256('alice')[:6]}-secret"].events)
    for method in ("session.send", "session.abort", "session.resume", "session.getMessages", "session.getMetadata",
                   "session.delete", "session.metadata.activity", "sessions.close"):  # fmt: skip
        for id in ("secret", f"{sha256('alice')[:6]}-secret"):
            nobody = "x" * len(id)
            of_alice = await bob.ask(method, sessionId=id, prompt="hi")
            of_nobody = await bob.ask(method, sessionId=nobody, prompt="hi")
            assert str(of_alice.get("error", of_alice.get("result"))).replace(id, nobody) == str(
                of_nobody.get("error", of_nobody.get("result"))
            ), method
    assert (await bob("session.list"))["sessions"] == []
    assert len(one.server.volume[f"{sha256('alice')[:6]}-secret"].events) == before
    assert bob.told == [], "no broadcast of hers either"
    lifecycle = [each["params"] for each in alice.told if each["method"] == "session.lifecycle"]
    assert {each["sessionId"] for each in lifecycle} == {"secret"}
    assert {each["type"] for each in lifecycle} == {"session.created", "session.updated"}


async def test_a_dedicated_tenant_has_its_server_and_its_ids(one: StandIn, two: StandIn, tmp_path: Path) -> None:
    tenants = {sha256(name): {"name": name, "server": server} for name, server in (("alice", "one"), ("bob", "two"))}
    async with house(tmp_path, {"one": one, "two": two}, pool={"isolation": "Dedicated"}, tenants=tenants) as at:
        for name in ("alice", "bob"):
            client = await at.client(name)
            await client("session.create", sessionId="s")
            await client("session.send", sessionId="s", prompt=name, wait=True)
            assert [each["sessionId"] for each in (await client("session.list"))["sessions"]] == ["s"]
        assert [list(server.server.volume) for server in (one, two)] == [["s"], ["s"]]
        assert (prompts(one), prompts(two)) == (["alice"], ["bob"])


async def test_a_tenant_has_only_so_many_connections_and_requests(at: House) -> None:
    at.reload(pool={"isolation": "Shared", "limits": {"connections": 2, "requestsPerSecond": 0.01, "burst": 3}})
    first, _ = await at.client(), await at.client()
    third = await at.stranger()
    refused = await third.connect("alice")
    assert (refused["error"]["code"], "2 connections" in refused["error"]["message"]) == (-32010, True)
    async with asyncio.timeout(5):
        await third.ended.wait()
    await at.client("bob")
    replies = [await first.ask("ping") for _ in range(4)]
    assert ["result" in reply for reply in replies] == [True, True, True, False]
    assert replies[3]["error"]["data"]["retryAfterS"] > 1
    await first.close()
    await eventually(lambda: len(at.hub.connections) == 2, within_s=5, what="room again")
    await at.client()


async def test_a_tenant_that_reconnects_gets_no_new_burst_and_other_limits_hold_at_once(at: House) -> None:
    def limit(burst: int) -> None:
        at.reload(pool={"isolation": "Shared", "limits": {"requestsPerSecond": 0.01, "burst": burst}})

    limit(2)
    client = await at.client()
    assert ["result" in await client.ask("ping") for _ in range(3)] == [True, True, False]
    await client.close()
    limit(2)
    client = await at.client()
    assert "error" in await client.ask("ping")
    assert "result" in await (await at.client("bob")).ask("ping")
    limit(3)
    assert ["result" in await client.ask("ping") for _ in range(4)] == [True, True, True, False]


async def test_a_deleted_tenant_is_gone_at_once(at: House) -> None:
    alice, bob = await at.client("alice"), await at.client("bob")
    await alice("session.create", sessionId="s")
    at.reload(tenants=tenants_file("bob"))
    async with asyncio.timeout(5):
        await alice.ended.wait()
    assert (await (await at.stranger()).connect("alice"))["error"]["code"] == -32002
    assert await bob("ping")


async def test_a_rotated_token_closes_who_came_with_it_and_nobody_else(at: House) -> None:
    both = tenants_file("alice") | {sha256("new"): tenants_file("alice")[sha256("alice")]} | tenants_file("bob")
    at.reload(tenants=both)
    old, stays, bob = await at.client("alice"), await at.client("alice"), await at.client("bob")
    new = await at.client("new")
    await old("session.create", sessionId="s")
    await old("session.send", sessionId="s", prompt="first", wait=True)
    assert "result" in await stays.connect("new"), "who says the new one may stay"
    at.reload(tenants={key: entry for key, entry in both.items() if key != sha256("alice")})
    async with asyncio.timeout(5):
        await old.ended.wait()
    assert (await (await at.stranger()).connect("alice"))["error"]["code"] == -32002
    assert await new("session.resume", sessionId="s"), "the same tenant's session"
    assert await stays("ping")
    assert await bob("ping")


async def test_a_credential_that_is_refused_is_told_until_it_is_taken(at: House) -> None:
    alice, bob = await at.client("alice"), await at.client("bob")
    for client in (alice, bob):
        await client("session.create", sessionId="s")
        await client("session.send", sessionId="s", prompt="hello", wait=True)

    def told() -> set[str]:
        return {name for name, numbers in at.hub.numbers().items() if numbers.get("refused")}

    await alice("session.send", sessionId="s", prompt="ERR=500", wait=True)
    await eventually(lambda: "session.error" in alice.types("s"), within_s=5, what="the turn fails")
    assert told() == set(), "a fault of the model is none of the credential"
    await alice("session.send", sessionId="s", prompt="ERR=401", wait=True)
    await eventually(lambda: told() == {"alice"}, within_s=5, what="it is told")
    await alice("session.send", sessionId="s", prompt="again", wait=True)
    await eventually(lambda: told() == set(), within_s=5, what="it works again")


# Servers come and go


async def test_a_session_of_a_restarted_server_goes_on_as_if_nothing_was(at: House, one: StandIn) -> None:
    client = await at.client()
    await client("session.create", sessionId="s")
    await client("session.send", sessionId="s", prompt="first", wait=True)
    one.server.exit(killed=True)  # and is started again
    reply = await client.ask("session.send", sessionId="s", prompt="second")
    assert "messageId" in reply["result"], reply
    await heard(client, "s", "session.idle", times=2)
    assert prompts(one) == ["first", "second"]
    assert "session.error" not in client.types("s")


async def test_a_turn_that_died_with_its_server_is_ended_and_the_session_goes_on(at: House, one: StandIn) -> None:
    client = await at.client()
    await client("session.create", sessionId="s")
    await client("session.send", sessionId="s", prompt="SLEEP=30")
    await heard(client, "s", "assistant.message_delta")
    one.server.exit(killed=True)
    await heard(client, "s", "session.error", "session.idle")
    assert client.types("s").index("session.error") < client.types("s").index("session.idle")
    await client("session.send", sessionId="s", prompt="again", wait=True)
    assert prompts(one) == ["SLEEP=30", "again"], "it was not said twice"


async def test_a_session_that_somebody_unloaded_is_loaded_by_its_next_request(at: House, one: StandIn) -> None:
    client = await at.client()
    await client("session.create", sessionId="s")
    await client("session.send", sessionId="s", prompt="first", wait=True)
    [session] = one.server.volume.values()
    one.server.sessions.close(None, {"sessionId": session.id})
    assert not session.loaded
    assert "events" in await client("session.getMessages", sessionId="s")
    await client("session.send", sessionId="s", prompt="second", wait=True)
    assert prompts(one) == ["first", "second"]


async def test_new_sessions_keep_away_from_a_draining_server_and_idle_ones_leave_it(
    one: StandIn, two: StandIn, tmp_path: Path
) -> None:
    async with house(tmp_path, {"one": one}) as at:
        client = await at.client()
        await client("session.create", sessionId="fresh")  # nothing of it is stored, so it has no home
        await client("session.create", sessionId="works")
        await client("session.send", sessionId="works", prompt="SLEEP=1")
        await heard(client, "works", "user.message")
        at.reload(servers={"one": server_entry(one, "Draining"), "two": server_entry(two)})
        await eventually(lambda: at.hub.servers["two"].reachable, within_s=5, what="the other server")
        await client("session.create", sessionId="new")
        assert [session.id[-3:] for session in two.server.volume.values()] == ["new"]
        await heard(client, "works", "session.idle")
        await eventually(lambda: not one.server.sessions.loaded, within_s=5, what="the drained server is empty")
        assert client.types("works")[-1] == "session.idle"
        await client("session.send", sessionId="fresh", prompt="here", wait=True)
        assert prompts(two) == ["here"], "what had no history is made anew elsewhere"


async def test_a_server_that_does_not_run_is_listed_as_it_was_and_a_request_wants_it(
    one: StandIn, tmp_path: Path
) -> None:
    pool = {"isolation": "Dedicated", "limits": {"heldS": 0.3}}
    tenants = {sha256("alice"): {"name": "alice", "server": "one"}}
    async with house(tmp_path, {"one": one}, pool=pool, tenants=tenants) as at:
        client = await at.client()
        await client("session.create", sessionId="s")
        await client("session.send", sessionId="s", prompt="hello", wait=True)
        at.reload(servers={"one": server_entry(one, "Draining")})
        await eventually(lambda: at.hub.servers["one"].listing, within_s=5, what="it was listed once more")
        at.reload(servers={"one": server_entry(one, "Stopped")})
        assert [each["sessionId"] for each in (await client("session.list"))["sessions"]] == ["s"]
        assert await client("session.getLastId") == {"sessionId": "s"}
        assert at.hub.demand.servers() == [], "who only looks starts nothing"
        assert "error" in await client.ask("session.send", sessionId="s", prompt="more")
        assert at.hub.demand.servers() == ["one"]
        assert at.hub.demand.waiting() == 0, "no other server would do"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that finds no server does not look for one again by itself."""
    for name in ("RETRY_S", "_MOST_RETRY_S"):
        monkeypatch.setattr(loading, name, 3600.0)


@pytest.mark.usefixtures("patient")
async def test_a_held_request_goes_on_as_soon_as_its_server_is_there(one: StandIn, tmp_path: Path) -> None:
    pool = {"isolation": "Dedicated", "limits": {"heldS": 50.0}}
    tenants = {sha256("alice"): {"name": "alice", "server": "one"}}
    servers = {"one": server_entry(one, "Stopped")}
    async with house(tmp_path, {}, servers=servers, pool=pool, tenants=tenants) as at:
        client = await at.client()
        made = asyncio.create_task(client("session.create", sessionId="s"))
        await eventually(lambda: at.hub.demand.servers() == ["one"], within_s=5, what="it is held")
        at.reload(servers=servers_file(one=one))
        await made


@pytest.mark.usefixtures("patient")
async def test_a_tenants_only_server_takes_requests_from_the_moment_in_which_it_answers(
    one: StandIn, tmp_path: Path
) -> None:
    """Not from when kubelet has found out that it does, which is up to a second later."""
    pool = {"isolation": "Dedicated", "limits": {"heldS": 50.0}}
    tenants = {sha256("alice"): {"name": "alice", "server": "one"}}
    servers = {"one": server_entry(one, "Starting")}
    await one.stop()
    async with house(tmp_path, {}, servers=servers, pool=pool, tenants=tenants) as at:
        client = await at.client()
        made = asyncio.create_task(client("session.create", sessionId="s"))
        await eventually(lambda: at.hub.demand.servers() == ["one"], within_s=5, what="it is held")
        assert at.hub.why_not_ready() == "", "one that starts says nothing against its gateway"
        await one.start(one.host, one.port)
        await made
        at.reload(servers=servers_file(one=one))
        await client("session.send", sessionId="s", prompt="hello", wait=True)


async def test_a_server_of_many_tenants_takes_nothing_before_it_has_started(at: House, one: StandIn) -> None:
    at.reload(servers={"one": server_entry(one, "Starting")})
    assert at.hub.servers == {}


async def test_a_session_that_no_server_takes_is_told_of_until_one_does(one: StandIn, tmp_path: Path) -> None:
    pool = {"isolation": "Shared", "limits": {"heldS": 5.0}}
    async with house(tmp_path, {}, servers={}, pool=pool) as at:
        client = await at.client()
        assert at.hub.demand.waiting() == 0
        made = asyncio.create_task(client("session.create", sessionId="s"))
        await eventually(lambda: at.hub.demand.waiting() == 1, within_s=5, what="a session waits")
        at.reload(servers=servers_file(one=one))
        await made
        assert at.hub.demand.waiting() == 0


@pytest.mark.parametrize("isolation", ["Dedicated", "Shared"])
async def test_a_request_that_waited_in_vain_is_told_what_keeps_servers_from_starting(
    isolation: str, tmp_path: Path
) -> None:
    trouble = {"trouble": "PodRefused: exceeded quota"}
    pool: dict[str, Any] = {"isolation": isolation, "limits": {"heldS": 0.3}}
    tenants, servers = tenants_file("alice"), {}
    if isolation == "Dedicated":
        tenants = {sha256("alice"): {"name": "alice", "server": "one"} | trouble}
        servers = {"one": {"state": "Stopped", "token": SERVER_TOKEN}}
    else:
        pool |= trouble
    async with house(tmp_path, {}, pool=pool, tenants=tenants, servers=servers) as at:
        refused = (await (await at.client()).ask("session.create", sessionId="s"))["error"]
        assert refused["data"]["reason"] == "HeldTooLong"
        assert (
            "within 0.3 s (no server can take this session at present: PodRefused: exceeded quota)"
            in (refused["message"])
        )


async def test_what_would_wait_in_vain_is_refused_at_once(
    one: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HELD_OF_TENANT", 2)
    monkeypatch.setattr(limits, "COUNTED_EVERY_S", 0.0)
    pool = {"isolation": "Shared", "limits": {"heldS": 5.0}}
    async with house(tmp_path, {}, servers={}, pool=pool) as at:
        client = await at.client()
        made = [asyncio.create_task(client("session.create", sessionId=id)) for id in ("a", "b")]
        await eventually(lambda: at.hub.demand.waiting() == 2, within_s=5, what="two wait")
        refused = await client.ask("session.create", sessionId="c")
        assert (refused["error"]["data"]["reason"], at.hub.demand.waiting()) == ("TooManyHeld", 2)
        at.reload(servers=servers_file(one=one))
        await asyncio.gather(*made)
        await client("session.create", sessionId="c")


async def test_sessions_of_a_server_that_left_are_answered_with_an_error_and_others_go_on(
    one: StandIn, two: StandIn, tmp_path: Path
) -> None:
    pool = {"isolation": "Shared", "routing": "RoundRobin", "limits": {"heldS": 0.3}}
    async with house(tmp_path, {"one": one, "two": two}, pool=pool) as at:
        client = await at.client()
        for id in ("a", "b"):
            await client("session.create", sessionId=id)
            await client("session.send", sessionId=id, prompt=id, wait=True)
        lost, kept = ("a", "b") if prompts(one) == ["a"] else ("b", "a")
        at.reload(servers=servers_file(two=two))
        assert "error" in await client.ask("session.send", sessionId=lost, prompt="more")
        await client("session.send", sessionId=kept, prompt="more", wait=True)
        assert prompts(two)[-1] == "more"


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.GARBAGE, Fault.HALF, Fault.REFUSE])
async def test_an_ill_server_costs_an_answer_and_not_the_connection(fault: Fault, one: StandIn, tmp_path: Path) -> None:
    one.server.fault = fault
    async with house(tmp_path, {"one": one}, pool={"isolation": "Shared", "limits": {"heldS": 0.3}}) as at:
        client = await at.client()
        assert "error" in await client.ask("session.create", sessionId="s")
        assert await client("ping")
        assert "server" in at.hub.why_not_ready()


async def test_a_server_that_refuses_the_token_takes_nothing(one: StandIn, tmp_path: Path) -> None:
    servers = {"one": server_entry(one) | {"token": "old"}}
    pool = {"isolation": "Shared", "limits": {"heldS": 0.3}}
    async with house(tmp_path, {}, servers=servers, pool=pool) as at:
        client = await at.client()
        assert (await client.ask("session.create", sessionId="s"))["error"]["code"] == -32010
        at.reload(servers=servers_file(one=one), pool={"isolation": "Shared"})
        await eventually(lambda: not at.hub.why_not_ready(), within_s=5, what="that it is ready")
        await client("session.create", sessionId="other")  # "s" may still be under its old limits


# Clients come and go


async def test_a_turn_goes_on_without_its_client_and_a_returning_one_hears_its_end(at: House, one: StandIn) -> None:
    first = await at.client()
    await first("session.create", sessionId="s")
    await first("session.send", sessionId="s", prompt="SLEEP=2")
    await heard(first, "s", "assistant.turn_start")
    first.abort()
    await eventually(lambda: len(at.hub.connections) == 0, within_s=5, what="that it has gone")
    second = await at.client()
    assert (await second("session.resume", sessionId="s"))["sessionId"] == "s"
    await heard(second, "s", "assistant.message", "session.idle")
    assert prompts(one) == ["SLEEP=2"]


async def test_a_detach_in_mid_turn_lets_it_finish_and_then_the_session_is_let_go(at: House, one: StandIn) -> None:
    client = await at.client()
    await client("session.create", sessionId="s")
    await client("session.send", sessionId="s", prompt="SLEEP=1")
    assert await client("session.detach", sessionId="s") == {"success": True}
    [session] = one.server.volume.values()
    await eventually(lambda: not session.loaded, within_s=10, what="that it is let go")
    assert [event["type"] for event in session.events][-2:] == ["session.idle", "session.shutdown"]


async def test_links_are_closed_when_nothing_is_loaded_over_them(at: House, one: StandIn) -> None:
    client = await at.client()
    assert len(one.server.connections) <= 1, "the utility connection, and none for a client that owns nothing"
    await client("session.create", sessionId="s")
    assert len(one.server.connections) == 2
    await client("session.detach", sessionId="s")
    await eventually(lambda: len(one.server.connections) == 1, within_s=5, what="that its link is closed")
    assert not client.ended.is_set()
    assert (await client.ask("session.create", sessionId="s2"))["result"]["sessionId"] == "s2"


async def test_two_clients_of_a_session_both_hear_all_of_it_once(at: House) -> None:
    first, second = await at.client(), await at.client()
    await first("session.create", sessionId="s")
    await first("session.send", sessionId="s", prompt="one", wait=True)
    await second("session.resume", sessionId="s", disableResume=True)
    await second("session.send", sessionId="s", prompt="two", wait=True)
    for client, messages in ((first, 2), (second, 1)):
        await heard(client, "s", "session.idle", times=messages)
        assert client.types("s").count("user.message") == messages
        assert client.types("s").count("assistant.message") == messages


async def test_a_client_that_never_reads_stops_nobody_and_is_closed(one: StandIn, tmp_path: Path) -> None:
    bounds = Bounds(unread=64 * 1024, unread_s=1.0)
    async with house(tmp_path, {"one": one}, bounds=bounds) as at:
        deaf, other = await at.client(), await at.client()
        await other("session.create", sessionId="other")
        await deaf("session.create", sessionId="deaf")
        await deaf("session.send", sessionId="deaf", prompt="x" * 1_000_000, wait=True)
        deaf.stop_reading()
        for _ in range(30):
            deaf.begin("session.getMessages", sessionId="deaf")
        await other("session.send", sessionId="other", prompt="x", wait=True)
        await eventually(lambda: len(at.hub.connections) == 1, within_s=10, what="that it is closed")
        assert at.hub.metrics.registry.get_sample_value("copilot_gateway_errors_total", {"kind": "Door"}) == 1


async def test_the_metrics_count_what_there_is(at: House) -> None:
    def value(name: str) -> Any:
        return at.hub.metrics.registry.get_sample_value(f"copilot_gateway_{name}")

    client = await at.client()
    await client("session.create", sessionId="s")
    await client("session.send", sessionId="s", prompt="SLEEP=0.5")
    assert (value("connections"), value("upstream_connections"), value("loaded_sessions")) == (1, 1, 1)
    assert value("active_sessions") == 1
    await heard(client, "s", "session.idle")
    assert (value("active_sessions"), value("turns_total"), value("turn_seconds_count")) == (0, 1, 1)
    assert value("turn_first_token_seconds_count") == 1
    assert 0.4 < value("turn_seconds_sum") < 5


# Servers that have the same sessions


async def test_a_session_goes_to_who_has_it_and_else_anywhere(one: StandIn, two: StandIn, tmp_path: Path) -> None:
    pool = {"isolation": "Shared", "sessions": {"shared": True}}
    servers = {"one": server_entry(one) | {"pod": "u1"}, "two": server_entry(two) | {"pod": "u2"}}
    async with house(tmp_path, {}, pool=pool, servers=servers) as at:
        hub = at.hub
        await eventually(lambda: all(each.listed for each in hub.servers.values()), within_s=10, what="both are there")

        def home() -> str | None:
            placed = hub.place("alice", "s", "code-s", stored=True)
            return placed.name if placed else None

        usual = home()
        assert usual in ("one", "two"), "stored or not, any will do"
        other = "two" if usual == "one" else "one"
        hub.holders.held("code-s", f"pod_{servers[other]['pod']}_1")
        assert home() == other
        at.reload(servers=servers | {other: server_entry(two if other == "two" else one, "Draining")})
        assert home() == usual, "and it asks there whether it is free by now"
        at.reload(servers={usual: servers[usual]})
        assert home() == usual
        assert len(hub.servers_of("alice")) == 1, "lists are asked of one: all have the same"
        assert hub.numbers()["alice"]["homes"] == []
