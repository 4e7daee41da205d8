"""Agents are told which ephemeral sessions clients have open: news at once, all of it again and again."""

from collections.abc import AsyncIterator, Mapping

import pytest

from copilot_operator.agent.web import Response, WebServer
from copilot_operator.gateway import openings as module
from copilot_operator.gateway.agent_client import AgentClient
from copilot_operator.gateway.keeper import ME
from copilot_operator.gateway.openings import Openings
from tests.support.eventually import eventually


class Bed:
    """An agent and what it was told: of each id the last."""

    def __init__(self) -> None:
        self.last: dict[str, str] = {}
        self.times: list[str] = []
        self.answers = True

    async def page(self, query: Mapping[str, str]) -> Response:
        assert query["gateway"] == ME
        if not self.answers:
            return Response(503, "not now\n")
        for what in ("open", "left"):
            for id in filter(None, query[what].split(",")):
                self.last[id] = what
                self.times.append(id)
        return Response(200, "{}")

    async def hears(self, **last: str) -> None:
        await eventually(lambda: self.last == last, within_s=5, what=f"it is told {last}")


@pytest.fixture
async def bed() -> AsyncIterator[tuple[Bed, Openings]]:
    bed = Bed()
    server = WebServer({"/ephemeral": bed.page})
    openings = Openings(AgentClient(f"http://127.0.0.1:{await server.start('127.0.0.1', 0)}"))
    yield bed, openings
    openings.end()
    server.stop()


async def test_what_opens_and_what_is_left_is_said_once(bed: tuple[Bed, Openings]) -> None:
    agent, openings = bed
    openings.opens("a")
    openings.are(["a", "b"])
    await agent.hears(a="open", b="open")
    for _ in range(3):
        openings.are(["b"])
    await agent.hears(a="left", b="open")
    openings.are([])
    await agent.hears(a="left", b="left")
    assert sorted(agent.times) == ["a", "a", "b", "b"]


async def test_all_is_said_again_in_parts_that_an_agent_takes(
    bed: tuple[Bed, Openings], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, openings = bed
    ids = [f"{number:0>250}" for number in range(60)]
    openings.are(ids)
    await agent.hears(**dict.fromkeys(ids, "open"))
    monkeypatch.setattr(module, "SAY_EVERY_S", 0.0)

    def again() -> bool:
        openings.are(ids[:1])
        return agent.times.count(ids[0]) > 1

    openings.opens(ids[0])
    await eventually(again, within_s=5, what="it is said again")


async def test_what_could_not_be_said_is_said_later(bed: tuple[Bed, Openings]) -> None:
    agent, openings = bed
    agent.answers = False
    openings.are(["a", "b"])
    await eventually(lambda: openings._saying is not None and openings._saying.done(), within_s=5, what="it is refused")
    agent.answers = True
    openings.are(["b"])
    await agent.hears(a="left", b="open")
