"""Tenants that share a session, at two gateways before one CLI with its agent."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from copilot_operator.rpc.client import Connection
from tests.contract.gateway_bed import Gateway, Server, Tenant, code_of, provider_at, token_of, write_config
from tests.contract.sdk_scenarios import Place
from tests.support.agent import RunningAgent, running_agent
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.gateway import SERVER_TOKEN, RawClient
from tests.support.model import ModelServer
from tests.support.standin import StandIn, standin

TEAM: Final = "team"
MEMBERS: Final = ("alice", "bob", "dave")
STRANGER: Final = "carol"
TTL: Final = {"COPILOT_AGENT_LOCK_TTL_S": "2"}
CODE: Final = hashlib.sha256(b"shared").hexdigest()[:12] + "-"


@dataclass
class Bed:
    """``one`` and ``other`` are the gateways; alice and dave are at the one, bob and carol at the other."""

    cli: Cli | StandIn
    directory: Path
    agent: RunningAgent
    one: Gateway
    other: Gateway
    credential: dict[str, Any] = field(repr=False)
    queues: bool = False
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def configure(self, members: tuple[str, ...] = MEMBERS) -> None:
        """Gateways look at it within a second."""
        servers = {"server": Server(self.cli.host, self.cli.port, SERVER_TOKEN, agentPort=self.agent.port)}
        tenants = {
            token_of(name): Tenant(
                name, code=code_of(name), credential=self.credential, shares=(TEAM,) if name in members else ()
            )
            for name in (*MEMBERS, STRANGER)
        }
        shared = [{"name": TEAM, "code": CODE, "queues": self.queues}]
        for gateway in (self.one, self.other):
            write_config(
                gateway.config, servers, tenants, gateways=2, sharedSessions=shared, credential=self.credential
            )  # fmt: skip

    async def client(self, tenant: str, *, joins: bool = True) -> RawClient:
        gateway = self.one if tenant in ("alice", "dave") else self.other
        client = await RawClient.open(gateway.host, gateway.port)
        self.stack.push_async_callback(client.close)
        client.answer_s = 60.0
        await client.connect(token_of(tenant))
        if joins:
            made = await client("session.create", sessionId=TEAM, model="fake-model", streaming=True)
            assert made["sessionId"] == TEAM
        return client

    def at(self, tenant: str) -> Place:
        gateway = self.one if tenant in ("alice", "dave") else self.other
        return Place(gateway.url, token_of(tenant))

    async def directly(self) -> Connection:
        """A connection to the server itself."""
        connection = await Connection.open(self.cli.host, self.cli.port, timeout_s=5)
        await connection.connect(SERVER_TOKEN, timeout_s=5)
        self.stack.push_async_callback(connection.close)
        return connection

    async def restart_agent(self) -> None:
        """Killed, and started where it was."""
        self.agent.process.kill()
        await self.agent.process.wait()
        again = running_agent(
            self.cli.port, SERVER_TOKEN, self.directory, **TTL, COPILOT_AGENT_PORT=str(self.agent.port)
        )  # fmt: skip
        self.agent = await self.stack.enter_async_context(again)

    async def holder(self) -> Any:
        """Who speaks, as the agent would tell a stranger."""
        _, body = await self.agent.get(f"/locks/tend?id={CODE}{TEAM}&holder=nobody")
        found = json.loads(body)["tend"]
        return None if found["granted"] else found["holder"]


def said(client: RawClient) -> list[str]:
    """The messages of the session that a client has heard of, in order."""
    return [event["data"]["content"] for event in client.events(TEAM) if event["type"] == "user.message"]


async def heard(client: RawClient, kind: str, count: int = 1, within_s: float = 30) -> None:
    await eventually(
        lambda: client.types(TEAM).count(kind) >= count, within_s=within_s, what=f"{count} x {kind}: {client.told[-3:]}"
    )


@asynccontextmanager
async def shared_bed(directory: Path, *, real: bool, queues: bool = False) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        made = real_cli(directory / "cli", token=SERVER_TOKEN) if real else standin(token=SERVER_TOKEN)
        cli: Cli | StandIn = await stack.enter_async_context(made)
        model = await stack.enter_async_context(ModelServer())
        agent = await stack.enter_async_context(running_agent(cli.port, SERVER_TOKEN, directory, **TTL))
        gateways = []
        for name in ("one", "other"):
            (directory / name / "config").mkdir(parents=True)
            gateways.append(Gateway(directory / name))
        bed = Bed(cli, directory, agent, gateways[0], gateways[1], {"provider": provider_at(model)}, queues, stack)
        bed.configure()
        for gateway in gateways:
            await gateway.start()
            stack.push_async_callback(gateway.stop)
        yield bed
        for gateway in gateways:
            assert gateway.errors == 0, gateway.tail()
