"""``page``: a local port that leads to the status page of the replica that leads."""

import asyncio
import json
import os
import sys

import httpx
import pytest

from copilot_operator.plugin.endpoint import Endpoint, pod_to_lead_to
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.page import leader_of, operator_of, page_port
from tests.support.status_page import World, served
from tests.unit.plugin.conftest import FakeKubectl
from tests.unit.plugin.documents import Object
from tests.unit.plugin.test_waits import pod

DEPLOYMENTS = "/apis/apps/v1/deployments"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/ops/leases/copilot-operator"
PODS = "/api/v1/namespaces/ops/pods"
START_S = 60.0


def operator(port: str = "8081", namespace: str = "ops") -> Object:
    env = [{"name": "POD_NAME", "valueFrom": {}}, {"name": "COPILOT_OPERATOR_PAGE_PORT", "value": port}]
    template = {"spec": {"containers": [{"name": "operator", "env": env if port else env[:1]}]}}
    return {"metadata": {"name": "copilot-operator", "namespace": namespace}, "spec": {"template": template}}


def test_an_operator_without_a_page_is_said_so() -> None:
    assert page_port(operator("9000")) == 9000
    with pytest.raises(PluginError, match=r"page.enabled of the chart, or COPILOT_OPERATOR_PAGE_PORT of deployment/"):
        page_port(operator(""))


def test_which_operator_is_meant_must_be_clear() -> None:
    assert operator_of([operator()]) == operator()
    with pytest.raises(PluginError, match="found in: nowhere; --operator-namespace says"):
        operator_of([])
    with pytest.raises(PluginError, match="found in: ops, other"):
        operator_of([operator(), operator(namespace="other")])


def test_the_leader_is_preferred_and_any_other_will_do() -> None:
    lease = {"spec": {"holderIdentity": "copilot-operator-7c9-abc-1f2e3d4c"}}
    assert leader_of(lease) == "copilot-operator-7c9-abc"
    assert leader_of(None) == leader_of({"spec": {"holderIdentity": ""}}) == ""
    pods = [pod("1"), pod("2")]
    for preferred, led_to in (("pod-1", "pod-1"), ("pod-2", "pod-2"), ("gone", "pod-2")):
        assert pod_to_lead_to(Endpoint("", "ops", "", 8081, "", "the operator", preferred=preferred), pods) == led_to
    with pytest.raises(PluginError, match=r"the operator can't be connected to.*kubectl copilot doctor"):
        pod_to_lead_to(Endpoint("", "ops", "", 8081, "", "the operator"), [])


async def test_a_local_port_leads_to_the_page(kubectl: FakeKubectl) -> None:
    """The program as a whole, until it is told to end."""
    world = World()
    world.tenant()
    async with served(world) as url:
        kubectl.answers = {
            DEPLOYMENTS: {"items": [operator()]},
            LEASE: {"metadata": {}, "spec": {"holderIdentity": "pod-1-1f2e3d4c"}},
            PODS: {"items": [pod("1"), pod("2")]},
            "port-forward": int(url.rpartition(":")[2]),
        }
        (kubectl.directory / "answers").write_text(json.dumps(kubectl.answers))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "copilot_operator.plugin.entry", "page", "--port=0",
            env=os.environ, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout
            async with asyncio.timeout(START_S):
                address = (await process.stdout.readline()).decode().split()[0]
            async with httpx.AsyncClient(timeout=START_S) as client:
                answer = await client.get(f"{address}/status.json")
            assert answer.json()["tenants"][0]["name"] == "alice"
            process.terminate()
            async with asyncio.timeout(START_S):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    forwards = [words for words in kubectl.asked if words[0] == "port-forward"]
    assert {words[1] for words in forwards} == {"pod/pod-1"}
    assert all(":8081" in words and "--namespace=ops" in words for words in forwards)
