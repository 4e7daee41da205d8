"""The real CLI and its agent on a volume that takes nothing any more: read-only after an error of its disk, or full."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.rpc.errors import RpcError
from tests.contract.conftest import TOKEN, Client, Subject, subject_of
from tests.contract.test_copilot_server_script import SCRIPT, Server
from tests.support.agent import RunningAgent, agent_inside
from tests.support.cli import real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer
from tests.support.volume import Volume, volume

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
)
SOON_S = 30.0
DAY_S = 86_400


@dataclass
class Bed:
    """A CLI whose state, and nothing else, lies on a volume of its own; each session had a turn."""

    volume: Volume
    agent: RunningAgent
    subject: Subject
    client: Client

    @property
    def stored(self) -> set[str]:
        return {path.name for path in (self.volume.seen / "copilot/session-state").iterdir() if path.name[0] != "."}

    async def state(self, query: str = "") -> dict[str, Any]:
        status, body = await self.agent.get(f"/state{query}")
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    async def refuses(self, method: str, **params: Any) -> str:
        """What the CLI says of a call that it can't carry out."""
        with pytest.raises(RpcError) as refused:
            await self.client(method, **params)
        return str(refused.value)

    async def stays_well(self) -> None:
        """Two passes of the janitor, and a look at what is over, change nothing."""
        passes = (await self.state(f"?ttl_s={DAY_S}"))["expiry"]["passes"]

        async def has_passed_twice() -> bool:
            return bool((await self.state())["expiry"]["passes"] >= passes + 2)

        await eventually(has_passed_twice, within_s=SOON_S, what="the janitor passes")


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(volume(tmp_path))
        (made.seen / "workspace").mkdir()
        model = await stack.enter_async_context(ModelServer())
        cli = await stack.enter_async_context(real_cli(made.path, token=TOKEN, inside=made.inside))
        agent = await stack.enter_async_context(
            agent_inside(made.inside, cli.port, TOKEN, made.path, COPILOT_AGENT_JANITOR_EVERY_S="1")
        )
        subject = subject_of(cli, model)
        client = await subject.client()
        for id in ("loaded", "old"):
            await subject.create(client, id)
            await client("session.send", sessionId=id, prompt="hi", wait=True)
        await client("sessions.close", sessionId="old")
        old = made.seen / "copilot/session-state/old"
        for path in (old / "events.jsonl", old):
            os.utime(path, (time.time() - 2 * DAY_S,) * 2)
        yield Bed(made, agent, subject, client)
        await client.connection.close()


async def test_a_read_only_volume_is_told_requests_are_refused_with_the_reason_and_nothing_is_deleted(bed: Bed) -> None:
    assert (await bed.state())["disk"]["readOnly"] is False
    bed.volume.fail()
    assert (await bed.state())["disk"]["readOnly"] is True
    said = "Read-only file system"
    assert said in await bed.refuses("session.send", sessionId="loaded", prompt="more", wait=True)
    assert said in await bed.refuses("session.create", sessionId="new", **bed.subject.options)
    events = (await bed.client("session.getMessages", sessionId="loaded"))["events"]
    assert "assistant.message" in [event["type"] for event in events], "what is stored can be read"
    await bed.stays_well()
    found = await bed.state()
    assert found["cli"]["answering"]
    assert (found["expiry"]["deleted"], found["expiry"]["lastDeletion"]) == (0, None)
    assert said in found["expiry"]["failure"], "the CLI is not even asked"
    assert bed.stored == {"loaded", "old"}
    assert {each["sessionId"] for each in (await bed.client("session.list"))["sessions"]} == bed.stored
    assert "session.deleted" not in bed.client.lifecycle("old")
    _, metrics = await bed.agent.get("/metrics")
    assert "copilot_server_disk_read_only 1\n" in metrics
    # A close fails, and unloads the session all the same: a drain does not wait for its deadline.
    await bed.agent.get("/drain?deadline_s=600&on_timeout=Wait")

    async def is_drained() -> bool:
        return bool(((await bed.state())["draining"] or {}).get("phase") == "Done")

    await eventually(is_drained, within_s=SOON_S, what="the drain ends")


async def test_a_server_says_that_it_cannot_start_on_a_read_only_volume(bed: Bed) -> None:
    bed.volume.fail()
    before = sorted(str(path) for path in bed.volume.seen.rglob("*"))
    done = await asyncio.to_thread(
        subprocess.run,
        [*bed.volume.inside, "sh", str(SCRIPT)],
        env={"PATH": os.environ["PATH"], "HOME": "/tmp", "COPILOT_HOME": f"{bed.volume.path}/copilot"},
        capture_output=True,
        timeout=SOON_S,
    )
    assert done.returncode == 1
    assert done.stdout.decode() == (
        f"copilot-server: uid 0 cannot write to {bed.volume.path}/copilot: Read-only file system\n"
    )
    assert sorted(str(path) for path in bed.volume.seen.rglob("*")) == before, "nothing is set aside"


def filled(volume: Volume) -> Path:
    """The file that takes all that was left."""
    filling = volume.seen / "filling"
    with suppress(OSError), filling.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return filling


async def test_a_server_starts_on_a_full_volume_so_that_sessions_can_be_deleted(tmp_path: Path) -> None:
    async with volume(tmp_path) as made:
        server = await Server(made.path, inside=made.inside).start()
        await server.listening()
        await server.end(signal.SIGTERM)
        filled(made)
        server = await Server(made.path, inside=made.inside).start()
        try:
            await server.listening()
        finally:
            await server.end(signal.SIGKILL)


async def test_on_a_full_volume_requests_are_refused_with_the_reason_and_deleting_makes_room(bed: Bed) -> None:
    filling = filled(bed.volume)
    said = "No space left on device"
    assert said in await bed.refuses("session.send", sessionId="loaded", prompt="x" * 100_000, wait=True)
    assert bed.stored >= {"loaded", "old"}
    disk = (await bed.state())["disk"]
    assert (disk["freeBytes"], disk["readOnly"]) == (0, False)
    await bed.state(f"?ttl_s={DAY_S}")

    async def has_deleted() -> bool:
        return bool((await bed.state())["expiry"]["deleted"] == 1)

    await eventually(has_deleted, within_s=SOON_S, what="the expired one is deleted")
    assert "old" not in bed.stored
    filling.unlink()
    await bed.client("session.send", sessionId="loaded", prompt="more", wait=True)
