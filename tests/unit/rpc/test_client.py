"""One connection: calls side by side, typed errors, nothing left behind. The peer is scripted, byte by byte."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from copilot_operator.rpc.client import Connection, ServerInfo
from copilot_operator.rpc.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ProtocolError,
    RpcError,
    ServerRefused,
    ServerSilent,
)

HOST = "127.0.0.1"
SOON_S = 15.0


class Peer:
    """The other side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def receive(self) -> dict[str, Any]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = json.loads(await self.reader.readexactly(int(head.split(b":")[1])))
        assert isinstance(fields, dict)
        return fields

    def send(self, **fields: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", **fields}, separators=(",", ":")).encode()
        self.writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


@asynccontextmanager
async def talking_to(script: Callable[[Peer], Awaitable[None]], **options: Any) -> AsyncIterator[Connection]:
    """A connection whose peer follows ``script``, and whose script must end without an error."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(Peer(reader, writer))
            ended.set_result(None)
        except Exception as error:
            ended.set_exception(error)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    connection = await Connection.open(HOST, server.sockets[0].getsockname()[1], timeout_s=SOON_S, **options)
    try:
        yield connection
        await connection.close()
        async with asyncio.timeout(SOON_S):
            await ended
    finally:
        connection.abort()
        server.close()


async def test_answers_may_come_in_any_order() -> None:
    async def script(peer: Peer) -> None:
        asked = [await peer.receive() for _ in range(3)]
        for request in reversed(asked):
            peer.send(id=request["id"], result=request["method"])
        await peer.reader.read()

    async with talking_to(script) as connection:
        calls = (connection.call(method, timeout_s=SOON_S) for method in "abc")
        assert await asyncio.gather(*calls) == ["a", "b", "c"]


async def test_an_error_reply_is_raised_with_its_fields() -> None:
    async def script(peer: Peer) -> None:
        request = await peer.receive()
        peer.send(id=request["id"], error={"code": -32010, "message": "full", "data": {"retryAfter": 3}})
        await peer.reader.read()

    async with talking_to(script) as connection:
        with pytest.raises(RpcError) as caught:
            await connection.call("session.create", {}, timeout_s=SOON_S)
    error = caught.value
    assert (error.method, error.code, error.message, error.data) == (
        "session.create",
        -32010,
        "full",
        {"retryAfter": 3},
    )


@pytest.mark.parametrize("code", [-32001, -32002])
async def test_a_rejected_token_is_an_error_of_its_own(code: int) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.receive()
        assert request["params"] == {"token": "wrong"}
        peer.send(id=request["id"], error={"code": code, "message": "AUTHENTICATION"})
        await peer.reader.read()

    async with talking_to(script) as connection:
        with pytest.raises(AuthenticationFailed):
            await connection.connect("wrong", timeout_s=SOON_S)


async def test_a_server_without_connect_is_taken_as_it_is() -> None:
    async def script(peer: Peer) -> None:
        request = await peer.receive()
        peer.send(id=request["id"], error={"code": -32601, "message": "Unhandled method connect"})
        await peer.reader.read()

    async with talking_to(script) as connection:
        assert await connection.connect(None, timeout_s=SOON_S) == ServerInfo(None, None)


async def test_silence_is_told_with_the_time_waited_and_a_late_answer_hurts_nobody() -> None:
    async def script(peer: Peer) -> None:
        late, prompt = await peer.receive(), await peer.receive()
        peer.send(id=late["id"], result="late")
        peer.send(id=prompt["id"], result="prompt")
        await peer.reader.read()

    async with talking_to(script) as connection:
        with pytest.raises(ServerSilent) as caught:
            await connection.call("slow", timeout_s=0.05)
        assert caught.value.waited_s == 0.05
        assert await connection.call("next", timeout_s=SOON_S) == "prompt"


async def test_a_cancelled_call_leaves_the_connection_usable() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        request = await peer.receive()
        peer.send(id=request["id"], result=1)
        await peer.reader.read()

    async with talking_to(script) as connection:
        call = asyncio.create_task(connection.call("first", timeout_s=SOON_S))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await connection.call("second", timeout_s=SOON_S) == 1


async def test_all_calls_end_when_the_connection_does() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.receive()

    async with talking_to(script) as connection:
        calls = [asyncio.create_task(connection.call("x", timeout_s=SOON_S)) for _ in range(2)]
        for call in calls:
            with pytest.raises(ConnectionLost):
                await call
        with pytest.raises(ConnectionLost):
            await connection.call("later", timeout_s=SOON_S)


async def test_an_unexpected_reverse_request_is_refused_at_once() -> None:
    async def script(peer: Peer) -> None:
        peer.send(id="reverse", method="hooks.invoke", params={})
        assert await peer.receive() == {
            "jsonrpc": "2.0",
            "id": "reverse",
            "error": {"code": -32601, "message": "Method not found: hooks.invoke"},
        }

    async with talking_to(script) as connection:
        await connection.wait_closed()


async def test_notifications_are_handed_on_and_a_fault_in_the_handler_costs_nothing() -> None:
    heard: list[tuple[str, Any]] = []
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    def handler(method: str, params: Any) -> None:
        heard.append((method, params))
        if method == "bad":
            raise ValueError("a fault of ours")

    async def script(peer: Peer) -> None:
        peer.send(method="bad", params={})
        peer.send(method="ignored", params={"large": "x" * 1000})
        peer.send(method="good", params={"n": 1})
        request = await peer.receive()
        peer.send(id=request["id"], result=None)
        await peer.reader.read()

    async with talking_to(script, on_notification=handler, ignored=("ignored",)) as connection:
        await connection.call("sync", timeout_s=SOON_S)
    assert heard == [("bad", {}), ("good", {"n": 1})]
    assert [str(context["exception"]) for context in faults] == ["a fault of ours"]


async def test_a_peer_of_another_protocol_is_a_protocol_error() -> None:
    async def script(peer: Peer) -> None:
        peer.writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await peer.reader.read()

    async with talking_to(script) as connection:
        with pytest.raises(ProtocolError, match="without a colon"):
            await connection.call("connect", timeout_s=SOON_S)


async def test_a_server_that_could_not_read_us_is_a_protocol_error() -> None:
    async def script(peer: Peer) -> None:
        peer.send(id=None, error={"code": -32700, "message": "bad header"})
        await peer.reader.read()

    async with talking_to(script) as connection:
        with pytest.raises(ProtocolError, match="bad header"):
            await connection.call("ping", timeout_s=SOON_S)


async def test_a_port_nobody_listens_on_refuses() -> None:
    server = await asyncio.start_server(lambda *_: None, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(ServerRefused, match="Connection refused"):
        await Connection.open(HOST, port, timeout_s=SOON_S)


async def test_close_is_bounded_when_the_peer_reads_nothing() -> None:
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await release.wait()

    async with talking_to(script) as connection:
        flood = [asyncio.create_task(connection.call("x", "y" * 1_000_000, timeout_s=30)) for _ in range(20)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(3):
            await connection.close()
        results = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(result) for result in results} == {ConnectionLost}
        release.set()
