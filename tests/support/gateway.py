"""A raw client of a gateway or CLI: frames out, frames in, nothing in between; and what tests of the gateway share."""

import asyncio
import hashlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from copilot_operator.gateway.config import Config
from copilot_operator.gateway.front import ClientConnection
from copilot_operator.gateway.house import Bounds
from copilot_operator.gateway.hub import Hub
from copilot_operator.gateway.metrics import Metrics
from copilot_operator.rpc.framing import FrameReader, frame
from tests.support.standin import StandIn

ANSWER_S: Final = 10.0
SERVER_TOKEN: Final = "server-token"


class RawClient:
    """Sends bytes as they are, and keeps what comes: replies by id, and all else in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answer_s = ANSWER_S
        self.told: list[dict[str, Any]] = []
        self.asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reader, self._writer = reader, writer
        self._replies: dict[Any, asyncio.Future[dict[str, Any]]] = {}
        self._unsolicited: asyncio.Queue[dict[str, Any]] = asyncio.Queue()  # replies under ids nobody asked with
        self._last_id = 0
        self.ended = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @staticmethod
    async def open(host: str, port: int, *, tls: ssl.SSLContext | None = None, name: str | None = None) -> "RawClient":
        """With ``tls``: whoever answers must show a certificate for ``name``."""
        return RawClient(*await asyncio.open_connection(host, port, ssl=tls, server_hostname=name))

    async def connect(self, token: str = "t") -> dict[str, Any]:
        """The reply to ``connect``."""
        return await self.ask("connect", token=token)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and return its whole reply."""
        return await self.reply(self.begin(method, **params))

    async def __call__(self, method: str, **params: Any) -> Any:
        """Send a request and return its result."""
        reply = await self.ask(method, **params)
        assert "result" in reply, reply
        return reply["result"]

    def begin(self, method: str, **params: Any) -> str:
        """Send a request; its id is for ``reply``."""
        self._last_id += 1
        id = f"c-{self._last_id}"
        self._replies[id] = asyncio.get_running_loop().create_future()
        self.write({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        return id

    async def reply(self, id: Any) -> dict[str, Any]:
        async with asyncio.timeout(self.answer_s):
            return await self._replies.setdefault(id, asyncio.get_running_loop().create_future())

    async def unsolicited(self) -> dict[str, Any]:
        """The next reply that belongs to no request of ``begin``."""
        async with asyncio.timeout(ANSWER_S):
            return await self._unsolicited.get()

    def write(self, message: Any) -> None:
        self.write_raw(frame(json.dumps(message).encode()))

    def write_raw(self, data: bytes) -> None:
        self._writer.write(data)

    def events(self, id: str) -> list[dict[str, Any]]:
        """Events of one session, as they came."""
        return [
            each["params"]["event"]
            for each in self.told
            if each["method"] == "session.event" and each["params"]["sessionId"] == id
        ]

    def types(self, id: str) -> list[str]:
        return [event["type"] for event in self.events(id)]

    def stop_reading(self) -> None:
        self._reading.cancel()
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()

    def abort(self) -> None:
        self._reading.cancel()
        self._writer.transport.abort()

    async def _read(self) -> None:
        frames = FrameReader(max_body_bytes=1 << 28)
        try:
            while data := await self._reader.read(1 << 18):
                frames.feed(data)
                while (body := frames.take()) is not None:
                    self._received(json.loads(body))
        except OSError:
            pass  # an abort of the other side
        finally:
            self.ended.set()

    def _received(self, message: dict[str, Any]) -> None:
        if "method" in message:
            self.asked.put_nowait(message) if "id" in message else self.told.append(message)
        elif (waiting := self._replies.get(message.get("id"))) is not None:
            if not waiting.done():
                waiting.set_result(message)
        else:
            self._unsolicited.put_nowait(message)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def write_config(directory: Path, files: Mapping[str, Any]) -> None:
    """As kubelet's atomic writer puts it there: all files at once, by the rename of a link."""
    version = directory / f"..{len(list(directory.iterdir()))}"
    version.mkdir()
    for name, content in files.items():
        (version / name).write_text(json.dumps(content))
    link = directory / "..tmp"
    link.symlink_to(version.name)
    link.rename(directory / "..data")
    for name in files:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path("..data") / name)


class House:
    """A gateway of this process in front of stand-ins: ``hub``, and the port where clients get in."""

    def __init__(self, hub: Hub, port: int, directory: Path, files: dict[str, Any]) -> None:
        self.hub, self.port, self.directory, self.files = hub, port, directory, files
        self._clients: list[RawClient] = []

    async def client(self, tenant: str = "alice") -> RawClient:
        """An authenticated client; tenants' tokens are their names."""
        client = await self.stranger()
        reply = await client.connect(tenant)
        assert "result" in reply, reply
        return client

    async def stranger(self) -> RawClient:
        """A client that has not said who it is."""
        client = await RawClient.open("127.0.0.1", self.port)
        self._clients.append(client)
        return client

    def reload(self, **files: Any) -> None:
        """Other content of some files, by their names without ``.json``; taken at once."""
        self.files |= {f"{name}.json": content for name, content in files.items()}
        write_config(self.directory, self.files)
        self.hub.reload(Config.read(self.directory))

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


def servers_file(**servers: StandIn) -> dict[str, Any]:
    """``servers.json`` of stand-ins that serve."""
    return {name: server_entry(each) for name, each in servers.items()}


def server_entry(server: StandIn, state: str = "Serving") -> dict[str, Any]:
    return {"host": server.host, "port": server.port, "token": SERVER_TOKEN, "state": state}


def tenants_file(*names: str) -> dict[str, Any]:
    """``tenants.json`` of a Shared pool; a tenant's token is its name."""
    return {sha256(name): {"name": name, "code": f"{sha256(name)[:6]}-"} for name in names}


@asynccontextmanager
async def house(
    directory: Path, servers: Mapping[str, StandIn], /, *, bounds: Bounds | None = None, **files: Any
) -> AsyncIterator[House]:
    """A gateway in front of stand-ins; ``files`` replace those of a Shared pool with tenants alice and bob."""
    written = {
        "pool.json": files.get("pool", {"isolation": "Shared"}),
        "servers.json": files.get("servers", servers_file(**servers)),
        "tenants.json": files.get("tenants", tenants_file("alice", "bob")),
    }
    config = directory / "config"
    config.mkdir()
    write_config(config, written)
    loop = asyncio.get_running_loop()
    hub = Hub(Config.read(config), Metrics())
    front = await loop.create_server(lambda: ClientConnection(hub, bounds or Bounds()), "127.0.0.1", 0)
    made = House(hub, front.sockets[0].getsockname()[1], config, written)
    sweeping = asyncio.create_task(_sweep(hub))
    try:
        yield made
    finally:
        sweeping.cancel()
        await made.close()
        front.close()
        hub.end()


async def _sweep(hub: Hub) -> None:
    while True:
        await asyncio.sleep(0.05)
        hub.sweep()
