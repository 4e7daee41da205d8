"""Servers that share a volume, their agents (the real code, on a real directory), and gateways that load sessions.

Each call of the file system, each message and each answer is a step; which step comes next, what dies and what gets
lost is chosen from outside. So every process may stand still for any time anywhere.
"""

import asyncio
import itertools
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from copilot_operator.agent.claim_files import ClaimFiles
from copilot_operator.agent.claims import Claims, uid_of
from copilot_operator.rpc.errors import ConnectionLost, RpcError, ServerError

SESSIONS: Final = ("a", "b")
PODS: Final = 2
GATEWAYS: Final = 2
PARKED: Final = 150  # steps of others, for a process that stands still
SETTLE_ROUNDS: Final = 6  # of the event loop, for what a step wakes
EVENTS: Final = (
    *["load"] * 8, *["unload"] * 2, *["release"] * 8, *["cli starts"] * 6, *["notice"] * 10,
    "cli ends", "agent starts", "pod goes", "connection breaks",
)  # fmt: skip
Choose = Callable[[int], int]  # a number below that


@dataclass(eq=False)
class Cli:
    """A process; ``loaded`` while it lives."""

    number: int
    alive: bool = True
    loaded: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Waiting:
    """A step that somebody is about to take. ``of`` dies with it."""

    of: object
    ready: asyncio.Future[None]
    parked: int = 0  # it stands still for so many steps of others


class Lock:
    """As ``cli_lock`` sees it."""

    def __init__(self, pod: "Pod") -> None:
        self._pod = pod

    def incarnation(self) -> str | None:
        return f"{self._pod.cli.number:x}"

    def is_free(self) -> bool:
        return not self._pod.cli.alive


class Pod:
    """A CLI and an agent beside it. ``agent`` is a new object each time that it starts."""

    def __init__(self, world: "World", uid: str) -> None:
        self.world, self.uid = world, uid
        self.cli = Cli(next(world.numbers))
        self.gone = False
        self.start_agent()

    def start_agent(self) -> None:
        self.life = object()  # of this agent's process
        self.agent = self.world.claims(
            ClaimFiles(self.world.volume, self._run_of(self.life)), Lock(self), ("p", self.uid)
        )
        self.meets: Cli | None = None
        self.world.spawn(self.life, self._meet())

    def _run_of(self, life: object) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def run(call: Callable[..., Any], *args: Any) -> Any:
            await self.world.step(life)
            found = call(*args)
            if call is os.rename:
                await self.world.step(life)  # the answer is on its way
                if self.world.unlucky():
                    raise FileNotFoundError  # it was made again, as its answer was lost
            return found

        return run

    async def _meet(self) -> None:
        await self.world.step(self.life)
        cli, self.meets = self.cli, self.cli
        try:
            await self.agent.met(lambda method, params: self._ask(cli, self.life, method, params))
            await self.agent.look_through()
        except (ServerError, OSError):
            self.meets = None

    async def _ask(self, cli: Cli, life: object, method: str, params: dict[str, Any]) -> Any:
        await self.world.step(life)
        if not cli.alive:
            raise ConnectionLost(method)
        id, error = params.get("sessionId"), None
        if method == "session.metadata.activity" and id not in cli.loaded:
            error = RpcError(method, -32603, f"Session not found for sessionId: {id}")
        if method == "sessions.close":
            cli.loaded.discard(id)
        await self.world.step(life)
        if not cli.alive:
            raise ConnectionLost(method)
        if error:
            raise error
        return {}

    def notice(self) -> None:
        """What ``Claims.run`` does all the time."""
        if self.meets is not None and not self.meets.alive:
            self.meets = None
            self.agent.lost()
        if self.meets is None:
            if not self.cli.alive:
                self.agent._void()
            else:
                self.world.spawn(self.life, self._meet())
        self.world.spawn(self.life, self.agent.drop_void())


class World:
    def __init__(self, volume: Path, choose: Choose, claims: type[Claims] = Claims) -> None:
        self.volume, self._choose, self.claims = volume, choose, claims
        self.numbers, self.permits = itertools.count(1), itertools.count()
        self.calm = False
        self.gone: set[str] = set()  # UIDs that the API server does not know any more
        self.waiting: list[Waiting] = []
        self.tasks: dict[asyncio.Task[None], object] = {}
        self.broken = ""
        self.pods = [self._pod() for _ in range(PODS)]
        self.loads = 0

    def _pod(self) -> Pod:
        return Pod(self, f"u{next(self.numbers)}")

    # Steps

    async def step(self, of: object) -> None:
        waiting = Waiting(of, asyncio.get_running_loop().create_future())
        self.waiting.append(waiting)
        await waiting.ready

    def unlucky(self) -> bool:
        return not self.calm and self._choose(6) == 0

    def spawn(self, of: object, work: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
        async def ended() -> None:
            with suppress(ServerError, OSError):
                await work

        task = asyncio.get_running_loop().create_task(ended())
        self.tasks[task] = of
        task.add_done_callback(lambda task: self.tasks.pop(task, None))
        return task

    def kill(self, of: object) -> None:
        """A process ends in the middle of whatever it does."""
        for task, its in list(self.tasks.items()):
            if its is of:
                task.cancel()
        self.waiting = [each for each in self.waiting if each.of is not of]

    async def advance(self, number: int) -> None:
        for each in self.waiting:
            each.parked = 0 if self.calm else max(0, each.parked - 1)
        able = [each for each in self.waiting if not each.parked]
        if able:
            chosen = able[number % len(able)]
            if not self.calm and self._choose(12) == 1:
                chosen.parked = PARKED
            else:
                self.waiting.remove(chosen)
                chosen.ready.set_result(None)
        for _ in range(SETTLE_ROUNDS):
            await asyncio.sleep(0)
        for task in [task for task in self.tasks if task.done() and not task.cancelled()]:
            task.result()
        for id in SESSIONS:
            where = [pod.cli.number for pod in self.pods if pod.cli.alive and id in pod.cli.loaded]
            if len(where) > 1:
                self.broken = f"{id} is loaded by {where}"
        assert not self.broken, self.broken

    # What happens

    def something(self) -> None:
        pod, id = self.pods[self._choose(PODS)], SESSIONS[self._choose(4) == 3]
        match EVENTS[self._choose(len(EVENTS))]:
            case "load":
                self.gateway(id, self._choose(PODS))
            case "unload":  # whoever owns it, or somebody else
                pod.cli.loaded.discard(id)
            case "release":
                self.spawn(pod.life, pod.agent.release(id))
            case "cli ends":
                pod.cli.alive, pod.cli.loaded = False, set()
            case "cli starts" if not pod.cli.alive:
                pod.cli = Cli(next(self.numbers))
            case "agent starts":
                self.kill(pod.life)
                pod.start_agent()
            case "pod goes":
                self.delete(pod)
            case "connection breaks":
                pod.agent.lost()
                pod.meets = None
                pod.notice()
            case _:
                pod.notice()

    def delete(self, pod: Pod) -> None:
        pod.cli.alive, pod.cli.loaded = False, set()
        self.kill(pod.life)
        self.gone.add(pod.uid)
        self.pods[self.pods.index(pod)] = self._pod()

    def gateway(self, id: str, server: int) -> asyncio.Task[None]:
        return self.spawn(self, self._load(id, server))

    async def _load(self, id: str, server: int, tries: int = 6) -> None:
        """A gateway that wants to load a session, and goes where it is told."""
        known_gone: set[str] = set()
        for _ in range(tries):
            pod = self.pods[server]
            await self.step(self)
            cli = pod.cli  # to whom the connection is opened
            if not cli.alive:
                continue
            await self.step(self)
            permit = f"g-{next(self.permits)}"
            answer = await self._asked(pod, id, permit, known_gone)
            if answer is None or not answer.startswith("ok"):
                pod.agent.settle([permit])  # it will not be used; sooner or later the agent hears of it
                if answer:
                    uid = uid_of(answer)
                    known_gone |= {uid} & self.gone
                    server = next((at for at, each in enumerate(self.pods) if each.uid == uid), server)
                continue
            await self.step(self)  # here it may stand still for ever
            if not cli.alive:
                continue  # over a connection that is broken; nobody knows that it is over
            cli.loaded.add(id)
            self.loads += 1
            await self.step(self)
            if cli.alive:
                pod.agent.settle([permit])
                return

    async def _asked(self, pod: Pod, id: str, permit: str, gone: set[str]) -> str | None:
        """ "ok", who has it, or None: no answer."""
        told: list[str] = []

        async def serve() -> None:
            others = await pod.agent.grant({id: permit}, set(gone))
            told.append(others.get(id, "ok"))

        task = self.spawn(pod.life, serve())
        await asyncio.wait([task])
        await self.step(self)
        return None if self.unlucky() or not told else told[0]

    # The end: everything goes on, and each session must be loadable

    async def settle(self) -> None:
        self.calm = True
        for _ in range(4000):
            await self.advance(0)
            if not self.waiting:
                return
        raise AssertionError("it goes on for ever")

    async def every_session_can_be_loaded(self) -> None:
        await self.settle()
        for pod in self.pods:
            if not pod.cli.alive:
                pod.cli = Cli(next(self.numbers))
            pod.cli.loaded = set()
            pod.notice()
        await self.settle()
        for pod in self.pods:
            pod.notice()
        await self.settle()
        for id in SESSIONS:
            for server in range(PODS):
                before = self.loads
                self.gateway(id, server)
                await self.settle()
                assert self.loads == before + 1, f"{id} cannot be loaded any more: {sorted(self.volume.rglob('*'))}"


async def lived_through(volume: Path, choose: Choose, steps: int, claims: type[Claims] = Claims) -> World:
    """A life of so many steps. Raises AssertionError when a session was loaded twice, or can't be loaded at its end."""
    world = World(volume, choose, claims)
    try:
        for _ in range(6):
            await world.advance(0)
        for _ in range(steps):
            if choose(6) == 0:
                world.something()
            await world.advance(choose(64))
        await world.every_session_can_be_loaded()
    finally:
        for task in list(world.tasks):
            task.cancel()
        await asyncio.sleep(0)
    return world
