"""``kubectl copilot`` as people use it, as a plugin that kubectl finds, on real servers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from copilot_operator.domain.kinds import POD, POOL
from copilot_operator.domain.naming import GATEWAY_NAME, NAME_LABEL
from copilot_operator.plugin.endpoint import endpoint_of, pod_to_lead_to
from copilot_operator.rpc.ping import ping
from tests.cluster.api import kubectl
from tests.cluster.layout import ROOT
from tests.support.kube import write_kubeconfig
from tests.support.place import Place

COMMAND_S: Final = 120.0
READY_S: Final = 120.0


@dataclass(frozen=True)
class Plugin:
    """kubectl with the plugin on its path, in a namespace."""

    place: Place
    bin: Path
    kubeconfig: Path

    def environment(self) -> dict[str, str]:
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"PATH": path, "KUBECTL": kubectl(), "KUBECONFIG": str(self.kubeconfig)}

    def argv(self, *words: str) -> list[str]:
        command, *rest = words
        return [kubectl(), "copilot", command, f"--namespace={self.place.namespace}", *rest]

    def run(self, *words: str, expected: int = 0) -> str:
        """What it prints to standard output; with a failure expected, to standard error."""
        done = subprocess.run(
            self.argv(*words), env=self.environment(), capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
        assert done.returncode == expected, f"{words}: {done.returncode}: {done.stdout}\n{done.stderr}"
        return done.stderr + done.stdout if expected else done.stdout

    def document(self, *words: str, expected: int = 0) -> Any:
        done = subprocess.run(
            [*self.argv(*words), "--output=json"], env=self.environment(), capture_output=True, text=True,
            timeout=COMMAND_S, check=False,
        )  # fmt: skip
        assert done.returncode == expected, f"{words}: {done.returncode}: {done.stderr}"
        return json.loads(done.stdout)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Both outputs in one."""
        return subprocess.Popen(
            self.argv(*words), env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @contextmanager
    def connected(self, tenant: str) -> Iterator[tuple[str, int]]:
        """A local address that leads to a tenant; ends as SIGTERM ends it."""
        process = self.start("connect", tenant, "--port=0")
        try:
            assert process.stdout is not None
            address, how = process.stdout.readline().split()[0], process.stdout.readline()
            assert self.place.connection(tenant).token not in how, "a token is shown to nobody who did not ask for it"
            host, _, port = address.partition(":")
            yield host, int(port)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
        assert process.returncode == 0


@pytest.fixture
def plugin(place: Place, tmp_path: Path) -> Plugin:
    """The program as it would be installed, but from this checkout."""
    script = tmp_path / "kubectl-copilot"
    paths = f"{ROOT / 'operator'}{os.pathsep}{ROOT}"
    script.write_text(
        f"#!/bin/sh\nPYTHONPATH='{paths}' exec '{sys.executable}' -m copilot_operator.plugin.entry \"$@\"\n"
    )
    script.chmod(0o755)
    return Plugin(place, tmp_path, place.kube.kubeconfig)


async def answers(host: str, port: int, token: str) -> bool:
    """Whether a server answers there, with one connection of its own."""
    return (await ping(host, port, token, 30.0)).ok


async def test_a_tenant_is_looked_at_suspended_woken_and_restarted(
    place: Place, plugin: Plugin, tmp_path: Path
) -> None:
    place.pool()
    place.tenant("ann")
    await place.until_ready("ann", within_s=READY_S)

    async def run(*words: str, expected: int = 0) -> str:
        return await asyncio.to_thread(plugin.run, *words, expected=expected)

    shown = (await asyncio.to_thread(plugin.document, "status"))["tenants"]
    assert [(each["name"], each["phase"], each["ready"], each["problems"]) for each in shown] == [
        ("ann", "Ready", "True", [])
    ]
    assert "ServerReady (condition Ready)" in await run("explain", "ann")
    assert "kubectl copilot status" in await run("explain", "nobody", expected=1)

    with plugin.connected("ann") as (host, port):
        token = place.connection("ann").token
        assert await answers(host, port, token)
        before = place.running("ann")
        assert "done after" in await run("restart", "ann", "--wait", "--timeout=90s")
        assert place.running("ann") != before
        assert await answers(host, port, token), "the same port leads to the pod that took its place"

    await run("suspend", "ann", "--wait", "--timeout=90s")
    assert place.pods("ann") == []
    said = await run("explain", "ann")
    assert "1. Suspended" in said
    assert f"→ kubectl copilot wake ann -n {place.namespace}" in said
    assert "Suspended" in await run("connect", "ann", expected=1)
    assert "is suspended" in await run("restart", "ann", expected=1)
    await run("wake", "ann", "--wait", "--timeout=90s")
    assert await run("logs", "ann", "--tail=5")

    await run("pause", "pool/pool", "--wait", "--timeout=30s")
    assert "unpause pool/pool" in await run("restart", "ann", "--wait", expected=1)
    await run("unpause", "pool/pool", "--wait", "--timeout=30s")
    before = place.running("ann")
    await run("restart", "pool/pool", "--wait", "--timeout=90s")
    assert place.running("ann") != before

    found = await asyncio.to_thread(plugin.document, "doctor", expected=1)
    assert {each["check"] for each in found["checks"] if each["level"] == "FAIL"} == {"operator"}, (
        "the operator of these tests is a process of theirs"
    )
    await who_may_nothing_is_told_what_to_ask_for(place, plugin, tmp_path)


async def who_may_nothing_is_told_what_to_ask_for(place: Place, plugin: Plugin, tmp_path: Path) -> None:
    token = await asyncio.to_thread(place.kube.token_of, place.namespace, "default")
    kubeconfig = write_kubeconfig(tmp_path / "nobody", place.kube.kubeconfig, token)
    nobody = Plugin(place, plugin.bin, kubeconfig)
    said = await asyncio.to_thread(nobody.run, "status", expected=1)
    assert "kubectl copilot doctor" in said
    said = await asyncio.to_thread(nobody.run, "doctor", expected=1)
    assert "you may not list copilottenants.copilot-operator.io" in said
    assert token not in said


async def test_a_conversation_and_a_local_port_when_gateways_are_replaced(
    place: Place, plugin: Plugin, provider: Any
) -> None:
    place.secret("model", {"key": "none"})
    place.pool(
        gateway={"replicas": 2, "drainTimeout": "5s"},
        auth={
            "provider": {
                "type": "openai",
                "baseUrl": provider["base_url"],
                "wireApi": "completions",
                "apiKeySecretRef": {"name": "model", "key": "key"},
            }
        },
    )
    place.tenant("bea")
    await place.until_ready("bea", within_s=READY_S)
    await place.until(lambda: ready_gateways(place) == 2, within_s=READY_S, what="both gateways are ready")

    async def chat(*words: str) -> str:
        return (await asyncio.to_thread(plugin.run, "chat", "bea", "--model=fake-model", *words)).strip()

    assert await chat("--session=walk", "--prompt=NOTE=hazel ECHO=`hello`") == "hello"
    assert await chat("--resume=walk", "--prompt=RECALL") == "notes: hazel"
    assert "the tool said: 42" in await chat("--resume=walk", "--allow-tools", "--prompt=TOOL=`echo 42`")
    refused = await chat("--resume=walk", "--prompt=TOOL=`echo 42`")
    assert "Permission denied" in refused, "nobody was there to allow it"
    stored = (await asyncio.to_thread(plugin.document, "sessions", "bea"))["sessions"]
    assert [each["id"] for each in stored] == ["walk"]

    turn = asyncio.create_task(chat("--resume=walk", "--prompt=SLEEP=12 ECHO=`patience`"))
    await place.until(lambda: place.busy("bea") == 1, within_s=40, what="the turn is under way", about="bea")
    with plugin.connected("bea") as (host, port):
        token = place.connection("bea").token
        assert await answers(host, port, token)
        delete_gateway(place)
        await place.until(lambda: answers(host, port, token), within_s=60, what="the port leads on", about="bea")
    assert (await turn).endswith("patience"), "the turn went on without the gateway that it came through"

    process = plugin.start("chat", "bea", "--model=fake-model", "--resume=walk", "--prompt=SLEEP=120")
    await place.until(lambda: place.busy("bea") == 1, within_s=40, what="a long turn is under way", about="bea")
    await asyncio.to_thread(plugin.run, "restart", "bea")
    await place.until(
        lambda: (drain_of(plugin) or {}).get("busy") == 1, within_s=30, what="its drain is shown", about="bea"
    )
    assert (drain_of(plugin) or {})["cause"] == "Change"
    assert "Cause Change, since " in await asyncio.to_thread(plugin.run, "explain", "bea")
    assert "Change, 1 busy, in " in await asyncio.to_thread(plugin.run, "status")
    process.send_signal(signal.SIGINT)
    said, _ = await asyncio.to_thread(process.communicate, timeout=60)  # its own bounds together are 50
    assert process.returncode == 130, said
    await place.until(lambda: drain_of(plugin) is None, within_s=40, what="the turn no longer runs", about="bea")
    await place.until_ready("bea", within_s=READY_S)
    assert await chat("--resume=walk", "--prompt=RECALL") == "notes: hazel"


def drain_of(plugin: Plugin) -> Any:
    return plugin.document("status")["tenants"][0]["drain"]


def ready_gateways(place: Place) -> int:
    return int(place.kube.get(POOL, place.namespace, "pool")["status"]["gateway"]["readyReplicas"])


def delete_gateway(place: Place) -> None:
    """The one that connections are led to, at once, without the time that it would have for its clients' turns."""
    pods = place.kube.list(POD, place.namespace, f"{NAME_LABEL}={GATEWAY_NAME}")
    endpoint = endpoint_of(place.get("bea"), place.kube.get(POOL, place.namespace, "pool"))
    path = POD.path(place.namespace, pod_to_lead_to(endpoint, pods))
    place.kube.request("DELETE", path, {"gracePeriodSeconds": "1"})
