"""Wakes under measurement, and the floor beside them: ``python3 -m tests.scale.wake_subject NAMESPACE WAKES MODEL``.

In the cluster's network, while an operator runs; prints one JSON object.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from statistics import quantiles
from typing import Any, Final

from copilot_operator.cluster.client import KubeApi
from copilot_operator.domain.desired.service import CLI_PORT
from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, POD, POOL, SECRET, SERVICE, TENANT
from copilot_operator.domain.manifest import Manifest, condition_of, labels_of
from copilot_operator.domain.naming import TENANT_LABEL, gateway_of, server_of
from copilot_operator.rpc.client import Connection
from copilot_operator.rpc.errors import ServerError
from tests.scale.client import client, say, watching
from tests.support.eventually import eventually
from tests.support.gateway import RawClient

POOL_NAME: Final = "woken"
FLOOR: Final = "floor"
SESSION: Final = "notes"
LONGEST_S: Final = 300.0
HELD_S: Final = 55.0  # for which a gateway may keep an answer back, and a little
LOOK_EVERY_S: Final = 0.01
TURN: Final = ("user.message", "assistant.turn_start")


@dataclass
class Pod:
    """When the watch told of what became of it, by the event loop's clock."""

    server: str
    address: str = ""
    began_at: float = 0.0
    at: dict[str, float] = field(default_factory=dict)  # runs, started, ready


class Pods:
    """The pods of servers, and of the floor, as a watch tells them."""

    def __init__(self) -> None:
        self.known: dict[str, Pod] = {}  # by UID; gone ones are forgotten
        self._clock = asyncio.get_running_loop().time

    def seen(self, event: str, manifest: Manifest) -> None:
        uid, labels = manifest["metadata"]["uid"], labels_of(manifest)
        if event == "DELETED":
            self.known.pop(uid, None)
            return
        server = labels.get("app") or server_of(labels.get(TENANT_LABEL, ""))
        pod = self.known.setdefault(uid, Pod(server, began_at=self._clock()))
        status = manifest.get("status") or {}
        pod.address = status.get("podIP") or ""
        for container, prefix in (("initContainerStatuses", "agent "), ("containerStatuses", "")):
            name = prefix.strip() or "copilot"
            found: Manifest = next((each for each in status.get(container) or () if each["name"] == name), {})
            runs = "running" in (found.get("state") or {})
            stages = (("runs", runs), ("started", runs and found.get("started")), ("ready", found.get("ready")))
            for stage, reached in stages:
                if reached:
                    pod.at.setdefault(prefix + stage, self._clock())

    def of(self, server: str) -> list[Pod]:
        return [pod for pod in self.known.values() if pod.server == server]

    def running(self, server: str) -> Pod | None:
        return next((pod for pod in self.of(server) if "runs" in pod.at), None)


@dataclass
class Round:
    """Seconds."""

    pod_start: float
    server_start: float
    wake: float
    parts: dict[str, float]

    @property
    def floor(self) -> float:
        return self.pod_start + self.server_start


class Bench:
    """The steps of the measurement."""

    def __init__(self, api: KubeApi, namespace: str, model: str) -> None:
        self._api, self._namespace = api, namespace
        provider = {"type": "openai", "baseUrl": model, "apiKey": "none", "wireApi": "completions"}
        self._options = {"model": "fake-model", "provider": provider, "streaming": True}
        self._pods, self._tenants, self._clock = Pods(), dict[str, Manifest](), asyncio.get_running_loop().time

    async def measure(self, wakes: int) -> list[Round]:
        names = [f"tenant-{number}" for number in range(wakes)]
        await self._api.apply(POOL, self._object(POOL, POOL_NAME, _pool()))
        for name in names:
            await self._api.apply(TENANT, self._object(TENANT, name, {"poolRef": {"name": POOL_NAME}}))
        async with (
            watching(self._api, POD, self._namespace, self._pods.seen),
            watching(self._api, TENANT, self._namespace, self._tenant_seen),
        ):
            await self._until(lambda: all(self._reason(name) == "ServerReady" for name in names), "servers are Ready")
            say(f"wake: {len(names)} servers are Ready")
            clients = {name: await self._begun(name) for name in names}
            say("wake: all have had a turn, and are to become idle")
            await self._until(lambda: all(self._sleeps(name) for name in names), "servers are suspended")
            await self._make_floor(names[0])
            rounds = []
            for name, one in clients.items():
                pod_start, server_start = await self._floor()
                rounds.append(Round(pod_start, server_start, *await self._wake(name, one)))
                say(f"wake: {rounds[-1]}")
                await one.close()
                await self._api.merge(TENANT, self._namespace, name, {"spec": {"suspended": True}})
                await self._until(partial(self._has_gone, name), "it is suspended again")
        return rounds

    # Tenants

    async def _begun(self, name: str) -> RawClient:
        """A client of a tenant with a session that has had a turn."""
        data = (await self._api.get(SECRET, self._namespace, server_of(name)))["data"]
        service = (await self._api.get(SERVICE, self._namespace, gateway_of(POOL_NAME)))["spec"]
        port = int(base64.b64decode(data["port"]))
        one = await RawClient.open(service["clusterIP"], port)
        one.answer_s = HELD_S
        await one.connect(base64.b64decode(data["token"]).decode())
        await one("session.create", sessionId=SESSION, **self._options)
        await one("session.send", sessionId=SESSION, prompt=f"remember NOTE={name}")
        await self._until(lambda: "session.idle" in one.types(SESSION), "the first turn is over")
        return one

    async def _wake(self, name: str, one: RawClient) -> tuple[float, dict[str, float]]:
        """Until the turn's first event; and when what else was, both in seconds from the request."""
        before, began = len(one.types(SESSION)), self._clock()
        reply = one.begin("session.send", sessionId=SESSION, prompt="RECALL")
        await self._until(lambda: any(type in TURN for type in one.types(SESSION)[before:]), "the turn begins")
        wake, pod = self._clock() - began, self._pods.running(server_of(name))
        assert "result" in await one.reply(reply)
        await self._until(lambda: "session.idle" in one.types(SESSION)[before:], "the turn is over")
        said = [each["data"].get("content", "") for each in one.events(SESSION)[before:]]
        assert any(f"notes: {name}" in each for each in said if isinstance(each, str)), said
        assert pod
        parts = {"pod": pod.began_at} | pod.at
        return wake, {what: round(at - began, 2) for what, at in parts.items()}

    def _tenant_seen(self, event: str, manifest: Manifest) -> None:
        self._tenants[manifest["metadata"]["name"]] = manifest

    def _reason(self, name: str) -> str:
        return str(condition_of(self._tenants.get(name, {}).get("status") or {}, "Ready").get("reason", ""))

    def _sleeps(self, name: str) -> bool:
        return self._reason(name) == "SuspendedWhenIdle" and self._has_gone(name)

    def _has_gone(self, name: str) -> bool:
        return not self._pods.of(server_of(name))

    # The floor

    async def _make_floor(self, like: str) -> None:
        """A Deployment of a server's template under other labels, with a claim of its own, which has been used once."""
        claim = await self._api.get(CLAIM, self._namespace, server_of(like))
        fields = ("accessModes", "resources", "storageClassName")
        await self._api.apply(CLAIM, self._object(CLAIM, FLOOR, {key: claim["spec"][key] for key in fields}))
        spec = (await self._api.get(DEPLOYMENT, self._namespace, server_of(like)))["spec"]
        template = spec["template"]
        template["metadata"] = {"labels": {"app": FLOOR}}
        for volume in template["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                volume["persistentVolumeClaim"]["claimName"] = FLOOR
        spec |= {"replicas": 0, "selector": {"matchLabels": {"app": FLOOR}}}
        variables = (each for each in template["spec"]["containers"][0]["env"])
        [token] = [each for each in variables if each["name"] == "COPILOT_CONNECTION_TOKEN"]
        source = token["valueFrom"]["secretKeyRef"]
        held = (await self._api.get(SECRET, self._namespace, source["name"]))["data"]
        self._floor_token = base64.b64decode(held[source["key"]]).decode()
        await self._api.apply(DEPLOYMENT, self._object(DEPLOYMENT, FLOOR, spec))
        await self._floor()

    async def _floor(self) -> tuple[float, float]:
        """Seconds until the process runs, and from there until it answers."""
        began = self._clock()
        await self._api.merge(DEPLOYMENT, self._namespace, FLOOR, {"spec": {"replicas": 1}})
        await self._until(lambda: self._pods.running(FLOOR), "the floor's pod runs")
        pod = self._pods.running(FLOOR)
        assert pod
        await self._until(lambda: self._answers(pod.address), "the floor's server answers")
        answered = self._clock()
        await self._api.merge(DEPLOYMENT, self._namespace, FLOOR, {"spec": {"replicas": 0}})
        await self._until(lambda: not self._pods.of(FLOOR), "the floor's pod is gone")
        return pod.at["runs"] - began, answered - pod.at["runs"]

    async def _answers(self, address: str) -> bool:
        with suppress(ServerError):
            connection = await Connection.open(address, CLI_PORT, timeout_s=5)
            try:
                await connection.connect(self._floor_token, timeout_s=5)
                await connection.call("ping", {}, timeout_s=5)
            finally:
                await connection.close()
            return True
        return False

    # All

    def _object(self, kind: Any, name: str, spec: dict[str, Any]) -> Manifest:
        metadata = {"name": name, "namespace": self._namespace}
        return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}

    async def _until(self, met: Callable[[], Any], what: str) -> None:
        await eventually(met, within_s=LONGEST_S, what=what, every_s=LOOK_EVERY_S)


def _pool() -> dict[str, Any]:
    resources = {"requests": {"cpu": "20m", "memory": "256Mi"}}
    return {
        "isolation": "Dedicated",
        "server": {"image": "copilot-cli:1.0.102", "resources": resources},
        "storage": {"size": "128Mi"},
        "gateway": {"replicas": 1},
        "suspend": {"afterIdle": "1m"},
    }


def figures(rounds: list[Round]) -> dict[str, Any]:
    """Of all rounds. A ratio has the same percentile above and below: wakes, and floors as a whole."""
    found: dict[str, Any] = {"n": len(rounds)}
    columns = {
        "pod_start": [each.pod_start for each in rounds],
        "server_start": [each.server_start for each in rounds],
        "wake": [each.wake for each in rounds],
    }
    for name, values in columns.items():
        for percent in (50, 95):
            found[f"{name}_p{percent}_s"] = round(_percentile(values, percent), 2)
    for percent in (50, 95):
        floor = _percentile([each.floor for each in rounds], percent)
        found[f"ratio_p{percent}"] = round(_percentile(columns["wake"], percent) / floor, 2)
    return found


def _percentile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


async def measure(namespace: str, wakes: int, model: str) -> dict[str, Any]:
    async with client() as api:
        return figures(await Bench(api, namespace, model).measure(wakes))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3]))))
