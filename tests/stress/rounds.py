"""One pool's part of a run: turns are under way on its servers, then something stops them; again and again.

begin    clients connect and send messages
ask      somebody does what stops servers: for one tenant, or for the pool
follow   clients go, or send more, until the process has ended and the server is back
judge    every session is resumed: are the answers in it?
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from copilot_operator.cluster.client import KubeApi
from copilot_operator.domain.manifest import Manifest
from copilot_operator.rpc.errors import ServerError
from tests.scale.client import condition, say
from tests.stress import wishes
from tests.stress.clients import Client, Manners, answers_ping, carry_on, look_for_answers
from tests.stress.judge import Outcome, Stop, verdict
from tests.stress.servers import Address, Life, Servers
from tests.stress.wishes import OF_ALL, OF_ONE, Cause, PoolWish, TenantWish

SHORTEST_S, LONGEST_S = 0.1, 60.0
MOST_CLIENTS: Final = 3
MOST_PAUSE_S: Final = 3.0
STUCK_S: Final = 60.0  # beyond the deadline
FOUND_S: Final = 40.0  # until what nobody asked for is found: a hang, wear
BACK_S: Final = 120.0  # a busy machine, and the operator is killed once more meanwhile
LOOK_EVERY_S: Final = 0.1
NOT_ASKED_FOR: Final = (Cause.HANG, Cause.RECYCLE)


@dataclass
class Run:
    """What all pools share."""

    api: KubeApi
    servers: Servers
    seed: int
    stops: int
    causes: frozenset[Cause]
    tenants: dict[str, Manifest] = field(default_factory=dict)  # as last watched, by name
    killed_at: list[float] = field(default_factory=list)  # the operator
    crashes: int = 0  # how often the operator ended by itself
    outcomes: list[Outcome] = field(default_factory=list)
    begun: int = 0

    def tenant_seen(self, event: str, manifest: Manifest) -> None:
        """Take in an event of the watch of tenants."""
        if event == "DELETED":
            self.tenants.pop(manifest["metadata"]["name"], None)
        else:
            self.tenants[manifest["metadata"]["name"]] = manifest


@dataclass
class Server:
    """One server in one round."""

    tenant: TenantWish
    cause: Cause
    life: Life
    at: Address
    pause_s: float
    manners: list[Manners]
    asked_at: float = 0.0
    clients: list[Client] = field(default_factory=list)
    stuck: bool = False

    @property
    def turns_end_at(self) -> float:
        """If they are let."""
        return max((turn.ends_at for client in self.clients for turn in client.turns), default=0.0)


class Stuck(Exception):
    """Something did not happen in time; the message says what."""


class Pool:
    """Plays rounds until enough stops have begun. The seed decides everything that is not the clock's."""

    def __init__(self, run: Run, wish: PoolWish) -> None:
        self._run, self._wish = run, wish
        self._chance = random.Random(f"{run.seed} {wish.name}")
        self._clock = asyncio.get_running_loop().time

    async def play(self) -> None:
        """Raises Stuck when the pool does not even begin."""
        await wishes.apply_pool(self._run.api, self._wish)
        for tenant in self._wish.tenants:
            await wishes.apply_tenant(self._run.api, self._wish, tenant)
        await asyncio.gather(*(self._until_back(tenant, None) for tenant in self._wish.tenants))
        number = 0
        while self._run.begun < self._run.stops:
            number += 1
            servers = await self._draw()
            self._run.begun += len(servers)
            await asyncio.gather(*(self._begin(server, number) for server in servers))
            if servers[0].cause in OF_ALL:
                await asyncio.sleep(servers[0].pause_s)
                await self._ask_for_all(servers)
            await asyncio.gather(*(self._follow(server, servers) for server in servers))
            if any(server.stuck for server in servers):
                say(f"{self._wish.name} plays no more rounds: a server is stuck")
                return

    # Drawing

    async def _draw(self) -> list[Server]:
        """Servers that are to stop, and why."""
        servers = [await self._server(tenant) for tenant in self._wish.tenants]
        of_all = [cause for cause in OF_ALL if cause in self._run.causes]
        of_one = [cause for cause in OF_ONE if cause in self._run.causes]
        common = self._chance.choice([*of_all, *of_one])
        node = self._run.servers.node(self._chance.choice(servers).life)
        for server in servers:
            server.cause = common if common in of_all else self._chance.choice(of_one)
        if common is Cause.NODE_DRAIN:
            return [server for server in servers if self._run.servers.node(server.life) == node]
        return servers

    async def _server(self, tenant: TenantWish) -> Server:
        life, chance = self._run.servers.life(tenant.name), self._chance
        assert life is not None, f"{tenant.name} has no server"
        manners = [self._manners() for _ in range(chance.randint(0, MOST_CLIENTS))]
        at = await self._run.servers.address(tenant.name)
        return Server(tenant, Cause.SUSPENSION, life, at, chance.uniform(0, MOST_PAUSE_S), manners)

    def _manners(self) -> Manners:
        chance = self._chance
        return Manners(
            lasts_s=SHORTEST_S * (LONGEST_S / SHORTEST_S) ** chance.random(),  # short ones as often as long ones
            goes_after_s=chance.uniform(0, 2) if chance.random() < 0.3 else None,
            says_after_s=chance.uniform(0, 8) if chance.random() < 0.4 else None,
            says_s=chance.uniform(SHORTEST_S, 10),
        )

    async def _begin(self, server: Server, number: int) -> None:
        try:
            for place, manners in enumerate(server.manners):
                session = f"{server.tenant.name}-{number}-{place}"
                client = await Client.begin(server.at, session, self._run.servers.options)
                server.clients.append(client)
                await client.say(manners.lasts_s)
        except ServerError as error:  # it stops though nobody asked for that: the turns that were lost by it count
            say(f"UNASKED: {server.tenant.name} before {server.cause}: {error}")

    # Asking

    async def _ask_for_all(self, servers: list[Server]) -> None:
        cause, api = servers[0].cause, self._run.api
        for server in servers:
            server.asked_at = self._clock()
        if cause is Cause.NODE_DRAIN:
            await wishes.cordon(api, self._run.servers.node(servers[0].life), cordoned=True)
        elif cause is Cause.RECYCLE:
            await asyncio.gather(*(self._run.servers.wear_out(server.life) for server in servers))
        else:
            self._wish.times[cause] += 1
            await wishes.apply_pool(api, self._wish)

    async def _ask_for_one(self, server: Server) -> None:
        api, tenant, cause = self._run.api, server.tenant, server.cause
        await asyncio.sleep(server.pause_s)
        if cause is Cause.HANG:  # turns of a server that hangs are nobody's to save
            await asyncio.sleep(max(0.0, server.turns_end_at + 1.0 - self._clock()))
        server.asked_at = self._clock()
        if cause is Cause.HANG:
            await self._run.servers.hang(server.life)
        elif cause is Cause.DELETION:
            await wishes.delete_tenant(api, self._wish, tenant)
        else:
            tenant.times[cause] += 1
            tenant.suspended = cause is Cause.SUSPENSION
            await wishes.apply_tenant(api, self._wish, tenant)

    # Following

    async def _follow(self, server: Server, everybody: list[Server]) -> None:
        if server.cause in OF_ONE:
            await self._ask_for_one(server)
        going_on = [
            asyncio.create_task(carry_on(client, manners, server.at))
            for client, manners in zip(server.clients, server.manners, strict=False)
        ]
        try:
            await self._until_stopped(server)
            await self._bring_back(server, everybody)
            await self._until_back(server.tenant, server.life)
            await look_for_answers(await self._run.servers.address(server.tenant.name), server.clients)
        except (Stuck, ServerError) as error:
            server.stuck = True
            say(f"STUCK: {server.tenant.name}, {server.cause}: {error}")
        finally:
            for task in going_on:
                task.cancel()
            await asyncio.gather(*going_on, *(client.hang_up() for client in server.clients), return_exceptions=True)
        self._run.outcomes.append(self._judged(server))

    async def _until_stopped(self, server: Server) -> None:
        def stopped() -> bool:
            live = self._run.tenants.get(server.tenant.name)
            if server.cause is Cause.DELETION and live is not None:
                return False
            if server.cause is Cause.SUSPENSION and ((live or {}).get("status") or {}).get("phase") != "Suspended":
                return False
            return self._run.servers.gone_at(server.life) is not None

        def ends_at() -> float:
            begins_at = server.asked_at + (FOUND_S if server.cause in NOT_ASKED_FOR else 0.0)
            if self._waits(server):
                begins_at = max(begins_at, server.turns_end_at)
            return begins_at + self._wish.timeout_s + STUCK_S

        try:
            await self._until(stopped, ends_at, "its process has not ended")
        except Stuck as error:
            raise Stuck(f"{error}; {self._standing(server.tenant)}") from None

    def _standing(self, tenant: TenantWish) -> str:
        """What there is to know, for people."""
        live = self._run.tenants.get(tenant.name)
        life = self._run.servers.life(tenant.name)
        return f"{tenant.name}: process {life}, status {json.dumps((live or {}).get('status'))}"

    def _waits(self, server: Server) -> bool:
        """Whether its turns may go on for as long as they want. A pod that is deleted has its grace and no more."""
        if server.cause is Cause.DELETION:
            return False
        return self._wish.on_timeout == "Wait" or server.cause is Cause.RECYCLE

    async def _bring_back(self, server: Server, everybody: list[Server]) -> None:
        api, tenant = self._run.api, server.tenant
        if server.cause in (Cause.SUSPENSION, Cause.DELETION):
            tenant.suspended = False
            await wishes.apply_tenant(api, self._wish, tenant)
        elif server.cause is Cause.NODE_DRAIN and all(self._run.servers.gone_at(each.life) for each in everybody):
            await wishes.cordon(api, self._run.servers.node(server.life), cordoned=False)

    async def _until_back(self, tenant: TenantWish, former: Life | None) -> None:
        async def back() -> bool:
            live, life = self._run.tenants.get(tenant.name), self._run.servers.life(tenant.name)
            if live is None or life in (None, former) or condition(live, "Ready") != "True":
                return False
            return await answers_ping(await self._run.servers.address(tenant.name))

        ends_at = self._clock() + BACK_S
        try:
            await self._until(back, lambda: ends_at, "it is not back")
        except Stuck as error:
            raise Stuck(f"{error}; {self._standing(tenant)}") from None

    async def _until(self, met: Callable[[], bool | Awaitable[bool]], ends_at: Callable[[], float], what: str) -> None:
        while True:
            asked = met()
            if asked if isinstance(asked, bool) else await asked:
                return
            if self._clock() > ends_at():
                raise Stuck(what)
            await asyncio.sleep(LOOK_EVERY_S)

    # Judging

    def _judged(self, server: Server) -> Outcome:
        gone_at = self._run.servers.gone_at(server.life)
        stop = Stop(
            asked_at=server.asked_at,
            deadline_at=None if self._waits(server) else server.asked_at + self._wish.timeout_s,
            cordoned_at=self._run.servers.cordoned_at(server.life),
            gone_at=gone_at,
        )
        turns = [turn for client in server.clients for turn in client.turns]
        verdicts = () if server.stuck else tuple(verdict(turn, stop) for turn in turns)
        for turn, found in zip(turns, verdicts, strict=False):
            if found is found.LOST:
                say(f"LOST: {turn} {stop} {server.cause} of {self._wish.name}")
        killed = any(server.asked_at <= at <= (gone_at or self._clock()) for at in self._run.killed_at)
        return Outcome(server.cause, verdicts, server.stuck, killed, self._overhead_s(server, stop))

    def _overhead_s(self, server: Server, stop: Stop) -> float | None:
        if stop.gone_at is None or server.cause in NOT_ASKED_FOR:
            return None
        turns_end_at = min(server.turns_end_at, stop.deadline_at or server.turns_end_at)
        return stop.gone_at - max(stop.asked_at, turns_end_at)
