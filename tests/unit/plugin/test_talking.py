"""Conversations and connections through a kubectl that forwards to a stand-in of a CLI server."""

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from copilot_operator.plugin.endpoint import endpoint_of
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.forward import Relay, connected
from copilot_operator.plugin.kube import Kubectl
from copilot_operator.rpc.ping import ping
from tests.support.eventually import eventually
from tests.support.standin import StandIn, standin
from tests.unit.plugin.conftest import FakeKubectl
from tests.unit.plugin.documents import Object, pool, ready, tenant
from tests.unit.plugin.test_commands import ENDPOINT, fill
from tests.unit.plugin.test_waits import pod

TOKEN = "the-tenants-token"
PODS = "/api/v1/namespaces/team/pods"


@pytest.fixture
async def server(kubectl: FakeKubectl) -> AsyncIterator[StandIn]:
    async with standin(token=TOKEN) as stand_in:
        fill(kubectl, pool("saas", ready("PoolReady")), tenant("ann", ready(), endpoint=ENDPOINT))
        kubectl.answers["port-forward"] = stand_in.port
        kubectl.answers[PODS] = {"items": [pod("1")]}
        set_token(kubectl, TOKEN)
        yield stand_in


def set_token(kubectl: FakeKubectl, token: str) -> None:
    data = {"token": base64.b64encode(token.encode()).decode()}
    kubectl.answers["/api/v1/namespaces/team/secrets/copilot-ann"] = {"metadata": {}, "data": data}


async def run(kubectl: FakeKubectl, *words: str) -> Any:
    return await asyncio.to_thread(kubectl.run, *words)


def children(kubectl: FakeKubectl) -> int:
    """Forwards that run."""
    done = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True, timeout=10)
    return sum(f"{kubectl.directory}/kubectl port-forward" in line for line in done.stdout.splitlines())


async def test_a_turn_and_then_the_session_it_is_stored_in(kubectl: FakeKubectl, server: StandIn) -> None:
    said = await run(kubectl, "chat", "ann", "--session", "walk", "--prompt", "hi")
    assert said.exit_code == 0, said.output
    again = await run(kubectl, "chat", "ann", "--resume", "walk", "--prompt", "-")
    assert "--prompt is empty" in again.output
    listed = json.loads((await run(kubectl, "sessions", "ann", "-o", "json")).output)
    assert (listed["kind"], [each["id"] for each in listed["sessions"]]) == ("CopilotSessions", ["walk"])
    assert children(kubectl) == 0
    assert TOKEN not in said.output + str(kubectl.asked)


async def test_a_session_that_is_not_there_is_said_so(kubectl: FakeKubectl, server: StandIn) -> None:
    said = await run(kubectl, "chat", "ann", "--resume", "nothing", "--prompt", "hi")
    assert said.exit_code == 1
    assert "Session not found" in said.output


async def test_a_token_that_is_not_taken_is_not_shown(kubectl: FakeKubectl, server: StandIn) -> None:
    set_token(kubectl, "stale-token")
    said = await run(kubectl, "sessions", "ann")
    assert said.exit_code == 1
    assert "does not take the token of Secret copilot-ann" in said.output
    assert "stale-token" not in said.output


async def test_a_local_port_leads_to_whatever_pod_there_is_now(kubectl: FakeKubectl, server: StandIn) -> None:
    relay = relay_of(kubectl)
    address = await relay.listen(0)
    port = int(address.partition(":")[2])
    assert (await ping("127.0.0.1", port, TOKEN, 10)).ok
    kubectl.answers[PODS] = {"items": []}
    write(kubectl)
    waiting = asyncio.create_task(ping("127.0.0.1", port, TOKEN, 20))
    await asyncio.sleep(0)
    kubectl.answers[PODS] = {"items": [pod("2")]}
    write(kubectl)
    assert (await waiting).ok, "a connection waits for the pod that takes another's place"
    assert [words[1] for words in kubectl.asked if words[0] == "port-forward"] == ["pod/pod-1", "pod/pod-2"]
    await eventually(lambda: children(kubectl) == 0, within_s=10, what="forwards end with their connections")
    await relay.close()


async def test_forwards_end_with_the_relay(kubectl: FakeKubectl, server: StandIn) -> None:
    relay = relay_of(kubectl)
    port = int((await relay.listen(0)).partition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    await eventually(lambda: children(kubectl) == 1, within_s=10, what="it forwards")
    await relay.close()
    assert children(kubectl) == 0
    writer.close()


async def test_a_port_that_is_taken_is_named_with_the_way_out(kubectl: FakeKubectl, server: StandIn) -> None:
    with pytest.raises(PluginError, match=f"127.0.0.1:{server.port}: .*--port 0 takes any"):
        await relay_of(kubectl).listen(server.port)


async def test_a_forward_that_fails_says_what_kubectl_said(kubectl: FakeKubectl, server: StandIn) -> None:
    del kubectl.answers["port-forward"]
    said = await run(kubectl, "sessions", "ann")
    assert said.exit_code == 1
    assert "kubectl port-forward pod/pod-1 -n team" in said.output
    assert "KeyError" in said.output


def relay_of(kubectl: FakeKubectl) -> Relay:
    write(kubectl)
    ann: Object = tenant("ann", ready(), endpoint=ENDPOINT)
    return Relay(partial(connected, Kubectl(os.environ["KUBECTL"]), endpoint_of(ann, pool("saas"))))


def write(kubectl: FakeKubectl) -> None:
    (kubectl.directory / "answers").write_text(json.dumps(kubectl.answers))
