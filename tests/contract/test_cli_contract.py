"""What our code relies on in a CLI server, asked of the real one, of copilot-runtime and of the stand-in alike.

A change of the CLI's version shows here first. What is not asked here, our code must not rely on.
"""

import asyncio
import json
import signal
from functools import partial

import pytest

from copilot_operator.agent.expiry import PINNED, unpinned
from copilot_operator.rpc import busy
from copilot_operator.rpc.busy import Evidence, Standing
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import AuthenticationFailed, ConnectionLost, RpcError
from copilot_operator.rpc.ping import Failure, ping
from tests.cluster.image_npm import pinned_cli
from tests.contract.conftest import NOT_OF_COPILOT_RUNTIME, TOKEN, Client, Subject
from tests.support.eventually import eventually

SOON_S = 10.0


async def standing(client: Client, id: str) -> Standing:
    """Where a session stands, by the calls that the survey makes."""

    async def ask(method: str) -> busy.Answer:
        try:
            answer = await client(method, sessionId=id)
        except RpcError as error:
            return error
        assert isinstance(answer, dict)
        return answer

    evidence = Evidence(
        activity=await ask("session.metadata.activity"),
        tasks=await ask("session.tasks.list"),
        queue=await ask("session.queue.pendingItems"),
        permissions=await ask("session.permissions.pendingRequests"),
        tools=await ask("session.tools.listPendingRequests"),
    )
    return busy.standing(evidence)


async def becomes(client: Client, id: str, expected: Standing) -> None:
    async def it_is() -> bool:
        return await standing(client, id) is expected

    await eventually(it_is, within_s=SOON_S, what=f"{id} is {expected}")


async def becomes_listed(client: Client) -> None:
    async def it_is() -> bool:
        return bool((await client("session.list"))["sessions"])

    await eventually(it_is, within_s=SOON_S, what="the message is stored")


async def stored_answers(client: Client, id: str) -> int:
    stored = await client("sessions.readPersistedEvents", sessionId=id)
    return sum(event["type"] == "assistant.message" for event in stored["events"])


# The connection


async def test_bytes_on_the_wire(cli: Subject) -> None:
    reader, writer = await asyncio.open_connection(cli.host, cli.port)
    connect = json.dumps({"jsonrpc": "2.0", "id": "one", "method": "connect", "params": {"token": TOKEN}}).encode()
    writer.write(b"content-length: %d\r\nX-Other: y\r\n\r\n%b" % (len(connect), connect))
    async with asyncio.timeout(SOON_S):
        head = await reader.readuntil(b"\r\n\r\n")
        name, _, length = head.decode().strip().partition(": ")
        answer = json.loads(await reader.readexactly(int(length)))
    writer.close()
    assert name == "Content-Length"
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", "one")
    assert {"ok": True, "protocolVersion": 3}.items() <= answer["result"].items()
    assert isinstance(answer["result"]["version"], str)


async def test_notifications_open_with_the_bytes_by_which_a_keeper_drops_them(cli: Subject) -> None:
    owner = await cli.client()
    handled: list[str] = []
    watcher = await Connection.open(
        cli.host, cli.port, timeout_s=5, on_notification=lambda method, _: handled.append(method)
    )
    await watcher.connect(TOKEN, timeout_s=5)
    opening = b'{"jsonrpc":"2.0","method":"session.lifecycle",'
    bodies: list[bytes] = []
    take = watcher._frames.take

    def spy() -> bytes | None:
        body = take()
        if body is not None:
            bodies.append(body)
        return body

    watcher._frames.take = spy  # type: ignore[method-assign]
    await cli.create(owner, "a")
    await eventually(lambda: "session.lifecycle" in handled, within_s=SOON_S, what="the creation is heard of")
    await watcher.close()
    assert any(body.startswith(opening) for body in bodies)


@pytest.mark.parametrize(("token", "code"), [("wrong", -32002), (None, -32002), ("", -32002)])
async def test_a_wrong_token_is_refused_and_may_be_mended(cli: Subject, token: str | None, code: int) -> None:
    connection = await Connection.open(cli.host, cli.port, timeout_s=5)
    with pytest.raises(AuthenticationFailed) as caught:
        await connection.connect(token, timeout_s=5)
    assert caught.value.code == code
    with pytest.raises(AuthenticationFailed) as caught:
        await connection.call("ping", {}, timeout_s=5)
    assert caught.value.code == -32001
    await connection.connect(TOKEN, timeout_s=5)
    assert (await connection.call("ping", {"message": "x"}, timeout_s=5))["message"] == "pong: x"
    await connection.close()


async def test_ping_gives_a_reading(cli: Subject) -> None:
    reading = await ping(cli.host, cli.port, TOKEN, 5)
    assert (reading.ok, reading.version) == (True, pinned_cli().version)
    assert (await ping(cli.host, cli.port, "wrong", 5)).failure is Failure.AUTHENTICATION_FAILED


async def test_an_unknown_method_has_the_usual_code(cli: Subject) -> None:
    client = await cli.client()
    with pytest.raises(RpcError) as caught:
        await client("no.such.method")
    assert caught.value.code == -32601


@NOT_OF_COPILOT_RUNTIME
async def test_a_peer_that_does_not_frame_is_told_and_cut(cli: Subject) -> None:
    reader, writer = await asyncio.open_connection(cli.host, cli.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(SOON_S):
        answer = await reader.read()
    writer.close()
    assert b'"code":-32700' in answer


# Who hears what


async def test_everyone_hears_of_a_creation_and_a_deletion_and_only_owners_of_events(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    stranger = await Connection.open(cli.host, cli.port, timeout_s=5)
    heard: list[str] = []
    stranger._on_notification = lambda method, _: heard.append(method)
    await cli.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="hi", wait=True)
    await owner("session.delete", sessionId="a")
    await eventually(lambda: "session.deleted" in other.lifecycle("a"), within_s=SOON_S, what="the deletion is heard")
    assert {"session.created", "session.updated", "session.deleted"} == set(other.lifecycle("a"))
    assert other.events("a") == []
    assert "session.idle" in owner.events("a")
    assert heard == []  # not authenticated
    await stranger.close()


async def test_owners_tell_each_other_what_nobody_else_hears_and_nothing_stores(cli: Subject) -> None:
    owner, peer, other = await cli.client(), await cli.client(), await cli.client()
    await cli.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="hi", wait=True)
    await peer("session.resume", sessionId="a", disableResume=True)
    changes = len(other.lifecycle("a"))
    await peer("session.log", sessionId="a", type="t", message="m", ephemeral=True)
    for each in (owner, peer):
        await eventually(partial(_has_said, each), within_s=SOON_S, what="owners hear of it")
        said = [event["data"] for event in each.whole_events("a") if event["type"] == "session.info"]
        assert said == [{"infoType": "t", "message": "m"}]
    assert other.events("a") == []
    assert len(other.lifecycle("a")) == changes
    for read in ("session.getMessages", "sessions.readPersistedEvents"):
        events = (await owner(read, sessionId="a"))["events"]
        assert "session.info" not in [event["type"] for event in events]


def _has_said(client: Client) -> bool:
    return "session.info" in client.events("a")


async def test_a_session_is_listed_from_its_first_turn_on_loaded_or_not(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a")
    assert (await other("session.list"))["sessions"] == []
    await owner("session.send", sessionId="a", prompt="hi", wait=True)
    await other("sessions.close", sessionId="a")
    listed = (await other("session.list"))["sessions"]
    assert [session["sessionId"] for session in listed] == ["a"]
    assert isinstance(listed[0]["modifiedTime"], str)


async def test_metadata_tells_what_is_stored_and_says_nothing_of_the_rest(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a")
    assert await other("session.getMetadata", sessionId="a") == {}
    assert await other("session.getMetadata", sessionId="absent") == {}
    await owner("session.send", sessionId="a", prompt="hi", wait=True)
    await other("sessions.close", sessionId="a")
    assert (await other("session.getMetadata", sessionId="a"))["session"]["sessionId"] == "a"


async def test_the_cursor_of_a_session_moves_while_its_answer_comes_in_pieces(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a")

    async def cursor() -> str:
        return str((await other("session.eventLog.tail", sessionId="a"))["cursor"])

    assert await cursor() == await cursor()
    await owner("session.send", sessionId="a", prompt="SLEEP=4")
    await eventually(lambda: "assistant.turn_start" in owner.events("a"), within_s=SOON_S, what="the turn begins")
    seen = {await cursor()}

    async def has_moved_twice() -> bool:
        seen.add(await cursor())
        return len(seen) > 2

    await eventually(has_moved_twice, within_s=SOON_S, what="the cursor moves")
    assert await standing(other, "a") is Standing.BUSY
    with pytest.raises(RpcError) as caught:
        await other("session.eventLog.tail", sessionId="absent")
    assert busy.says_not_loaded(caught.value)


async def test_a_quiet_resume_of_an_unloaded_session_is_heard_by_nobody(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="hi", wait=True)
    await other("sessions.close", sessionId="a")
    await becomes(other, "a", Standing.NOT_LOADED)
    before = len(other.lifecycle("a"))
    await owner("session.resume", sessionId="a", disableResume=True)
    await becomes(other, "a", Standing.IDLE)
    assert len(other.lifecycle("a")) == before


# Who is busy


async def test_a_session_that_is_not_loaded_says_so(cli: Subject) -> None:
    client = await cli.client()
    for method in ("session.metadata.activity", "session.tasks.list", "session.queue.pendingItems", "session.send"):
        with pytest.raises(RpcError) as caught:
            await client(method, sessionId="absent", **({"prompt": "hi"} if method == "session.send" else {}))
        assert busy.says_not_loaded(caught.value), caught.value
        assert caught.value.code == -32603


async def test_a_turn_makes_busy_for_as_long_as_it_runs(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a")
    assert await standing(other, "a") is Standing.IDLE
    await owner("session.send", sessionId="a", prompt="SLEEP=1")
    assert await standing(other, "a") is Standing.BUSY
    await becomes(other, "a", Standing.IDLE)
    assert await stored_answers(other, "a") == 1


async def test_a_queued_message_makes_busy_and_runs_after_the_turn(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="SLEEP=1")
    await owner("session.send", sessionId="a", prompt="SLEEP=0")
    await eventually(lambda: other("session.queue.pendingItems", sessionId="a"), within_s=SOON_S, what="it is asked")
    queued = await other("session.queue.pendingItems", sessionId="a")
    assert (len(queued["items"]), queued["steeringMessages"]) == (1, [])
    await becomes(other, "a", Standing.IDLE)
    assert await stored_answers(other, "a") == 2


async def test_a_background_shell_makes_busy_though_no_turn_runs(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a")
    await owner("session.permissions.setApproveAll", sessionId="a", enabled=True)
    await owner("session.send", sessionId="a", prompt="ATOOL=`sleep 3`")

    async def only_the_shell_runs() -> bool:
        activity = await other("session.metadata.activity", sessionId="a")
        tasks = await other("session.tasks.list", sessionId="a")
        return not activity["hasActiveWork"] and [task["status"] for task in tasks["tasks"]] == ["running"]

    await eventually(only_the_shell_runs, within_s=SOON_S, what="only the shell runs")
    assert await standing(other, "a") is Standing.BUSY
    await becomes(other, "a", Standing.IDLE)


async def test_a_permission_that_is_asked_for_makes_waiting_and_anyone_may_answer(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a", requestPermission=True)
    await owner("session.send", sessionId="a", prompt="TOOL=`touch x`")
    await becomes(other, "a", Standing.WAITING)
    pending = await other("session.permissions.pendingRequests", sessionId="a")
    await other(
        "session.permissions.handlePendingPermissionRequest",
        sessionId="a",
        requestId=pending["items"][0]["requestId"],
        result={"kind": "approve-once"},
    )
    await becomes(other, "a", Standing.IDLE)


# How a process ends, and what the next one finds


@NOT_OF_COPILOT_RUNTIME
async def test_a_shutdown_is_answered_waits_for_no_turn_and_leaves_what_was_said(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="hi", wait=True)
    await owner("session.send", sessionId="a", prompt="SLEEP=30")
    await becomes(other, "a", Standing.BUSY)
    await cli.create(owner, "unused")
    assert await other("runtime.shutdown") is None
    async with asyncio.timeout(SOON_S):
        await owner.connection.wait_closed()
    await cli.start()
    again = await cli.client()
    assert await standing(again, "a") is Standing.NOT_LOADED
    await again("session.resume", sessionId="a", disableResume=True)
    assert await standing(again, "a") is Standing.IDLE
    assert await stored_answers(again, "a") == 1
    with pytest.raises(RpcError, match="Session not found: unused"):
        await again("session.resume", sessionId="unused", disableResume=True)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_an_answer_that_was_heard_survives_the_end_of_the_process(cli: Subject, how: signal.Signals) -> None:
    owner = await cli.client()
    await cli.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="hi", wait=True)
    await cli.end(how)
    async with asyncio.timeout(SOON_S):
        await owner.connection.wait_closed()
    await cli.start()
    again = await cli.client()
    await again("session.resume", sessionId="a", disableResume=True)
    messages = await again("session.getMessages", sessionId="a")
    assert sum(event["type"] == "assistant.message" for event in messages["events"]) == 1


# Who owns a session


async def test_a_session_and_its_turn_end_with_the_last_owner(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="SLEEP=30")
    await becomes(other, "a", Standing.BUSY)
    await becomes_listed(other)
    await owner.connection.close()
    await becomes(other, "a", Standing.NOT_LOADED)
    assert await stored_answers(other, "a") == 0


async def test_a_keeper_attached_quietly_saves_the_turn_of_a_client_that_hangs_up(cli: Subject) -> None:
    owner, keeper, other = await cli.client(), await cli.client(), await cli.client()
    await cli.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="SLEEP=2")
    await becomes(other, "a", Standing.BUSY)
    await keeper("session.resume", sessionId="a", disableResume=True)
    assert "session.resume" not in owner.events("a")
    await owner.connection.close()
    assert await standing(other, "a") is Standing.BUSY
    await becomes(other, "a", Standing.IDLE)
    assert await stored_answers(other, "a") == 1
    await keeper.connection.close()
    await becomes(other, "a", Standing.NOT_LOADED)


@pytest.mark.parametrize("method", ["session.detach", "session.destroy"])
async def test_letting_go_of_a_session_leaves_it_to_the_other_owners(cli: Subject, method: str) -> None:
    owner, keeper, other = await cli.client(), await cli.client(), await cli.client()
    await cli.create(owner, "a")
    await keeper("session.resume", sessionId="a", disableResume=True)
    assert await owner(method, sessionId="a") == {"success": True}
    assert await standing(other, "a") is Standing.IDLE
    await keeper(method, sessionId="a")
    await becomes(other, "a", Standing.NOT_LOADED)


async def test_close_unloads_whoever_owns_it_and_it_can_be_resumed(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="hi", wait=True)
    assert await other("sessions.close", sessionId="a") == {}
    assert await standing(other, "a") is Standing.NOT_LOADED
    assert await other("sessions.close", sessionId="a") == {}
    with pytest.raises(RpcError) as caught:
        await owner("session.send", sessionId="a", prompt="hi")
    assert busy.says_not_loaded(caught.value)
    await owner("session.resume", sessionId="a", **cli.options)
    await owner("session.send", sessionId="a", prompt="hi", wait=True)
    assert await stored_answers(other, "a") == 2


async def test_abort_ends_the_turn_and_the_client_hears_it(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    await cli.create(owner, "a")
    await owner("session.send", sessionId="a", prompt="SLEEP=30")
    await becomes(other, "a", Standing.BUSY)
    assert (await other("session.abort", sessionId="a"))["success"] is True
    await becomes(other, "a", Standing.IDLE)
    await eventually(lambda: "session.idle" in owner.events("a"), within_s=SOON_S, what="the client hears the end")
    assert "abort" in owner.events("a")


async def test_an_unknown_session_cannot_be_resumed(cli: Subject) -> None:
    client = await cli.client()
    with pytest.raises(RpcError, match="Session not found: absent"):
        await client("session.resume", sessionId="absent", disableResume=True)


async def test_calls_on_a_closed_connection_are_lost(cli: Subject) -> None:
    client = await cli.client()
    await client.connection.close()
    with pytest.raises(ConnectionLost):
        await client("ping")


async def test_what_the_janitor_asks_is_answered_of_sessions_that_are_not_loaded(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    for id in ("pinned", "plain"):
        await cli.create(owner, id)
        await owner("session.send", sessionId=id, prompt="hi", wait=True)
    await owner("session.metadata.updateClientMetadata", sessionId="pinned", set={PINNED: "true", "other": "x"})
    for id in ("pinned", "plain"):
        await other("sessions.close", sessionId=id)
    ids = ["pinned", "plain", "absent"]
    found = await other("sessions.getClientMetadata", sessionIds=ids, keys=[PINNED])
    assert found == [
        {"sessionId": "pinned", "status": "ok", "metadata": {PINNED: "true"}},
        {"sessionId": "plain", "status": "ok", "metadata": {}},
        {"sessionId": "absent", "status": "notFound"},
    ]
    assert unpinned(found) == {"plain"}
    assert await other("sessions.checkInUse", sessionIds=ids) == {"inUse": []}
    sizes = (await other("sessions.getSizes"))["sizes"]
    assert set(sizes) == {"pinned", "plain"}
    assert min(sizes.values()) > 1000


@NOT_OF_COPILOT_RUNTIME
async def test_a_deletion_of_several_says_what_it_freed_and_takes_loaded_ones_too(cli: Subject) -> None:
    owner, other = await cli.client(), await cli.client()
    for id in ("resting", "loaded"):
        await cli.create(owner, id)
        await owner("session.send", sessionId=id, prompt="hi", wait=True)
    await other("sessions.close", sessionId="resting")
    freed = (await other("sessions.bulkDelete", sessionIds=["resting", "loaded", "absent"]))["freedBytes"]
    assert (set(freed), freed["absent"]) == ({"resting", "loaded", "absent"}, 0)
    assert freed["resting"] > 1000
    assert (await other("session.list"))["sessions"] == []
    assert "session.deleted" in other.lifecycle("resting")
