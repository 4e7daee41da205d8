"""``python3 -m tests.stress.rotation``: the tokens of a GitHub App end all the time, under clients who need them.

Real CLIs, started with the App's token, the real agent beside each, and the real gateway before them, as processes of
this machine. Tokens are made by the operator's minter, from a stand-in for GitHub's API that checks signatures, and the
operator's decision says which server has to start again; what kubelet and the API server do is played here. The
stand-in for the model refuses tokens that have ended. Prints one line of JSON; the exit code is 1 when a turn failed.
With ``--rotation off`` servers keep the token that they were started with, and turns must fail, or the test is blind.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from copilot_operator.api.references import GitHubApp, UserToken
from copilot_operator.credentials.github import GitHub, Grant, Token
from copilot_operator.credentials.minter import Minter, Owner, Wanted
from copilot_operator.domain.causes import old_token
from copilot_operator.domain.desired.minted import minted
from copilot_operator.domain.github_app import SERIAL_KEY, TOKEN_KEY, app_credential, token_of
from copilot_operator.domain.kinds import POOL
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import minted_token
from copilot_operator.domain.secrets import as_observed, decoded
from copilot_operator.domain.snapshot import Credential, DrainPhase, Finding
from copilot_operator.servers.agents import AgentAddress, AgentClient, AgentError, state_of
from tests.contract.gateway_bed import Gateway, Server, Tenant, code_of, write_config
from tests.contract.gateway_bed import token_of as connection_token
from tests.support.agent import RunningAgent, running_agent
from tests.support.cli import Cli
from tests.support.eventually import eventually
from tests.support.gateway import SERVER_TOKEN, RawClient
from tests.support.github import GitHubStandIn, github, private_key
from tests.support.model import ModelServer
from tests.support.snapshots import a_pod, a_pool_object, a_snapshot, a_tenant

NAME: Final = minted_token(POOL, "saas")
OWNER: Final[Owner] = (POOL, "apps", "saas")
KEY: Final = Credential("app", "private-key.pem", digest="0123")
DRAIN_S: Final = 540.0
ANSWER_S: Final = 90.0
SOON_S: Final = 60.0
LOOK_EVERY_S: Final = 0.2


@dataclass(frozen=True)
class Plan:
    """Tokens that end after ``life_s``, while ``clients`` talk for ``lasts_s``, or until servers have taken a new token
    ``enough`` times."""

    life_s: float
    lasts_s: float
    clients: int = 10
    servers: int = 2
    rotates: bool = True
    enough: int | None = None
    seed: int = 1

    @property
    def longest_turn_s(self) -> float:
        return min(4.0, self.life_s / 12)


class Vault:
    """The Secrets of a cluster, as far as a minter and the environment of pods go."""

    def __init__(self) -> None:
        self.secret: Manifest | None = None

    async def private_key(self, owner: Owner, app: GitHubApp) -> str:
        return private_key()

    async def store(self, owner: Owner, uid: str, source: str, token: Token) -> None:
        self.secret = minted(a_pool_object(), NAME, token.value, token.minted_at, token.expires_at, source)

    async def grant(self, owner: Owner, uid: str, user: UserToken) -> Grant:
        raise NotImplementedError

    def credential(self, app: GitHubApp) -> Credential:
        """As decisions see it."""
        token = None if self.secret is None else token_of(as_observed(self.secret), "uid-saas")
        return app_credential(app, KEY, NAME, token, None, datetime.now(UTC))

    def holds(self, key: str) -> str:
        assert self.secret
        return decoded(self.secret["data"][key])


class PaidCli(Cli):
    """Reads the Secret when it starts, as kubelet does, and notes the token's serial, as ``copilot-server`` does."""

    login = ()

    def __init__(self, directory: Path, vault: Vault, model: ModelServer) -> None:
        super().__init__(directory, token=SERVER_TOKEN)
        self._vault, self._model = vault, model

    def _environment(self) -> dict[str, str]:
        (self._directory / "token-serial").write_text(self._vault.holds(SERIAL_KEY))
        at = f"http://{self._model.host}:{self._model.port}"
        urls = dict.fromkeys(("COPILOT_DEBUG_GITHUB_API_URL", "COPILOT_API_URL"), at)
        return super()._environment() | urls | {"COPILOT_GITHUB_TOKEN": self._vault.holds(TOKEN_KEY)}


@dataclass
class Pod:
    """A server's two processes. ``state`` is what gateways are told of it."""

    name: str
    cli: PaidCli
    agent: RunningAgent
    state: str = "Serving"

    @property
    def asks(self) -> AgentClient:
        return AgentClient(self.agent.port)

    @property
    def at(self) -> AgentAddress:
        return AgentAddress("127.0.0.1", self.name)


@dataclass
class Bed:
    """The servers behind a gateway, and who looks after them."""

    plan: Plan
    app: GitHubApp
    vault: Vault
    model: ModelServer
    github: GitHubStandIn
    gateway: Gateway
    pods: list[Pod]
    rotations: int = 0
    had_enough: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Write the gateway's configuration."""
        servers = {
            pod.name: Server(pod.cli.host, pod.cli.port, SERVER_TOKEN, pod.state, pod.agent.port, pod.name)  # type: ignore[arg-type]
            for pod in self.pods
        }
        names = (f"tenant-{number}" for number in range(self.plan.clients))
        tenants = {connection_token(name): Tenant(name, code=code_of(name)) for name in names}
        write_config(self.gateway.config, servers, tenants)

    async def look_after(self, pod: Pod) -> None:
        """Until cancelled: have a server take the new token when it is time to."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if await self.is_outdated(pod):
                await self.rotate(pod)
                self.rotations += 1
                if self.rotations == self.plan.enough:
                    self.had_enough.set()

    async def is_outdated(self, pod: Pod) -> bool:
        """By the operator's decision."""
        now = datetime.now(UTC)
        try:
            state = state_of(await pod.asks.state(pod.at), "uid", now)
        except AgentError:
            return False
        credential = self.vault.credential(self.app)
        tenant = a_tenant(pod.name)
        snapshot = a_snapshot(tenant=tenant, pods=(a_pod(),), state=state, now=now, credential=credential)
        return old_token(snapshot, {}, {}) is not None

    async def rotate(self, pod: Pod) -> None:
        """As the operator does: cordoned, drained by its agent, ended, and as kubelet does: started again."""
        await self.is_told(pod, "Draining")

        async def drained() -> bool:
            progress = await pod.asks.drain(pod.at, DRAIN_S, "Abort", wait_s=10)
            return progress.phase is DrainPhase.DONE and await pod.asks.restart(pod.at)

        await eventually(drained, within_s=DRAIN_S, what=f"{pod.name} is drained and ends")
        await pod.cli.ended()
        await pod.cli.stop()
        await pod.cli.start()

        async def ready() -> bool:
            return (await pod.agent.get("/readyz"))[0] == 200

        await eventually(ready, within_s=SOON_S, what=f"{pod.name} is ready again")
        await self.is_told(pod, "Serving")

    async def is_told(self, pod: Pod, state: str) -> None:
        """Until the gateway knows."""
        pod.state = state
        self.tell()

        async def knows() -> bool:
            return bool((await self.gateway.tells("/servers"))[pod.name] == state)

        await eventually(knows, within_s=SOON_S, what=f"the gateway knows that {pod.name} is {state}")


@dataclass
class Tally:
    """What came of it. ``failed`` tells of each failed turn why."""

    turns: int = 0
    failed: list[str] = field(default_factory=list)
    has_failed: asyncio.Event = field(default_factory=asyncio.Event)
    worst_pause_s: float = 0.0


class Talker:
    """A tenant with one session, which takes one turn after the other. Its connection must never end."""

    def __init__(self, number: int, bed: Bed, tally: Tally) -> None:
        self.session, self.tenant = f"session-{number}", f"tenant-{number}"
        self._bed, self._tally, self._choice = bed, tally, random.Random(f"{bed.plan.seed}-{number}")
        self._marks = (f"M{number}x{count}" for count in itertools.count())

    async def run(self, stop: asyncio.Event) -> None:
        client = await RawClient.open(self._bed.gateway.host, self._bed.gateway.port)
        client.answer_s = ANSWER_S
        try:
            assert "result" in await client.connect(connection_token(self.tenant))
            await client("session.create", sessionId=self.session, model="fake-model", streaming=True)
            while not stop.is_set():
                await self._turn(client)
        finally:
            await client.close()

    async def _turn(self, client: RawClient) -> None:
        lasts_s = round(self._choice.uniform(0.1, self._bed.plan.longest_turn_s), 1)
        mark, began = next(self._marks), time.monotonic()
        client.told.clear()
        self._tally.turns += 1
        try:
            why = await self._said(client, mark, lasts_s)
        except TimeoutError:
            why = f"nothing within {ANSWER_S:g} s"
        if why:
            self._tally.failed.append(f"{self.session} {mark}: {why}")
            self._tally.has_failed.set()
        self._tally.worst_pause_s = max(self._tally.worst_pause_s, time.monotonic() - began - lasts_s)

    async def _said(self, client: RawClient, mark: str, lasts_s: float) -> str:
        """Why the turn failed; "": it did not. Raises TimeoutError."""
        prompt = f"ECHO=`{mark}` SLEEP={lasts_s}"
        reply = await client.ask("session.send", sessionId=self.session, prompt=prompt)
        if "error" in reply:
            return f"refused: {reply['error']['message'][:200]}"
        async with asyncio.timeout(ANSWER_S):
            while "session.idle" not in client.types(self.session):
                assert not client.ended.is_set(), f"the connection of {self.tenant} ended"
                await asyncio.sleep(0.02)
        events = client.events(self.session)
        errors = [str(each["data"].get("message"))[:200] for each in events if each["type"] == "session.error"]
        answers = [str(each["data"].get("content")) for each in events if each["type"] == "assistant.message"]
        return "" if answers == [mark] else f"answers {answers}, errors {errors}"


@asynccontextmanager
async def a_bed(plan: Plan, directory: Path) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer())
        stand_in = await stack.enter_async_context(github())
        stand_in.life = timedelta(seconds=plan.life_s)
        vault, client, app = Vault(), GitHub(), stand_in.app()
        stack.push_async_callback(client.aclose)
        failures: dict[Owner, Finding] = {}
        minter = Minter(client, vault, failures, lambda _: None, lambda: True)
        minting = asyncio.create_task(minter.run())
        stack.callback(minting.cancel)
        minter.follow(OWNER, Wanted(app, "uid-saas", DRAIN_S))
        await eventually(lambda: vault.secret, within_s=SOON_S, what=f"the first token, not {failures}")
        pods = []
        for name in (f"server-{number}" for number in range(plan.servers)):
            cli = PaidCli(directory / name, vault, model)
            stack.push_async_callback(cli.stop)
            await cli.start()
            made = running_agent(cli.port, SERVER_TOKEN, directory / name, HOSTNAME=name)
            pods.append(Pod(name, cli, await stack.enter_async_context(made)))
        (directory / "gateway" / "config").mkdir(parents=True)
        gateway = Gateway(directory / "gateway")
        bed = Bed(plan, app, vault, model, stand_in, gateway, pods)
        bed.tell()
        await gateway.start()
        stack.push_async_callback(gateway.stop, signal.SIGKILL)
        await gateway.ready()
        yield bed


async def measured(plan: Plan, directory: Path) -> dict[str, Any]:
    """The whole run."""
    tally, stop = Tally(), asyncio.Event()
    async with a_bed(plan, directory) as bed:
        talking = [asyncio.create_task(Talker(each, bed, tally).run(stop)) for each in range(plan.clients)]
        looking = [asyncio.create_task(bed.look_after(pod)) for pod in bed.pods if plan.rotates]
        seen = bed.had_enough if plan.rotates else tally.has_failed  # where all fail, one turn is enough
        ending = asyncio.create_task(seen.wait())
        waits = (*talking, *looking, ending)
        began = time.monotonic()
        ended, _ = await asyncio.wait(waits, timeout=plan.lasts_s, return_when=asyncio.FIRST_COMPLETED)
        lasted_s = round(time.monotonic() - began, 1)
        stop.set()
        stuck = [repr(each) for each in await asyncio.gather(*talking, return_exceptions=True) if each]
        for each in (*looking, ending):
            each.cancel()
        stuck += [repr(each.exception()) for each in ended if each in looking and not each.cancelled()]
        minted_tokens, errors = len(bed.github.minted), bed.gateway.errors
    for said in (*stuck, *tally.failed):
        print(said, file=sys.stderr)
    return {
        "bench": "stress-rotate", "cli": "real", "rotation": "on" if plan.rotates else "off", "life_s": plan.life_s,
        "lasted_s": lasted_s, "clients": plan.clients, "servers": plan.servers, "tokens": minted_tokens,
        "rotations": bed.rotations, "turns": tally.turns, "failed": len(tally.failed), "stuck": len(stuck),
        "errors": errors, "with_ended_token": bed.model.expired, "worst_pause_s": round(tally.worst_pause_s, 1),
    }  # fmt: skip


def main() -> int:
    def number(name: str, default: str) -> float:
        return float(os.environ.get(name, default))

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--life", type=float, default=number("LIFE", "90"), help="seconds that a token holds")
    parser.add_argument("--lasts", type=float, default=number("LASTS", "900"), help="seconds of the run")
    parser.add_argument("--clients", type=int, default=int(number("CLIENTS", "10")))
    parser.add_argument("--servers", type=int, default=int(number("SERVERS", "2")))
    parser.add_argument("--rotation", choices=["on", "off"], default=os.environ.get("ROTATION", "on"))
    given = parser.parse_args()
    plan = Plan(given.life, given.lasts, given.clients, given.servers, given.rotation == "on")
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measured(plan, Path(directory)))
    print(json.dumps(found))
    if not plan.rotates:
        return int(not (found["failed"] and found["with_ended_token"]))
    return int(any(found[bad] for bad in ("failed", "stuck", "errors")) or not found["rotations"])


if __name__ == "__main__":
    sys.exit(main())
