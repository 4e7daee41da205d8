"""A stand-in for CLI servers: thousands in one process, told apart by the address a client connected to.

As a program (``python3 -m tests.support.standin --host 0.0.0.0 --port 4321``) it serves simulated pods, with
``--agents`` a real agent beside each. In tests it misbehaves on demand. What it does when it is well is held to the
real CLI by ``tests/contract``.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from tests.support.standin_agent import SimulatedAgent
from tests.support.standin_server import VERSION, Connection, Fault, Server
from tests.support.standin_sessions import Volume

__all__ = ["AGENT_PORT", "VERSION", "Fault", "Server", "StandIn", "Volume", "standin"]

AGENT_PORT: Final = 4322
RESTART_S: Final = 0.3  # until kubelet has started a container again that ended
_BACKLOG: Final = 4096  # an operator that starts pings everybody at once


class _Servers(dict[str, Server]):
    """By address. One that nobody has talked to yet is made when it is looked for, if ``make`` makes one."""

    def __init__(self, make: Callable[[str], Server] | None) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, address: str) -> Server:
        if self._make is None:
            raise KeyError(address)
        return self._make(address)


class StandIn:
    """Listens, and keeps a server for each local address that is talked to.

    ``everywhere`` False: only where ``run`` put one. ``agents``: each server has a real agent beside it.
    """

    def __init__(self, *, token: str | None = None, everywhere: bool = True, agents: bool = False) -> None:
        self.servers: dict[str, Server] = _Servers(self.run if everywhere else None)
        self.host, self.port = "", 0
        self._token, self._has_agents = token, agents
        self._agents: dict[str, tuple[SimulatedAgent, asyncio.Task[int]]] = {}
        self._listener: asyncio.Server | None = None

    @property
    def server(self) -> Server:
        """The server at the address that is listened on."""
        return self.servers[self.host]

    def run(self, address: str, volume: Volume | None = None) -> Server:
        """Have a server at an address, with the state that lies on its volume (None: an empty one)."""
        server = self.servers[address] = Server(self._token, volume)
        server.on_exit = lambda: self._start_again(address, server)
        if self._has_agents:
            agent = SimulatedAgent(server, address, self.port)
            self._agents[address] = agent, asyncio.create_task(agent.start(AGENT_PORT))
        return server

    def remove(self, address: str) -> None:
        """The server is gone for good, and nobody answers there."""
        server = self.servers.pop(address)
        if server.runs:
            server.end()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; ``port`` then holds the port that was chosen for 0. Servers that a stop ended run again."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self._at), host, port, backlog=_BACKLOG)
        self.host, self.port = host, self._listener.sockets[0].getsockname()[1]
        for server in self.servers.values():
            server.start()

    async def stop(self) -> None:
        """End all servers, and listen no more. What they have stored stays, for a start after that."""
        if self._listener is not None:
            self._listener.close()
        for server in self.servers.values():
            if server.runs:
                server.end()
        for agent, starting in self._agents.values():
            starting.cancel()
            await agent.stop()
        self._agents.clear()

    def _at(self, address: str) -> Server | None:
        try:
            return self.servers[address]
        except KeyError:
            return None

    def _start_again(self, address: str, server: Server) -> None:
        def start() -> None:
            if self.servers.get(address) is server and not server.runs:
                server.start()

        asyncio.get_running_loop().call_later(RESTART_S, start)


@asynccontextmanager
async def standin(*, token: str | None = None, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[StandIn]:
    """A stand-in that listens; ended at the end."""
    stand_in = StandIn(token=token)
    await stand_in.start(host, port)
    try:
        yield stand_in
    finally:
        await stand_in.stop()


async def _serve(host: str, port: int, token: str | None, agents: bool) -> None:
    stopped = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stopped.set)
    stand_in = StandIn(token=token, agents=agents)
    await stand_in.start(host, port)
    try:
        print(f"CLI server listening on port {stand_in.port}", flush=True)
        await stopped.wait()
    finally:
        await stand_in.stop()


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="Stand-in for Copilot CLI servers, one per address it is reached by.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4321, help="0: any free port")
    parser.add_argument("--token", default=None, help="the only connection token taken (default: any)")
    parser.add_argument("--agents", action="store_true", help=f"a real agent beside each server, on port {AGENT_PORT}")
    given = parser.parse_args(argv)
    asyncio.run(_serve(given.host, given.port, given.token, given.agents))
    return 0


if __name__ == "__main__":
    sys.exit(main())
