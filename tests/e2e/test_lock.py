"""At most one CLI per state directory, whatever happens to pods: a busy pod is deleted, and CLIs are counted."""

import asyncio
import contextlib
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.kube import Object
from tests.support.place import Place

TENANT = "ida"
TURN_S = 12
SAMPLE_S = 0.02


@dataclass
class Census:
    """CLI processes that have one lock file open, counted all the time in the node's process list.

    ``most`` is the highest number at one moment; ``seen`` are all of them, ``waited`` the shells that stood in line.
    """

    lock: tuple[int, int]  # device and inode of the volume's lock file
    most: int = 0
    rounds: int = 0
    seen: set[int] = field(default_factory=set)
    waited: set[int] = field(default_factory=set)

    def take(self) -> None:
        holders = {process for process in _processes() if self.lock in _open_files(process)}
        running = {process for process in holders if b"--headless" in _command(process)}
        running = {process for process in running if _alive(process)}
        self.most = max(self.most, len(running))
        self.seen |= running
        if running:
            self.waited |= {process for process in holders - running if b"copilot-server" in _command(process)}
        self.rounds += 1


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _command(process: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def _alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _open_files(process: int) -> set[tuple[int, int]]:
    """Device and inode of the one descriptor that copilot-server keeps its lock in."""
    with contextlib.suppress(OSError):
        found = os.stat(f"/proc/{process}/fd/9")
        return {(found.st_dev, found.st_ino)}
    return set()


def lock_of_the_cli_in(place: Place, pod: Object) -> tuple[int, int]:
    """The lock file of the volume that a pod's CLI works on; the pod's UID is in its processes' cgroup."""
    uid = pod["metadata"]["uid"]
    for process in _processes():
        with contextlib.suppress(OSError):
            if b"--headless" not in _command(process):
                continue
            groups = Path(f"/proc/{process}/cgroup").read_text()
            if uid in groups or uid.replace("-", "_") in groups:
                found = os.stat(f"/proc/{process}/root/data/server.lock")
                assert (found.st_dev, found.st_ino) in _open_files(process), "the CLI does not hold the lock itself"
                return found.st_dev, found.st_ino
    pytest.skip("the node's processes can't be seen from here")


def ready(pod: Object) -> bool:
    found = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions") or ()}
    return found.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


@contextlib.contextmanager
def counting(census: Census) -> Iterator[None]:
    """In a thread: nothing else that this test does shall make a gap."""
    over = threading.Event()

    def count() -> None:
        while not over.wait(SAMPLE_S):
            census.take()

    thread = threading.Thread(target=count, name="census", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


async def test_a_busy_pod_is_deleted_and_at_most_one_cli_runs(place: Place, provider: Any) -> None:
    place.pool()
    place.tenant(TENANT)
    await place.until_ready(TENANT)
    word = f"w{uuid.uuid4().hex[:8]}"
    (old,) = place.pods(TENANT)
    census = Census(lock_of_the_cli_in(place, old))
    with counting(census):
        said = place.say(TENANT, provider, f"remember NOTE={word} SLEEP={TURN_S}", server_stops=True)
        turn = asyncio.create_task(said, name="turn")
        await place.until(lambda: _busy(place, old), within_s=40, what="the turn is under way", about=TENANT)
        deleted_at = time.monotonic()
        place.kube.kubectl("-n", place.namespace, "delete", "pod", old["metadata"]["name"], "--wait=false")

        def replacement() -> Object | None:
            others = [p for p in place.pods(TENANT) if p["metadata"]["uid"] != old["metadata"]["uid"]]
            return others[0] if others else None

        def old_is_there() -> bool:
            return any(p["metadata"]["uid"] == old["metadata"]["uid"] for p in place.pods(TENANT))

        await place.until(replacement, within_s=30, what="a replacement pod appears", about=TENANT)
        assert old_is_there(), "the busy pod was not waited for"
        assert not turn.done(), "the turn was over before the replacement came: nothing was tested"
        answers = await turn
        assert len(answers) == 1
        assert answers[0]
        await place.until(lambda: not old_is_there(), within_s=60, what="the old pod has ended", about=TENANT)
        await place.until(
            lambda: (new := replacement()) and ready(new), within_s=60, what="the new pod is ready", about=TENANT
        )
        ready_s = time.monotonic() - deleted_at
        await eventually(lambda: len(census.seen) == 2, within_s=20, what="the new pod's CLI was counted")
    assert census.most == 1, f"{census.most} CLIs at once on one volume"
    assert len(census.seen) == 2, "not both CLIs were seen"
    assert census.waited, "the new pod's server did not stand in line for the lock"
    await place.until_ready(TENANT)
    assert await place.say(TENANT, provider, "RECALL", resume=True) == [f"notes: {word}"]
    print(f"lock: {census.rounds} counts, new pod served {ready_s:.1f} s after the deletion")


def _busy(place: Place, pod: Object) -> bool:
    """What the agent says of its CLI."""
    program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"
    words = [sys.executable, "-c", program, f"http://{pod['status']['podIP']}:4322/state"]
    done = place.cluster.run_in_network(words, capture_output=True, text=True, timeout=15, check=False)
    return bool(re.search(r'"busy": ?[1-9]', done.stdout))
