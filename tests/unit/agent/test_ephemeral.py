"""Ephemeral sessions of a real agent beside a stand-in CLI, on real directories."""

import json
import shutil
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.agent.claim_files import name_of
from copilot_operator.agent.deep import SESSION_ID
from copilot_operator.agent.settings import Settings, SettingsError
from tests.support.agent import RunningAgent, running_agent
from tests.support.eventually import eventually
from tests.support.standin import StandIn
from tests.unit.agent.conftest import SOON_S, TOKEN, begin, client, sessions_are
from tests.unit.agent.test_janitor import store

PERSISTENT = {"COPILOT_AGENT_PERSISTENCE": "Persistent", "COPILOT_AGENT_HELD_S": "2"}


async def until_left(cli: StandIn, *ids: str) -> None:
    await eventually(lambda: set(cli.server.volume) == set(ids), within_s=SOON_S, what=f"{ids} are left")


async def told(agent: RunningAgent, *, gateway: str = "x", opened: str = "", left: str = "") -> None:
    status, body = await agent.get(f"/ephemeral?gateway={gateway}&open={opened}&left={left}")
    assert (status, json.loads(body)) == (200, {})


async def test_one_that_nobody_has_open_is_deleted_after_a_while_and_no_other(cli: StandIn, tmp_path: Path) -> None:
    for id in ("ephemeral-a", "kept", "kept-ephemeral-b"):
        store(cli, tmp_path, id, hours=0)
    async with running_agent(cli.port, TOKEN, tmp_path, **PERSISTENT) as agent:
        await until_left(cli, "kept", "kept-ephemeral-b")
        assert "copilot_server_ephemeral_sessions_erased_total 1" in (await agent.get("/metrics"))[1]
        assert (await agent.state())["sessions"]["secondsSinceActivity"] is None, "it is no sign that it is used"


async def test_one_that_was_left_goes_at_once_and_while_it_works_not_at_all(cli: StandIn, tmp_path: Path) -> None:
    long = PERSISTENT | {"COPILOT_AGENT_HELD_S": "9999", "COPILOT_AGENT_CODE_LENGTH": "2"}
    async with running_agent(cli.port, TOKEN, tmp_path, **long) as agent:
        for id in ("a-ephemeral-kept", "a-ephemeral-open", "a-ephemeral-left", "a-ephemeral-works"):
            store(cli, tmp_path, id, hours=0)
        keeper, worker = await client(cli), await begin(cli, "a-ephemeral-works", "SLEEP=60")
        await keeper.call("session.resume", {"sessionId": "a-ephemeral-kept"}, timeout_s=SOON_S)
        await told(agent, gateway="y", opened="a-ephemeral-open")
        await told(agent, left="a-ephemeral-works,a-ephemeral-kept,a-ephemeral-open,a-ephemeral-left,kept")
        await until_left(cli, "a-ephemeral-works", "a-ephemeral-open")
        await worker.call("session.abort", {"sessionId": "a-ephemeral-works"}, timeout_s=SOON_S)
        await until_left(cli, "a-ephemeral-open")
        await worker.close()
        await keeper.close()
        await told(agent, gateway="y", left="a-ephemeral-open")
        await until_left(cli)


async def test_one_of_which_nothing_was_heard_stays_as_long_as_somebody_owns_it(cli: StandIn, tmp_path: Path) -> None:
    for id in ("ephemeral-owned", "ephemeral-free"):
        store(cli, tmp_path, id, hours=0)
    owner = await client(cli)
    await owner.call("session.resume", {"sessionId": "ephemeral-owned"}, timeout_s=SOON_S)
    async with running_agent(cli.port, TOKEN, tmp_path, **PERSISTENT):
        await until_left(cli, "ephemeral-owned")
        await owner.close()
        await until_left(cli)


async def test_in_an_ephemeral_pool_all_are_but_the_agents_own(cli: StandIn, tmp_path: Path) -> None:
    for id in ("one", "two", SESSION_ID):
        store(cli, tmp_path, id, hours=0)
    async with running_agent(cli.port, TOKEN, tmp_path, **PERSISTENT | {"COPILOT_AGENT_PERSISTENCE": "Ephemeral"}):
        await until_left(cli, SESSION_ID)


async def test_on_a_shared_volume_what_another_server_has_is_left_to_it(cli: StandIn, tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    for id in ("ephemeral-free", "ephemeral-theirs"):
        store(cli, tmp_path, id, hours=0)
    theirs = claims / name_of("ephemeral-theirs") / "other-pod_uid-2_1"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    (tmp_path / "server.lock").touch()
    shared = {
        "COPILOT_AGENT_CLAIMS": str(claims),
        "COPILOT_AGENT_SESSIONS": str(tmp_path / "copilot" / "session-state"),
        "COPILOT_AGENT_POD_UID": "uid-1",
        "COPILOT_AGENT_HELD_S": "9999",
    }
    async with running_agent(cli.port, TOKEN, tmp_path, **PERSISTENT | shared) as agent:
        await told(agent, left="ephemeral-theirs")
        await told(agent, left="ephemeral-free")
        await until_left(cli, "ephemeral-theirs")
        shutil.rmtree(theirs.parent)
        await until_left(cli)


async def test_a_turn_that_is_drained_is_kept_out_of_the_session_store(
    cli: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed: list[dict[str, Any]] = []
    resume = cli.server.sessions.resume

    def noted(owner: Hashable, params: dict[str, Any]) -> dict[str, Any]:
        resumed.append(params)
        return resume(owner, params)

    monkeypatch.setitem(cli.server.methods, "session.resume", noted)
    async with running_agent(cli.port, TOKEN, tmp_path, **PERSISTENT) as agent:
        turns = [await begin(cli, id, "SLEEP=60") for id in ("ephemeral-a", "kept")]
        await eventually(lambda: sessions_are(agent, 2, 2, 0), within_s=SOON_S, what="both are seen")
        await agent.get("/drain?deadline_s=30&on_timeout=Abort&wait_s=5")
        await eventually(lambda: len(resumed) == 2, within_s=SOON_S, what="both are kept")
        for turn in turns:
            await turn.close()
    told = {params["sessionId"]: params.get("enableSessionStore") for params in resumed}
    assert told == {"ephemeral-a": False, "kept": None}


async def test_who_does_not_say_which_gateway_it_is_is_told_so(agent: RunningAgent) -> None:
    assert (await agent.get("/ephemeral?open=a"))[0] == 400


def test_a_persistence_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="must be Persistent, Ephemeral or absent, not 'Never'"):
        Settings.from_environment({"COPILOT_AGENT_PERSISTENCE": "Never"})
