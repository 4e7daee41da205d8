"""A namespace of a test, with what tests do in one: pools, tenants, waiting for what their status says."""

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from copilot_operator.domain.kinds import CLAIM, DEPLOYMENT, SECRET, SERVICE, TENANT
from copilot_operator.domain.naming import server_of, slug
from tests.cluster.api import Cluster
from tests.support.application import ConnectionData
from tests.support.eventually import eventually
from tests.support.kube import NAMESPACE, Kube, Object, conditions, is_ready, pods_of, ready_reason
from tests.support.leaks import canaries, leaks_of, texts_of
from tests.support.operator import OperatorProcess
from tests.support.talk import Application, Talk

POOL_NAME: Final = "pool"
CLI_IMAGE: Final = "copilot-cli:1.0.102"
READY_S: Final = 60.0
API: Final = "copilot-operator.io/v1alpha1"


@dataclass(frozen=True)
class Place:
    """Everything is small: test clusters have one node with two cores. ``brought``: texts of Secrets that were made
    here, and where they are from; the test may delete them."""

    kube: Kube
    cluster: Cluster
    operator: OperatorProcess
    application: Application
    namespace: str
    brought: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def make(cls, kube: Kube, cluster: Cluster, operator: OperatorProcess, application: Application) -> "Place":
        name = f"e2e-{uuid.uuid4().hex[:8]}"
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return cls(kube, cluster, operator, application, name)

    def pool(self, name: str = POOL_NAME, *, image: str = CLI_IMAGE, **spec: Any) -> Object:
        """Apply a pool; ``spec`` is added to the little that every pool needs."""
        server = {"image": image, "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}}}
        fields = {
            "isolation": "Dedicated",
            "server": server,
            "storage": {"size": "128Mi"},
            "gateway": {"enabled": False},
            "health": {"interval": "2s"},
        }
        return self.kube.apply(self._object("CopilotPool", name, fields | spec))

    def tenant(self, name: str, pool: str = POOL_NAME, **spec: Any) -> Object:
        return self.kube.apply(self._object("CopilotTenant", name, {"poolRef": {"name": pool}} | spec))

    def secret(self, name: str, values: dict[str, str], *, usable: bool = True) -> Object:
        """A user's Secret with a credential."""
        manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": self.namespace}}
        if usable:
            manifest["metadata"] |= {"labels": {"copilot-operator.io/tenant-usable": "true"}}  # type: ignore[operator]
        self.brought.update(texts_of(name, values))
        return self.kube.apply(manifest | {"stringData": values})

    def get(self, tenant: str) -> Object:
        return self.kube.get(TENANT, self.namespace, tenant)

    def deployment(self, tenant: str) -> Object | None:
        return self.kube.find(DEPLOYMENT, self.namespace, server_of(tenant))

    def service(self, tenant: str) -> Object | None:
        return self.kube.find(SERVICE, self.namespace, server_of(tenant))

    def secret_of(self, tenant: str) -> Object | None:
        return self.kube.find(SECRET, self.namespace, server_of(tenant))

    def claim(self, tenant: str) -> Object | None:
        return self.kube.find(CLAIM, self.namespace, server_of(tenant))

    def pods(self, tenant: str) -> list[Object]:
        return list(pods_of(self.kube, self.namespace, slug(tenant)))

    def running(self, tenant: str) -> list[tuple[str, int]]:
        """Pods of a tenant that do not end, and how often the containers of each were started again."""
        return [
            (pod["metadata"]["uid"], sum(each["restartCount"] for each in pod["status"].get("containerStatuses", ())))
            for pod in self.pods(tenant)
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def connection(self, tenant: str) -> ConnectionData:
        return ConnectionData.of(self.kube, self.namespace, tenant)

    async def say(
        self,
        tenant: str,
        provider: Any,
        *prompts: str,
        resume: bool = False,
        session: str = "",
        connection: ConnectionData | None = None,
        server_stops: bool = False,
    ) -> list[str]:
        """Turns with the tenant's server through the official SDK, as a rule in the one session that a test has with
        it. ``connection``: as it was read before; ``server_stops``: with the last turn, see :class:`Talk`."""
        connection, session = connection or self.connection(tenant), session or f"session-{tenant}"
        what = Talk(
            connection.address, connection.token, session, prompts, resume, provider=provider, server_stops=server_stops
        )
        return await asyncio.to_thread(self.application.talk, what)

    async def in_a_turn(self, provider: Any, tenant: str, word: str, seconds: float) -> "asyncio.Task[list[str]]":
        """A turn of so many seconds, the server's last, in a session that has had one (NOTE=first); returns once it is
        under way."""
        await self.say(tenant, provider, "remember NOTE=first")
        said = self.say(tenant, provider, f"remember NOTE={word} SLEEP={seconds}", resume=True, server_stops=True)
        turn = asyncio.create_task(said, name=f"turn of {tenant}")
        await self.until(lambda: self.busy(tenant) == 1, within_s=40, what=f"{tenant} is in a turn", about=tenant)
        return turn

    def busy(self, tenant: str) -> int | None:
        """How many sessions work, as the agent says."""
        state = self.agent_state(tenant)
        return state["sessions"]["busy"] if state else None

    async def ping(self, tenant: str, *, token: str | None = None) -> None:
        """Connect and ping as an application does; raises TalkFailed."""
        connection = self.connection(tenant)
        await asyncio.to_thread(self.application.talk, Talk(connection.address, token or connection.token))

    async def until(
        self, condition: Callable[[], Any | Awaitable[Any]], *, within_s: float, what: str, about: str = ""
    ) -> Any:
        """Wait; a failure shows the tenant ``about`` and the last words of the operator."""
        try:
            return await eventually(condition, within_s=within_s, what=what, every_s=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.explain(about)}") from None

    async def until_ready(self, tenant: str, *, within_s: float = READY_S) -> Object:
        await self.until(
            lambda: is_ready(self.get(tenant)), within_s=within_s, what=f"tenant {tenant} is Ready", about=tenant
        )
        return self.get(tenant)

    async def until_reason(self, tenant: str, reason: str, *, within_s: float = 20.0) -> Object:
        """Until the condition Ready has this reason; returns the condition."""
        await self.until(
            lambda: ready_reason(self.get(tenant)) == reason,
            within_s=within_s,
            what=f"tenant {tenant} says {reason}",
            about=tenant,
        )
        return conditions(self.get(tenant))["Ready"]

    def agent_state(self, tenant: str) -> Object | None:
        """What the agent of a tenant's server says of it (/state); None if it says nothing."""
        try:
            state: Object = json.loads(self.asked_of_agent(tenant, "/state"))
        except ValueError:
            return None
        return state

    def asked_of_agent(self, tenant: str, path: str) -> str:
        """A page of the agent of a tenant's server; "" if it does not say "fine"."""
        addresses = [
            pod["status"].get("podIP") for pod in self.pods(tenant) if "deletionTimestamp" not in pod["metadata"]
        ]
        if not addresses or not addresses[0]:
            return ""
        program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=12).read().decode())"
        words = [sys.executable, "-c", program, f"http://{addresses[0]}:4322{path}"]
        done = self.cluster.run_in_network(words, capture_output=True, text=True, timeout=20, check=False)
        return str(done.stdout)

    def explain(self, tenant: str) -> str:
        """What there is to know about a tenant."""
        parts = []
        if tenant and (live := self.kube.find(TENANT, self.namespace, tenant)):
            parts.append(f"tenant: {json.dumps(live.get('status'))}")
            for pod in self.pods(tenant):
                parts.append(f"pod {pod['metadata']['name']}: {json.dumps(_containers(pod))}")
            if deployment := self.deployment(tenant):
                parts.append(f"deployment: {json.dumps(deployment.get('status'))}")
        return "\n".join([*parts, "operator:", self.operator.said()])

    def leaks(self) -> list[str]:
        """Which secrets of this place are in what else the API server keeps of it, or in its pods' logs."""
        self.brought.update(canaries(self.kube, self.namespace))
        return leaks_of(self.kube, self.namespace, self.brought)

    def leave(self) -> None:
        """Let the namespace go; nobody waits for it."""
        self.kube.delete(NAMESPACE, "", self.namespace)

    def _object(self, kind: str, name: str, spec: Object) -> Object:
        return {
            "apiVersion": API,
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }


def _containers(pod: Object) -> Object:
    status = pod.get("status", {})
    found = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return {each["name"]: [each.get("state"), each.get("restartCount")] for each in found}
