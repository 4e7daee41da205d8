"""Where sessions are that another server has, and when a pod is gone."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.gateway import holders as module
from copilot_operator.gateway.feed.fates import Fates
from copilot_operator.gateway.holders import Holders, Pod, PodsFile
from tests.support.eventually import eventually
from tests.support.virtual_time import run_in_virtual_time

HOLDER = "copilot-a-1_u1_18f"
POD = Pod("copilot-a-1", "u1")


class Cluster:
    """What the API server says of pods, and agents of sessions."""

    def __init__(self) -> None:
        self.why: str | Exception = "(Running) on node n1"
        self.frees = False
        self.asked: list[str] = []

    async def why_there(self, pod: Pod) -> str:
        self.asked.append(pod.name)
        if isinstance(self.why, Exception):
            raise self.why
        return self.why

    async def release(self, server: str, id: str) -> bool:
        self.asked.append(server)
        return self.frees


async def test_a_pod_is_gone_once_the_api_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_EVERY_S", 0.0)
    monkeypatch.setattr(module, "TELL_AFTER_S", 0.0)
    cluster = Cluster()
    holders = Holders(lambda: cluster, cluster.release)
    assert holders.held("s", HOLDER) == "it is held by pod copilot-a-1"
    assert holders.of("s") == POD
    holders.wait_for("s", POD, None, "whose server cannot be reached")
    await eventually(lambda: "n1" in holders.held("s", HOLDER), within_s=5, what="its node is known")
    assert holders.waiting() == {"pod copilot-a-1 (Running) on node n1": 1}
    cluster.why = OSError("no route")
    holders.wait_for("s", POD, None, "")
    await eventually(lambda: "no route" in holders.held("s", HOLDER), within_s=5, what="nobody says whether it is gone")
    assert holders.gone(["s"]) == []
    cluster.why = ""
    holders.wait_for("s", POD, None, "")
    await eventually(lambda: holders.gone(["s", "t"]) == ["u1"], within_s=5, what="it is gone")
    assert holders.of("s") is None
    holders.free("s")
    assert holders.gone(["s"]) == []
    holders.end()


def test_the_wait_for_a_claim_is_told_unless_nobody_waited_to_its_end() -> None:
    async def scenario() -> None:
        waits: list[float] = []
        cluster = Cluster()
        holders = Holders(lambda: cluster, cluster.release, waits.append)
        holders.free("new")
        holders.held("s", HOLDER)
        for _ in range(3):  # placement knows who has it, and does not have it claimed in vain
            await asyncio.sleep(4)
            holders.wait_for("s", POD, None, "whose server cannot be reached")
        await asyncio.sleep(1)
        holders.held("s", HOLDER)
        await asyncio.sleep(1)
        holders.free("s")
        holders.held("t", HOLDER)
        await asyncio.sleep(100)
        holders.free("t")
        holders.held("t", HOLDER)
        await asyncio.sleep(2)
        holders.free("t")
        holders.free("t")
        assert waits == [14.0, 2.0]
        holders.end()

    run_in_virtual_time(scenario())


async def test_a_server_that_leaves_is_asked_to_give_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_EVERY_S", 0.0)
    cluster = Cluster()
    holders = Holders(lambda: cluster, cluster.release)
    holders.held("s", HOLDER)
    holders.wait_for("s", POD, "copilot-a", "whose server leaves")
    await eventually(lambda: cluster.asked == ["copilot-a"], within_s=5, what="it was asked")
    assert holders.of("s") == POD
    cluster.frees = True
    holders.wait_for("s", POD, "copilot-a", "whose server leaves")
    await eventually(lambda: holders.of("s") is None, within_s=5, what="it was given up")
    holders.end()


@pytest.mark.parametrize(
    ("found", "there"),
    [
        (None, False),
        ({"metadata": {"uid": "u2"}}, False),
        ({"metadata": {"uid": "u1"}, "status": {"phase": "Running"}}, True),
        ({"metadata": {"uid": "u1"}, "status": {"phase": "Failed"}}, False),
        (
            {
                "metadata": {"uid": "u1", "deletionTimestamp": "now"},
                "spec": {"nodeName": "n1"},
                "status": {"phase": "Failed", "containerStatuses": [{"state": {"running": {}}}]},
            },
            True,
        ),
    ],
)
async def test_a_pod_is_there_until_it_has_ended_or_another_has_its_name(found: Any, there: bool) -> None:
    class Reader:
        async def pod(self, name: str) -> Any:
            return found

    assert bool(await Fates(Reader()).why_there(POD)) is there


async def test_without_a_cluster_a_file_says_which_pods_there_are(tmp_path: Path) -> None:
    pods = PodsFile(tmp_path)
    with pytest.raises(OSError, match=r"pods\.json"):
        await pods.why_there(POD)
    (tmp_path / "pods.json").write_text(json.dumps(["u1"]))
    assert await pods.why_there(POD)
    (tmp_path / "pods.json").write_text(json.dumps([]))
    assert await pods.why_there(POD) == ""
    (tmp_path / "pods.json").write_text("{}")
    with pytest.raises(ValueError, match="no list"):
        await pods.why_there(POD)
