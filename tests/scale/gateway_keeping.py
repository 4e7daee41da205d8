"""What a gateway that keeps the others' turns is sent for each: events and broadcasts of the stand-in CLI."""

import asyncio
from typing import Final

from copilot_operator.gateway.link import Address, Link
from copilot_operator.gateway.server import Server
from tests.scale.gateway_echo import frame
from tests.support.eventually import eventually
from tests.support.gateway import RawClient
from tests.support.standin import standin

TOKEN: Final = "server-token"
TURNS: Final = 50
LATE_S: Final = 0.3  # for what is on its way when a turn is over


class Keeping(Server):
    """A server as a keeping gateway sees it; ``heard`` is what that gateway has been told, in bytes of frames."""

    heard = 0

    def event(self, link: Link, body: bytes) -> None:
        self.heard += len(frame(body))
        super().event(link, body)

    def told(self, link: Link, method: str, body: bytes) -> None:
        self.heard += len(frame(body))
        super().told(link, method, body)


async def kb_per_turn() -> float:
    """KiB for each small turn of a conversation that is kept."""
    async with standin(token=TOKEN) as cli:
        server = Keeping("kept", Address(cli.host, cli.port, TOKEN), True, lambda *_: None, keeps=True)
        try:
            await eventually(lambda: server.listed, within_s=5, what="the server is heard")
            client = await RawClient.open(cli.host, cli.port)
            await client.connect(TOKEN)
            await client("session.create", sessionId="s", model="m")
            await client("session.send", sessionId="s", prompt="SLEEP=1")
            await eventually(lambda: len(server.keeper) == 1, within_s=5, what="the conversation is kept")
            await eventually(lambda: "session.idle" in client.types("s"), within_s=5, what="its first turn is over")
            await asyncio.sleep(LATE_S)
            before = server.heard
            for _ in range(TURNS):
                await client("session.send", sessionId="s", prompt="hello", wait=True)
            await asyncio.sleep(LATE_S)
            await client.close()
            return (server.heard - before) / TURNS / 1024
        finally:
            server.end()
