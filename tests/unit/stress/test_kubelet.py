"""Simulated pods end as real ones do: preStop's drain, then the process, then the object; one process a volume."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from copilot_operator.cluster.client import KubeApi
from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest
from tests.scale.kubelet import Kubelet
from tests.stress.clients import Client, look_for_answers
from tests.stress.servers import Address
from tests.support.eventually import eventually
from tests.support.loopback import own_address

SOON_S = 10.0


class Api:
    """Notes which pods were let go."""

    def __init__(self) -> None:
        self.gone: list[str] = []

    async def delete(self, kind: Kind, namespace: str, name: str, **_: Any) -> None:
        self.gone.append(name)


@asynccontextmanager
async def kubelet(*, drains: bool = True) -> AsyncIterator[tuple[Kubelet, Api]]:
    api = Api()
    made = Kubelet(cast(KubeApi, api), drains=drains, port=0)
    await made.start()
    try:
        yield made, api
    finally:
        await made.stop()


def a_pod(name: str, address: str, **metadata: Any) -> Manifest:
    agent = {"name": "agent", "env": [{"name": "COPILOT_AGENT_DRAIN_DEADLINE_S", "value": "30"}]}
    return {
        "metadata": {"uid": name, "name": name, "namespace": "n", **metadata},
        "spec": {"initContainers": [agent], "volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]},
        "status": {"podIP": address},
    }


def ending(pod: Manifest, grace_s: int) -> Manifest:
    metadata = pod["metadata"] | {"deletionTimestamp": "now", "deletionGracePeriodSeconds": grace_s}
    return pod | {"metadata": metadata}


async def a_turn(kubelet: Kubelet, pod: Manifest, lasts_s: float) -> tuple[Client, Address]:
    kubelet.seen("ADDED", pod)
    address = pod["status"]["podIP"]
    at = Address(address, kubelet.stand_in.port, None, address)
    await eventually(lambda: address in kubelet.stand_in.servers, within_s=SOON_S, what="the process runs")
    client = await Client.begin(at, "a", {})
    await client.say(lasts_s)
    return client, at


async def test_a_deleted_pod_goes_when_its_turn_is_over_and_only_then_the_next_gets_its_volume() -> None:
    async with kubelet() as (made, api):
        first, second = a_pod("first", own_address(1)), a_pod("second", own_address(2))
        client, _ = await a_turn(made, first, 1.0)
        made.seen("MODIFIED", ending(first, 60))
        made.seen("ADDED", second)
        await client.wait_closed()
        await eventually(lambda: api.gone == ["first"], within_s=SOON_S, what="the pod is let go")
        await eventually(lambda: made.pods["second"].server, within_s=SOON_S, what="the next process runs")
        before, after = made.pods["first"].server, made.pods["second"].server
        assert before is not None
        assert after is not None
        assert not before.runs
        assert after.volume is before.volume
        await look_for_answers(Address(own_address(2), made.stand_in.port, None, own_address(2)), [client])
        assert client.turns[0].answered


@pytest.mark.parametrize(("drains", "grace_s"), [(True, 1), (False, 60)])
async def test_the_grace_bounds_the_drain_and_without_drains_there_is_none(drains: bool, grace_s: int) -> None:
    async with kubelet(drains=drains) as (made, api):
        pod = a_pod("only", own_address())
        client, _ = await a_turn(made, pod, 30.0)
        made.seen("MODIFIED", ending(pod, grace_s))
        async with asyncio.timeout(SOON_S):
            await client.wait_closed()
        await eventually(lambda: api.gone, within_s=SOON_S, what="the pod is let go")


async def test_a_pod_that_never_ran_is_let_go_at_once() -> None:
    async with kubelet() as (made, api):
        made.seen("MODIFIED", ending(a_pod("never", ""), 600))
        await eventually(lambda: api.gone == ["never"], within_s=SOON_S, what="the pod is let go")
