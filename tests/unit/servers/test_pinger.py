"""Health pings: verdicts after a threshold, clean records for new pods, and a hung server delays nobody."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from copilot_operator.domain.snapshot import Health, Reading
from copilot_operator.rpc import ping as rpc
from copilot_operator.servers import Key
from copilot_operator.servers import pinger as module
from copilot_operator.servers.pinger import Pinger, Target
from tests.support.eventually import eventually
from tests.support.standin import Fault, StandIn, standin

ALICE = ("apps", "copilot-alice")


def target(host: str = "10.0.0.1", *, pod: str = "pod-1", port: int = 4321, **seconds: float) -> Target:
    interval_s, timeout_s = seconds.get("interval_s", 5.0), seconds.get("timeout_s", 3.0)
    return Target(pod, host, port, "token", interval_s, timeout_s, threshold=2)


@asynccontextmanager
async def running(changed: Callable[[Key], None] = lambda key: None) -> AsyncIterator[Pinger]:
    pinger = Pinger(changed, lambda latency_s: None)
    task = asyncio.create_task(pinger.run())
    try:
        yield pinger
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def now() -> float:
    return asyncio.get_running_loop().time()


# ---- in virtual time, with pings that take no socket; all times are multiples of a quarter of a second, which floats
# hold exactly: the virtual clock moves in microseconds and would never reach a moment between two


class Servers:
    """Answers in place of ``rpc.ping``: who is silent waits for the whole timeout."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.asked: list[tuple[float, str]] = []

    async def ping(self, host: str, port: int, token: str | None, timeout_s: float) -> rpc.Reading:
        self.asked.append((now(), host))
        if host in self.silent:
            await asyncio.sleep(timeout_s)
            return rpc.Reading(ok=False, failure=rpc.Failure.SILENT, message="no answer")
        await asyncio.sleep(0.25)
        return rpc.Reading(ok=True, latency_s=0.25)

    def times(self, host: str) -> list[float]:
        return [moment for moment, asked in self.asked if asked == host]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    found = Servers()
    monkeypatch.setattr(module, "ping", found.ping)
    monkeypatch.setattr(random, "random", lambda: 0.5)  # no jitter
    return found


@pytest.mark.looptime
async def test_a_new_pod_is_pinged_at_once_and_then_every_interval(servers: Servers) -> None:
    async with running() as pinger:
        await asyncio.sleep(1)
        pinger.watch(ALICE, target())
        await asyncio.sleep(60)
    times = servers.times("10.0.0.1")
    assert times == [1 + 5.25 * number for number in range(len(times))]
    assert len(times) == 12


@pytest.mark.looptime
async def test_the_verdict_falls_at_the_threshold_and_rises_with_one_answer_each_told_once(servers: Servers) -> None:
    told: list[tuple[float, Health]] = []
    async with running(lambda key: told.append((now(), pinger.reading(*key).health))) as pinger:
        pinger.watch(ALICE, target())
        await asyncio.sleep(20)
        servers.silent.add("10.0.0.1")
        fell_silent = now()
        await asyncio.sleep(60)
        servers.silent.clear()
        woke = now()
        await asyncio.sleep(20)
        assert [health for _, health in told] == [Health.HEALTHY, Health.UNHEALTHY, Health.HEALTHY]
        assert told[1][0] - fell_silent <= 15, "a dead server is found within 15 s"
        assert told[2][0] - woke <= 9
        assert pinger.counts() == {"Healthy": 1}


@pytest.mark.looptime
async def test_one_lost_ping_is_no_news(servers: Servers) -> None:
    told: list[Key] = []
    async with running(told.append) as pinger:
        pinger.watch(ALICE, target())
        await asyncio.sleep(1)
        servers.silent.add("10.0.0.1")
        await asyncio.sleep(5)
        assert len(servers.asked) == 2
        servers.silent.clear()
        await asyncio.sleep(60)
    assert told == [ALICE]


@pytest.mark.looptime
async def test_silent_servers_delay_nobody(servers: Servers) -> None:
    servers.silent = {f"10.1.0.{number}" for number in range(400)}
    async with running() as pinger:
        for host in sorted(servers.silent):
            pinger.watch(("apps", host), target(host))
        pinger.watch(ALICE, target())
        await asyncio.sleep(60)
        assert pinger.counts() == {"Healthy": 1, "Unhealthy": 400}
    times = servers.times("10.0.0.1")
    assert max(after - before for before, after in itertools.pairwise(times)) < 5.6


@pytest.mark.looptime
@pytest.mark.parametrize("after_s", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 30.0])
async def test_500_servers_that_hang_at_once_do_not_delay_the_finding_of_the_next(
    servers: Servers, after_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)  # the longest intervals
    told: dict[Key, float] = {}
    async with running(lambda key: told.update({key: now()})) as pinger:
        hung, others = ([f"10.{net}.0.{number}" for number in range(count)] for net, count in ((1, 500), (2, 24)))
        for host in hung:
            pinger.watch(("apps", host), target(host))
        for host in others:  # at any moment between two pings of the hung ones
            await asyncio.sleep(0.25)
            pinger.watch(("apps", host), target(host))
        await asyncio.sleep(20)
        servers.silent.update(hung)
        await asyncio.sleep(after_s)
        servers.silent.update(others)
        died = now()
        await asyncio.sleep(30)
    found = [told["apps", host] - died for host in others]
    assert 0 < min(found) <= max(found) <= 15


@pytest.mark.looptime
async def test_a_new_pod_starts_with_a_clean_record_and_an_old_answer_does_not_count_for_it(servers: Servers) -> None:
    servers.silent.add("10.0.0.1")
    async with running() as pinger:
        pinger.watch(ALICE, target())
        await asyncio.sleep(20)
        assert pinger.reading(*ALICE).health == Health.UNHEALTHY
        pinger.watch(ALICE, target("10.0.0.2", pod="pod-2"))
        assert pinger.reading(*ALICE) == Reading()
        await asyncio.sleep(10)  # the old pod's ping comes back meanwhile
        assert pinger.reading(*ALICE) == Reading(Health.HEALTHY)


@pytest.mark.looptime
async def test_a_server_that_is_watched_no_more_is_left_alone(servers: Servers) -> None:
    told: list[Key] = []
    async with running(told.append) as pinger:
        pinger.watch(ALICE, target())
        await asyncio.sleep(0.125)  # a ping is under way
        pinger.watch(ALICE, None)
        await asyncio.sleep(60)
        assert pinger.reading("apps", "copilot-alice") == Reading()
    assert (len(servers.asked), told) == (1, [])


@pytest.mark.looptime
async def test_another_interval_or_token_takes_effect_without_a_new_record(servers: Servers) -> None:
    async with running() as pinger:
        pinger.watch(ALICE, target())
        await asyncio.sleep(1)
        pinger.watch(ALICE, target(interval_s=60.0))
        assert pinger.reading(*ALICE).health == Health.HEALTHY
        await asyncio.sleep(59)
    assert len(servers.asked) in (2, 3)


@pytest.mark.looptime
async def test_a_server_whose_pod_was_replaced_many_times_is_pinged_once_per_interval(servers: Servers) -> None:
    async with running() as pinger:
        for number in range(10):
            pinger.watch(ALICE, target(pod=f"pod-{number}"))
            await asyncio.sleep(0.5)
        servers.asked.clear()
        await asyncio.sleep(50)
    assert len(servers.asked) <= 12


@pytest.mark.looptime
async def test_a_server_that_comes_and_goes_is_pinged_once_per_interval(servers: Servers) -> None:
    async with running() as pinger:
        for _ in range(10):
            pinger.watch(ALICE, target())
            await asyncio.sleep(0.5)
            pinger.watch(ALICE, None)
        pinger.watch(ALICE, target())
        servers.asked.clear()
        await asyncio.sleep(50)
    assert len(servers.asked) <= 13


# ---- on the loopback, with the stand-in


def stands_at(stand_in: StandIn, host: str) -> Target:
    return target(host, port=stand_in.port, interval_s=0.2, timeout_s=0.3)


async def test_real_servers_that_hang_drop_and_talk_nonsense_are_told_apart_from_a_good_one() -> None:
    faults = {"127.0.0.2": Fault.HANG, "127.0.0.3": Fault.REFUSE, "127.0.0.4": Fault.GARBAGE}
    async with standin(token="token", host="0.0.0.0") as stand_in, running() as pinger:
        for host, fault in faults.items():
            stand_in.servers[host].fault = fault
        for host in (*faults, "127.0.0.1"):
            pinger.watch(("apps", host), stands_at(stand_in, host))
        await eventually(
            lambda: pinger.counts() == {"Healthy": 1, "Unhealthy": 3}, within_s=10, what="verdicts on four servers"
        )
        assert pinger.reading("apps", "127.0.0.1").health == Health.HEALTHY
        assert "no answer" in pinger.reading("apps", "127.0.0.2").message
        stand_in.servers["127.0.0.2"].fault = Fault.NONE
        await eventually(
            lambda: pinger.reading("apps", "127.0.0.2").health == Health.HEALTHY, within_s=10, what="a server woke up"
        )


async def test_a_port_where_nobody_listens_is_unhealthy() -> None:
    async with standin() as stand_in:
        gone = stands_at(stand_in, "127.0.0.1")
    async with running() as pinger:
        pinger.watch(ALICE, gone)
        await eventually(
            lambda: pinger.reading(*ALICE).health == Health.UNHEALTHY, within_s=10, what="a verdict on a closed port"
        )
