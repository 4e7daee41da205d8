"""The stand-in model: what it makes of a prompt, and its behaviour as an HTTP server."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.model import (
    MAX_BODY_BYTES,
    ModelServer,
    Plan,
    Stats,
    Tool,
    Turn,
    chat_turn,
    plan_answer,
    responses_turn,
)

BASH = frozenset({"bash"})


def asked(*users: str, tools: frozenset[str] = BASH, tool_result: str | None = None) -> Plan:
    return plan_answer(Turn(users=users, tool_result=tool_result, tools=tools))


@pytest.mark.parametrize(
    ("prompt", "plan"),
    [
        ("hello", Plan(("part0 ", "part1 ", "part2 "))),
        ("<now>noon</now> CHUNKS=2 SLEEP=3</prompt>", Plan(("part0 ", "part1 "), pause_s=1.5)),
        ("ERR=500", Plan(error_status=500)),
        ("ERR=400, no: ERR=401", Plan(error_status=401)),
        ("ECHO=`a b` CHUNKS=1", Plan(("a b",))),
        ("ECHO=word", Plan(("word",))),
        ("STALL CHUNKS=1", Plan(("part0 ",), stall_after=0)),
        ("STALL=1 CHUNKS=2", Plan(("part0 ", "part1 "), stall_after=1)),
        ("INSTALL CHUNKS=1", Plan(("part0 ",))),
        ("TOOL=`ls -l` CHUNKS=1", Plan(("part0 ",), Tool("bash", {"command": "ls -l", "description": "run it"}))),
        (
            "ATOOL=`sleep 9` CHUNKS=1",
            Plan(
                ("part0 ",),
                Tool("bash", {"command": "sleep 9", "description": "run it", "mode": "async", "shellId": "bg1"}),
            ),
        ),
    ],
)
def test_directives(prompt: str, plan: Plan) -> None:
    assert asked(prompt) == plan


def test_only_the_last_user_message_directs() -> None:
    assert asked("ERR=500", "hello").error_status is None


def test_after_a_tool_the_model_answers_and_does_not_loop() -> None:
    plan = asked("TOOL=`ls` SLEEP=9", tool_result="a file")
    assert (plan.tool, plan.text, plan.pause_s) == (None, "the tool said: a file", 0.0)


def test_a_tool_that_the_client_does_not_offer_is_not_called() -> None:
    assert asked("TOOL=`ls`", tools=frozenset()).tool is None
    assert asked('CALL=`weather {"city": "Bonn"}`', tools=frozenset({"weather"})).tool == Tool(
        "weather", {"city": "Bonn"}
    )


def test_recall_names_the_notes_of_earlier_prompts_only() -> None:
    assert asked("NOTE=alpha", "NOTE=beta and NOTE=gamma</x>", "RECALL NOTE=delta").text == "notes: alpha beta gamma"
    assert asked("RECALL").text == "notes: none"


def test_both_apis_are_read_alike() -> None:
    said = [{"type": "input_text", "text": "hel"}, {"type": "input_text", "text": "lo"}]
    chat = {
        "messages": [
            {"role": "system", "content": "NOTE=no"},
            {"role": "user", "content": said},
            {"role": "tool", "content": "done"},
        ],
        "tools": [{"type": "function", "function": {"name": "bash"}}],
    }
    responses = {
        "input": [{"role": "user", "content": said}, {"type": "function_call_output", "output": "done"}],
        "tools": [{"type": "function", "name": "bash"}],
    }
    assert chat_turn(chat) == responses_turn(responses) == Turn(("hello",), "done", BASH)
    assert responses_turn({"input": "hello"}) == Turn(("hello",), None)


# The server


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


async def request(model: ModelServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """Send one request and return status and body."""
    reader, writer = await send(model, method, path, body, **headers)
    try:
        async with asyncio.timeout(5):
            head, _, answer = (await reader.read()).decode().partition("\r\n\r\n")
    finally:
        writer.close()
    return int(head.split()[1]), answer


async def send(
    model: ModelServer, method: str, path: str, body: Any = None, **headers: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(model.host, model.port)
    encoded = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"content-length": str(len(encoded))} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    writer.write("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + encoded)
    return reader, writer


def prompt(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "fake-model", "messages": [{"role": "user", "content": text}], **more}


def events(answer: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in answer.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_chat_is_streamed(model: ModelServer) -> None:
    status, answer = await request(model, "POST", "/v1/chat/completions", prompt("CHUNKS=2", stream=True))
    *chunks, last, done = events(answer)
    assert (status, done) == (200, "[DONE]")
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["part0 ", "part1 "]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["usage"]["total_tokens"] > 0


async def test_chat_without_a_stream(model: ModelServer) -> None:
    status, answer = await request(model, "POST", "/chat/completions", prompt("ECHO=hello"))
    assert (status, json.loads(answer)["choices"][0]["message"]["content"]) == (200, "hello")


async def test_responses_are_streamed_in_their_order(model: ModelServer) -> None:
    _, answer = await request(model, "POST", "/v1/responses", {"input": "ECHO=hello CHUNKS=1", "stream": True})
    assert [event["type"].removeprefix("response.") for event in events(answer)] == [
        "created", "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events(answer)] == list(range(8))


async def test_models_stats_and_errors(model: ModelServer) -> None:
    status, answer = await request(model, "GET", "/v1/models")
    assert (status, json.loads(answer)["data"][0]["id"]) == (200, "fake-model")
    assert (await request(model, "POST", "/v1/chat/completions", prompt("ERR=429")))[0] == 429
    assert (await request(model, "GET", "/v1/nothing"))[0] == 404
    status, answer = await request(model, "GET", "/stats")
    assert json.loads(answer) == {"requests": 1, "inflight": 0, "max": 1, "aborted": 0}


@pytest.mark.parametrize("path", ["/user", "/copilot_internal/user"])
async def test_github_knows_good_tokens_from_bad(model: ModelServer, path: str) -> None:
    assert (await request(model, "GET", path, authorization="Bearer bad-token"))[0] == 401
    status, answer = await request(model, "GET", path, authorization="token good", host="here:1")
    assert (status, json.loads(answer)["login"]) == (200, "stand-in")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"messages": []}', b'{"messages": [{"role": "user"}], "tools": [1]}']
)
async def test_a_body_that_is_no_request_is_refused(model: ModelServer, body: bytes) -> None:
    assert (await request(model, "POST", "/v1/chat/completions", body))[0] == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_length": str(MAX_BODY_BYTES + 1)}, 413),
        ({"content_length": "-1"}, 400),
        ({"transfer_encoding": "chunked"}, 411),
        ({f"x-{n}": "y" for n in range(101)}, 431),
    ],
)
async def test_what_can_not_be_read_is_refused(model: ModelServer, headers: dict[str, str], status: int) -> None:
    assert (await request(model, "POST", "/v1/chat/completions", **headers))[0] == status


async def test_nothing_and_garbage_do_no_harm(model: ModelServer) -> None:
    for sent in (b"", b"\r\n", b"\x00\xff\n", b"GET " + b"x" * 2**21):
        _, writer = await asyncio.open_connection(model.host, model.port)
        writer.write(sent)
        writer.close()
    assert (await request(model, "GET", "/stats"))[0] == 200


@pytest.mark.parametrize("words", ["SLEEP=60", "STALL", "STALL=1"])
async def test_a_client_that_goes_ends_its_turn(model: ModelServer, words: str) -> None:
    _, writer = await send(model, "POST", "/v1/chat/completions", prompt(words, stream=True))
    await eventually(lambda: model.stats.inflight == 1, within_s=5, what="the turn begins")
    writer.close()
    await eventually(lambda: model.stats == Stats(requests=1, max=1, aborted=1), within_s=5, what="the turn ends")


async def test_turns_run_side_by_side_and_end_with_the_server() -> None:
    async with ModelServer() as model:
        opened = [await send(model, "POST", "/v1/chat/completions", prompt("STALL", stream=True)) for _ in range(5)]
        await eventually(lambda: model.stats.inflight == 5, within_s=5, what="five turns at once")
    for reader, writer in opened:
        assert await reader.read() == b""
        writer.close()
