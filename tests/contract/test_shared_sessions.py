"""One conversation of several tenants, through two gateways: one speaks at a time, all hear, and nobody else."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contract.sdk_scenarios import app, say
from tests.contract.shared_bed import CODE, MEMBERS, STRANGER, TEAM, TTL, Bed, heard, said, shared_bed
from tests.support.eventually import eventually
from tests.support.gateway import RawClient
from tests.support.standin import StandIn
from tests.support.standin_server import Fault

BOTH: Final = pytest.mark.parametrize("bed", [(False, False), (True, False)], indirect=True, ids=["stand-in", "real"])
QUEUE: Final = pytest.mark.parametrize("bed", [(False, True), (True, True)], indirect=True, ids=["stand-in", "real"])
REAL: Final = pytest.mark.parametrize("bed", [(True, False)], indirect=True, ids=["real"])
REAL_QUEUE: Final = pytest.mark.parametrize("bed", [(True, True)], indirect=True, ids=["real"])
LEASE_S: Final = float(TTL["COPILOT_AGENT_LOCK_TTL_S"])
STANDIN: Final = pytest.mark.parametrize("bed", [(False, False)], indirect=True, ids=["stand-in"])


@pytest.fixture
async def bed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bed]:
    real, queues = request.param
    async with shared_bed(tmp_path, real=real, queues=queues) as made:
        yield made


def begin(client: RawClient, prompt: str) -> str:
    return client.begin("session.send", sessionId=TEAM, prompt=prompt)


async def begun(client: RawClient, prompt: str) -> None:
    """A message that was taken in, and its turn runs."""
    turns = client.types(TEAM).count("assistant.turn_start")
    await client("session.send", sessionId=TEAM, prompt=prompt)
    await heard(client, "assistant.turn_start", turns + 1)


@BOTH
async def test_one_speaks_and_the_other_hears_it_and_is_told_who_speaks(bed: Bed) -> None:
    alice, bob = await bed.client("alice"), await bed.client("bob")
    before = datetime.now(UTC) - timedelta(seconds=2)
    await begun(alice, "ECHO=`walnut` SLEEP=2")
    refused = (await bob.ask("session.send", sessionId=TEAM, prompt="me, too"))["error"]
    assert refused["message"].startswith("alice speaks in session team since ")
    assert (refused["data"]["reason"], refused["data"]["holder"]) == ("SessionBusy", "alice")
    assert before < datetime.fromisoformat(refused["data"]["since"]) <= datetime.now(UTC)
    assert refused["data"]["retryAfterSeconds"] == 5
    for method in ("session.abort", "session.queue.clear", "session.history.compact"):
        assert (await bob.ask(method, sessionId=TEAM))["error"]["data"]["reason"] == "SessionBusy", method
    answer = {"requestId": "r", "result": {"kind": "approve-once"}}
    answered = await bob("session.permissions.handlePendingPermissionRequest", sessionId=TEAM, **answer)
    assert answered == {"success": False}
    await heard(alice, "session.idle")
    await heard(bob, "session.idle")
    await begun(bob, "NOTE=hazel")
    await heard(alice, "session.idle", 2)
    for client in (alice, bob):
        assert said(client) == ["ECHO=`walnut` SLEEP=2", "NOTE=hazel"]
        told = [each["params"] for each in client.told if each["method"] in ("session.event", "session.lifecycle")]
        assert {each["sessionId"] for each in told} == {TEAM}
    transcripts = [await each("session.getMessages", sessionId=TEAM) for each in (alice, bob)]
    assert transcripts[0] == transcripts[1]
    for client in (alice, bob):
        assert [each["sessionId"] for each in (await client("session.list"))["sessions"]] == [TEAM]


@QUEUE
async def test_who_waits_is_served_in_order_of_arrival_across_gateways(bed: Bed) -> None:
    alice, bob, dave = [await bed.client(name) for name in MEMBERS]
    gone = await bed.client("bob", joins=False)
    await begun(alice, "first SLEEP=4")
    sends = [begin(bob, "second")]
    await eventually(lambda: waiting(bed, 1), within_s=30, what="bob waits")
    sends.append(begin(dave, "third"))
    await eventually(lambda: waiting(bed, 2), within_s=30, what="dave waits")
    begin(gone, "of one who leaves")
    await gone.close()
    assert "assistant.turn_end" not in alice.types(TEAM), "they came late"
    await bob.reply(sends[0])
    await dave.reply(sends[1])
    await heard(dave, "session.idle")
    for client in (alice, bob, dave):
        await heard(client, "user.message", 3)
        assert said(client) == ["first SLEEP=4", "second", "third"]
    assert bob.types(TEAM).count("session.idle") <= 2, "the end of alice's turn was kept back from bob, who waited"
    own = [n for n, event in enumerate(bob.events(TEAM)) if event["data"].get("content") == "second"]
    assert "session.idle" not in bob.types(TEAM)[: own[0]], "and would have been taken for the end of his own"


async def waiting(bed: Bed, count: int) -> bool:
    return f"copilot_server_waiting_to_speak {count}\n" in (await bed.agent.get("/metrics"))[1]


@REAL_QUEUE
async def test_unmodified_sdk_clients_wait_for_each_other_and_get_their_own_answers(bed: Bed) -> None:
    async with app(bed.at("alice")) as alice, app(bed.at("bob")) as bob:
        mine, his = await alice.create(TEAM), await bob.create(TEAM)
        answers = await asyncio.gather(
            say(mine, "NOTE=walnut ECHO=`to alice` SLEEP=1"), say(his, "NOTE=hazel ECHO=`to bob` SLEEP=1")
        )
        assert list(answers) == ["to alice", "to bob"]
        assert sorted((await say(his, "RECALL")).split()[1:]) == ["hazel", "walnut"]
        assert await alice.listed("") == [TEAM]


@REAL_QUEUE
async def test_a_holder_whose_gateway_stops_keeps_the_lock_until_its_turn_ends_and_not_for_longer(bed: Bed) -> None:
    alice, bob = await bed.client("alice"), await bed.client("bob")
    await begun(alice, "first SLEEP=4")
    bed.one.send_signal(signal.SIGSTOP)
    await bob("session.send", sessionId=TEAM, prompt="second")
    await heard(bob, "session.idle")
    bed.one.send_signal(signal.SIGCONT)
    await begun(alice, "third SLEEP=4")
    await bed.one.stop(signal.SIGKILL)
    await bob("session.send", sessionId=TEAM, prompt="fourth")
    await heard(bob, "assistant.turn_end", 4)
    await heard(bob, "session.idle", 2)
    assert said(bob) == ["first SLEEP=4", "second", "third SLEEP=4", "fourth"]
    turns = [kind for kind in bob.types(TEAM) if kind.startswith("assistant.turn_")]
    assert turns == 4 * ["assistant.turn_start", "assistant.turn_end"], "none began within another"


@STANDIN
async def test_the_agent_starts_again_in_mid_turn_and_nobody_speaks_into_it(bed: Bed) -> None:
    """Its gateway still has a lease, and tells the new one."""
    alice, bob = await bed.client("alice"), await bed.client("bob")
    await begun(alice, "first SLEEP=7")
    await bed.restart_agent()
    refused = (await bob.ask("session.send", sessionId=TEAM, prompt="me, too"))["error"]
    assert refused["data"]["holder"] == "alice"
    assert "session.idle" not in alice.types(TEAM)
    await heard(alice, "session.idle")
    assert said(bob) == ["first SLEEP=7"]


@STANDIN
async def test_when_agent_and_gateway_stood_still_for_longer_than_a_lease_the_turn_is_still_its_own(bed: Bed) -> None:
    alice, bob = await bed.client("alice"), await bed.client("bob")
    await begun(alice, "first SLEEP=60")
    bed.one.send_signal(signal.SIGSTOP)
    bed.agent.process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(2 * LEASE_S)  # all leases end, by any clock
        asked = begin(bob, "me, too")
        bed.agent.process.send_signal(signal.SIGCONT)
        refused = (await bob.reply(asked))["error"]
    finally:
        bed.one.send_signal(signal.SIGCONT)
    assert refused["data"]["reason"] == "SessionBusy"
    assert said(bob) == ["first SLEEP=60"]
    await eventually(lambda: may_abort(alice), within_s=30, what="it is her turn still")
    await bob("session.send", sessionId=TEAM, prompt="second")
    await heard(bob, "assistant.turn_end")
    assert said(bob) == ["first SLEEP=60", "second"]


async def may_abort(client: RawClient) -> bool:
    return "result" in await client.ask("session.abort", sessionId=TEAM)


@STANDIN
async def test_a_message_that_comes_late_runs_after_the_turn_and_keeps_others_out(bed: Bed) -> None:
    """What a gateway sends that was paused between asking its clock and sending: nothing is mixed, nothing lost."""
    bob = await bed.client("bob")
    alice = await bed.client("alice")
    await begun(bob, "of bob SLEEP=2")
    late = await bed.directly()
    await late.call("session.send", {"sessionId": CODE + TEAM, "prompt": "late SLEEP=3"}, timeout_s=5)
    await eventually(lambda: "late SLEEP=3" in said(alice), within_s=30, what="the late one runs")
    assert alice.types(TEAM).count("assistant.turn_end") == 1
    refused = (await alice.ask("session.send", sessionId=TEAM, prompt="me, too"))["error"]
    assert refused["data"]["reason"] == "SessionBusy"
    await heard(alice, "session.idle")
    assert said(alice) == ["of bob SLEEP=2", "late SLEEP=3"]


@REAL
async def test_for_others_the_session_does_not_exist(bed: Bed) -> None:
    alice, carol = await bed.client("alice"), await bed.client(STRANGER, joins=False)
    await begun(alice, "ECHO=`the-secret`")
    await heard(alice, "session.idle")
    for name in (TEAM, CODE + TEAM):
        for method in ("session.resume", "session.send", "session.getMessages", "session.getMetadata", "session.abort"):
            known, unknown = [await carol.ask(method, sessionId=id, prompt="x") for id in (name, name[:-1] + "x")]
            assert outcome(known, name) == outcome(unknown, name[:-1] + "x"), method
    assert (await carol("session.list"))["sessions"] == []
    await carol("session.create", sessionId=TEAM, model="fake-model")
    await carol("session.send", sessionId=TEAM, prompt="ECHO=`of my own`")
    await heard(carol, "session.idle")
    assert said(carol) == ["ECHO=`of my own`"]
    assert said(alice) == ["ECHO=`the-secret`"]
    received = json.dumps(carol.told)
    assert "the-secret" not in received
    assert CODE not in received


def outcome(reply: dict[str, Any], id: str) -> str:
    return json.dumps(reply.get("error") or reply.get("result")).replace(id, "ID")


@REAL
async def test_a_membership_ends_at_once_and_the_turn_goes_on_for_the_others(bed: Bed) -> None:
    alice, bob = await bed.client("alice"), await bed.client("bob")
    await begun(bob, "of bob SLEEP=4")
    bed.configure(members=("alice", "dave"))
    await heard(bob, "session.idle", within_s=3)
    assert bob.events(TEAM)[-2]["data"]["message"] == "This session is not shared with you any more"
    count = len(bob.told)
    assert "not found" in (await bob.ask("session.send", sessionId=TEAM, prompt="x"))["error"]["message"].lower()
    assert (await bob("session.list"))["sessions"] == []
    await heard(alice, "session.idle")
    await begun(alice, "of alice")
    await heard(alice, "session.idle", 2)
    assert said(alice) == ["of bob SLEEP=4", "of alice"]
    assert bob.told[count:] == []
    bed.configure()
    await eventually(lambda: joined(bob), within_s=30, what="bob is a member again")
    assert "of alice" in json.dumps(await bob("session.getMessages", sessionId=TEAM))


@STANDIN
async def test_what_was_asked_of_an_own_session_is_answered_when_one_of_that_name_is_shared(bed: Bed) -> None:
    assert isinstance(bed.cli, StandIn)
    alice, bob = await bed.client("alice"), await bed.client("bob")
    bed.configure(members=("alice", "dave"))
    await heard(bob, "session.error")  # that it is not shared with him any more
    bed.cli.server.fault = Fault.HANG
    asked = bob.begin("session.resume", sessionId=TEAM)
    bed.configure()
    assert "not found" in (await bob.reply(asked))["error"]["message"].lower(), "before the server has said anything"
    bed.cli.server.fault = Fault.NONE
    assert "result" in await bob.ask("session.resume", sessionId=TEAM)
    await begun(bob, "of bob")
    await heard(alice, "session.idle")
    assert said(alice) == ["of bob"]


async def joined(client: RawClient) -> bool:
    return "result" in await client.ask("session.resume", sessionId=TEAM)


@REAL
async def test_nobody_changes_the_session_for_the_others(bed: Bed) -> None:
    alice, bob = await bed.client("alice"), await bed.client("bob", joins=False)
    await begun(alice, "NOTE=walnut")
    await heard(alice, "session.idle")
    tool = {"name": "get_weather", "description": "Tells the weather", "parameters": {"type": "object"}}
    for field, value in (
        ("tools", [tool]),
        ("hooks", True),
        ("requestUserInput", True),
        ("systemMessage", {"mode": "append", "content": "x"}),
    ):
        refused = (await bob.ask("session.create", sessionId=TEAM, **{field: value}))["error"]
        assert "is of one client, and the session is shared by several; leave it out" in refused["message"], field
    for field, own in (("provider", {"type": "openai"}), ("gitHubToken", "gho_x")):
        refused = (await bob.ask("session.resume", sessionId=TEAM, **{field: own}))["error"]
        assert refused["message"] == f"{field}: shared sessions run on the pool's credential; leave it out"
    await bob("session.resume", sessionId=TEAM, model="another-model")
    deleted = (await bob.ask("session.delete", sessionId=TEAM))["error"]
    assert "to end it take it from spec.shared.sharedSessions of the pool" in deleted["message"]
    assert "error" in await bob.ask("sessions.close", sessionId=TEAM)
    assert await bob("session.destroy", sessionId=TEAM) == {"success": True}
    await begun(alice, "RECALL")
    await heard(alice, "session.idle", 2)
    assert bob.types(TEAM).count("user.message") == 0, "who has left hears no more"
    for client in (alice, bob):
        await client.close()
    alice = await bed.client("alice")  # of whom nobody has it open any more: it is loaded again
    assert "NOTE=walnut" in json.dumps(await alice("session.getMessages", sessionId=TEAM))
