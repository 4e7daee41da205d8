"""The inventory: every watched agent is asked in its turn, and news is only what decisions use."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.domain.retention import Retention
from copilot_operator.domain.snapshot import Deletion, ServerState
from copilot_operator.servers import Key
from copilot_operator.servers import inventory as module
from copilot_operator.servers.agents import AgentAddress, AgentClient, AgentSilent, AgentUnreachable
from copilot_operator.servers.inventory import Inventory, Limits, mark_of
from tests.support.agent import running_agent
from tests.support.eventually import eventually
from tests.support.standin import Fault, standin

ALICE, HOST = ("apps", "copilot-alice"), "10.0.0.1"
EPOCH = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)


def now() -> float:
    return asyncio.get_running_loop().time()


def a_state(**sessions: Any) -> dict[str, Any]:
    return {
        "cli": {"answering": True, "failure": None, "ageSeconds": 60.0, "latencyFactor": 1.0, "deep": None},
        "sessions": {"loaded": 1, "busy": 0, "waiting": 0, "uncounted": 0, "stalledSeconds": None} | sessions,
        "memoryBytes": 300_000_000,
        "processes": 2,
        "draining": None,
    }


class Agents(AgentClient):
    """Agents in virtual time; one that hangs takes 6 s to be given up."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, dict[str, Any]] = {}
        self.gone: set[str] = set()
        self.hung: set[str] = set()
        self.takes_s = 0.0
        self.asked: list[tuple[float, str]] = []
        self.told: list[Retention | None] = []
        self.erase: list[tuple[str, ...]] = []
        self.under_way = self.most = 0

    async def state(
        self, at: AgentAddress, retention: Retention | None = None, erase: Sequence[str] = ()
    ) -> dict[str, Any]:
        host = at.host
        self.erase.append(tuple(erase))
        self.told.append(retention)
        self.asked.append((now(), host))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            found = self.states.get(host, a_state())
            await asyncio.sleep(6 if host in self.hung else self.takes_s)
        finally:
            self.under_way -= 1
        if host in self.hung:
            raise AgentSilent("no answer")
        if host in self.gone:
            raise AgentUnreachable("connection refused")
        return found

    def times(self, host: str = HOST) -> list[float]:
        return [moment for moment, asked in self.asked if asked == host]


@dataclass
class Bed:
    agents: Agents
    inventory: Inventory
    news: list[float]

    def watch(self, pod: str = "pod-1", host: str | None = HOST, limits: Limits = module.NO_LIMITS) -> None:
        self.inventory.watch(ALICE, pod, AgentAddress(host, pod) if host else None, limits)

    @property
    def state(self) -> ServerState | None:
        return self.inventory.state(*ALICE)


@asynccontextmanager
async def bed() -> AsyncIterator[Bed]:
    agents, news = Agents(), list[float]()
    inventory = Inventory(agents, lambda key: news.append(now()), lambda: EPOCH + timedelta(seconds=now()))
    running = asyncio.create_task(inventory.run())
    try:
        yield Bed(agents, inventory, news)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)


# ---- in virtual time


@pytest.mark.looptime
@pytest.mark.usefixtures("no_jitter")
async def test_a_new_pod_is_asked_at_once_and_then_every_twenty_seconds() -> None:
    async with bed() as b:
        assert b.state is None
        b.watch()
        await asyncio.sleep(1)
        assert b.state
        assert (b.state.pod_uid, b.state.taken_at, b.state.busy) == ("pod-1", EPOCH, 0)
        for _ in range(50):
            b.watch()  # with every reconcile
            await asyncio.sleep(2)
        assert b.agents.times() == [0, 20, 40, 60, 80, 100]
        assert b.state.taken_at == EPOCH + timedelta(seconds=100)
        assert b.news == [0]


@pytest.mark.looptime
async def test_the_times_between_two_questions_differ_by_a_fifth() -> None:
    async with bed() as b:
        for number in range(200):
            b.inventory.watch(("apps", str(number)), "pod", AgentAddress(f"10.1.0.{number}", "pod"))
        await asyncio.sleep(100)
        gaps = [
            after - before for number in range(200) for before, after in pairwise(b.agents.times(f"10.1.0.{number}"))
        ]
    assert 16 <= min(gaps) < 17
    assert 23 < max(gaps) <= 24.001


@pytest.mark.looptime
@pytest.mark.usefixtures("no_jitter")
async def test_news_is_what_decisions_use_and_no_more() -> None:
    async with bed() as b:
        b.watch(limits=Limits(memory_bytes=400_000_000, stalled_s=900))
        readings: list[tuple[dict[str, Any], bool]] = [
            (a_state(busy=1), True),
            (a_state(busy=2, waiting=1, loaded=5), False),
            (a_state(busy=2, stalledSeconds=900.0), False),
            (a_state(busy=2, stalledSeconds=901.0), True),
            (a_state(busy=2, stalledSeconds=1000.0), False),
            (a_state(busy=None), True),
            (a_state(), True),
            (a_state() | {"memoryBytes": 400_000_001}, True),
            (a_state() | {"memoryBytes": 500_000_000, "processes": 99}, False),
            (a_state() | {"memoryBytes": 400_000_000}, True),
            (a_state(secondsSinceActivity=8.0), True),
            (a_state(secondsSinceActivity=28.0), False),
            (a_state(secondsSinceActivity=68.0), True),
            (a_state() | {"draining": {"phase": "Quiescing"}}, True),
            (a_state() | {"draining": {"phase": "Done"}}, False),
            (a_state(), True),
            (a_state() | {"disk": {"capacityBytes": 100, "usedBytes": 50}}, True),
            (a_state() | {"disk": {"capacityBytes": 100, "usedBytes": 70}}, False),
            (a_state() | {"disk": {"capacityBytes": 100, "usedBytes": 86}}, True),
            (a_state() | {"disk": {"capacityBytes": 100, "usedBytes": 89}}, False),
            (a_state() | {"expiry": {"wouldDelete": 0}, "disk": {"capacityBytes": 100, "usedBytes": 89}}, True),
            (a_state() | {"credentialRefused": True}, True),
            (a_state() | {"credentialRefused": True, "processes": 9}, False),
            (a_state() | {"credentialRefused": False}, True),
            (a_state() | {"cli": {"answering": True, "deep": {"ok": False, "message": "no space"}}}, True),
            (a_state() | {"cli": {"answering": False, "failure": "Silent"}}, True),
        ]
        await asyncio.sleep(10)
        for reading, is_news in readings:
            b.news.clear()
            b.agents.states[HOST] = reading
            await asyncio.sleep(20)
            assert (len(b.news) == 1) == is_news, reading


@pytest.mark.looptime
@pytest.mark.usefixtures("no_jitter")
async def test_who_fails_is_asked_again_soon_and_what_is_known_goes_after_three_times() -> None:
    async with bed() as b:
        b.watch()
        await asyncio.sleep(15)
        b.agents.gone.add(HOST)
        await asyncio.sleep(10)
        assert b.state, "two failures"
        await asyncio.sleep(2)
        assert b.state is None
        await asyncio.sleep(48)
        assert b.agents.times() == [0, 20, 23, 26, 46, 66]
        b.agents.gone.clear()
        await asyncio.sleep(15)
        assert b.state
        assert b.news == [0, 26, 86]


@pytest.mark.looptime
@pytest.mark.usefixtures("no_jitter")
async def test_a_server_with_something_wrong_is_asked_at_once_and_every_three_seconds_for_a_minute() -> None:
    async with bed() as b:
        b.inventory.hasten(ALICE)  # nobody knows it
        b.watch()
        await asyncio.sleep(5)
        b.agents.states[HOST] = a_state() | {"cli": {"answering": False, "failure": "Silent"}}
        b.inventory.hasten(ALICE)
        await asyncio.sleep(0.25)
        assert b.state
        assert not b.state.answering
        b.inventory.hasten(ALICE)
        await asyncio.sleep(100)
    assert b.agents.times() == [0, *range(5, 69, 3), 88]


@pytest.mark.looptime
@pytest.mark.usefixtures("no_jitter")
async def test_what_is_of_the_past_is_forgotten_and_an_answer_under_way_does_not_count() -> None:
    async with bed() as b:
        b.agents.takes_s = 2.0
        b.watch()
        await asyncio.sleep(23)  # the second question is under way, and will be answered as the first
        b.agents.states[HOST] = a_state(loaded=0)
        b.inventory.forget_state(ALICE)
        assert b.state is None
        await asyncio.sleep(1.5)
        assert b.state is None
        await asyncio.sleep(1)
        assert b.state
        assert b.state.loaded == 0
        assert b.agents.times() == [0, 22, 23]


@pytest.mark.looptime
async def test_another_pod_begins_with_nothing_known_and_without_a_pod_nobody_is_asked() -> None:
    async with bed() as b:
        b.watch()
        await asyncio.sleep(5)
        b.watch("pod-2", "10.0.0.2")
        assert b.state is None
        await asyncio.sleep(5)
        assert b.state
        assert b.state.pod_uid == "pod-2"
        b.watch("pod-2", None)
        assert (b.state, b.inventory.counts()) == (None, {})
        await asyncio.sleep(100)
        b.inventory.forget_state(ALICE)
        assert len(b.agents.asked) == 2
        b.news.clear()
        b.agents.takes_s = 1.0
        b.watch("pod-3")
        await asyncio.sleep(0.5)
        b.watch("pod-3", None)  # while it is being asked
        await asyncio.sleep(100)
        assert (len(b.agents.asked), b.news) == (3, [])


@pytest.mark.looptime
async def test_hung_agents_hold_up_nobody() -> None:
    async with bed() as b:
        b.agents.hung = {f"10.1.0.{number}" for number in range(500)}
        for host in b.agents.hung:
            b.inventory.watch(("apps", host), "pod", AgentAddress(host, "pod"))
        await asyncio.sleep(60)
        b.watch()
        await asyncio.sleep(100)
    assert max(after - before for before, after in pairwise(b.agents.times())) <= 24 + 6
    assert b.agents.most <= module.MOST_AT_ONCE


@pytest.mark.looptime
async def test_counts_of_servers_and_sessions() -> None:
    async with bed() as b:
        b.agents.states = {
            "10.1.0.1": a_state(loaded=3, busy=2, waiting=1),
            "10.1.0.2": a_state(loaded=1, busy=0),
            "10.1.0.3": a_state() | {"cli": {"answering": False}, "sessions": {}},
            "10.1.0.4": a_state(loaded=None, busy=None, waiting=None),
        }
        b.agents.gone = {"10.1.0.5"}
        for number in range(1, 6):
            b.inventory.watch(("apps", str(number)), "pod", AgentAddress(f"10.1.0.{number}", "pod"))
        await asyncio.sleep(5)
        assert b.inventory.counts() == {"Busy": 1, "Idle": 1, "NotAnswering": 1, "Unknown": 2}
        assert b.inventory.sessions() == {"loaded": 4, "busy": 2, "waiting": 1}


@pytest.mark.looptime
@pytest.mark.usefixtures("no_jitter")
async def test_each_question_tells_how_long_sessions_are_kept_as_it_is_then() -> None:
    week, day = Retention(604_800.0), Retention(86_400.0, dry_run=True)
    async with bed() as b:
        at = AgentAddress(HOST, "pod-1")
        b.inventory.watch(ALICE, "pod-1", at, retention=week)
        await asyncio.sleep(30)
        b.inventory.watch(ALICE, "pod-1", at, retention=day)
        await asyncio.sleep(15)
        b.inventory.forget_state(ALICE)
        await asyncio.sleep(1)
    assert b.agents.told == [week, week, day, day]


@pytest.mark.looptime
@pytest.mark.usefixtures("no_jitter")
async def test_a_deletion_is_news_once() -> None:
    async with bed() as b:
        b.watch()
        await asyncio.sleep(10)
        b.news.clear()
        last = {"time": "2026-11-24T04:00:00Z", "sessions": 3, "freedBytes": 81_000}
        b.agents.states[HOST] = a_state() | {"expiry": {"lastDeletion": last}}
        await asyncio.sleep(60)
        assert b.state
        assert b.state.deletion == Deletion("2026-11-24T04:00:00Z", 3, 81_000)
        assert len(b.news) == 1


@pytest.mark.looptime
@pytest.mark.usefixtures("no_jitter")
async def test_an_erasure_is_told_at_once_and_asked_after_until_it_is_done() -> None:
    async with bed() as b:
        b.watch()
        await asyncio.sleep(1)
        b.inventory.erase(ALICE[0], "saas", {ALICE[1]: ("c0de",), "elsewhere": ("c0de",)})
        assert b.inventory.erasing() == {ALICE: ("c0de",), (ALICE[0], "elsewhere"): ("c0de",)}
        await asyncio.sleep(1)
        assert b.agents.erase == [(), ("c0de",)]
        await asyncio.sleep(5)
        assert len(b.agents.erase) == 3, "3 s later"
        b.news.clear()
        b.agents.states[HOST] = a_state() | {"erasure": {"erased": {"c0de": 2}}}
        await asyncio.sleep(3)
        assert b.state
        assert b.state.erased == (("c0de", 2),)
        assert len(b.news) == 1
        b.inventory.erase(ALICE[0], "other", {})
        assert len(b.inventory.erasing()) == 2, "of another pool"
        b.inventory.erase(ALICE[0], "saas", {})
        assert b.inventory.erasing() == {}
        asked = len(b.agents.erase)
        await asyncio.sleep(24)
        assert b.agents.erase[asked:] == [(), ()], "in 3 s, and from then on every 20 s"


# ---- what is news, pure

figures = st.none() | st.integers(0, 100)
some_state = st.builds(
    ServerState,
    pod_uid=st.just("pod"),
    taken_at=st.just(EPOCH),
    answering=st.booleans(),
    busy=st.none() | st.integers(0, 3),
    memory_bytes=figures,
    processes=figures,
    latency_factor=figures,
    age_s=figures,
    stalled_s=figures,
    wait_for_room=st.none() | st.integers(0, 2),
)
some_limits = st.builds(Limits, **dict.fromkeys(Limits.__dataclass_fields__, st.none() | st.integers(1, 99)))


@given(some_state, some_state, some_limits)
def test_two_states_have_the_same_mark_exactly_if_no_decision_could_tell_them_apart(
    one: ServerState, other: ServerState, limits: Limits
) -> None:
    def decided(state: ServerState) -> list[object]:
        exceeded = [
            (getattr(state, name) or 0) > getattr(limits, name)
            for name in Limits.__dataclass_fields__
            if getattr(limits, name) is not None
        ]
        return [state.answering, state.busy and True, bool(state.wait_for_room), *exceeded]

    assert (mark_of(one, limits) == mark_of(other, limits)) == (decided(one) == decided(other))
    assert mark_of(one, limits) == mark_of(replace(one, taken_at=EPOCH + timedelta(hours=1), loaded=7), limits)
    assert mark_of(one, limits) != mark_of(None, limits)


# ---- with the real agent beside a stand-in CLI


async def test_the_real_agent_says_when_its_server_hangs_and_when_it_is_well_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.3)
    news: list[Key] = []
    async with (
        standin(token="token") as cli,
        running_agent(cli.port, "token", tmp_path, COPILOT_AGENT_PROBE_TIMEOUT_S="1") as agent,
    ):
        inventory = Inventory(AgentClient(agent.port), news.append)
        running = asyncio.create_task(inventory.run())
        inventory.watch(ALICE, "pod-1", AgentAddress("127.0.0.1", gethostname()))

        def is_idle() -> bool:
            state = inventory.state(*ALICE)
            return bool(state and state.answering and state.busy == 0)

        def hangs() -> bool:
            state = inventory.state(*ALICE)
            return bool(state and not state.answering and state.failure == "Silent")

        await eventually(is_idle, within_s=15, what="an idle server is found")
        state = inventory.state(*ALICE)
        assert state
        assert state.processes is not None
        news.clear()
        cli.server.fault = Fault.HANG
        await eventually(hangs, within_s=15, what="its hanging is found")
        assert news
        cli.server.fault = Fault.NONE
        await eventually(is_idle, within_s=15, what="it is well again")
        assert inventory.counts() == {"Idle": 1}
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
