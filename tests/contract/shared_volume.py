"""Servers that share one volume, each with its agent, behind gateways: what a pool with shared storage consists of."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import RpcError, ServerError
from tests.contract.gateway_bed import Gateway, Server, Tenant, code_of, free_port, provider_at, token_of, write_config
from tests.support.agent import RunningAgent, running_agent
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.gateway import SERVER_TOKEN, RawClient
from tests.support.model import ModelServer

TENANT: Final = "alice"
TURN_S: Final = 60.0


@dataclass
class Node:
    """A server and its agent; ``pod`` is the UID of the pod that they would be."""

    name: str
    pod: str
    cli: Cli
    agent: RunningAgent


@dataclass
class SharedBed:
    """``gateways`` by name; each has a configuration of its own."""

    directory: Path
    nodes: dict[str, Node]
    gateways: dict[str, Gateway]
    tenants: Mapping[str, Tenant]
    pool: dict[str, Any] = field(default_factory=dict)  # over what is written for all, from the next time on
    twice: list[str] = field(default_factory=list)  # what was found loaded on two servers

    def configure(self, gateway: str, states: Mapping[str, str], **agent_ports: int) -> None:
        """Which servers there are for a gateway, and how each stands."""
        servers = {
            name: Server(
                node.cli.host, node.cli.port, SERVER_TOKEN, state=states[name],  # type: ignore[arg-type]
                agentPort=agent_ports.get(name, node.agent.port), pod=node.pod,
            )
            for name, node in self.nodes.items()
            if name in states
        }  # fmt: skip
        config = self.gateways[gateway].config
        config.mkdir(parents=True, exist_ok=True)
        write_config(config, servers, self.tenants, gateways=len(self.gateways), sessions={"shared": True}, **self.pool)

    async def reconfigure(self, gateway: str, states: Mapping[str, str], **agent_ports: int) -> None:
        """The same, and return when it goes by it; servers with another port of their agent are others."""
        if agent_ports:
            await self.reconfigure(gateway, {name: state for name, state in states.items() if name not in agent_ports})
        self.configure(gateway, states, **agent_ports)

        async def goes_by_it() -> bool:
            return bool(await self.gateways[gateway].tells("/servers") == dict(states))

        await eventually(goes_by_it, within_s=30, what=f"gateway {gateway} goes by it")

    def pods(self, *uids: str) -> None:
        """Which pods there are."""
        for gateway in self.gateways.values():
            (gateway.config / "pods.json").write_text(json.dumps(uids))

    async def client(self, gateway: str) -> RawClient:
        bed = self.gateways[gateway]
        client = await RawClient.open(bed.host, bed.port)
        client.answer_s = TURN_S
        await client.connect(token_of(TENANT))
        return client

    async def loaded_on(self, id: str) -> list[str]:
        """Names of the servers that have a session loaded."""
        found = []
        for name, node in self.nodes.items():
            if await is_loaded(node.cli, f"{code_of(TENANT)}{id}"):
                found.append(name)
        return found


async def is_loaded(cli: Cli, id: str) -> bool:
    with suppress(ServerError, OSError):
        connection = await Connection.open(cli.host, cli.port, timeout_s=5)
        try:
            await connection.connect(SERVER_TOKEN, timeout_s=5)
            await connection.call("session.metadata.activity", {"sessionId": id}, timeout_s=20)
            return True
        except RpcError:
            return False
        finally:
            await connection.close()
    return False


@asynccontextmanager
async def shared_bed(
    directory: Path, *, gateways: tuple[str, ...] = ("g",), servers: tuple[str, ...] = ("a", "b")
) -> AsyncIterator[SharedBed]:
    """All servers serve; what is loaded on two of them at a time is in ``twice`` at the end."""
    volume, claims = directory / "session-state", directory / "claims"
    for each in (volume, claims):
        each.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer())
        nodes = {}
        for name in servers:
            data = directory / name
            (data / "copilot").mkdir(parents=True)
            (data / "copilot" / "session-state").symlink_to(volume)
            cli = await stack.enter_async_context(real_cli(data, token=SERVER_TOKEN))
            agent = await stack.enter_async_context(
                running_agent(
                    cli.port,
                    SERVER_TOKEN,
                    data,
                    COPILOT_AGENT_CLAIMS=str(claims),
                    COPILOT_AGENT_SESSIONS=str(volume),
                    COPILOT_AGENT_POD_UID=f"uid-{name}",
                    HOSTNAME=f"pod-{name}",
                )
            )
            nodes[name] = Node(name, f"uid-{name}", cli, agent)
        credential = {"provider": provider_at(model)}
        tenants = {token_of(TENANT): Tenant(TENANT, code=code_of(TENANT), credential=credential)}
        made = {name: Gateway(directory / "gateways" / name) for name in gateways}
        bed = SharedBed(directory, nodes, made, tenants)
        for name, gateway in made.items():
            (directory / "gateways" / name).mkdir(parents=True)
            bed.configure(name, dict.fromkeys(servers, "Serving"))
            await gateway.start()
            stack.push_async_callback(gateway.stop)
        bed.pods(*(node.pod for node in nodes.values()))
        for gateway in made.values():
            await gateway.ready()
        yield bed
        assert not bed.twice, bed.twice
        for gateway in made.values():
            assert gateway.errors == 0, gateway.tail()


@asynccontextmanager
async def watched(bed: SharedBed, *ids: str) -> AsyncIterator[None]:
    """Look all the time whether a session is loaded on two servers: on one both before and after it is on another."""
    connections: dict[str, Connection] = {}

    async def has(name: str, id: str) -> bool:
        try:
            if name not in connections or connections[name].closed:
                cli = bed.nodes[name].cli
                connections[name] = await Connection.open(cli.host, cli.port, timeout_s=5)
                await connections[name].connect(SERVER_TOKEN, timeout_s=5)
            await connections[name].call("session.metadata.activity", {"sessionId": id}, timeout_s=20)
        except (ServerError, OSError):
            return False
        return True

    async def look() -> None:
        while True:
            for id in ids:
                inner = f"{code_of(TENANT)}{id}"
                for one in bed.nodes:
                    for other in bed.nodes:
                        if one != other and await has(one, inner) and await has(other, inner) and await has(one, inner):
                            bed.twice.append(f"{id} on {one} and {other}")
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        for connection in connections.values():
            await connection.close()


async def turn(client: RawClient, id: str, prompt: str) -> None:
    """Send a message, and return when its turn has ended."""
    before = client.types(id).count("session.idle")
    await client("session.send", sessionId=id, prompt=prompt)
    await eventually(
        lambda: client.types(id).count("session.idle") > before, within_s=TURN_S, what=f"the turn {prompt} ends"
    )


class Meddler:
    """Stands between a gateway and an agent, and is told of each answer before it is passed on."""

    def __init__(self, agent_port: int, on_answer: Callable[[str, bytes], None]) -> None:
        self.port, self._agent_port, self._on_answer = free_port(), agent_port, on_answer

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Meddler"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            back, forth = await asyncio.open_connection("127.0.0.1", self._agent_port)
            forth.write(head)
            answer = await back.read()
            self._on_answer(head.split(b" ")[1].decode(), answer)
            writer.write(answer)
            await writer.drain()
            forth.close()
        writer.close()


def states(bed: SharedBed, **of: str) -> dict[str, Any]:
    """Of all servers; those not named serve."""
    return dict.fromkeys(bed.nodes, "Serving") | of
