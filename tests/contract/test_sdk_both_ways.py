"""The official SDKs, unmodified, see the same conversation with a CLI directly and through the gateway.

Every scenario (``sdk_scenarios.py`` and ``node_sdk/scenarios.mjs``) is held to one expectation, whichever the SDK and
the way. The scenarios of one SDK and way run side by side, as many applications do.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import pytest
import pytest_asyncio

from tests.contract.gateway_bed import Gateway, Isolation, gateway_before, token_of
from tests.contract.node_sdk_process import NodeSdk, node_sdk
from tests.contract.sdk_scenarios import SCENARIOS, Place
from tests.support.cli import real_cli
from tests.support.model import ModelServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_ONCE: Final = 4
TOKEN: Final = "server-token"
WEATHER: Final = "the tool said: rain in Oslo"

EXPECTED: Final[dict[str, Any]] = {  # ID: the session of the scenario
    "conversation": {"id": "ID", "answers": ["first", "notes: alpha"], "pong": "pong: hi"},
    "streaming": {"deltas": ["part0 ", "part1 ", "part2 ", "part3 "], "answer": "part0 part1 part2 part3 "},
    "client_tools": {"answer": WEATHER, "calls": [["ID", "get_weather", {"city": "Oslo"}]]},
    "permissions": {
        "asked": [["ID", "custom-tool", "get_weather"], ["ID", "custom-tool", "get_weather"]],
        "calls": 1,
        "refused": True,
        "granted": WEATHER,
    },
    "ask_user": {
        "questions": [["ID", "Which colour?", ["red", "blue"]]],
        "answer": "the tool said: User selected: blue",
    },
    "hooks": {
        "answer": "the tool said: rain in Bergen",
        "calls": [["ID", "get_weather", {"city": "Bergen"}]],
        "hooked": [["submitted", "ID", "ID"], ["before", "get_weather", "ID"], ["after", "get_weather", "ID"]],
    },
    "abort": {"aborts": 1, "next": "after"},
    "failing_turn": {"status": 400, "next": "after"},
    "resume": {"id": "ID", "stored": ["first"], "answer": "notes: alpha"},
    "takeover": {"answer": WEATHER, "calls": [["ID", "get_weather", {"city": "Oslo"}]], "recalled": "notes: alpha"},
    "two_clients": {
        "answers": ["turn 1", "turn 2", "alone"],
        "heard": [["turn 1", "turn 2"], ["turn 1", "turn 2", "alone"]],
    },
    "lists": {"listed": ["ID-a", "ID-b"], "found": "ID-a", "unknown": None},
    "delete": {
        "before": ["ID"],
        "after": [],
        "again": "Failed to delete session ID: Session file not found for ID",
        "resumed": "Request session.resume failed with message: Failed to load session events: Session not found: ID",
    },
    "refusals": {
        "unknown": "Request session.resume failed with message: "
        "Failed to load session events: Session not found: ID-none",
        "invalid": "Request session.create failed with message: "
        "Rejected session.create request with invalid sessionId: no/slash",
        "gone": "Request session.send failed with message: Session not found for sessionId: ID",
    },
    "lifecycle": ["session.created", "session.deleted", "session.updated"],
}


@dataclass
class Bed:
    """Everything the scenarios run on, each part started when the first test wants it."""

    directory: Path
    stack: AsyncExitStack
    model: ModelServer
    gateways: dict[str, Gateway] = field(default_factory=dict)
    _places: dict[str, asyncio.Task[Place]] = field(default_factory=dict)
    _outcomes: dict[tuple[str, str], dict[str, asyncio.Task[Any]]] = field(default_factory=dict)
    _node: NodeSdk | None = None

    async def outcome(self, sdk: str, way: str, scenario: str) -> Any:
        """What the scenario saw, with ``ID`` for its session."""
        if (sdk, way) not in self._outcomes:
            self._outcomes[sdk, way] = await self._all(sdk, way)
        seen = await self._outcomes[sdk, way][scenario]
        return json.loads(json.dumps(seen).replace(session_of(sdk, way, scenario), "ID"))

    async def _all(self, sdk: str, way: str) -> dict[str, asyncio.Task[Any]]:
        if way not in self._places:  # a task, so that one that does not start is not started for every test again
            self._places[way] = asyncio.create_task(self._place(way))
        place = await self._places[way]
        if sdk == "node" and self._node is None:
            self._node = await self.stack.enter_async_context(node_sdk())
        at_once = asyncio.Semaphore(AT_ONCE)

        async def one(scenario: str) -> Any:
            id = session_of(sdk, way, scenario)
            async with at_once:
                if sdk == "node":
                    assert self._node
                    return await self._node.run(scenario, place, id)
                return await SCENARIOS[scenario](place, id)

        return {scenario: asyncio.create_task(one(scenario)) for scenario in EXPECTED}

    async def _place(self, way: str) -> Place:
        cli = await self.stack.enter_async_context(real_cli(self.directory / way, token=TOKEN))
        if way == "direct":
            return Place(f"{cli.host}:{cli.port}", TOKEN, self.model.base_url)
        before = gateway_before(cli, self.directory / f"gateway-{way}", {"one": self.model}, cast(Isolation, way))
        self.gateways[way] = await self.stack.enter_async_context(before)
        return Place(self.gateways[way].url, token_of("one"))

    async def close(self) -> None:
        """End what still runs."""
        left = [task for tasks in self._outcomes.values() for task in tasks.values()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def session_of(sdk: str, way: str, scenario: str) -> str:
    """The id that a scenario's sessions begin with."""
    return f"{sdk}-{way}-{scenario.replace('_', '-')}"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    logging.getLogger("copilot").setLevel(logging.CRITICAL)  # the SDK logs each refusal; here they are looked at
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer())
        made = Bed(tmp_path_factory.mktemp("both-ways"), stack, model)
        stack.push_async_callback(made.close)
        yield made


@pytest.mark.parametrize("scenario", EXPECTED)
@pytest.mark.parametrize("way", ["direct", "Dedicated", "Shared"])
@pytest.mark.parametrize("sdk", ["python", "node"])
async def test_the_application_sees_what_it_sees_without_a_gateway(bed: Bed, sdk: str, way: str, scenario: str) -> None:
    seen = await bed.outcome(sdk, way, scenario)
    assert seen == EXPECTED[scenario], bed.gateways[way].tail() if way in bed.gateways else ""


async def test_no_scenario_is_left_out() -> None:
    assert EXPECTED.keys() == SCENARIOS.keys()
