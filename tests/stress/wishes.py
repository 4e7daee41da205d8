"""What somebody wants of a pool and its tenants, and the changes of it that make servers stop."""

import base64
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from copilot_operator.cluster.client import KubeApi
from copilot_operator.domain.kinds import NODE, POOL, SECRET, TENANT
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import RESTARTED_AT_ANNOTATION, USABLE_LABEL

MANAGER: Final = "somebody"


class Cause(StrEnum):
    """Why servers stop."""

    SUSPENSION = "suspension"
    DELETION = "deletion"
    CHANGE = "tenant-change"
    CREDENTIAL = "credential"
    RESTART = "tenant-restart"
    HANG = "hang"
    IMAGE = "image"
    SPEC = "pool-change"
    POOL_RESTART = "pool-restart"
    RECYCLE = "recycle"
    NODE_DRAIN = "node-drain"


OF_ONE: Final = (Cause.SUSPENSION, Cause.DELETION, Cause.CHANGE, Cause.CREDENTIAL, Cause.RESTART, Cause.HANG)
OF_ALL: Final = (Cause.IMAGE, Cause.SPEC, Cause.POOL_RESTART, Cause.RECYCLE, Cause.NODE_DRAIN)


@dataclass
class TenantWish:
    """One tenant; every change of ``times`` makes another server of it."""

    name: str
    suspended: bool = False
    times: Counter[Cause] = field(default_factory=Counter)


@dataclass
class PoolWish:
    """One pool with its tenants, in a namespace."""

    namespace: str
    name: str
    server: dict[str, Any]
    images: tuple[str, ...]  # changed between
    storage: dict[str, Any]
    recycle: dict[str, Any]
    credentials: bool  # whether each tenant has one of its own
    timeout_s: int
    on_timeout: str
    tenants: list[TenantWish]
    times: Counter[Cause] = field(default_factory=Counter)

    def manifest(self) -> Manifest:
        image = self.images[self.times[Cause.IMAGE] % len(self.images)]
        changes = [{"name": "STRESS_CHANGES", "value": str(self.times[Cause.SPEC])}]
        spec = {
            "isolation": "Dedicated",
            "server": self.server | {"image": image, "env": changes},
            "storage": self.storage,
            "gateway": {"enabled": False},
            "drain": {"timeout": f"{self.timeout_s}s", "onTimeout": self.on_timeout},
            "update": {"maxUnavailable": "100%"},  # nobody waits for a turn: stops are judged by the clock
            "recycle": self.recycle,
            "health": {"maxRestartsPerHour": 60},
        }
        return self._object(POOL.kind, self.name, spec, self.times[Cause.POOL_RESTART])

    def tenant(self, wish: TenantWish) -> Manifest:
        spec: dict[str, Any] = {
            "poolRef": {"name": self.name},
            "suspended": wish.suspended,
            "deletionPolicy": "Retain",
            "server": {"resources": {"limits": {"memory": f"{2048 + wish.times[Cause.CHANGE]}Mi"}}},
        }
        if self.credentials:
            spec["auth"] = {"gitHub": {"tokenSecretRef": {"name": wish.name, "key": "token"}}}
        return self._object(TENANT.kind, wish.name, spec, wish.times[Cause.RESTART])

    def credential(self, wish: TenantWish) -> Manifest:
        token = base64.b64encode(f"github_pat_{wish.times[Cause.CREDENTIAL]}".encode()).decode()
        metadata = {"name": wish.name, "namespace": self.namespace, "labels": {USABLE_LABEL: "true"}}
        return {"apiVersion": "v1", "kind": SECRET.kind, "metadata": metadata, "data": {"token": token}}

    def _object(self, kind: str, name: str, spec: Manifest, restarts: int) -> Manifest:
        metadata = {
            "name": name,
            "namespace": self.namespace,
            "annotations": {RESTARTED_AT_ANNOTATION: str(restarts)},
        }
        return {"apiVersion": POOL.api_version, "kind": kind, "metadata": metadata, "spec": spec}


async def apply_pool(api: KubeApi, pool: PoolWish) -> None:
    await api.apply(POOL, pool.manifest(), manager=MANAGER)


async def apply_tenant(api: KubeApi, pool: PoolWish, tenant: TenantWish) -> None:
    await api.apply(SECRET, pool.credential(tenant), manager=MANAGER)
    await api.apply(TENANT, pool.tenant(tenant), manager=MANAGER)


async def delete_tenant(api: KubeApi, pool: PoolWish, tenant: TenantWish) -> None:
    live = await api.get(TENANT, pool.namespace, tenant.name)
    await api.delete(TENANT, pool.namespace, tenant.name, uid=live["metadata"]["uid"])


async def cordon(api: KubeApi, node: str, *, cordoned: bool) -> None:
    """As ``kubectl cordon`` and ``kubectl uncordon`` do it."""
    await api.merge(NODE, "", node, {"spec": {"unschedulable": cordoned or None}})
