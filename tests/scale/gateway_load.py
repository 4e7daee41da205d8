"""The clients of the bench, a process of their own: ``python -m tests.scale.gateway_load``.

Reads one JSON line per order: ``{"what": "latency" | "requests" | "events" | "idle", "host", "port", "token"}`` and
what the function of that name takes; answers each with one line. Connections of ``idle`` stay until the next order.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final, cast

import uvloop

from tests.scale.gateway_echo import frame, padded

METHOD: Final = "session.plan.update"  # one session, nothing asked of a model, a text of any size
STEP_S: Final = 20.0


class Client(asyncio.Protocol):
    """One connection; hands over each whole message."""

    def __init__(self) -> None:
        self._buffer = b""
        self.on_messages: Callable[[list[bytes]], None] = lambda messages: None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop has a class of its own

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        data, at, bodies = self._buffer + data, 0, []
        while (head := data.find(b"\r\n\r\n", at)) >= 0:
            end = head + 4 + int(data[at + 16 : head])
            if len(data) < end:
                break
            bodies.append(data[head + 4 : end])
            at = end
        self._buffer = data[at:]
        if bodies:
            self.on_messages(bodies)

    async def call(self, method: str, params: dict[str, Any]) -> bytes:
        """One request and its answer, while nothing else is under way."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def heard(bodies: list[bytes]) -> None:
            for body in bodies:
                if b'"id":' in body[:40] and not answer.done():
                    answer.set_result(body)

        self.on_messages = heard
        request = {"jsonrpc": "2.0", "id": 0, "method": method, "params": params}
        self.transport.write(frame(json.dumps(request, separators=(",", ":")).encode()))
        async with asyncio.timeout(STEP_S):
            await asyncio.wait((answer, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise RuntimeError(f"the connection was closed instead of answering {method}")
        if b'"error":' in answer.result():
            raise RuntimeError(f"{method}: {answer.result().decode()[:300]}")
        return answer.result()


async def connected(order: dict[str, Any], number: int) -> Client:
    """A client that has passed ``connect``; ``token`` may name several, taken in turn."""
    tokens = order["token"] if isinstance(order["token"], list) else [order["token"]]
    async with asyncio.timeout(STEP_S):
        _, client = await asyncio.get_running_loop().create_connection(Client, order["host"], order["port"])
    await client.call("connect", {"token": tokens[number % len(tokens)]})
    return client


async def with_session(order: dict[str, Any], number: int) -> Client:
    """A client with a session ``s<number>`` of its own."""
    client = await connected(order, number)
    await client.call("session.create", {"sessionId": f"s{number}", "model": "fake-model"})
    return client


def request(id: int, number: int) -> bytes:
    head = b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":{"sessionId":"s%d","content":"'
    return padded(head % (id, METHOD.encode(), number), b'"}}')


async def latency(order: dict[str, Any]) -> dict[str, Any]:
    """Round trips of one message each way at an even rate: ``messages_per_s`` for ``seconds``; ms."""
    loop = asyncio.get_running_loop()
    client = await with_session(order, 0)
    period = 2 / order["messages_per_s"]
    count, all_back = int(order["seconds"] / period), asyncio.Event()
    sent: dict[int, float] = {}
    took: list[float] = []

    def heard(bodies: list[bytes]) -> None:
        now = time.perf_counter()
        for body in bodies:
            took.append(now - sent.pop(int(body[body.index(b'"id":') + 5 : body.index(b",", 20)])))
        if len(took) == count:
            all_back.set()

    client.on_messages = heard
    begin = loop.time() + 0.05
    for number in range(count):
        await asyncio.sleep(begin + number * period - loop.time())
        sent[number] = time.perf_counter()
        client.transport.write(request(number, 0))
    async with asyncio.timeout(STEP_S):
        await all_back.wait()
    client.transport.close()
    took = sorted(took[len(took) // 10 :])  # the first tenth warms up
    return {"p50_ms": took[len(took) // 2] * 1000, "p99_ms": took[len(took) * 99 // 100] * 1000, "n": len(took)}


async def requests(order: dict[str, Any]) -> dict[str, Any]:
    """As many round trips as go: ``connections`` with ``window`` requests under way each, for ``seconds``."""
    clients = [await with_session(order, number) for number in range(order["connections"])]
    done = failed = 0
    ends_at = time.perf_counter() + order["seconds"]
    all_idle = asyncio.Event()
    under_way = len(clients) * order["window"]

    def answering(client: Client, number: int) -> Callable[[list[bytes]], None]:
        one = request(1, number)

        def heard(bodies: list[bytes]) -> None:
            nonlocal done, failed, under_way
            done += len(bodies)
            failed += sum(b'"error":' in body[:60] for body in bodies)
            if time.perf_counter() < ends_at:
                client.transport.write(one * len(bodies))
            else:
                under_way -= len(bodies)
                if under_way <= 0:
                    all_idle.set()

        client.on_messages = heard
        return heard

    begun = time.perf_counter()
    for number, client in enumerate(clients):
        answering(client, number)
        client.transport.write(request(1, number) * order["window"])
    async with asyncio.timeout(order["seconds"] + STEP_S):
        await all_idle.wait()
    took = time.perf_counter() - begun
    for client in clients:
        client.transport.close()
    return {"messages": 2 * done, "failed": failed, "seconds": took}


async def events(order: dict[str, Any]) -> dict[str, Any]:
    """``count`` events pushed by the server to each of ``connections`` at once."""
    clients = [await with_session(order, number) for number in range(order["connections"])]
    begun = time.perf_counter()
    seen = await asyncio.gather(*(pushed(client, n, order["count"]) for n, client in enumerate(clients)))
    took = time.perf_counter() - begun
    for client in clients:
        client.transport.close()
    return {"messages": sum(seen), "failed": sum(order["count"] - n for n in seen), "seconds": took}


async def pushed(client: Client, number: int, count: int) -> int:
    """How many events came before the answer."""
    seen = 0
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def heard(bodies: list[bytes]) -> None:
        nonlocal seen
        seen += len(bodies)
        if b'"id":' in bodies[-1][:40] and not over.done():
            seen -= 1
            over.set_result(None)

    client.on_messages = heard
    params = {"sessionId": f"s{number}", "content": f"EVENTS={count}"}
    order = {"jsonrpc": "2.0", "id": 1, "method": METHOD, "params": params}
    client.transport.write(frame(json.dumps(order, separators=(",", ":")).encode()))
    async with asyncio.timeout(120):
        await over
    return seen


async def idle(order: dict[str, Any]) -> dict[str, Any]:
    """``count`` connections that have passed ``connect`` and say nothing more."""
    for start in range(0, order["count"], 50):
        IDLE.extend(await asyncio.gather(*(connected(order, start + n) for n in range(50))))
    return {"open": sum(not client.transport.is_closing() for client in IDLE)}


async def forget(order: dict[str, Any]) -> dict[str, Any]:
    """End the idle connections."""
    for client in IDLE:
        client.transport.close()
    IDLE.clear()
    return {}


IDLE: Final[list[Client]] = []
ORDERS: Final = {order.__name__: order for order in (latency, requests, events, idle, forget)}


async def serve() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        try:
            answer = await ORDERS[order["what"]](order)
        except Exception as error:  # whatever it is is for whoever ordered it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(serve())
