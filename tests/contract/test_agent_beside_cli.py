"""The agent beside the real CLI: it counts what runs, and its drain loses no turn."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.agent.deep import SESSION_ID
from tests.contract.conftest import TOKEN, Client, Subject, subject_of
from tests.support.agent import RunningAgent, running_agent
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

SOON_S = 15.0
MIB = 1024 * 1024


@dataclass
class Pod:
    """A CLI and the agent beside it."""

    cli: Cli
    agent: RunningAgent
    subject: Subject
    model: ModelServer

    async def begin(self, id: str, prompt: str) -> Client:
        """A client whose turn runs at the model."""
        client = await self.subject.client()
        await self.subject.create(client, id)
        before = self.model.stats.requests
        await client("session.send", sessionId=id, prompt=prompt)
        await eventually(lambda: self.model.stats.requests > before, within_s=SOON_S, what="the model is asked")
        return client

    async def answers(self, id: str) -> list[str]:
        """The answers stored in a session."""
        client = await self.subject.client()
        stored = await client("sessions.readPersistedEvents", sessionId=id)
        return [event["data"]["content"] for event in stored["events"] if event["type"] == "assistant.message"]

    async def order(self, query: str) -> dict[str, Any]:
        """The answer to a drain in the operator's form."""
        status, body = await self.agent.get(f"/drain?{query}", timeout_s=60)
        assert status == 200, body
        document = json.loads(body)
        assert isinstance(document, dict)
        return document

    async def ordered(self, phase: str, query: str) -> dict[str, Any]:
        """The same, once it is in a phase and has counted."""

        async def asked() -> dict[str, Any] | None:
            answer = await self.order(query)
            return answer if answer["phase"] == phase and answer["busy"] is not None else None

        found: dict[str, Any] = await eventually(asked, within_s=SOON_S, what=phase)
        return found

    async def stalled_s(self) -> float:
        """The longest silence of a turn, or 0."""
        return float((await self.agent.state())["sessions"]["stalledSeconds"] or 0)

    async def is_ready(self) -> bool:
        return (await self.agent.get("/readyz"))[0] == 200

    async def counts(self, *expected: int) -> bool:
        return await self.agent.sessions() == expected

    async def keeps(self, count: int) -> bool:
        draining = (await self.agent.state())["draining"]
        return draining is not None and draining["kept"] == count


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    async with (
        ModelServer() as model,
        real_cli(tmp_path, token=TOKEN) as cli,
        running_agent(cli.port, TOKEN, tmp_path) as agent,
    ):
        pod = Pod(cli, agent, subject_of(cli, model), model)
        await eventually(lambda: pod.counts(0, 0, 0), within_s=SOON_S, what="the agent counts")
        yield pod
        await asyncio.gather(*(client.connection.close() for client in pod.subject.clients))


async def test_a_busy_turn_is_counted_and_goes_with_its_client(pod: Pod) -> None:
    idle = await pod.begin("idle", "hi")
    busy = await pod.begin("busy", "SLEEP=30")
    await eventually(lambda: pod.counts(2, 1, 0), within_s=SOON_S, what="both are counted")
    await busy.connection.close()
    await eventually(lambda: pod.counts(1, 0, 0), within_s=SOON_S, what="one is gone")
    await idle.connection.close()
    await eventually(lambda: pod.counts(0, 0, 0), within_s=SOON_S, what="the other is gone")


async def test_the_observer_does_not_keep_a_session_alive(pod: Pod) -> None:
    client = await pod.begin("a", "hi")
    await eventually(lambda: pod.counts(1, 0, 0), within_s=SOON_S, what="it is counted")
    await client.connection.close()
    await eventually(lambda: pod.counts(0, 0, 0), within_s=SOON_S, what="it is gone with its client")


async def test_a_drain_waits_for_running_turns_and_their_answers_are_stored(pod: Pod) -> None:
    stays, leaves = await pod.begin("stays", "SLEEP=3 CHUNKS=3"), await pod.begin("leaves", "SLEEP=3 CHUNKS=3")
    draining = asyncio.create_task(pod.agent.get("/drain", timeout_s=30))
    await eventually(lambda: pod.keeps(2), within_s=SOON_S, what="both turns are kept")
    await leaves.connection.close()
    assert json.loads((await draining)[1]) == {"closed": 2, "cut": 0, "gaveUp": ""}
    assert [len(await pod.answers(id)) for id in ("stays", "leaves")] == [1, 1]
    assert "session.idle" in stays.events("stays")
    assert await pod.agent.get("/readyz") == (503, "draining: Done\n")

    await pod.cli.stop()
    await pod.cli.start()
    await eventually(pod.is_ready, within_s=SOON_S, what="the restarted CLI serves")
    client = await pod.subject.client()
    await client("session.resume", sessionId="leaves", **pod.subject.options)
    await client("session.send", sessionId="leaves", prompt="hi", wait=True)
    assert len(await pod.answers("leaves")) == 2


async def test_a_drain_waits_for_a_background_shell_and_the_turn_it_starts(pod: Pod) -> None:
    client = await pod.subject.client()
    await pod.subject.create(client, "a")
    await client("session.permissions.setApproveAll", sessionId="a", enabled=True)
    await client("session.send", sessionId="a", prompt="ATOOL=`sleep 3; touch done`", wait=True)
    draining = asyncio.create_task(pod.agent.get("/drain", timeout_s=30))
    await eventually(lambda: pod.keeps(1), within_s=SOON_S, what="it is kept")
    await client.connection.close()
    assert json.loads((await draining)[1]) == {"closed": 1, "cut": 0, "gaveUp": ""}
    assert (pod.cli.workspace / "done").exists()


async def test_a_drain_out_of_time_aborts_and_the_client_hears_it(pod: Pod) -> None:
    client = await pod.begin("long", "SLEEP=60")
    answer = await pod.agent.get("/drain?deadline_s=1", timeout_s=30)
    assert json.loads(answer[1]) == {"closed": 1, "cut": 1, "gaveUp": ""}

    async def heard() -> bool:
        return {"abort", "session.idle"} <= set(client.events("long"))

    await eventually(heard, within_s=SOON_S, what="the client hears the end")


async def test_an_order_names_the_kinds_of_work_and_waits_past_its_deadline(pod: Pod) -> None:
    turn, shell = await pod.begin("turn", "SLEEP=4 CHUNKS=4"), await pod.subject.client()
    await pod.subject.create(shell, "shell")
    await shell("session.permissions.setApproveAll", sessionId="shell", enabled=True)
    await shell("session.send", sessionId="shell", prompt="ATOOL=`sleep 4`", wait=True)
    answer = await pod.ordered("Quiescing", "deadline_s=0&on_timeout=Wait&wait_s=1")
    assert answer["work"] == {"turn": 1, "task": 1, "queued": 0, "waiting": 0, "unknown": 0}
    answer = await pod.ordered("Done", "deadline_s=0&on_timeout=Wait&wait_s=10")
    assert (answer["closed"], answer["cut"], answer["loaded"]) == (2, 0, 0)
    assert len(await pod.answers("turn")) == 1
    assert "session.idle" in turn.events("turn")


async def test_after_it_was_done_a_drain_goes_on_for_a_client_that_begins_again(pod: Pod) -> None:
    client = await pod.subject.client()
    await pod.ordered("Done", "wait_s=10")
    await pod.subject.create(client, "a")
    await client("session.send", sessionId="a", prompt="SLEEP=2 CHUNKS=2")
    assert (await pod.order("wait_s=1"))["phase"] == "Quiescing"
    await eventually(lambda: pod.keeps(1), within_s=SOON_S, what="the turn is kept")
    await client.connection.close()
    await pod.ordered("Done", "wait_s=10")
    assert len(await pod.answers("a")) == 1


async def test_a_drain_called_off_keeps_the_turn_of_who_hung_up_and_then_lets_go(pod: Pod) -> None:
    client = await pod.begin("a", "SLEEP=3 CHUNKS=3")
    await pod.ordered("Quiescing", "wait_s=1")
    await eventually(lambda: pod.keeps(1), within_s=SOON_S, what="the turn is kept")
    await client.connection.close()
    assert (await pod.agent.get("/drain/cancel"))[0] == 200
    assert await pod.is_ready()
    assert await pod.counts(1, 1, 0)
    await eventually(lambda: pod.counts(0, 0, 0), within_s=SOON_S, what="it is let go when idle")
    assert len(await pod.answers("a")) == 1


async def test_an_unused_cli_ends_when_it_is_to_be_restarted_in_place(pod: Pod) -> None:
    client = await pod.begin("a", "SLEEP=2 CHUNKS=2")
    assert (await pod.agent.get("/restart"))[0] == 409
    await pod.ordered("Done", "wait_s=10")
    assert await pod.agent.get("/restart") == (200, '{"restarted": true}\n')
    await client.connection.wait_closed()
    await pod.cli.stop()
    await pod.cli.start()  # as kubelet does it
    await eventually(pod.is_ready, within_s=SOON_S, what="the next CLI serves")
    assert (await pod.agent.state())["draining"] is None


async def test_a_silent_turn_is_told_from_one_that_streams(pod: Pod) -> None:
    await pod.begin("streams", "SLEEP=6 CHUNKS=24")
    seen: list[float] = []

    async def is_over() -> bool:
        seen.append(await pod.stalled_s())
        return await pod.counts(1, 0, 0)

    await eventually(is_over, within_s=SOON_S, what="the first turn is over", every_s=0.2)
    assert len(seen) > 10
    assert max(seen) < 3.5
    await pod.begin("silent", "SLEEP=12 CHUNKS=1")

    async def is_stalled() -> bool:
        return await pod.stalled_s() > 4

    await eventually(is_stalled, within_s=11, what="its silence is seen")


async def test_the_deep_probe_makes_sessions_that_nobody_sees(pod: Pod, tmp_path: Path) -> None:
    async with running_agent(pod.cli.port, TOKEN, tmp_path, COPILOT_AGENT_DEEP_PROBE_EVERY_S="1") as prober:

        async def is_probed() -> bool:
            found = (await prober.state())["cli"]["deep"]
            return found is not None and found["ok"] is True

        await eventually(is_probed, within_s=SOON_S, what="it was probed")
        sessions = (await prober.state())["sessions"]
    assert (sessions["loaded"], sessions["stored"], sessions["secondsSinceActivity"]) == (0, 0, None)
    left = [path.name for path in (pod.cli.home / "session-state").rglob("*") if path.is_file()]
    assert left == [f"{SESSION_ID}.lock"]  # empty


async def test_a_frozen_cli_is_found_and_not_waited_for(pod: Pod) -> None:
    await pod.begin("a", "SLEEP=60")
    pod.cli.freeze()

    async def is_found() -> bool:
        return (await pod.agent.get("/livez"))[0] == 503

    await eventually(is_found, within_s=SOON_S, what="the freeze is found")
    assert json.loads((await pod.agent.get("/drain", timeout_s=30))[1])["gaveUp"]  # long before its 540 s
    pod.cli.thaw()


async def test_the_agent_stays_small_with_fifty_sessions_and_costs_nothing_at_rest(pod: Pod) -> None:
    client = await pod.subject.client()
    for n in range(50):
        await pod.subject.create(client, f"s{n}")
    prompt = "CHUNKS=100"
    await asyncio.gather(*(client("session.send", sessionId=f"s{n}", prompt=prompt) for n in range(0, 50, 5)))
    draining = asyncio.create_task(pod.agent.get("/drain", timeout_s=60))
    while not draining.done():
        await pod.agent.get("/metrics")
        await pod.agent.state()
        await asyncio.sleep(0.1)
    assert json.loads((await draining)[1])["closed"] == 50
    assert pod.agent.rss_bytes < 30 * MIB
    before = pod.agent.cpu_s
    await asyncio.sleep(2)  # the time over which rest is measured
    assert pod.agent.cpu_s - before <= 0.02
