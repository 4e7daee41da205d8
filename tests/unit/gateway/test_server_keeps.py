"""A gateway that starts finds the turns that run already: nothing is heard of them until their end."""

import asyncio
import json
from collections.abc import Mapping

from copilot_operator.agent.web import Response, WebServer
from copilot_operator.gateway.link import Address
from copilot_operator.gateway.server import Server
from tests.support.eventually import eventually
from tests.support.gateway import SERVER_TOKEN, RawClient
from tests.support.standin import standin


async def test_a_turn_that_began_before_a_gateway_was_there_is_kept_by_it() -> None:
    async with standin(token=SERVER_TOKEN) as stand_in:
        client = await RawClient.open(stand_in.host, stand_in.port)
        await client.connect(SERVER_TOKEN)
        for id in ("works", "rests"):
            await client("session.create", sessionId=id, model="m")
            await client("session.send", sessionId=id, prompt="SLEEP=30" if id == "works" else "hello")
        await eventually(lambda: "session.idle" in client.types("rests"), within_s=5, what="one of them is idle")
        await client("session.destroy", sessionId="rests")
        server = Server("s", Address(stand_in.host, stand_in.port, SERVER_TOKEN), True, lambda *_: None, keeps=True)
        try:
            await eventually(lambda: len(server.keeper) == 1, within_s=5, what="the one that works is kept")
            client.abort()
            await eventually(lambda: len(stand_in.server.sessions.loaded) == 1, within_s=5, what="its client has gone")
            await asyncio.sleep(0)
            assert stand_in.server.sessions.loaded[0].id == "works", "and its turn goes on"
        finally:
            server.end()


async def test_an_idle_session_that_is_only_kept_is_given_up_when_another_server_wants_it() -> None:
    async with standin(token=SERVER_TOKEN) as stand_in:

        async def release(query: Mapping[str, str]) -> Response:
            return Response(200, json.dumps({"free": {"s": not stand_in.server.sessions.loaded}}))

        agent = WebServer({"/claims/release": release})
        port = await agent.start(stand_in.host, 0)
        address = Address(stand_in.host, stand_in.port, SERVER_TOKEN)
        keeps = Server("s", address, True, lambda *_: None, keeps=True)
        asks = Server("s", address, True, lambda *_: None, agent_port=port)
        try:
            client = await RawClient.open(stand_in.host, stand_in.port)
            await client.connect(SERVER_TOKEN)
            await client("session.create", sessionId="s", model="m")
            await eventually(lambda: len(keeps.keeper) == 1, within_s=5, what="it is kept")
            client.abort()  # without a word: nobody says that its last client has left

            async def is_given_up() -> bool:
                return await asks.release("s")

            await eventually(is_given_up, within_s=10, what="it is given up long before the keeper would")
        finally:
            keeps.end()
            asks.end()
            agent.stop()
