"""The eraser of a real agent beside a stand-in CLI, on real directories."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import RunningAgent
from tests.support.eventually import eventually
from tests.support.standin import StandIn
from tests.unit.agent.conftest import SOON_S, begin, order
from tests.unit.agent.test_janitor import store

CODE = "abcdefgh23456723"
OTHER = "abcdefgh23456724"


async def tell(agent: RunningAgent, query: str = "") -> dict[str, Any]:
    status, body = await agent.get(f"/state{query}")
    assert status == 200, body
    found = json.loads(body)["erasure"]
    assert isinstance(found, dict)
    return found


def gone(cli: StandIn, id: str) -> bool:
    return id not in cli.server.volume


async def until_erased(agent: RunningAgent, codes: dict[str, int]) -> dict[str, Any]:
    async def so() -> dict[str, Any] | None:
        found = await tell(agent)
        return found if found["erased"] == codes else None

    found: dict[str, Any] = await eventually(so, within_s=SOON_S, what=f"{codes} are erased")
    return found


async def test_all_of_a_code_is_erased_loaded_or_not_and_nothing_else(
    cli: StandIn, agent: RunningAgent, tmp_path: Path
) -> None:
    for id in (f"{CODE}a", f"{CODE}b", f"{OTHER}a", "a", CODE[:-1]):
        store(cli, tmp_path, id, hours=1)
    working = await begin(cli, f"{CODE}loaded", "SLEEP=30")
    assert await tell(agent) == {"erased": {}, "sessions": 0, "failure": None}
    await tell(agent, f"?erase={CODE}")
    for id in (f"{CODE}a", f"{CODE}b"):  # a stand-in has no directories
        await eventually(partial(gone, cli, id), within_s=SOON_S, what=f"{id} is deleted")
        (tmp_path / "copilot" / "session-state" / id).rmdir()
    found = await until_erased(agent, {CODE: 3})
    assert (found["sessions"], found["failure"]) == (3, None)
    assert set(cli.server.volume) == {f"{OTHER}a", "a", CODE[:-1]}
    assert "copilot_server_erased_sessions_total 3" in (await agent.get("/metrics"))[1].splitlines()
    assert (await agent.state())["sessions"]["loaded"] == 0
    await working.close()
    await tell(agent, "?erase=")
    assert await tell(agent) == {"erased": {}, "sessions": 3, "failure": None}, "which keeps the answer small"


async def test_a_code_with_nothing_left_of_it_is_erased(cli: StandIn, agent: RunningAgent) -> None:
    await tell(agent, f"?erase={CODE},{OTHER}")
    await until_erased(agent, {CODE: 0, OTHER: 0})


async def test_nothing_is_erased_while_the_server_is_drained(cli: StandIn, agent: RunningAgent, tmp_path: Path) -> None:
    store(cli, tmp_path, f"{CODE}a", hours=1)
    works = await begin(cli, "works", "SLEEP=30")
    await order(agent, wait_s=0)
    await tell(agent, f"?erase={CODE}")

    async def is_told() -> bool:
        return bool((await tell(agent))["failure"] == "the server is being drained")

    await eventually(is_told, within_s=SOON_S, what="it says why it waits")
    assert f"{CODE}a" in cli.server.volume
    await works.close()


@pytest.mark.parametrize("codes", ["a", f"{CODE},short", "..", f"{CODE}/..", "%2e%2e%2e%2e"])
async def test_what_is_no_code_is_refused(agent: RunningAgent, codes: str) -> None:
    status, body = await agent.get(f"/state?erase={codes}")
    assert (status, "erase must name codes" in body) == (400, True)
    assert (await tell(agent))["erased"] == {}


async def test_who_keeps_a_session_is_told_of(cli: StandIn, agent: RunningAgent, tmp_path: Path) -> None:
    store(cli, tmp_path, f"{CODE}a", hours=1)  # its directory stays, as that of one which another process holds
    await tell(agent, f"?erase={CODE}")

    async def is_told() -> bool:
        return bool((await tell(agent))["failure"] == "1 of them are left")

    await eventually(is_told, within_s=SOON_S, what="it says that something is left")
    assert (await tell(agent))["erased"] == {}


async def test_what_lies_in_quarantine_is_left_to_people_and_told_of(
    cli: StandIn, agent: RunningAgent, tmp_path: Path
) -> None:
    quarantine = tmp_path / "copilot" / "quarantine"
    for name in ("x.20260301T110000Z", f"{CODE}a.20260302T110000Z"):
        (quarantine / name).mkdir(parents=True)
    await tell(agent, f"?erase={CODE},{OTHER}")
    found = await until_erased(agent, {OTHER: 0})
    name = f"{CODE}a.20260302T110000Z"
    assert found["failure"] == f"1 of them are in quarantine, where only people delete: {name}"
    assert (await agent.state())["quarantined"] == {"count": 2, "latest": [name, "x.20260301T110000Z"]}
    (quarantine / name).rmdir()
    await until_erased(agent, {CODE: 0, OTHER: 0})
