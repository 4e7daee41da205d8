"""The clients of one server: turns under way, clients that hang up in the middle, messages after the cordon."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import RpcError, ServerError
from tests.stress.judge import Turn
from tests.stress.servers import Address

CALL_S: Final = 20.0
AGENT_PORT: Final = 4322
LOOK_EVERY_S: Final = 0.1


class Client:
    """One client with one session, in which it takes one turn after the other."""

    _connection: Connection

    def __init__(self, session: str) -> None:
        self.session, self.turns = session, list[Turn]()

    @classmethod
    async def begin(cls, at: Address, session: str, options: dict[str, Any]) -> "Client":
        """Connect and create the session. Raises ServerError."""
        client = cls(session)
        client._connection = await _connected(at, client._told)
        await client._connection.call("session.create", {"sessionId": session, **options}, timeout_s=CALL_S)
        return client

    async def say(self, lasts_s: float) -> Turn:
        """Send a message; returns once the server has it. Raises ServerError if it does not get there."""
        mark = f"{self.session}.{len(self.turns)}"
        prompt = f"SLEEP={lasts_s:.2f} ECHO=`{mark}`"
        behind = self.turns[-1] if self.turns else None
        turn = Turn(self.session, mark, lasts_s, asyncio.get_running_loop().time(), behind=behind)
        self.turns.append(turn)
        try:
            await self._connection.call("session.send", {"sessionId": self.session, "prompt": prompt}, timeout_s=CALL_S)
        except ServerError:
            self.turns.remove(turn)  # nobody has promised anything
            raise
        turn.sent_at = asyncio.get_running_loop().time()
        return turn

    async def hang_up(self) -> None:
        await self._connection.close()

    @property
    def closed(self) -> bool:
        return self._connection.closed

    async def wait_closed(self) -> None:
        await self._connection.wait_closed()

    def _told(self, method: str, params: Any) -> None:
        if method == "session.event" and params["event"]["type"] == "abort" and self.turns:
            now = asyncio.get_running_loop().time()
            for turn in self.turns:
                turn.aborted_at = turn.aborted_at or now


async def look_for_answers(at: Address, clients: list[Client]) -> None:
    """Resume each session as its client would after a stop, and note which turns have their answers in it."""
    connection = await _connected(at, lambda *_: None)
    try:
        for client in clients:
            quietly = {"sessionId": client.session, "disableResume": True}
            try:
                await connection.call("session.resume", quietly, timeout_s=CALL_S)
            except RpcError as error:
                if "not found" not in error.message.lower():
                    raise
                continue  # nothing was ever stored
            stored = await connection.call("session.getMessages", {"sessionId": client.session}, timeout_s=CALL_S)
            said = [_text(event) for event in stored["events"] if event["type"] == "assistant.message"]
            for turn in client.turns:
                turn.answered = any(turn.mark in text for text in said)
    finally:
        await connection.close()


async def answers_ping(at: Address) -> bool:
    """Whether the server takes clients."""
    try:
        connection = await _connected(at, lambda *_: None)
    except ServerError:
        return False
    await connection.close()
    return True


async def kept(at: Address) -> bool:
    """Whether a drain holds every busy session, so that a client may go without losing its turn."""
    try:
        state = json.loads(await _page(at.agent, "/state"))
    except (OSError, TimeoutError, ValueError):
        return False
    drain = state.get("draining") or {}
    busy = drain.get("busy")
    return drain.get("phase") == "Quiescing" and busy is not None and drain["kept"] >= busy


@dataclass(frozen=True)
class Manners:
    """How a client behaves: what it says first, and what it does once its server is to stop."""

    lasts_s: float
    goes_after_s: float | None  # hangs up so long after the drain has its session
    says_after_s: float | None  # sends another message so long after the wish to stop the server
    says_s: float  # how long that turn takes


async def carry_on(client: Client, manners: Manners, at: Address) -> None:
    """From the wish to stop the server to the end of the connection."""
    with suppress(ServerError):
        if manners.goes_after_s is not None:
            await _until_it_may_go(client, at)
            await asyncio.sleep(manners.goes_after_s)
            await client.hang_up()
        elif manners.says_after_s is not None:
            await asyncio.sleep(manners.says_after_s)
            await client.say(manners.says_s)
        await client.wait_closed()


async def _until_it_may_go(client: Client, at: Address) -> None:
    while True:
        if client.closed or await kept(at):
            return
        await asyncio.sleep(LOOK_EVERY_S)


async def _connected(at: Address, told: Any) -> Connection:
    connection = await Connection.open(at.host, at.port, timeout_s=CALL_S, on_notification=told)
    try:
        await connection.connect(at.token, timeout_s=CALL_S)
    except BaseException:
        connection.abort()
        raise
    return connection


async def _page(host: str, path: str) -> bytes:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(host, AGENT_PORT)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n".encode())
            return (await reader.read()).partition(b"\r\n\r\n")[2]
        finally:
            writer.close()


def _text(event: dict[str, Any]) -> str:
    return str(event["data"].get("content", ""))
