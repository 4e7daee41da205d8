"""A connection to a server, against servers that do what they like."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.link import MAX_WAITING, Address, Link
from copilot_operator.gateway.upstream import UpstreamConnection
from copilot_operator.rpc.errors import (
    AuthenticationFailed,
    ConnectionLost,
    RpcError,
    ServerError,
    ServerRefused,
    ServerSilent,
)
from copilot_operator.rpc.framing import FrameReader, frame
from tests.support.eventually import eventually

EVENT = {"jsonrpc": "2.0", "method": "session.event", "params": {"sessionId": "s", "event": {"type": "x"}}}


class Script:
    """A server: ``on`` gets each message and writes what it likes."""

    def __init__(self, on: "Callable[[Script, dict[str, Any]], None]") -> None:
        self.on, self.port, self.seen = on, 0, list[dict[str, Any]]()
        self.ended = asyncio.Event()
        self.reads = True
        self._writer: asyncio.StreamWriter | None = None

    def say(self, *messages: Any) -> None:
        """Write messages in one piece."""
        self.write(b"".join(frame(_compact(message)) for message in messages))

    def write(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    def end(self) -> None:
        assert self._writer is not None
        self._writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer, frames = writer, FrameReader()
        try:
            while data := await reader.read(65536):
                frames.feed(data)
                while (body := frames.take()) is not None:
                    message = json.loads(body)
                    if message.get("method") != "connect":
                        self.seen.append(message)
                    self.on(self, message)
        except OSError:
            pass  # aborted by the other side
        finally:
            self.ended.set()
            writer.close()


def _compact(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def ok(message: dict[str, Any], result: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message["id"], "result": result if result is not None else {"ok": True}}


def welcoming(script: Script, message: dict[str, Any]) -> None:
    """Answers ``connect``, and nothing else."""
    if message.get("method") == "connect":
        script.say(ok(message))


class Ear:
    """Hears all of one upstream; a link's side as well."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.notifications: list[str] = []
        self.questions: list[tuple[bytes, str]] = []
        self.lost_because: list[str] = []
        self.opens = 0

    def event(self, _: Any, body: bytes) -> None:
        self.events.append(body)

    def told(self, _: Any, method: str, body: bytes) -> None:
        self.notifications.append(method)

    def asked(self, _: Any, id: bytes, method: str, body: bytes) -> None:
        self.questions.append((id, method))

    def reads(self, _: Any, does: bool) -> None:
        pass

    def opened(self, _: Any) -> None:
        self.opens += 1

    def lost(self, _: Any, why: str) -> None:
        self.lost_because.append(why)


@asynccontextmanager
async def scripted(on: Callable[[Script, dict[str, Any]], None]) -> AsyncIterator[Script]:
    script = Script(on)
    listener = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.port = listener.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        listener.close()


async def opened(script: Script, ear: Ear, timeout_s: float = 5.0) -> UpstreamConnection:
    return await UpstreamConnection.open("127.0.0.1", script.port, "t", ear, timeout_s=timeout_s)


async def test_answers_that_come_out_of_order_find_their_questions() -> None:
    asked: list[dict[str, Any]] = []

    def on(script: Script, message: dict[str, Any]) -> None:
        if message["method"] == "connect":
            script.say(ok(message))
            return
        asked.append(message)
        if len(asked) == 5:
            script.say(EVENT, *(ok(each, each["params"]) for each in reversed(asked)), EVENT)

    async with scripted(on) as script:
        ear, answers = Ear(), list[tuple[int, Any]]()
        upstream = await opened(script, ear)
        for n in range(5):
            upstream.request("m", {"n": n}, lambda body, _, n=n: answers.append((n, wire.result(body or b""))))  # type: ignore[misc]
        await eventually(lambda: len(ear.events) == 2, within_s=5, what="all of it")
        assert sorted(answers) == [(n, {"n": n}) for n in range(5)]
        assert len({each["id"] for each in script.seen}) == 5
        upstream.abort("the test is over")


async def test_notifications_and_questions_are_handed_on_with_the_servers_own_ids() -> None:
    def on(script: Script, message: dict[str, Any]) -> None:
        reordered = {"method": "session.event", "jsonrpc": "2.0", "params": EVENT["params"]}
        asks = {"jsonrpc": "2.0", "id": 41, "method": "hooks.invoke", "params": {"sessionId": "s"}}
        script.say(ok(message), {"jsonrpc": "2.0", "method": "session.lifecycle", "params": {}}, asks, EVENT, reordered)

    async with scripted(on) as script:
        ear = Ear()
        upstream = await opened(script, ear)
        script.say({"jsonrpc": "2.0", "method": "session.lifecycle", "params": {}})
        script.say({"jsonrpc": "2.0", "id": 42, "method": "hooks.invoke", "params": {}}, EVENT)
        await eventually(lambda: ear.questions and ear.events, within_s=5, what="what it says")
        assert (ear.questions[-1], ear.notifications[-1]) == ((b"42", "hooks.invoke"), "session.lifecycle")
        assert ear.events[-1] == _compact(EVENT)
        upstream.abort("the test is over")


@pytest.mark.parametrize("how", ["closes", "half a frame", "garbage"])
async def test_what_is_outstanding_when_a_server_dies_is_answered_once_and_after_the_loss(how: str) -> None:
    def on(script: Script, message: dict[str, Any]) -> None:
        if message["method"] == "connect":
            script.say(ok(message))
            return
        if how == "half a frame":
            script.write(b"Content-Length: 500\r\n\r\n{")
        if how == "garbage":
            script.write(b"220 mail.example.com ESMTP\r\n\r\n")
        else:
            script.end()

    async with scripted(on) as script:
        ear, answers = Ear(), list[tuple[bytes | None, int]]()
        upstream = await opened(script, ear)
        upstream.request("m", {}, lambda body, _: answers.append((body, len(ear.lost_because))))
        await eventually(lambda: answers, within_s=5, what="an end")
        assert answers == [(None, 1)]
        assert upstream.closed
        upstream.request("m", {}, lambda body, _: answers.append((body, 1)))
        await eventually(lambda: len(answers) == 2, within_s=5, what="an answer after the end")
        assert answers[1] == (None, 1)


async def test_our_own_calls_have_a_deadline_and_typed_errors() -> None:
    def on(script: Script, message: dict[str, Any]) -> None:
        match message["method"]:
            case "connect":
                script.say(ok(message))
            case "fails":
                script.say({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32603, "message": "no"}})
            case "ends":
                script.end()

    async with scripted(on) as script:
        upstream = await opened(script, Ear())
        with pytest.raises(RpcError, match="no"):
            await upstream.call("fails", {}, timeout_s=5)
        with pytest.raises(ServerSilent):
            await upstream.call("silent", {}, timeout_s=0.05)
        with pytest.raises(ConnectionLost):
            await upstream.call("ends", {}, timeout_s=5)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda id: {"jsonrpc": "2.0", "id": id, "error": {"code": -32002, "message": "AUTHENTICATION_FAILED"}}, None),
        (lambda id: None, ServerSilent),
    ],
)
async def test_a_server_that_does_not_let_us_in_is_left(answer: Any, error: type[ServerError] | None) -> None:
    def on(script: Script, message: dict[str, Any]) -> None:
        if (said := answer(message["id"])) is not None:
            script.say(said)

    async with scripted(on) as script:
        ear = Ear()
        with pytest.raises(error or AuthenticationFailed):
            await opened(script, ear, timeout_s=0.2)
        async with asyncio.timeout(5):
            await script.ended.wait()
        assert ear.lost_because == [], "it was never there"


async def test_nobody_there_is_told_with_the_address() -> None:
    async with scripted(welcoming) as script:
        port = script.port
    with pytest.raises(ServerRefused, match=str(port)):
        await UpstreamConnection.open("127.0.0.1", port, "t", Ear(), timeout_s=5)


async def test_what_is_asked_before_a_link_is_open_waits_in_order_and_is_bounded() -> None:
    async with scripted(welcoming) as script:
        ear, refused = Ear(), list[bytes | None]()
        link = Link(ear, 7, "one", Address("127.0.0.1", script.port, "secret"))
        for n in range(MAX_WAITING):
            link.request("m", {"n": n}, lambda *_: None)
        link.request("m", {"n": -1}, lambda body, _: refused.append(body))
        await eventually(lambda: len(script.seen) == MAX_WAITING, within_s=5, what="all that waited")
        assert [each["params"]["n"] for each in script.seen] == list(range(MAX_WAITING))
        assert (ear.opens, refused, link.outstanding) == (1, [None], MAX_WAITING)
        assert "secret" not in repr(link) + repr(Address("h", 1, "secret"))
        link.close("the test is over")
        await eventually(lambda: ear.lost_because, within_s=5, what="its end")
        assert ear.lost_because == ["the test is over"]


@pytest.mark.parametrize("wait", [False, True], ids=["at once", "when it has begun"])
async def test_a_link_that_is_given_up_while_it_opens_is_lost_once(wait: bool) -> None:
    async with scripted(lambda script, message: None) as script:
        ear, answers = Ear(), list[bytes | None]()
        link = Link(ear, 7, "one", Address("127.0.0.1", script.port))
        link.request("m", {}, lambda body, _: answers.append(body))
        if wait:
            await asyncio.sleep(0.05)
        link.close("given up")
        await eventually(lambda: answers, within_s=5, what="an answer")
        assert (len(ear.lost_because), answers, ear.opens) == (1, [None], 0)


async def test_a_link_reads_no_more_while_any_of_its_clients_does_not() -> None:
    async with scripted(welcoming) as script:
        ear = Ear()
        link = Link(ear, 7, "one", Address("127.0.0.1", script.port))
        await eventually(lambda: ear.opens, within_s=5, what="that it opens")
        link.block(7, True)
        link.block(8, True)
        link.block(7, False)
        script.say(*[EVENT] * 10)
        await asyncio.sleep(0.1)
        assert ear.events == []
        link.block(8, False)
        await eventually(lambda: len(ear.events) == 10, within_s=5, what="what had waited")
        link.close("the test is over")
