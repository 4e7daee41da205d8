"""The agent beside the real CLI: it counts what runs, and its drain loses no turn."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.agent.deep import SESSION_ID
from copilot_operator.agent.expiry import PINNED
from tests.contract.conftest import TOKEN, Client, Subject, subject_of
from tests.support.agent import RunningAgent, running_agent
from tests.support.cli import Cli, real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

SOON_S = 15.0
MIB = 1024 * 1024
DAY_S = 86_400


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


def make_old(pod: Pod, *ids: str) -> None:
    """As if nobody had used them for two days."""
    for id in ids:
        directory = pod.cli.home / "session-state" / id
        for path in (directory / "events.jsonl", directory):
            if path.exists():
                os.utime(path, (time.time() - 2 * DAY_S,) * 2)


async def expiry(agent: RunningAgent, query: str = "") -> dict[str, Any]:
    status, body = await agent.get(f"/state{query}")
    assert status == 200, body
    found = json.loads(body)["expiry"]
    assert isinstance(found, dict)
    return found


async def test_an_expired_session_is_deleted_and_a_loaded_or_pinned_one_of_the_same_age_is_not(
    pod: Pod, tmp_path: Path
) -> None:
    client = await pod.subject.client()
    for id in ("old", "pinned", "young", "held", "loaded"):
        await pod.subject.create(client, id)
        await client("session.send", sessionId=id, prompt="hi", wait=True)
    await pod.subject.create(client, "unused")
    await client("session.metadata.updateClientMetadata", sessionId="pinned", set={PINNED: ""})
    for id in ("old", "pinned", "young", "held", "unused"):
        await client("sessions.close", sessionId=id)
    held = pod.cli.home / "session-state" / "held"
    (held / f"inuse.{os.getpid()}.lock").write_text(str(os.getpid()))
    make_old(pod, "old", "pinned", "held", "unused", "loaded")
    size = sum(path.stat().st_size for path in (held.parent / "old").rglob("*") if path.is_file())

    async with running_agent(pod.cli.port, TOKEN, tmp_path, COPILOT_AGENT_JANITOR_EVERY_S="1") as janitor:
        await eventually(lambda: is_well(janitor), within_s=SOON_S, what="it counts")
        await expiry(janitor, f"?ttl_s={DAY_S}&ttl_action=DryRun")

        async def has_counted() -> bool:
            return bool((await expiry(janitor))["wouldDelete"] == 2)

        await eventually(has_counted, within_s=SOON_S, what="the dry run counts the old one and the unused one")
        assert (await expiry(janitor))["deleted"] == 0
        assert (held.parent / "old").exists()
        await expiry(janitor, "?ttl_action=Delete")

        async def has_deleted() -> bool:
            return bool((await expiry(janitor))["deleted"] == 2)

        await eventually(has_deleted, within_s=SOON_S, what="they are deleted")
        passes = (await expiry(janitor))["passes"]

        async def has_passed_twice() -> bool:
            return bool((await expiry(janitor))["passes"] >= passes + 2)

        await eventually(has_passed_twice, within_s=SOON_S, what="two more passes")
        found = await expiry(janitor)
    assert sorted(path.name for path in held.parent.iterdir() if path.name[0] != ".") == [
        "held", "loaded", "pinned", "young",
    ]  # fmt: skip
    assert (found["deleted"], found["failure"], found["lastDeletion"]["sessions"]) == (2, None, 2)
    assert size <= found["freedBytes"] < size + 4096  # what the unused one had
    await client("session.send", sessionId="loaded", prompt="hi", wait=True)
    assert len(await pod.answers("loaded")) == 2
    listed = (await client("session.list"))["sessions"]
    assert {each["sessionId"] for each in listed} == {"loaded", "young", "pinned", "held"}


@pytest.mark.parametrize("old", [False, True])
async def test_a_session_whose_events_are_torn_expires_by_their_time_too(pod: Pod, tmp_path: Path, old: bool) -> None:
    client, state = await pod.subject.client(), pod.cli.home / "session-state"
    torn: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda events: events[:-100],
        "nul": lambda events: events + bytes(5000),
        "empty": lambda _: b"",
    }
    for id, broken in torn.items():
        await pod.subject.create(client, id)
        await client("session.send", sessionId=id, prompt="hi", wait=True)
        await client("sessions.close", sessionId=id)
        events = state / id / "events.jsonl"
        events.write_bytes(broken(events.read_bytes()))
        os.utime(state / id, (time.time() - 2 * DAY_S,) * 2)  # as of one that was loaded for days, and killed
        if old:
            make_old(pod, id)
    async with running_agent(pod.cli.port, TOKEN, tmp_path, COPILOT_AGENT_JANITOR_EVERY_S="1") as janitor:
        await eventually(lambda: is_well(janitor), within_s=SOON_S, what="it counts")
        await expiry(janitor, f"?ttl_s={DAY_S}")

        async def has_passed() -> bool:
            found = await expiry(janitor)
            return found["lastPassSeconds"] is not None and found["deleted"] == (len(torn) if old else 0)

        await eventually(has_passed, within_s=SOON_S, what="a pass")
        assert (await expiry(janitor))["failure"] is None
    assert {path.name for path in state.iterdir() if path.name[0] != "."} == (set() if old else set(torn))


def found_in(directory: Path, word: str) -> list[str]:
    """Files that hold a word, of any kind."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return [str(path.relative_to(directory)) for path in files if word.encode() in path.read_bytes()]


async def test_nothing_of_a_deleted_tenant_is_left_in_the_whole_state_directory(pod: Pod) -> None:
    gone, other = "abcdefgh23456723", "abcdefgh23456724"
    client = await pod.subject.client()
    for id, note in ((f"{gone}a", "CANARYONE"), (f"{gone}b", "CANARYTWO"), (f"{other}a", "KEPT")):
        await pod.subject.create(client, id, enableSessionStore=False)  # as gateways of Shared pools do
        await client("session.send", sessionId=id, prompt=f"remember NOTE={note}", wait=True)
    for id in (f"{gone}a", f"{other}a"):
        await client("sessions.close", sessionId=id)
    assert found_in(pod.cli.home, "CANARYONE"), "the word is looked for where it is"
    await pod.subject.create(client, f"{gone}c", enableSessionStore=False)
    await client("session.send", sessionId=f"{gone}c", prompt="remember NOTE=CANARYTHREE SLEEP=60")
    await eventually(lambda: pod.model.stats.inflight == 1, within_s=SOON_S, what="a turn nobody may hear")

    async def has_erased() -> bool:
        _, body = await pod.agent.get(f"/state?erase={gone}")
        return bool(json.loads(body)["erasure"]["erased"] == {gone: 3})

    await eventually(has_erased, within_s=SOON_S, what="they are erased")
    assert [found_in(pod.cli.home, f"CANARY{each}") for each in ("ONE", "TWO", "THREE")] == [[], [], []]
    assert found_in(pod.cli.home, "KEPT")
    listed = (await client("session.list"))["sessions"]
    assert [each["sessionId"] for each in listed] == [f"{other}a"]


async def is_well(agent: RunningAgent) -> bool:
    return (await agent.sessions())[0] is not None


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
