"""A reading names what is wrong with a server, and always comes in time."""

import asyncio

import pytest

from copilot_operator.rpc.ping import Failure, Reading, ping
from tests.support.eventually import eventually
from tests.support.standin import Fault, standin

HOST = "127.0.0.1"


async def test_a_good_server_gives_version_and_latency() -> None:
    async with standin(token="right") as server:
        reading = await ping(HOST, server.port, "right", 5)
    assert reading.latency_s is not None
    assert reading == Reading(ok=True, latency_s=reading.latency_s, version="1.0.102")
    assert 0 < reading.latency_s < 1


@pytest.mark.parametrize(
    ("fault", "token", "failure"),
    [
        (Fault.HANG, "right", Failure.SILENT),
        (Fault.SLOW, "right", Failure.SILENT),
        (Fault.REFUSE, "right", Failure.LOST),
        (Fault.GARBAGE, "right", Failure.PROTOCOL_ERROR),
        (Fault.NONE, "wrong", Failure.AUTHENTICATION_FAILED),
        (Fault.NONE, None, Failure.AUTHENTICATION_FAILED),
    ],
)
async def test_each_fault_has_its_word(fault: Fault, token: str | None, failure: Failure) -> None:
    async with standin(token="right") as server:
        server.server.fault, server.server.delay_s = fault, 0.2
        async with asyncio.timeout(2):
            reading = await ping(HOST, server.port, token, 0.3)
    assert (reading.ok, reading.failure) == (False, failure)
    assert reading.message
    assert "right" not in reading.message
    assert reading.answered == (failure is Failure.AUTHENTICATION_FAILED)


async def test_a_closed_port_is_refused() -> None:
    async with standin() as server:
        port = server.port
    assert (await ping(HOST, port, None, 1)).failure is Failure.REFUSED


async def test_an_unknown_name_is_refused_with_a_reason() -> None:
    reading = await ping("no-such-host.invalid", 4321, None, 5)
    assert reading.failure in (Failure.REFUSED, Failure.SILENT)  # silent: a resolver without an answer
    assert "no-such-host.invalid" in reading.message


async def test_nothing_is_left_open_when_a_ping_is_cancelled() -> None:
    async with standin() as server:
        server.server.fault = Fault.HANG
        pinging = asyncio.create_task(ping(HOST, server.port, None, 60))
        connections = server.server.connections
        await eventually(lambda: len(connections) == 1, within_s=5, what="the ping connects")
        pinging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pinging
        await eventually(lambda: not connections, within_s=5, what="the connection ends")


async def test_a_hundred_servers_are_read_side_by_side_and_a_hung_one_delays_nobody() -> None:
    async with standin() as server:
        await server.stop()
        await server.start("0.0.0.0")
        hung = server.servers["127.0.0.1"]
        hung.fault = Fault.HANG
        hosts = [f"127.0.1.{n}" for n in range(1, 101)]
        silent = asyncio.create_task(ping(HOST, server.port, None, 5))
        async with asyncio.timeout(4):
            readings = await asyncio.gather(*(ping(host, server.port, None, 3) for host in hosts))
        assert not silent.done()
        silent.cancel()
    assert all(reading.ok for reading in readings)
    assert all(server.servers[host].pings == 1 for host in hosts)
