"""Sessions are loaded once the agent lets them in; whatever it says, who waits is told in time."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from copilot_operator.agent.web import Response, WebServer
from copilot_operator.gateway import permits as module
from copilot_operator.gateway.agent_client import AgentClient
from copilot_operator.gateway.permits import Permit, Permits, Rules
from copilot_operator.gateway.session.actions import Failure
from tests.support.eventually import eventually


class Bed:
    """An agent that says what it is told to, and what was asked of it."""

    def __init__(self) -> None:
        self.lacks: dict[str, Any] = {}
        self.attach: Any = True
        self.asked: list[Mapping[str, str]] = []
        self.broken = False
        self.told: dict[str, tuple[Failure | None, bool]] = {}

    async def slots(self, query: Mapping[str, str]) -> Response:
        self.asked.append(query)
        ids = [id.partition(":")[0] for id in query["ids"].split(",")]
        await asyncio.sleep(0.01)
        return Response(
            200, "junk" if self.broken else json.dumps({"lacks": {id: self.lacks.get(id, "") for id in ids}})
        )

    async def may_attach(self, query: Mapping[str, str]) -> Response:
        return Response(200, json.dumps({"attach": self.attach}))

    def want(self, permits: Permits, id: str, of_tenant: int | None = None, *, within_s: float = 5.0) -> None:
        def done(failure: Failure | None, again: bool, permit: Permit) -> None:
            self.told[id] = failure, again

        permits.ask(id, of_tenant, done, within_s=within_s)

    async def hears(self, id: str) -> tuple[Failure | None, bool]:
        await eventually(lambda: id in self.told, within_s=5, what=f"{id} is told")
        return self.told[id]


@pytest.fixture
async def bed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Bed, Permits]]:
    monkeypatch.setattr(module, "AGAIN_S", 0.02)
    bed = Bed()
    server = WebServer({"/slots": bed.slots, "/slots/attach": bed.may_attach})
    port = await server.start("127.0.0.1", 0)
    permits = Permits(AgentClient(f"http://127.0.0.1:{port}"), Rules(2, evict=True, code_length=3))
    yield bed, permits
    permits.end()
    server.stop()


async def test_without_rules_nobody_is_asked() -> None:
    bed, permits = Bed(), Permits(AgentClient("http://127.0.0.1:1"), None)
    bed.want(permits, "a")
    assert bed.told == {"a": (None, True)}
    assert await permits.may_attach("a")


async def test_all_that_wait_are_asked_for_at_once_and_let_in_as_the_agent_says(bed: tuple[Bed, Permits]) -> None:
    agent, permits = bed
    agent.lacks = {"a": "server", "b": "tenant"}
    for id, most in (("a", None), ("b", 1), ("c", None)):
        agent.want(permits, id, most)
    assert await agent.hears("c") == (None, True)
    assert agent.asked[0] == {
        "most": "2", "code_length": "3", "evict": "true", "wait_s": "2", "ids": "a,b:1,c",
    }  # fmt: skip
    assert agent.told.keys() == {"c"}
    agent.lacks = {}
    assert await agent.hears("a") == await agent.hears("b") == (None, True)


async def test_who_waits_in_vain_is_told_so_and_may_try_again(bed: tuple[Bed, Permits]) -> None:
    agent, permits = bed
    agent.lacks = {"a": "server"}
    agent.want(permits, "a", within_s=0.1)
    failure, again = await agent.hears("a")
    assert failure is not None
    assert (failure.data, again) == ({"reason": "TooManySessions"}, True)


@pytest.mark.parametrize(("lacks", "said"), [("server", "this server has 2 sessions"), ("tenant", "this tenant has 1")])
async def test_where_nobody_is_evicted_the_one_too_many_is_refused(
    bed: tuple[Bed, Permits], lacks: str, said: str
) -> None:
    agent, permits = bed
    permits.rules = Rules(2, evict=False)
    agent.lacks = {"a": lacks}
    agent.want(permits, "a", 1)
    failure, again = await agent.hears("a")
    assert failure is not None
    assert failure.message.startswith(said)
    assert (failure.data, again) == ({"reason": "TooManySessions", "retryAfterSeconds": 5}, False)


async def test_an_agent_that_answers_nonsense_is_asked_again(bed: tuple[Bed, Permits]) -> None:
    agent, permits = bed
    agent.broken = True
    agent.want(permits, "a")
    await eventually(lambda: len(agent.asked) >= 2, within_s=5, what="it is asked again")
    assert agent.told == {}
    agent.broken = False
    assert await agent.hears("a") == (None, True)


async def test_what_is_not_said_to_stay_is_not_attached_to(bed: tuple[Bed, Permits]) -> None:
    agent, permits = bed
    assert await permits.may_attach("a")
    for agent.attach in (False, "yes", None):
        assert not await permits.may_attach("a")
    assert not await Permits(AgentClient("http://127.0.0.1:1"), Rules(1)).may_attach("a")


async def test_rules_that_end_let_everybody_in_and_a_server_that_leaves_nobody(bed: tuple[Bed, Permits]) -> None:
    agent, permits = bed
    agent.lacks = {"a": "server", "b": "server"}
    agent.want(permits, "a")
    await eventually(lambda: agent.asked, within_s=5, what="it is asked")
    permits.rules = None
    assert await agent.hears("a") == (None, True)
    permits.rules = Rules(1)
    agent.want(permits, "b")
    permits.end()
    failure, again = agent.told["b"]
    assert failure is not None
    assert (failure.data, again) == ({"reason": "NoServer"}, True)


class Claimant(Bed):
    """An agent that claims what it lets in, or says who has it."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, str] = {}
        self.settled: list[str] = []
        self.permits: dict[str, Permit] = {}
        self.attaches = asyncio.Event()
        self.wanted: list[str] = []  # permissions to attach

    async def slots(self, query: Mapping[str, str]) -> Response:
        self.asked.append(query)
        ids = query["ids"].split(",")
        free = {id: "" for id in ids if id not in self.held}
        return Response(200, "junk" if self.broken else json.dumps({"lacks": free, "held": self.held}))

    async def settle(self, query: Mapping[str, str]) -> Response:
        self.settled += query["settled"].split(",")
        return Response(200, "{}")

    async def hang(self, query: Mapping[str, str]) -> Response:
        self.wanted.append(query["permits"])
        self.attaches.set()
        return await asyncio.Future()

    async def release(self, query: Mapping[str, str]) -> Response:
        return Response(200, json.dumps({"free": {query["ids"]: query["ids"] not in self.held}}))

    def want(self, permits: Permits, id: str, of_tenant: int | None = None, *, within_s: float = 5.0) -> None:
        def done(failure: Failure | None, again: bool, permit: Permit) -> None:
            self.told[id], self.permits[id] = (failure, again), permit

        permits.ask(id, of_tenant, done, within_s=within_s)


@pytest.fixture
async def claimant(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Claimant, Permits]]:
    monkeypatch.setattr(module, "AGAIN_S", 0.02)
    monkeypatch.setattr(module, "SETTLE_S", 0.01)
    bed = Claimant()
    pages = {"/slots": bed.slots, "/claims/settle": bed.settle, "/claims/release": bed.release}
    pages |= {"/slots/attach": bed.hang}
    server = WebServer(pages)
    port = await server.start("127.0.0.1", 0)
    permits = Permits(AgentClient(f"http://127.0.0.1:{port}"), Rules(9, claims=True))
    yield bed, permits
    permits.end()
    server.stop()


async def test_a_permission_is_over_when_all_who_got_it_say_so(claimant: tuple[Claimant, Permits]) -> None:
    agent, permits = claimant
    agent.want(permits, "a")
    assert await agent.hears("a") == (None, True)
    name = agent.asked[0]["permits"]
    assert agent.settled == []
    agent.permits["a"].over()
    await eventually(lambda: agent.settled == [name], within_s=5, what="the agent is told")


async def test_who_leaves_a_server_says_what_is_over_there_all_the_same(claimant: tuple[Claimant, Permits]) -> None:
    agent, permits = claimant
    agent.want(permits, "a")
    await agent.hears("a")
    attaching = asyncio.create_task(permits.may_attach("b"))
    await asyncio.wait_for(agent.attaches.wait(), 5)
    agent.permits["a"].over()
    attaching.cancel()
    permits.end()
    names = {agent.asked[0]["permits"], *agent.wanted}
    await eventually(lambda: set(agent.settled) == names, within_s=5, what="the agent is told of both")


async def test_a_permission_that_was_used_without_an_answer_is_never_over(claimant: tuple[Claimant, Permits]) -> None:
    agent, permits = claimant
    for id in ("a", "b"):
        agent.want(permits, id)
        await agent.hears(id)
    agent.permits["a"].over(answered=False)
    agent.permits["b"].over()
    await eventually(lambda: agent.settled == [agent.asked[-1]["permits"]], within_s=5, what="that of the other is")


async def test_what_was_given_and_not_heard_of_is_over(claimant: tuple[Claimant, Permits]) -> None:
    agent, permits = claimant
    agent.broken = True
    agent.want(permits, "a")
    await eventually(lambda: len(agent.asked) > 1, within_s=5, what="it is asked again")
    agent.broken = False
    assert await agent.hears("a") == (None, True)
    given = agent.asked[-1]["permits"]

    def told() -> set[str]:
        carried = {name for query in agent.asked for name in query["settled"].split(",")} - {""}
        return carried | set(agent.settled)

    before = {query["permits"] for query in agent.asked[:-1]}
    await eventually(lambda: before <= told(), within_s=5, what="those before are over")
    assert given not in told()


async def test_who_asks_for_what_another_has_is_told_who(claimant: tuple[Claimant, Permits]) -> None:
    agent, permits = claimant
    agent.held = {"a": "pod_u1_1"}
    agent.want(permits, "a")
    failure, again = await agent.hears("a")
    assert failure is not None
    assert (failure.data, again) == ({"reason": "HeldElsewhere"}, True)
    assert "pod_u1_1" in failure.message
    assert failure.says_not_stored, "so that a session that was thought loaded is loaded where it is"
    assert not await permits.release("a")
    assert await permits.release("b")
