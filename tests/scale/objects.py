"""What is applied: one pool and its tenants for the operator, and for the floor the children it would make of them."""

from copy import deepcopy
from datetime import UTC, datetime
from typing import Final

from copilot_operator.api.pool import parse_pool
from copilot_operator.api.tenant import parse_tenant
from copilot_operator.domain.desired.claim import claim
from copilot_operator.domain.desired.connection import connection
from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.desired.pool import network_policy, service_account, token_shard
from copilot_operator.domain.desired.service import service
from copilot_operator.domain.kinds import (
    CLAIM,
    DEPLOYMENT,
    NETWORK_POLICY,
    POOL,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    TENANT,
    Kind,
)
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import server_of
from copilot_operator.domain.naming import token_shard as shard_name
from copilot_operator.domain.pool_plan import PER_SHARD
from copilot_operator.domain.snapshot import PoolSnapshot, PoolView, ServerToken, Settings, Storage, TenantSnapshot

NAMESPACE: Final = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
TENANTS_IN: Final = "tenants"  # the namespace of it all
OPERATOR_IN: Final = "copilot-operator"
POOL_NAME: Final = "bench"
CLASS_NAME: Final = "simulated"
AGENT_IMAGE: Final = "docker.io/library/copilot-operator:dev"
CLI_IMAGE: Final = "docker.io/library/copilot-cli:1.0.102"

Child = tuple[Kind, Manifest]


def pool() -> Manifest:
    spec = {
        "isolation": "Dedicated",
        "server": {
            "image": CLI_IMAGE,
            "resources": {"requests": {"cpu": "100m", "memory": "384Mi"}, "limits": {"memory": "2Gi"}},
        },
        "storage": {"size": "1Gi", "storageClassName": CLASS_NAME},
        "gateway": {"enabled": False},
    }
    metadata = {"name": POOL_NAME, "namespace": TENANTS_IN}
    return {"apiVersion": POOL.api_version, "kind": POOL.kind, "metadata": metadata, "spec": spec}


def tenant(number: int) -> Manifest:
    metadata = {"name": f"tenant-{number:05d}", "namespace": TENANTS_IN}
    spec = {"poolRef": {"name": POOL_NAME}}
    return {"apiVersion": TENANT.api_version, "kind": TENANT.kind, "metadata": metadata, "spec": spec}


def children(count: int) -> tuple[list[Child], list[list[Child]]]:
    """The pool's own objects, and those of each of ``count`` tenants, in the order in which the operator makes them.

    By the operator's own functions; only the owners are left out, since without owners to refer to the garbage
    collector would take the children away.
    """
    now, settings = datetime.now(UTC), Settings(AGENT_IMAGE, OPERATOR_IN)
    raw_pool = _stored(pool())
    spec = parse_pool(raw_pool).spec
    names = [server_of(tenant(number)["metadata"]["name"]) for number in range(count)]
    shards: dict[str, dict[str, str]] = {}
    for place, server in enumerate(names):
        shards.setdefault(shard_name(POOL_NAME, place // PER_SHARD), {})[server] = f"{place:043d}"
    of_pool = PoolSnapshot(raw_pool, now, settings, spec=spec, members=frozenset(names))
    common: list[Child] = [
        (SERVICE_ACCOUNT, service_account(of_pool)),
        (NETWORK_POLICY, network_policy(of_pool)),
        *((SECRET, token_shard(of_pool, name, held)) for name, held in shards.items()),
    ]
    view = PoolView(spec)
    each: list[list[Child]] = []
    for number, server in enumerate(names):
        raw = _stored(tenant(number))
        shard = shard_name(POOL_NAME, number // PER_SHARD)
        snapshot = TenantSnapshot(
            raw, now, settings, server, spec=parse_tenant(raw).spec, pool=view,
            token=ServerToken(shards[shard][server], shard), storage=Storage("ReadWriteOnce"),
        )  # fmt: skip
        makers = ((CLAIM, claim), (SERVICE, service), (SECRET, connection), (DEPLOYMENT, deployment))
        each.append([(kind, make(snapshot)) for kind, make in makers])
    return [_ownerless(child) for child in common], [[_ownerless(child) for child in those] for those in each]


def _stored(manifest: Manifest) -> Manifest:
    """As if it had been applied."""
    stored = deepcopy(manifest)
    stored["metadata"] |= {"uid": "00000000-0000-0000-0000-000000000000", "resourceVersion": "1", "generation": 1}
    return stored


def _ownerless(child: Child) -> Child:
    kind, manifest = child
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "ownerReferences"}
    return kind, manifest | {"metadata": metadata}
