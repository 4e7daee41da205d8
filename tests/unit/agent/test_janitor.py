"""The janitor of a real agent beside a stand-in CLI, on real directories."""

import json
import os
import time
from collections.abc import AsyncIterator, Hashable
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.agent import sweep
from copilot_operator.agent.expiry import PINNED, timestamp
from copilot_operator.agent.policy import Policy
from copilot_operator.agent.sweep import Sweep
from copilot_operator.rpc.client import Connection
from tests.support.agent import RunningAgent, running_agent
from tests.support.eventually import eventually
from tests.support.standin import StandIn
from tests.support.standin_sessions import Refusal, Session
from tests.unit.agent.conftest import SOON_S, TOKEN, begin, client, order, ready, sessions_are

HOUR_S = 3600.0


@pytest.fixture
async def janitor(cli: StandIn, tmp_path: Path) -> AsyncIterator[RunningAgent]:
    """An agent that looks every second."""
    async with running_agent(cli.port, TOKEN, tmp_path, COPILOT_AGENT_JANITOR_EVERY_S="1") as running:
        await eventually(lambda: ready(running), within_s=SOON_S, what="the agent counts sessions")
        yield running


def store(cli: StandIn, data: Path, id: str, *, hours: float, dir_hours: float | None = None) -> Session:
    """A session used last so many hours ago, on the volume and in the stand-in."""
    used_at = time.time() - hours * HOUR_S
    session = Session(id, loaded=False)
    session.events.append({"type": "user.message", "timestamp": timestamp(used_at), "data": {}})
    cli.server.volume[id] = session
    directory = data / "copilot" / "session-state" / id
    directory.mkdir(parents=True)
    touched_at = used_at if dir_hours is None else time.time() - dir_hours * HOUR_S
    os.utime(directory, (touched_at, touched_at))
    return session


async def tell(agent: RunningAgent, query: str = "") -> dict[str, Any]:
    status, body = await agent.get(f"/state{query}")
    assert status == 200, body
    found = json.loads(body)["expiry"]
    assert isinstance(found, dict)
    return found


async def until(agent: RunningAgent, **fields: Any) -> dict[str, Any]:
    async def so() -> dict[str, Any] | None:
        found = await tell(agent)
        return found if {name: found[name] for name in fields} == fields else None

    found: dict[str, Any] = await eventually(so, within_s=SOON_S, what=f"{fields}")
    return found


async def test_it_does_nothing_until_it_is_told(cli: StandIn, janitor: RunningAgent, tmp_path: Path) -> None:
    store(cli, tmp_path, "a", hours=1000)
    found = await tell(janitor)
    assert (found["ttlSeconds"], found["lastPassSeconds"], found["deleted"]) == (None, None, 0)


async def test_it_deletes_what_is_old_by_its_last_event_and_says_so(
    cli: StandIn, janitor: RunningAgent, tmp_path: Path
) -> None:
    store(cli, tmp_path, "old", hours=3).size = 1000
    store(cli, tmp_path, "older", hours=30).size = 234
    store(cli, tmp_path, "young", hours=1)
    store(cli, tmp_path, "long-loaded", hours=1, dir_hours=30)
    store(cli, tmp_path, "pinned", hours=30).client_metadata[PINNED] = "no"
    (tmp_path / "copilot" / "session-state" / "link").symlink_to(tmp_path)
    await tell(janitor, f"?ttl_s={2 * HOUR_S}")
    found = await until(janitor, deleted=2)
    assert set(cli.server.volume) == {"young", "long-loaded", "pinned"}
    assert (await janitor.state())["sessions"]["secondsSinceActivity"] is None, "a server may stop for want of use"
    assert (found["freedBytes"], found["wouldDelete"], found["failure"]) == (1234, None, None)
    assert found["lastDeletion"] | {"time": ""} == {"time": "", "sessions": 2, "freedBytes": 1234}
    lines = (await janitor.get("/metrics"))[1].splitlines()
    assert "copilot_server_expired_sessions_deleted_total 2" in lines
    assert "copilot_server_expired_sessions_freed_bytes_total 1234" in lines
    assert any(line.startswith("copilot_server_janitor_pass_seconds ") for line in lines)


async def test_copilot_runtime_is_made_to_delete_one_by_one(cli: StandIn, tmp_path: Path) -> None:
    """It tells nobody of what it deletes in bulk."""
    for id, size in (("old", 1000), ("older", 234)):
        store(cli, tmp_path, id, hours=30).size = size
    del cli.server.methods["sessions.bulkDelete"]
    async with running_agent(
        cli.port, TOKEN, tmp_path, COPILOT_AGENT_JANITOR_EVERY_S="1", COPILOT_AGENT_RUNTIME="CopilotRuntime"
    ) as janitor:
        await eventually(lambda: ready(janitor), within_s=SOON_S, what="the agent counts sessions")
        await tell(janitor, f"?ttl_s={2 * HOUR_S}")
        await until(janitor, deleted=2, freedBytes=1234, failure=None)
    assert not cli.server.volume


async def test_a_dry_run_counts_and_deletes_nothing_and_its_end_is_heard(
    cli: StandIn, janitor: RunningAgent, tmp_path: Path
) -> None:
    for id in ("a", "b"):
        store(cli, tmp_path, id, hours=3)
    await tell(janitor, f"?ttl_s={HOUR_S}&ttl_action=DryRun")
    await until(janitor, wouldDelete=2)
    assert "copilot_server_expired_sessions_kept 2" in (await janitor.get("/metrics"))[1].splitlines()
    store(cli, tmp_path, "c", hours=3)
    await until(janitor, wouldDelete=3, deleted=0)
    await tell(janitor, "?ttl_action=Delete")
    await until(janitor, wouldDelete=None, deleted=3)


async def test_a_session_that_is_loaded_is_left_alone(cli: StandIn, janitor: RunningAgent, tmp_path: Path) -> None:
    old = store(cli, tmp_path, "a", hours=3)
    owner = await client(cli)
    await owner.call("session.resume", {"sessionId": "a", "disableResume": True}, timeout_s=SOON_S)
    await tell(janitor, f"?ttl_s={HOUR_S}")

    async def has_passed() -> bool:
        return (await tell(janitor))["lastPassSeconds"] is not None

    await eventually(has_passed, within_s=SOON_S, what="a pass")
    assert old.loaded
    assert "a" in cli.server.volume
    await owner.close()
    await eventually(lambda: not old.loaded, within_s=SOON_S, what="it is unloaded")
    old.events[-1]["timestamp"] = timestamp(time.time() - 3 * HOUR_S)  # unloading is an event, too
    await until(janitor, deleted=1)


async def test_one_that_was_loaded_unheard_is_seen_right_before(cli: StandIn, tmp_path: Path) -> None:
    for id in ("a", "b"):
        store(cli, tmp_path, id, hours=3)
    cli.server.volume["a"].loaded = True  # nothing told the observer
    connection = await client(cli)
    pass_ = Sweep(connection, tmp_path / "copilot" / "session-state", Policy(HOUR_S), lambda: True)
    await pass_.run(set())
    assert (pass_.deleted, set(cli.server.volume)) == (1, {"a"})


async def test_while_it_is_drained_nothing_is_deleted(cli: StandIn, janitor: RunningAgent, tmp_path: Path) -> None:
    await order(janitor)  # nothing is loaded: it is done at once, and refuses to serve until it is called off
    store(cli, tmp_path, "a", hours=3)
    await tell(janitor, f"?ttl_s={HOUR_S}")

    async def has_passed() -> bool:
        return (await tell(janitor))["lastPassSeconds"] is not None

    await eventually(has_passed, within_s=SOON_S, what="a pass")
    assert "a" in cli.server.volume
    assert (await janitor.get("/drain/cancel"))[0] == 200
    await until(janitor, deleted=1)


async def test_a_cli_that_can_not_tell_pins_deletes_nothing(
    cli: StandIn, janitor: RunningAgent, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise Refusal(-32601, "Unhandled method sessions.getClientMetadata")

    answers = cli.server.methods["sessions.getClientMetadata"]
    cli.server.methods["sessions.getClientMetadata"] = refuse
    store(cli, tmp_path, "a", hours=3)
    await tell(janitor, f"?ttl_s={HOUR_S}")

    async def has_failed() -> Any:
        return (await tell(janitor))["failure"]

    assert "getClientMetadata" in await eventually(has_failed, within_s=SOON_S, what="the failure is told")
    assert "a" in cli.server.volume
    cli.server.methods["sessions.getClientMetadata"] = answers
    await until(janitor, deleted=1, failure=None)


async def test_no_ttl_any_more_ends_it(cli: StandIn, janitor: RunningAgent, tmp_path: Path) -> None:
    store(cli, tmp_path, "a", hours=3)
    await tell(janitor, f"?ttl_s={HOUR_S}&ttl_action=DryRun")
    await until(janitor, wouldDelete=1)
    found = await tell(janitor, "?ttl_s=0&ttl_action=Delete")
    assert (found["ttlSeconds"], found["wouldDelete"]) == (None, None)
    assert (await janitor.get("/state?ttl_s=x"))[0] == 400
    await eventually(lambda: sessions_are(janitor, 0, 0, 0), within_s=SOON_S, what="it goes on")
    assert "a" in cli.server.volume


# ---- one pass, its bounds


async def a_sweep(cli: StandIn, data: Path, policy: Policy, **holds: Any) -> tuple[Sweep, Connection]:
    connection = await client(cli)
    held = holds.get("holds", lambda: True)
    return Sweep(connection, data / "copilot" / "session-state", policy, held), connection


async def test_a_pass_ends_after_so_many_deletions_and_the_rate_is_bounded(
    cli: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "MOST_DELETED", 20)
    for number in range(35):
        store(cli, tmp_path, f"s{number}", hours=3 + number)
    began_at = time.monotonic()
    pass_, _ = await a_sweep(cli, tmp_path, Policy(HOUR_S))
    await pass_.run(set())
    assert (pass_.deleted, pass_.ended_early) == (20, True)
    assert set(cli.server.volume) == {f"s{number}" for number in range(15)}, "the oldest go first"
    assert time.monotonic() - began_at >= 20 / 20


async def test_pinned_sessions_do_not_hold_up_younger_ones(
    cli: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "MOST_DELETED", 10)
    for number in range(60):
        store(cli, tmp_path, f"pinned{number}", hours=100).client_metadata[PINNED] = "true"
    store(cli, tmp_path, "plain", hours=3)
    pass_, _ = await a_sweep(cli, tmp_path, Policy(HOUR_S))
    await pass_.run(set())
    assert (pass_.deleted, pass_.ended_early) == (1, False)


async def test_a_pass_stops_when_its_policy_does_not_hold_any_more(cli: StandIn, tmp_path: Path) -> None:
    for number in range(30):
        store(cli, tmp_path, f"s{number}", hours=3)
    pass_: Sweep
    pass_, _ = await a_sweep(cli, tmp_path, Policy(HOUR_S), holds=lambda: pass_.deleted < 10)
    await pass_.run(set())
    assert (pass_.deleted, pass_.ended_early) == (10, True)


async def test_where_the_names_may_not_be_read_the_cli_lists_them(
    cli: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: Path) -> Any:
        raise PermissionError("session-state")

    monkeypatch.setattr(sweep, "scan", denied)
    store(cli, tmp_path, "old", hours=3)
    store(cli, tmp_path, "young", hours=0.5)
    asked: list[str] = []
    tell_metadata = cli.server.methods["sessions.getClientMetadata"]

    def noting(owner: Hashable, params: dict[str, Any]) -> Any:
        asked.extend(params["sessionIds"])
        return tell_metadata(owner, params)

    cli.server.methods["sessions.getClientMetadata"] = noting
    pass_, _ = await a_sweep(cli, tmp_path, Policy(HOUR_S))
    await pass_.run(set())
    assert (pass_.deleted, set(cli.server.volume), asked) == (1, {"young"}, ["old"])


# ---- a volume that is getting full


async def test_the_largest_sessions_are_told_from_the_mark_on(
    cli: StandIn, agent: RunningAgent, tmp_path: Path
) -> None:
    for number in range(5):
        store(cli, tmp_path, f"s{number}", hours=1).size = 1000 * number
    connection = await begin(cli, "busy", "hi")
    assert json.loads((await agent.get("/state?high_water_percent=0"))[1])["disk"]["largestSessions"] == []

    async def are_known() -> Any:
        return (await agent.state())["disk"]["largestSessions"]

    found = await eventually(are_known, within_s=20, what="they were looked for")
    await connection.close()
    assert found == [
        {"id": "busy", "bytes": 27000},
        {"id": "s4", "bytes": 4000},
        {"id": "s3", "bytes": 3000},
    ]
