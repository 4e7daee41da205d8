"""Asking agents: what they say is read tolerantly, and every way not to answer has its own error, in time."""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.domain.retention import Retention
from copilot_operator.domain.snapshot import Deletion, DrainPhase, ServerState
from copilot_operator.servers import agents as module
from copilot_operator.servers.agents import (
    AgentAddress,
    AgentClient,
    AgentElsewhere,
    AgentError,
    AgentFaulty,
    AgentOutdated,
    AgentSilent,
    AgentUnreachable,
    Answer,
    Progress,
    answer_of,
    count_of,
    document_of,
    number_of,
    progress_of,
    state_of,
    text_of,
)
from tests.support.agent import running_agent
from tests.support.eventually import eventually
from tests.support.standin import standin
from tests.unit.servers.pages import Handler, http, ok, pages

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
HERE = AgentAddress("127.0.0.1", "pod-1")

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)

STATE = {
    "agentVersion": "0.2.0",
    "cli": {
        "answering": True,
        "latencySeconds": 0.0012,
        "version": "1.0.102",
        "failure": None,
        "ageSeconds": 3600.5,
        "latencyFactor": 1.25,
        "deep": {"ok": True, "secondsAgo": 12.0, "message": ""},
    },
    "sessions": {
        "loaded": 3,
        "busy": 2,
        "waiting": 1,
        "uncounted": 0,
        "stored": 7,
        "secondsSinceActivity": 1.2,
        "stalledSeconds": 30.0,
        "work": {"turn": 1, "task": 0, "queued": 0, "waiting": 1, "unknown": 0},
    },
    "memoryBytes": 300_000_000,
    "processes": 2,
    "disk": {
        "capacityBytes": 100,
        "usedBytes": 40,
        "freeBytes": 60,
        "readOnly": True,
        "largestSessions": [{"id": "a", "bytes": 30}, {"id": "b", "bytes": 3}],
    },
    "expiry": {
        "wouldDelete": 4,
        "lastDeletion": {"time": "2026-11-24T03:00:00Z", "sessions": 2, "freedBytes": 54_000},
    },
    "erasure": {"erased": {"b" * 16: 0, "a" * 16: 3, "c" * 16: -1}, "sessions": 3, "failure": None},
    "draining": None,
}


# ---- what agents say


def test_state_of_a_server_that_works() -> None:
    assert state_of(STATE, "pod-1", NOW) == ServerState(
        pod_uid="pod-1",
        taken_at=NOW,
        answering=True,
        loaded=3,
        busy=2,
        waiting=1,
        stored=7,
        quiet_s=1.2,
        stalled_s=30.0,
        age_s=3600.5,
        memory_bytes=300_000_000,
        processes=2,
        latency_factor=1.25,
        draining=False,
        deep_failure="",
        failure="",
        disk_percent=40.0,
        read_only=True,
        largest=(("a", 30), ("b", 3)),
        expired_kept=4,
        deletion=Deletion("2026-11-24T03:00:00Z", 2, 54_000),
        erased=(("a" * 16, 3), ("b" * 16, 0)),
    )


@pytest.mark.parametrize(
    "at", ["", "yesterday", "2026-11-24", "2026-11-24T03:00:00", "2026-13-24T03:00:00Z", "2026-11-24T03:00:00Z\n"]
)
def test_a_deletion_whose_time_the_api_server_would_not_take_is_none(at: str) -> None:
    last = {"time": at, "sessions": 2, "freedBytes": 1}
    found = state_of({"expiry": {"lastDeletion": last}}, "pod-1", NOW).deletion
    assert found is None or found.at == "2026-11-24T03:00:00Z"  # space around it is no harm


def test_no_more_sizes_are_taken_than_are_told() -> None:
    sizes = [{"id": "a", "bytes": 1}, {"id": "", "bytes": 1}, "junk", {"id": "d", "bytes": 1}]
    assert state_of({"disk": {"largestSessions": sizes}}, "pod-1", NOW).largest == (("a", 1),)


def test_state_of_an_older_agent_leaves_open_what_it_does_not_tell() -> None:
    document = {
        "agentVersion": "0.1.0",
        "cli": {"answering": False, "latencySeconds": None, "version": None, "failure": "Silent"},
        "sessions": dict.fromkeys(("loaded", "busy", "waiting", "uncounted", "stored")),
        "memoryBytes": 1,
        "processes": 1,
        "disk": None,
        "draining": {"phase": "Quiescing", "busy": 1},
    }
    expected = ServerState("pod-1", NOW, False, memory_bytes=1, processes=1, draining=True, failure="Silent")
    assert state_of(document, "pod-1", NOW) == expected


@pytest.mark.parametrize(
    ("deep", "failure"),
    [
        (None, ""),
        ({"ok": True, "message": "ignored"}, ""),
        ({"ok": False, "message": "session.create: no\nspace"}, "session.create: no space"),
        ({"ok": False}, "it did not say why"),
        ("broken", ""),
    ],
)
def test_a_deep_probe_that_failed_says_why(deep: Any, failure: str) -> None:
    assert state_of({"cli": {"answering": True, "deep": deep}}, "pod-1", NOW).deep_failure == failure


def mixed(document: Any, at: int, junk: Any) -> Any:
    """The document with ``junk`` in place of its ``at``-th value, counted depth first."""
    left = [at]

    def walk(value: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            return junk
        return {name: walk(inner) for name, inner in value.items()} if isinstance(value, dict) else value

    return walk(document)


@given(st.integers(1, 40), any_json)
def test_any_junk_in_a_state_is_not_known_and_the_rest_is_read(at: int, junk: Any) -> None:
    state = state_of(mixed(STATE, at, junk), "pod-1", NOW)
    assert (state.pod_uid, state.taken_at) == ("pod-1", NOW)
    counts = (state.loaded, state.busy, state.waiting, state.memory_bytes, state.processes)
    for count in counts:
        assert count is None or (type(count) is int and 0 <= count < 1 << 63)
    for number in (state.quiet_s, state.stalled_s, state.age_s, state.latency_factor):
        assert number is None or (type(number) is float and 0 <= number < float("inf"))
    for text in (state.deep_failure, state.failure):
        assert len(text) <= 300
        assert "\n" not in text
    whole = state_of(STATE, "pod-1", NOW)
    unlike = [name for name in ServerState.__dataclass_fields__ if getattr(state, name) != getattr(whole, name)]
    assert len(unlike) <= 9, "junk in one place spoils that place and what lies below"


@given(any_json)
def test_any_json_is_a_state(document: Any) -> None:
    assert state_of(document, "pod-1", NOW).pod_uid == "pod-1"


@given(any_json)
def test_values_keep_to_their_kind(value: Any) -> None:
    for read in (count_of(value), number_of(value)):
        assert read is None or read >= 0
    assert count_of(True) is None
    assert text_of(value) == "" or isinstance(value, str)


DRAIN = {
    "phase": "Quiescing", "busy": 2, "waiting": 1, "loaded": 3, "kept": 2, "closed": 0, "cut": 0, "gaveUp": None,
    "secondsToDeadline": 12.3, "onTimeout": "Abort",
    "work": {"turn": 1, "task": 0, "queued": 0, "waiting": 1, "unknown": 0},
}  # fmt: skip


def test_progress_of_a_drain() -> None:
    work = (("turn", 1), ("waiting", 1))
    assert progress_of(DRAIN) == Progress(DrainPhase.QUIESCING, busy=2, waiting=1, work=work)


def test_an_older_agent_answers_when_its_drain_is_done() -> None:
    answer = {"closed": 2, "cut": 1, "gaveUp": "no answer to ping"}
    assert progress_of(answer) == Progress(DrainPhase.DONE, cut=1, gave_up="no answer to ping")


@given(st.dictionaries(st.sampled_from(sorted(DRAIN)), any_json))
def test_any_answer_about_a_drain_is_progress_or_faulty(junk: dict[str, Any]) -> None:
    try:
        progress = progress_of(DRAIN | junk)
    except AgentFaulty:
        assert junk["phase"] not in list(DrainPhase)
    else:
        assert progress.busy is None or progress.busy >= 0


# ---- HTTP


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_an_answer_the_beginning_of_one_or_an_error(received: bytes, ended: bool) -> None:
    with suppress(AgentError):
        assert isinstance(answer_of(received, ended=ended), Answer) or not ended


@given(st.integers(200, 599), st.text(max_size=50), st.data())
def test_an_answer_is_whole_with_its_last_byte_and_not_before(status: int, body: str, data: st.DataObject) -> None:
    whole = http(status, body)
    assert answer_of(whole, ended=False) == Answer(status, body.encode())
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    assert answer_of(part, ended=False) is None
    with pytest.raises(AgentUnreachable):
        answer_of(part, ended=True)


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    answer = b"HTTP/1.0 200 OK\r\n\r\n{}"
    assert answer_of(answer, ended=False) is None
    assert answer_of(answer, ended=True) == Answer(200, b"{}")


@pytest.mark.parametrize(
    "received",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"x" * (module.MAX_ANSWER_BYTES + 1),
    ],
)
def test_what_is_no_answer_of_an_agent_is_faulty(received: bytes) -> None:
    with pytest.raises(AgentFaulty):
        answer_of(received, ended=False)


@pytest.mark.parametrize("body", ["", "[]", "{", "[" * 60_000, '{"a":' * 10_000, "1" * 5000, "null"])
def test_what_is_no_object_is_faulty(body: str) -> None:
    with pytest.raises(AgentFaulty):
        document_of(Answer(200, body.encode()), "/state")


# ---- over the network


def answers(answer: bytes | None) -> Handler:
    async def handler(host: str, query: dict[str, str]) -> bytes | None:
        return answer

    return handler


async def test_every_page_is_asked_for_with_its_parameters() -> None:
    async with pages(
        state=answers(ok(STATE)),
        drain=answers(ok(DRAIN)),
        drain_cancel=answers(ok({"cancelled": True})),
        restart=answers(ok({"restarted": True})),
    ) as served:
        client = AgentClient(served.port)
        assert await client.state(HERE) == STATE
        await client.state(HERE, Retention())
        await client.state(HERE, Retention(604_800.0, dry_run=True, high_water_percent=70), ["c0de", "c1de"])
        assert (await client.drain(HERE, 12.345, "Wait", 5)).busy == 2
        assert await client.cancel(HERE)
        assert await client.restart(HERE)
        for deadline_s in (-3.0, 1e9):
            await client.drain(HERE, deadline_s, "Abort", 0)
    told = [query for _, path, query in served.asked if path == "/state"]
    assert told == [
        {"pod": "pod-1"},
        {"ttl_s": "0.000", "ttl_action": "Delete", "high_water_percent": "85", "pod": "pod-1"},
        {
            "ttl_s": "604800.000",
            "ttl_action": "DryRun",
            "high_water_percent": "70",
            "erase": "c0de,c1de",
            "pod": "pod-1",
        },
    ]
    drained = [query for _, path, query in served.asked if path == "/drain"]
    assert drained == [
        {"deadline_s": "12.3", "on_timeout": "Wait", "wait_s": "5", "pod": "pod-1"},
        {"deadline_s": "0.0", "on_timeout": "Abort", "wait_s": "0", "pod": "pod-1"},
        {"deadline_s": "86400.0", "on_timeout": "Abort", "wait_s": "0", "pod": "pod-1"},
    ]
    assert all(query["pod"] == "pod-1" for _, _, query in served.asked)
    assert set(served.paths()) == {"/state", "/drain", "/drain/cancel", "/restart"}


async def test_the_real_agent_goes_by_what_it_is_told(tmp_path: Path) -> None:
    async with standin(token="token") as cli, running_agent(cli.port, "token", tmp_path) as agent:
        client, here = AgentClient(agent.port), AgentAddress("127.0.0.1", gethostname())
        for retention in (Retention(604_800.0, dry_run=True), None):  # the second time it is only asked
            told = (await client.state(here, retention))["expiry"]
            assert (told["ttlSeconds"], told["dryRun"]) == (604_800.0, True)
        told = (await client.state(here, Retention()))["expiry"]
        assert (told["ttlSeconds"], told["dryRun"]) == (None, False)


async def test_not_now_is_an_answer_to_cancel_and_restart() -> None:
    busy = answers(http(409, json.dumps({"restarted": False, "busy": 1})))
    async with pages(drain_cancel=busy, restart=busy) as served:
        client = AgentClient(served.port)
        assert not await client.cancel(HERE)
        assert not await client.restart(HERE)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(404, "no such page\n"), AgentOutdated),
        (http(421, "this is pod copilot-bob-1\n"), AgentElsewhere),
        (http(500, "internal error, see the agent's log\n"), AgentFaulty),
        (http(200, "never mind"), AgentFaulty),
        (http(200, "x" * module.MAX_ANSWER_BYTES), AgentFaulty),
        (b"\x00\x01\x02\r\n\r\n", AgentFaulty),
        (http(200, "{}")[:-1], AgentUnreachable),
        (None, AgentUnreachable),
    ],
)
async def test_every_bad_answer_has_its_error(answer: bytes | None, error: type[AgentError]) -> None:
    async with pages(state=answers(answer), restart=answers(answer)) as served:
        client = AgentClient(served.port)
        for call in (client.state, client.restart):
            with pytest.raises(error):
                await call(HERE)


async def test_an_agent_that_is_gone_is_unreachable() -> None:
    async with pages() as served:
        pass
    with pytest.raises(AgentUnreachable, match=r"the agent at 127.0.0.1:\d+ can't be reached: Connection refused"):
        await AgentClient(served.port).state(HERE)


async def test_an_agent_that_hangs_is_given_up_and_its_connection_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_TIMEOUT_S", "DRAIN_TIMEOUT_S", "CANCEL_TIMEOUT_S", "RESTART_TIMEOUT_S"):
        monkeypatch.setattr(module, name, 0.2)
    gone = asyncio.Semaphore(0)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        gone.release()
        writer.close()

    server = await asyncio.start_server(hang, HERE.host, 0)
    client = AgentClient(server.sockets[0].getsockname()[1])
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: client.state(HERE),
        lambda: client.drain(HERE, 1, "Abort", 0.1),
        lambda: client.cancel(HERE),
        lambda: client.restart(HERE),
    ]
    for call in calls:
        with pytest.raises(AgentSilent, match=r"no answer of the agent to /[a-z/]+ within 0.[23] s"):
            await call()
        async with asyncio.timeout(10):
            await gone.acquire()
    server.close()


async def test_a_question_may_be_given_up_at_any_moment_without_noise() -> None:
    noise: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: noise.append(context))
    async with pages(state=answers(None)) as served:
        client = AgentClient(served.port)
        for steps in range(20):
            asking = asyncio.create_task(client.state(HERE))
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            with suppress(asyncio.CancelledError, AgentError):
                await asking
        await eventually(lambda: served.open == 0, within_s=10, what="all connections have ended")
    gc.collect()
    assert noise == []
