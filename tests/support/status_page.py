"""The operator's status page over a cache that a test fills: all that is real of it but the cluster."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from copilot_operator.cluster.cache import Cache
from copilot_operator.domain.kinds import DEPLOYMENT, POD, POOL, TENANT, Kind
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import NAME_LABEL, SERVER_NAME, TENANT_ANNOTATION, TENANT_LABEL, server_of, slug
from copilot_operator.domain.snapshot import Health, Reading, ServerState
from copilot_operator.domain.status import Event
from copilot_operator.page import snapshot, web
from copilot_operator.page.recent import Recent
from copilot_operator.page.rows import Row, live_row

SINCE: Final = "2030-01-02T11:59:00Z"
PLACE: Final = "team"


@dataclass
class World:
    """What an operator would hold in memory."""

    cache: Cache = field(default_factory=Cache)
    recent: Recent = field(default_factory=Recent)
    leads: bool = True
    seats: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    version: int = 0

    def put(self, kind: Kind, name: str, *, uid: str = "", **content: Any) -> Manifest:
        """The object in its next version; ``metadata`` adds to its own."""
        self.version += 1
        own = {"name": name, "namespace": PLACE, "uid": uid or f"{kind}-{name}", "resourceVersion": str(self.version)}
        metadata = own | {"creationTimestamp": SINCE} | content.pop("metadata", {})
        made = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **content}
        self.cache.put(kind, made, 0.0)
        return made

    def pool(self, name: str = "saas", **status: Any) -> Manifest:
        told = {"readyReplicas": 1, "replicas": 2, "tenants": 2, "conditions": [condition("Ready", "PoolReady")]}
        return self.put(POOL, name, spec={"isolation": "Dedicated"}, status=told | status)

    def tenant(self, name: str = "alice", *conditions: Manifest, **status: Any) -> Manifest:
        told = {"phase": "Ready", "server": server_of(name), "conditions": [*conditions] or [condition()]} | status
        return self.put(TENANT, name, spec={"poolRef": {"name": "saas"}}, status=told)

    def server(self, owner: str = "alice", *, replicas: int = 1, **annotations: str) -> Manifest:
        """Of a tenant, or of a seat POOL/ORDINAL; with its pod where it has one."""
        labels = {NAME_LABEL: SERVER_NAME, TENANT_LABEL: slug(owner)}
        name = server_of(owner)
        if replicas:
            pod = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            self.put(POD, f"{name}-x", metadata={"labels": labels}, spec={"nodeName": "node-1"}, status=pod)
        own = {f"copilot-operator.io/{key.replace('_', '-')}": text for key, text in annotations.items()}
        metadata = {"labels": labels, "annotations": {TENANT_ANNOTATION: owner} | own}
        counted = {"readyReplicas": replicas} if replicas else {}
        return self.put(DEPLOYMENT, name, metadata=metadata, spec={"replicas": replicas}, status=counted)

    def event(self, regarding: Manifest, reason: str, message: str, kind: str = "Normal") -> None:
        self.recent.note(regarding, Event(kind, reason, message), datetime.now(UTC))

    def live(self, namespace: str, server: str) -> Row | None:
        state = ServerState("pod", datetime.now(UTC), True, loaded=3, busy=1, waiting=0, stored=7, memory_bytes=2**28)
        return live_row(Reading(Health.HEALTHY), state) if self.leads else None

    def replica(self) -> dict[str, object]:
        return {"name": "operator-a", "leads": self.leads, "leader": "operator-a" if self.leads else "operator-b",
                "synced": True}  # fmt: skip

    def snapshots(self) -> snapshot.Snapshots:
        def seat(namespace: str, name: str) -> Manifest:
            return self.seats.get((namespace, name), {})

        return snapshot.Snapshots(self.cache, self.replica, self.recent.events, seat, self.live)


def condition(name: str = "Ready", reason: str = "ServerReady", message: str = "It answers", **more: str) -> Manifest:
    status = "True" if reason in ("ServerReady", "PoolReady") else "False"
    return {"type": name, "status": status, "reason": reason, "message": message, "lastTransitionTime": SINCE} | more


@asynccontextmanager
async def served(world: World) -> AsyncIterator[str]:
    """Its URL."""
    runner = await web.serve(0, world.snapshots())
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


def many(world: World, count: int, message: Callable[[int], str] = lambda number: "The server answers") -> None:
    """So many tenants with their servers, every tenth without one that answers."""
    world.pool(replicas=count, tenants=count)
    for number in range(count):
        name = f"tenant-{number:04d}"
        troubled = number % 10 == 9
        ready = condition(reason="CrashLooping" if troubled else "ServerReady", message=message(number))
        others = (condition(each, "ServerReady") for each in ("CredentialsReady", "ServerHealthy", "StorageReady"))
        world.tenant(name, ready, *others, phase="Failed" if troubled else "Ready")
        world.server(name)
