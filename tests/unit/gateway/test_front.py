"""The front door: what it answers by itself, and every bound on what a client may cost; all of it with TLS as well."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import pytest

from copilot_operator.gateway import certificate
from copilot_operator.gateway.frames import wire
from copilot_operator.gateway.front import ClientConnection
from copilot_operator.gateway.house import Admitted, Bounds, Reception, Rejected, TurnedAway
from copilot_operator.gateway.tls import TlsListener
from copilot_operator.rpc.framing import KIB, MIB, frame
from tests.support.certificates import Authority, put
from tests.support.eventually import eventually
from tests.support.gateway import RawClient

OK = {"ok": True, "protocolVersion": 3, "version": "1.0.102", "taskKinds": ["agent", "shell"]}
QUICK = Bounds(handshake_s=0.3, frame_s=0.3, unread_s=0.3)


class House:
    """Knows one token, and answers every request with its own parameters."""

    def __init__(self) -> None:
        self.reception: dict[str, Reception] = {"good": Admitted(OK)}
        self.otherwise: Reception = Rejected()
        self.clients: list[ClientConnection] = []
        self.left: list[str] = []  # why
        self.notifications: list[str] = []
        self.replies: list[tuple[bytes, Any]] = []
        self.reading: list[bool] = []
        self.tokens: list[str] = []
        self.room = True

    def came(self, client: ClientConnection) -> bool:
        self.clients.append(client)
        return self.room

    def connect(self, client: ClientConnection, token: str) -> Reception:
        self.tokens.append(token)
        return self.reception.get(token, self.otherwise)

    def requested(self, client: ClientConnection, id: bytes, method: str, params: Any) -> None:
        client.send(wire.good_reply(id, {"method": method, "params": params}))

    def replied(self, client: ClientConnection, id: bytes, body: bytes) -> None:
        self.replies.append((id, wire.result(body)))

    def notified(self, client: ClientConnection, method: str, body: bytes) -> None:
        self.notifications.append(method)

    def reads(self, client: ClientConnection, does: bool) -> None:
        self.reading.append(does)

    def gone(self, client: ClientConnection) -> None:
        self.left.append(client.why_closed)


@dataclass(frozen=True)
class Tls:
    """What the two sides of a handshake have; both None without TLS."""

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None


TLS: ContextVar[Tls] = ContextVar("TLS")


@pytest.fixture(scope="module")
def with_tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    authority, directory = Authority(), tmp_path_factory.mktemp("tls")
    put(directory, authority.issue("gateway"))
    return Tls(certificate.read(directory).context, authority.trusted())


@pytest.fixture(autouse=True, params=["plain", "TLS"])
def listens(request: pytest.FixtureRequest, with_tls: Tls) -> Iterator[None]:
    """How every door of this module does."""
    token = TLS.set(with_tls if request.param == "TLS" else Tls())
    yield
    TLS.reset(token)


class Door:
    """A house whose door is open."""

    def __init__(self, house: House, port: int, tls: Tls) -> None:
        self.house, self.port, self._tls = house, port, tls

    async def client(self, token: str | None = None) -> RawClient:
        name = "gateway" if self._tls.client else None
        client = await RawClient.open("127.0.0.1", self.port, tls=self._tls.client, name=name)
        if token is not None:
            assert await client.connect(token) == {"jsonrpc": "2.0", "id": "c-1", "result": OK}
        return client


@asynccontextmanager
async def door(bounds: Bounds = Bounds()) -> AsyncIterator[Door]:  # noqa: B008 - it is frozen
    house, tls = House(), TLS.get()
    async with plain(house, bounds) if tls.server is None else secured(house, bounds, tls) as port:
        try:
            yield Door(house, port, tls)
        finally:
            for client in house.clients:
                client.abort("the test is over")


@asynccontextmanager
async def plain(house: House, bounds: Bounds) -> AsyncIterator[int]:
    listener = await asyncio.get_running_loop().create_server(lambda: ClientConnection(house, bounds), "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


@asynccontextmanager
async def secured(house: House, bounds: Bounds, tls: Tls) -> AsyncIterator[int]:
    listener = TlsListener(house, bounds, lambda: tls.server, "127.0.0.1", 0)
    running = asyncio.create_task(listener.run())
    try:
        yield listener.port
    finally:
        running.cancel()


async def ends(client: RawClient) -> None:
    async with asyncio.timeout(5):
        await client.ended.wait()


async def left(house: House, *why: str) -> None:
    """With TLS the last word is the client's, and then it has gone."""
    await eventually(lambda: house.left == [*why], within_s=5, what=f"its end: {why}")


def error(id: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}


async def test_before_connect_every_request_needs_authentication_and_nothing_else_is_heard() -> None:
    async with door() as at:
        client = await at.client()
        for method in ("ping", "session.list", "no.such", "runtime.shutdown"):
            reply = await client.ask(method)
            assert reply["error"] == {"code": -32001, "message": "AUTHENTICATION_REQUIRED"}
        client.write({"jsonrpc": "2.0", "method": "runtime.shutdown"})
        client.write({"jsonrpc": "2.0", "method": "connect", "params": {"token": "good"}})
        client.write({"jsonrpc": "2.0", "id": 1, "result": {}})
        assert (await client.ask("ping"))["error"]["code"] == -32001
        assert (at.house.notifications, at.house.replies, at.house.tokens) == ([], [], [])


@pytest.mark.parametrize("params", [{"token": "bad"}, {"token": ""}, {"token": None}, {"token": 5}, {}, None, ["good"]])
async def test_a_wrong_token_is_told_so_and_may_be_followed_by_the_right_one(params: Any) -> None:
    async with door() as at:
        client = await at.client()
        client.write({"jsonrpc": "2.0", "id": 7, "method": "connect"} | ({} if params is None else {"params": params}))
        assert await client.unsolicited() == error(7, -32002, "AUTHENTICATION_FAILED")
        assert (await client.connect("good"))["result"] == OK
        assert (await client.connect("bad"))["error"]["code"] == -32002
        assert (await client.ask("ping"))["result"]["method"] == "ping", "it is authenticated all the same"


async def test_connect_knows_three_more_fields_and_no_others() -> None:
    async with door() as at:
        client = await at.client()
        refused = await client.ask("connect", token="good", x=1)
        assert refused["error"] == {
            "code": -32602,
            "message": "Invalid connect request: unknown field `x`, expected one of"
            " `enableGitHubTelemetryForwarding`, `clientInfo`, `supportedTaskKinds`",
        }
        assert (await client.ask("connect", token="good", clientInfo={}, supportedTaskKinds=[]))["result"] == OK


async def test_a_guesser_waits_and_nothing_of_it_is_looked_at_meanwhile() -> None:
    async with door() as at:
        at.house.otherwise = Rejected(after_s=0.2)
        client, began = await at.client(), asyncio.get_running_loop().time()
        guesses = [client.begin("connect", token=f"guess-{n}") for n in range(3)]
        await client.reply(guesses[0])
        assert len(at.house.tokens) <= 2, "the guesses behind it have to wait"
        await client.reply(guesses[2])
        assert asyncio.get_running_loop().time() - began >= 0.55
        assert (await client.connect("good"))["result"] == OK


async def test_a_tenant_without_room_is_told_so_and_its_connection_ends() -> None:
    async with door() as at:
        at.house.reception["good"] = TurnedAway(-32010, "too many")
        client = await at.client()
        assert (await client.connect("good"))["error"] == {"code": -32010, "message": "too many"}
        await ends(client)
        await left(at.house, "turned away")


async def test_requests_replies_and_notifications_are_told_apart_and_kept_in_order() -> None:
    async with door() as at:
        client = await at.client("good")
        ids = [client.begin("echo", n=n) for n in range(100)]
        client.write({"jsonrpc": "2.0", "id": 5, "result": {"a": 1}})
        client.write({"jsonrpc": "2.0", "method": "told"})
        assert [(await client.reply(id))["result"]["params"]["n"] for id in ids] == list(range(100))
        await eventually(lambda: at.house.replies, within_s=5, what="the reply")
        assert (at.house.replies, at.house.notifications) == ([(b"5", {"a": 1})], ["told"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{nope", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"} x', -32700),
        (b"", -32700),
        (b"[]", -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b"5", -32600),
        (b"null", -32600),
        (b'{"jsonrpc":"2.0","id":1}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        (b'{"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
    ],
)
@pytest.mark.parametrize("token", [None, "good"], ids=["before", "after"])
async def test_what_is_no_message_is_answered_and_the_connection_goes_on(
    body: bytes, code: int, token: str | None
) -> None:
    async with door() as at:
        client = await at.client(token)
        client.write_raw(frame(body))
        reply = await client.unsolicited()
        assert (reply["id"], reply["error"]["code"]) == (None, code)
        assert "jsonrpc" in await client.ask("ping")


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"GET / HTTP/1.1\r\nhost\r\n\r\n", "':'"),
        (b"\r\n\r\n", "':'"),
        (b"X: 1\r\n\r\n", "Content-Length"),
        (b"Content-Length: abc\r\n\r\n", "Content-Length"),
        (b"Content-Length: -1\r\n\r\n", "Content-Length"),
        (b"Content-Length: 1073741824\r\n\r\nx", "1073741824"),
        (b"X: " + b"a" * 70_000, "header"),
    ],
)
@pytest.mark.parametrize("token", [None, "good"], ids=["before", "after"])
async def test_what_is_no_frame_is_answered_and_ends_the_connection(sent: bytes, says: str, token: str | None) -> None:
    async with door() as at:
        client = await at.client(token)
        client.write_raw(sent)
        reply = await client.unsolicited()
        assert (reply["id"], reply["error"]["code"]) == (None, -32700)
        assert says in reply["error"]["message"]
        await ends(client)
        await left(at.house, "no frame")


async def test_a_body_may_be_large_only_after_authentication() -> None:
    large = {"jsonrpc": "2.0", "id": 1, "method": "echo", "params": {"text": "x" * 20 * KIB}}
    async with door() as at:
        stranger = await at.client()
        stranger.write(large)
        assert (await stranger.unsolicited())["error"]["code"] == -32700
        await ends(stranger)
        client = await at.client("good")
        client.write(large)
        assert (await client.unsolicited())["result"]["params"] == large["params"]


async def test_who_does_not_authenticate_is_closed_and_who_did_may_stay_idle() -> None:
    async with door(QUICK) as at:
        idle = await at.client("good")
        await ends(await at.client())
        assert at.house.left == ["no handshake"]
        assert (await idle.ask("ping"))["result"]["method"] == "ping"


async def test_wrong_tokens_do_not_prolong_the_handshake() -> None:
    async with door(QUICK) as at:
        client = await at.client()

        async def guess() -> bool:
            if not client.ended.is_set():
                client.begin("connect", token="bad")
            return client.ended.is_set()

        await eventually(guess, within_s=5, what="the end of the connection", every_s=0.05)
        assert at.house.left == ["no handshake"]


async def test_half_a_frame_must_become_a_whole_one_in_time() -> None:
    async with door(QUICK) as at:
        client = await at.client("good")
        whole = frame(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "echo"}).encode())
        for n in range(len(whole)):  # slow, but in time
            client.write_raw(whole[n : n + 1])
            await asyncio.sleep(0)
        await client.unsolicited()
        client.write_raw(whole + whole[:20])
        await client.unsolicited()
        await ends(client)
        await left(at.house, "half a frame")


async def test_a_frame_in_pieces_is_not_overdue_because_one_before_it_was_slow() -> None:
    async with door(replace(QUICK, frame_s=0.4)) as at:
        client = await at.client("good")
        whole = frame(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "echo"}).encode())
        client.write_raw(whole[:20])
        for _ in range(4):  # each takes half of the time that one may, and every read ends within one
            await asyncio.sleep(0.2)
            client.write_raw(whole[20:] + whole[:20])
            await client.unsolicited()
        assert at.house.left == []


async def test_a_client_that_never_reads_makes_its_servers_wait_and_is_closed() -> None:
    async with door(replace(QUICK, unread=64 * KIB)) as at:
        client = await at.client("good")
        client.stop_reading()
        await asyncio.sleep(0)
        connection = at.house.clients[0]
        for _ in range(400):  # what the sockets between hold is some MiB
            connection.send(b"x" * 64 * KIB)
        await eventually(lambda: at.house.reading == [False], within_s=5, what="that its servers wait")
        client.write({"jsonrpc": "2.0", "method": "told"})
        await eventually(lambda: at.house.left, within_s=5, what="its end")
        assert at.house.left == ["does not read"]
        assert at.house.notifications == [], "what it sends waits, too"


async def test_a_client_that_is_slow_to_read_goes_on_when_it_has() -> None:
    async with door(Bounds(unread=64 * KIB)) as at:
        client = await at.client("good")
        connection = at.house.clients[0]
        body = json.dumps({"jsonrpc": "2.0", "method": "told", "params": "x" * MIB}).encode()
        for _ in range(20):
            connection.send(body)
        await eventually(lambda: len(client.told) == 20, within_s=10, what="all of it")
        await eventually(lambda: at.house.reading[-1:] == [True], within_s=5, what="that it reads again")
        assert (await client.ask("ping"))["result"]["method"] == "ping"


async def test_where_there_is_no_room_nobody_gets_in() -> None:
    async with door() as at:
        at.house.room = False
        with suppress(ConnectionError):  # of the handshake, where there is one
            await ends(await at.client())
        await left(at.house, "no room")
