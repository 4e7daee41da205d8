"""Orders to agents: the last one counts, each server has one request at a time, and one that hangs delays nobody."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_operator.domain.snapshot import DrainPhase, DrainReading
from copilot_operator.rpc.client import Connection
from copilot_operator.servers import Key
from copilot_operator.servers.agents import (
    AgentAddress,
    AgentClient,
    AgentError,
    AgentSilent,
    AgentUnreachable,
    OnTimeout,
    Progress,
    state_of,
)
from copilot_operator.servers.drains import CANCEL_FOR_S, Drains
from tests.support.agent import RunningAgent, running_agent
from tests.support.eventually import eventually
from tests.support.standin import StandIn, standin
from tests.support.virtual_time import run_in_virtual_time

ALICE, HOST = ("apps", "copilot-alice"), "10.0.0.1"
AT, REAL = AgentAddress(HOST, "pod-1"), AgentAddress("127.0.0.1", gethostname())
EPOCH = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
BUSY = Progress(DrainPhase.QUIESCING, busy=2, waiting=1)
DONE = Progress(DrainPhase.DONE, busy=0, waiting=0)


def now() -> float:
    return asyncio.get_running_loop().time()


def clock() -> datetime:
    return EPOCH + timedelta(seconds=now())


def at(second: float) -> datetime:
    return EPOCH + timedelta(seconds=second)


@dataclass
class Request:
    at: float
    what: str
    host: str
    deadline_s: float = 0.0
    on_timeout: OnTimeout = "Abort"
    wait_s: float = 0.0


class Agents(AgentClient):
    """Agents as they are meant to answer, in virtual time. ``fault``: what asking the agent at a host raises."""

    def __init__(self) -> None:
        super().__init__()
        self.progress: dict[str, Progress] = {}
        self.told: dict[str, Progress] = {}
        self.fault: dict[str, AgentError] = {}
        self.hung: set[str] = set()
        self.requests: list[Request] = []
        self.under_way: Counter[str] = Counter()
        self.yes = True  # to cancel and restart
        self.takes_s = 0.0
        self._news = asyncio.Event()

    def set(self, host: str, progress: Progress) -> None:
        self.progress[host] = progress
        self._news.set()
        self._news = asyncio.Event()

    def mend(self) -> None:
        self.fault.clear()
        self.hung.clear()

    async def drain(self, at: AgentAddress, deadline_s: float, on_timeout: OnTimeout, wait_s: float) -> Progress:
        host = at.host
        async with self._request(Request(now(), "drain", host, deadline_s, on_timeout, wait_s), wait_s + 5):
            ends_at = now() + wait_s
            with suppress(TimeoutError):
                while self.progress.get(host, BUSY) == self.told.get(host):
                    async with asyncio.timeout(ends_at - now()):
                        await self._news.wait()
            if fault := self.fault.get(host):  # since it was asked
                raise fault
            self.told[host] = self.progress.get(host, BUSY)
            return self.told[host]

    async def cancel(self, at: AgentAddress) -> bool:
        async with self._request(Request(now(), "cancel", at.host), 5):
            return self.yes

    async def restart(self, at: AgentAddress) -> bool:
        async with self._request(Request(now(), "restart", at.host), 15):
            return self.yes

    @asynccontextmanager
    async def _request(self, request: Request, timeout_s: float) -> AsyncIterator[None]:
        self.requests.append(request)
        self.under_way[request.host] += 1
        assert self.under_way[request.host] == 1, "one request to a server at a time"
        try:
            if request.host in self.hung:
                await asyncio.sleep(timeout_s)
                raise AgentSilent(f"no answer of the agent to /{request.what}")
            await asyncio.sleep(self.takes_s)
            if fault := self.fault.get(request.host):
                raise fault
            yield
        finally:
            self.under_way[request.host] -= 1

    def of(self, what: str) -> list[float]:
        """When there were requests of a kind."""
        return [request.at for request in self.requests if request.what == what]


@dataclass
class Bed:
    agents: Agents
    drains: Drains
    news: list[tuple[float, str]]

    def order(
        self,
        second: float = 600,
        *,
        pod: str = "pod-1",
        host: str = HOST,
        then: OnTimeout = "Abort",
        heard: Any = None,
    ) -> None:
        self.drains.order(ALICE, pod, AgentAddress(host, pod), at(second), then, heard)

    @property
    def reading(self) -> DrainReading | None:
        return self.drains.reading(*ALICE)


@asynccontextmanager
async def bed() -> AsyncIterator[Bed]:
    agents, news = Agents(), list[tuple[float, str]]()
    drains = Drains(
        agents,
        lambda key: news.append((now(), "changed")),
        renewed=lambda key: news.append((now(), "renewed")),
        clock=clock,
    )
    running = asyncio.create_task(drains.run())
    await asyncio.sleep(0)
    try:
        yield Bed(agents, drains, news)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


# ---- following a drain, in virtual time


@pytest.mark.looptime
async def test_a_drain_is_followed_to_its_end_and_every_change_is_told_once() -> None:
    async with bed() as b:
        assert b.reading is None
        b.order()
        assert b.reading == DrainReading("pod-1")
        await asyncio.sleep(10)
        assert b.reading == DrainReading("pod-1", DrainPhase.QUIESCING, busy=2, waiting=1)
        b.agents.set(HOST, replace(BUSY, busy=1))
        await asyncio.sleep(10)
        b.agents.set(HOST, Progress(DrainPhase.FLUSHING, busy=1, waiting=0, cut=1))
        await asyncio.sleep(10)
        b.agents.set(HOST, replace(DONE, cut=1, gave_up="no answer to ping"))
        await asyncio.sleep(10)
        assert b.reading == DrainReading("pod-1", DrainPhase.DONE, 0, 0, cut=1, gave_up="no answer to ping")
        assert b.news == [(moment, "changed") for moment in (0, 10, 20, 30)], "heard of at once"


@pytest.mark.looptime
async def test_the_agent_is_told_once_all_others_have_heard_of_it() -> None:
    async with bed() as b:
        heard = asyncio.Event()
        b.order(heard=heard.wait)
        await asyncio.sleep(3)
        assert b.agents.requests == []
        assert b.reading == DrainReading("pod-1")
        heard.set()
        await asyncio.sleep(10)
        assert b.agents.requests[0].at == 3
        b.order(heard=heard.wait)
        assert b.reading == DrainReading("pod-1", DrainPhase.QUIESCING, busy=2, waiting=1), "the same order"


@pytest.mark.looptime
async def test_the_deadline_is_told_as_seconds_from_now_with_every_request() -> None:
    async with bed() as b:
        b.order(12, then="Wait")
        await asyncio.sleep(20)
    assert {request.on_timeout for request in b.agents.requests} == {"Wait"}
    assert [request.deadline_s for request in b.agents.requests] == pytest.approx(
        [12 - request.at for request in b.agents.requests]
    )
    assert b.agents.requests[-1].deadline_s < 0


@pytest.mark.looptime
async def test_the_same_order_again_changes_nothing() -> None:
    async with bed() as b:
        for _ in range(100):
            b.order()
            await asyncio.sleep(0.1)
    assert len(b.agents.requests) <= 4


@pytest.mark.looptime
@pytest.mark.parametrize("change", [{"second": 60}, {"second": 6000}, {"then": "Wait"}, {"host": "10.0.0.9"}])
async def test_another_order_is_passed_on_at_once_and_what_is_known_stays(change: dict[str, Any]) -> None:
    async with bed() as b:
        b.order()
        await asyncio.sleep(7)
        b.order(**change)
        assert b.reading == DrainReading("pod-1", DrainPhase.QUIESCING, busy=2, waiting=1)
        await asyncio.sleep(1)
        last = b.agents.requests[-1]
        passed_on = next(request for request in b.agents.requests if request.at == 7)
    assert passed_on.deadline_s == change.get("second", 600) - 7
    assert (last.on_timeout, last.host) == (change.get("then", "Abort"), change.get("host", HOST))


@pytest.mark.looptime
async def test_another_pod_begins_with_nothing_known() -> None:
    async with bed() as b:
        b.order()
        await asyncio.sleep(7)
        b.order(pod="pod-2", host="10.0.0.2")
        assert b.reading == DrainReading("pod-2")
        b.agents.set("10.0.0.2", DONE)
        await asyncio.sleep(1)
        assert b.reading == DrainReading("pod-2", DrainPhase.DONE, 0, 0)
    assert not [request for request in b.agents.requests if request.host == HOST and request.at > 7]


@pytest.mark.looptime
async def test_an_agent_that_can_not_be_asked_is_asked_every_second_and_what_was_known_stays() -> None:
    async with bed() as b:
        b.order()
        await asyncio.sleep(7)
        b.agents.fault[HOST] = AgentUnreachable("connection refused")
        b.agents.set(HOST, DONE)
        await asyncio.sleep(10)
        assert b.reading == DrainReading("pod-1", DrainPhase.QUIESCING, 2, 1, unanswered="connection refused")
        assert b.drains.counts() == {"Unanswered": 1}
        asked = [request for request in b.agents.requests if request.at >= 7]
        assert 9 <= len(asked) <= 11
        del b.agents.fault[HOST]
        await asyncio.sleep(1.5)
        assert b.reading == DrainReading("pod-1", DrainPhase.DONE, 0, 0)
        assert b.drains.counts() == {"Done": 1}
        assert [what for _, what in b.news] == ["changed"] * 3


@pytest.mark.looptime
async def test_after_a_failure_the_agent_is_asked_where_the_drain_stands_and_not_for_news() -> None:
    """It may have given the news in the answer that was lost."""
    async with bed() as b:
        b.order()
        await asyncio.sleep(1)
        b.agents.fault[HOST] = AgentUnreachable("reset")
        b.agents.set(HOST, DONE)
        await asyncio.sleep(0.5)
        b.agents.told[HOST] = DONE  # it was the last word of the broken connection
        b.agents.fault.clear()
        await asyncio.sleep(1.25)
        assert b.reading
        assert b.reading.phase == DrainPhase.DONE


@pytest.mark.looptime
@pytest.mark.parametrize(("restless", "most"), [("nothing new", 62), ("always new", 620), ("done", 32), ("well", 14)])
async def test_a_drain_costs_few_requests_whatever_its_agent_does(restless: str, most: int) -> None:
    class Restless(Agents):
        async def drain(self, at: AgentAddress, deadline_s: float, on_timeout: OnTimeout, wait_s: float) -> Progress:
            if restless in ("nothing new", "always new"):
                self.requests.append(Request(now(), "drain", at.host))
                return replace(BUSY, busy=len(self.requests) if restless == "always new" else 1)
            self.progress[at.host] = DONE if restless == "done" else BUSY
            return await super().drain(at, deadline_s, on_timeout, wait_s)

    agents = Restless()
    drains = Drains(agents, lambda key: None, clock=clock)
    drains.order(ALICE, "pod-1", AT, at(600), "Abort")
    await asyncio.sleep(60)
    assert 10 <= len(agents.requests) <= most
    drains.forget(ALICE)


@pytest.mark.looptime
async def test_hung_agents_hold_up_nobody() -> None:
    async with bed() as b:
        b.agents.hung = {f"10.1.0.{number}" for number in range(500)}
        for host in b.agents.hung:
            b.drains.order(("apps", host), "pod", AgentAddress(host, "pod"), at(600), "Abort")
        b.order()
        await asyncio.sleep(30)
        b.agents.set(HOST, DONE)
        await asyncio.sleep(0.25)
        assert b.reading
        assert b.reading.phase == DrainPhase.DONE
        assert b.drains.counts() == {"Unanswered": 500, "Done": 1}


@pytest.mark.looptime
async def test_of_what_is_forgotten_nothing_is_asked_or_told_any_more() -> None:
    async with bed() as b:
        b.order()
        await asyncio.sleep(7)
        b.drains.forget(ALICE)
        b.drains.forget(ALICE)
        asked, told = len(b.agents.requests), len(b.news)
        b.agents.set(HOST, DONE)
        await asyncio.sleep(60)
        assert (b.reading, b.drains.counts(), b.agents.under_way[HOST]) == (None, {}, 0)
        assert (len(b.agents.requests), len(b.news)) == (asked, told)


@pytest.mark.looptime
async def test_nothing_is_asked_after_the_run() -> None:
    async with bed() as b:
        b.order()
        await asyncio.sleep(7)
    asked = len(b.agents.requests)
    await asyncio.sleep(60)
    assert len(b.agents.requests) == asked
    assert b.reading is None


# ---- cancel


@pytest.mark.looptime
async def test_a_drain_is_cancelled_once_and_then_nothing_is_known_any_more() -> None:
    async with bed() as b:
        b.agents.takes_s = 0.25
        b.order()
        await asyncio.sleep(7)
        b.news.clear()
        for _ in range(3):
            b.drains.cancel(ALICE)
            b.drains.cancel(ALICE, "pod-1", AT)
        assert b.reading is None
        await asyncio.sleep(60)
        assert b.news == [(7.25, "renewed"), (7.25, "changed")]
    assert b.agents.of("cancel") == [7.0]
    assert max(b.agents.of("drain")) < 7


@pytest.mark.looptime
async def test_a_drain_of_a_former_life_is_cancelled_where_it_is_said_to_be() -> None:
    async with bed() as b:
        b.drains.cancel(ALICE)
        await asyncio.sleep(1)
        assert not b.agents.requests
        b.drains.cancel(ALICE, "pod-1", AT)
        await asyncio.sleep(1)
        assert b.agents.of("cancel") == [1.0]


@pytest.mark.looptime
async def test_a_cancel_is_tried_until_the_agent_has_heard_it_and_closed_what_it_was_closing() -> None:
    async with bed() as b:
        b.order()
        await asyncio.sleep(1)
        b.agents.fault[HOST] = AgentUnreachable("connection refused")
        b.drains.cancel(ALICE)
        await asyncio.sleep(10)
        b.agents.fault.clear()
        b.agents.yes = False  # Flushing
        await asyncio.sleep(10)
        assert (20 <= len(b.agents.of("cancel")) <= 22, b.news[-1][1]) == (True, "changed")
        b.agents.yes = True
        await asyncio.sleep(1.5)
        assert [what for _, what in b.news[-2:]] == ["renewed", "changed"]


@pytest.mark.looptime
async def test_a_cancel_is_given_up_in_the_end_and_the_decision_asked_for_anew() -> None:
    async with bed() as b:
        b.agents.yes = False
        b.drains.cancel(ALICE, "pod-1", AT)
        await asyncio.sleep(2 * CANCEL_FOR_S)
        assert [what for _, what in b.news] == ["changed"]
        assert CANCEL_FOR_S <= b.news[0][0] <= CANCEL_FOR_S + 2


@pytest.mark.looptime
async def test_an_order_after_a_cancel_drains_again() -> None:
    async with bed() as b:
        b.order()
        await asyncio.sleep(1)
        b.agents.hung.add(HOST)
        b.drains.cancel(ALICE)
        await asyncio.sleep(1)
        b.agents.hung.clear()
        b.order()
        await asyncio.sleep(10)
        assert b.reading == DrainReading("pod-1", DrainPhase.QUIESCING, 2, 1)
        assert len(b.agents.of("cancel")) == 1


# ---- restart in place


@pytest.mark.looptime
async def test_a_restart_ends_the_drain_and_tells_before_that_what_is_of_the_past() -> None:
    async with bed() as b:
        b.order()
        b.agents.set(HOST, DONE)
        await asyncio.sleep(7)
        b.news.clear()
        b.agents.takes_s = 3.0
        for _ in range(3):
            b.drains.restart(ALICE, "pod-1", AT)
        assert b.reading == DrainReading("pod-1", DrainPhase.DONE, 0, 0)
        await asyncio.sleep(60)
        assert b.news == [(10, "renewed"), (10, "changed")]
        assert b.reading is None
    assert b.agents.of("restart") == [7.0]
    assert max(b.agents.of("drain")) < 7, "a fresh CLI must not be drained"


@pytest.mark.looptime
async def test_a_restart_that_finds_something_loaded_lets_the_drain_go_on() -> None:
    async with bed() as b:
        b.order()
        b.agents.set(HOST, DONE)
        await asyncio.sleep(7)
        b.agents.yes = False
        b.agents.set(HOST, BUSY)
        b.drains.restart(ALICE, "pod-1", AT)
        await asyncio.sleep(1)
        assert b.reading == DrainReading("pod-1", DrainPhase.QUIESCING, 2, 1)
        b.order()  # as before: nothing new
        b.agents.yes = True
        b.agents.set(HOST, DONE)
        await asyncio.sleep(1)
        b.drains.restart(ALICE, "pod-1", AT)
        await asyncio.sleep(1)
        assert b.reading is None
    assert len(b.agents.of("restart")) == 2


@pytest.mark.looptime
async def test_a_restart_that_is_not_answered_is_tried_again_and_says_so() -> None:
    async with bed() as b:
        b.order()
        b.agents.set(HOST, DONE)
        await asyncio.sleep(7)
        b.agents.fault[HOST] = AgentUnreachable("connection refused")
        b.drains.restart(ALICE, "pod-1", AT)
        await asyncio.sleep(30)
        assert b.reading == DrainReading("pod-1", DrainPhase.DONE, 0, 0, unanswered="connection refused")
        assert 5 <= len(b.agents.of("restart")) <= 8
        b.agents.fault.clear()
        await asyncio.sleep(6)
        assert b.reading is None
        assert b.news[-2][1] == "renewed"


@pytest.mark.looptime
async def test_a_restart_without_a_drain_that_is_refused_is_over() -> None:
    async with bed() as b:
        b.agents.yes = False
        b.drains.restart(ALICE, "pod-1", AT)
        await asyncio.sleep(60)
        assert b.news == [(0, "changed")]
        assert len(b.agents.requests) == 1


@pytest.mark.looptime
async def test_a_fault_of_ours_leaves_no_server_drained_for_ever() -> None:
    class Broken(Agents):
        broken = True

        async def drain(self, at: AgentAddress, deadline_s: float, on_timeout: OnTimeout, wait_s: float) -> Progress:
            if self.broken:
                raise ZeroDivisionError
            return await super().drain(at, deadline_s, on_timeout, wait_s)

    agents = Broken()
    drains = Drains(agents, lambda key: None, clock=clock)
    drains.order(ALICE, "pod-1", AT, at(600), "Abort")
    await asyncio.sleep(10)
    agents.broken = False
    await asyncio.sleep(60)
    assert drains.reading(*ALICE) == DrainReading("pod-1", DrainPhase.QUIESCING, 2, 1)
    drains.forget(ALICE)


steps = st.one_of(
    st.tuples(st.just("order"), st.sampled_from([60, 600]), st.sampled_from(["Abort", "Wait"])),
    st.tuples(st.sampled_from(["cancel", "restart", "forget", "break", "hang", "mend", "busy", "done", "no", "yes"])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.25, 1.0, 7.0, 30.0])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=25))
def test_the_last_order_is_what_the_agent_hears_in_the_end_whatever_came_before(orders: list[tuple[Any, ...]]) -> None:
    async def scenario() -> None:
        async with bed() as b:
            last: tuple[Any, ...] | None = None
            do: dict[str, Callable[[], object]] = {
                "cancel": lambda: b.drains.cancel(ALICE),
                "restart": lambda: b.drains.restart(ALICE, "pod-1", AT),
                "forget": lambda: b.drains.forget(ALICE),
                "break": lambda: b.agents.fault.update({HOST: AgentUnreachable("broken")}),
                "hang": lambda: b.agents.hung.add(HOST),
                "mend": b.agents.mend,
                "busy": lambda: b.agents.set(HOST, BUSY),
                "done": lambda: b.agents.set(HOST, DONE),
                "no": lambda: setattr(b.agents, "yes", False),
                "yes": lambda: setattr(b.agents, "yes", True),
            }
            for what, *rest in orders:
                if what == "wait":
                    await asyncio.sleep(rest[0])
                elif what == "order":
                    b.order(rest[0], then=rest[1])
                    last = (what, *rest)
                else:
                    do[what]()
                    last = (what,) if what in ("cancel", "restart", "forget") else last
            do["mend"]()
            do["yes"]()
            await asyncio.sleep(60)
            settled = now()
            await asyncio.sleep(60)
            heard = [request for request in b.agents.requests if request.at >= settled]
            if last and last[0] == "order":
                assert {request.what for request in heard} == {"drain"}
                assert {(round(request.at + request.deadline_s, 3), request.on_timeout) for request in heard} == {
                    last[1:]
                }
                assert b.reading
                assert b.reading.phase == b.agents.progress.get(HOST, BUSY).phase
                assert not b.reading.unanswered
            elif last and last[0] == "restart" and b.reading:
                assert {request.what for request in heard} == {"drain"}, "it was refused"
            else:
                assert (heard, b.reading) == ([], None)

    run_in_virtual_time(scenario())


# ---- with the real agent beside a stand-in CLI

TOKEN = "server-token"
SOON_S = 15.0


@dataclass
class Real:
    cli: StandIn
    agent: RunningAgent
    client: AgentClient
    drains: Drains
    told: list[Key]

    def drain(self, seconds: float, then: OnTimeout = "Abort") -> None:
        self.drains.order(ALICE, "pod-1", REAL, datetime.now(UTC) + timedelta(seconds=seconds), then)

    async def until(self, **wanted: object) -> DrainReading:
        """A reading with these values, and news of it."""

        def found() -> DrainReading | None:
            reading = self.drains.reading(*ALICE)
            fits = reading and all(getattr(reading, name) == value for name, value in wanted.items())
            return reading if fits and self.told else None

        reading = await eventually(found, within_s=SOON_S, what=f"a reading with {wanted}")
        assert isinstance(reading, DrainReading)
        self.told.clear()
        return reading

    async def turn(self, prompt: str) -> Connection:
        client = await Connection.open(self.cli.host, self.cli.port, timeout_s=SOON_S)
        await client.connect(TOKEN, timeout_s=SOON_S)
        await client.call("session.create", {"sessionId": "s"}, timeout_s=SOON_S)
        await client.call("session.send", {"sessionId": "s", "prompt": prompt}, timeout_s=SOON_S)
        return client

    async def serves(self) -> bool:
        return (await self.agent.get("/readyz"))[0] == 200


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Real]:
    async with standin(token=TOKEN) as cli, running_agent(cli.port, TOKEN, tmp_path) as agent:
        client, told = AgentClient(agent.port), list[Key]()
        drains = Drains(client, told.append)
        running = asyncio.create_task(drains.run())

        async def counted() -> bool:
            return state_of(await client.state(REAL), "pod-1", EPOCH).loaded is not None

        await eventually(counted, within_s=SOON_S, what="the agent counts sessions")
        yield Real(cli, agent, client, drains, told)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_an_idle_server_is_drained_at_once(real: Real) -> None:
    real.drain(60)
    assert await real.until(phase=DrainPhase.DONE) == DrainReading("pod-1", DrainPhase.DONE, 0, 0)
    assert not await real.serves()


async def test_a_turn_is_waited_for_until_a_nearer_deadline_is_set(real: Real) -> None:
    client = await real.turn("SLEEP=60")
    real.drain(600, "Wait")
    await real.until(phase=DrainPhase.QUIESCING, busy=1, waiting=0)
    real.drain(0.5)
    reading = await real.until(phase=DrainPhase.DONE)
    assert (reading.cut, reading.unanswered) == (1, "")
    await client.close()


async def test_a_cancelled_drain_lets_the_server_serve_again_and_its_turn_go_on(real: Real) -> None:
    client = await real.turn("SLEEP=60")
    real.drain(600)
    await real.until(phase=DrainPhase.QUIESCING, busy=1)
    real.drains.cancel(ALICE)
    await eventually(real.serves, within_s=SOON_S, what="it serves again")
    state = state_of(await real.client.state(REAL), "pod-1", EPOCH)
    assert (state.answering, state.busy, state.draining) == (True, 1, False)
    await client.call("session.abort", {"sessionId": "s"}, timeout_s=SOON_S)
    await client.close()


async def test_a_drained_server_is_restarted_in_place_and_one_in_use_is_not(real: Real) -> None:
    client = await real.turn("SLEEP=60")
    assert not await real.client.restart(REAL)
    await client.close()
    real.drain(0.2)
    await real.until(phase=DrainPhase.DONE)
    real.drains.restart(ALICE, "pod-1", REAL)
    await eventually(lambda: real.drains.reading(*ALICE) is None, within_s=SOON_S, what="the restart")
    await eventually(real.serves, within_s=SOON_S, what="another CLI serves")
