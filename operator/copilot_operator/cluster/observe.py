"""kopf observes: watches in, records into the cache, keys into the queue. Nothing is decided and nothing written here.

Only ``on.event`` is used: kopf's other handlers patch every object, and its index is quadratic. Secrets are watched by
the existence of one label, which is "true" on users' credentials and "false" on our own: one watch sees both.
"""

import asyncio
import logging
from collections.abc import Callable, Container, Mapping
from typing import Any, Final

import kopf

from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import Access
from copilot_operator.domain.kinds import (
    CLAIM,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    LEASE,
    NETWORK_POLICY,
    NODE,
    POD,
    POOL,
    REVISION,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    TENANT,
    Kind,
)
from copilot_operator.domain.manifest import Manifest, annotations_of
from copilot_operator.domain.naming import (
    GATEWAY_NAME,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    NAME_LABEL,
    POOL_ANNOTATION,
    SERVER_NAME,
    TENANT_ANNOTATION,
    USABLE_LABEL,
)
from copilot_operator.domain.seats import pool_of_seat

log = logging.getLogger(__name__)

OURS: Final = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
SELECTORS: Final[dict[Kind, str]] = {
    POOL: "",
    TENANT: "",
    DEPLOYMENT: OURS,
    SERVICE: OURS,
    CLAIM: OURS,
    SERVICE_ACCOUNT: OURS,
    NETWORK_POLICY: OURS,
    DISRUPTION_BUDGET: OURS,
    REVISION: OURS,
    ROLE: OURS,
    ROLE_BINDING: OURS,
    POD: f"{OURS},{NAME_LABEL} in ({SERVER_NAME},{GATEWAY_NAME})",
    SECRET: USABLE_LABEL,
    NODE: "",
}
OPTIONAL: Final = frozenset({NODE})  # who runs the operator may keep these from it; it works on, with less
Observer = Callable[[Kind, str | None, Manifest], None]  # kind, type of the watch event, object


def registry(
    observer: Observer, heartbeat: Callable[[], None], access: Access, *, without: Container[Kind] = ()
) -> kopf.OperatorRegistry:
    """Handlers for every kind but ``without``, and the Lease whose renewals prove that watches are alive."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_info(access)

    def watch(kind: Kind) -> None:
        @kopf.on.event(kind.group, kind.version, kind.plural, registry=handlers, id=kind.plural)
        async def observed(event: Mapping[str, Any], **_: Any) -> None:
            observer(kind, event["type"], dict(event["object"]))

    for kind in SELECTORS:
        if kind not in without:
            watch(kind)

    @kopf.on.event(LEASE.group, LEASE.version, LEASE.plural, registry=handlers, id="heartbeat")
    async def renewed(**_: Any) -> None:
        heartbeat()

    return handlers


async def connection_info(access: Access) -> kopf.ConnectionInfo:
    """kopf asks again after a 401, so a rotated service account token is picked up."""
    configuration = access.configuration
    authorization = await configuration.get_api_key_with_prefix("BearerToken")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        token=authorization.partition(" ")[2] if authorization else None,  # "Bearer t"; in a pod "bearer t"
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


def settings(lease: str) -> kopf.OperatorSettings:
    """``lease``: name of the Leases whose renewals prove that watches are alive."""
    found = kopf.OperatorSettings()
    found.persistence.diffbase_storage = NullDiffBase()
    found.persistence.progress_storage = NullProgress()
    for kind, selector in SELECTORS.items():
        if selector:
            found.watching.label_selectors[_resource(kind)] = selector
    found.watching.field_selectors[_resource(LEASE)] = f"metadata.name={lease}"
    found.watching.chunk_size = 100  # of every kind at once: parsed objects are what a start takes memory for
    found.watching.server_timeout = 300
    found.watching.reconnect_backoff = 1
    found.networking.error_backoffs = EndlessBackoff()
    found.networking.connect_timeout = 10
    found.queueing.exit_timeout = 1
    found.queueing.idle_timeout = 0.2  # kopf keeps a task and the last body of each object for so long, default 5 s
    found.posting.enabled = False
    found.scanning.disabled = True
    found.process.ultimate_exiting_timeout = 20
    return found


def owner_key(kind: Kind, manifest: Manifest) -> tuple[Kind, str, str] | None:
    """The tenant or pool that must look at an object: (kind, namespace, name); None for users' own Secrets."""
    metadata = manifest["metadata"]
    namespace = metadata.get("namespace", "")
    if kind in (POOL, TENANT):
        return kind, namespace, metadata["name"]
    annotations = annotations_of(manifest)
    for reference in metadata.get("ownerReferences") or ():
        for owner in (TENANT, POOL):
            if reference.get("kind") == owner.kind and reference.get("apiVersion") == owner.api_version:
                seat = annotations.get(TENANT_ANNOTATION, "")
                if owner == POOL and pool_of_seat(seat) == reference["name"]:
                    return TENANT, namespace, seat
                return owner, namespace, reference["name"]
    if tenant := annotations.get(TENANT_ANNOTATION):  # of a pod, which has a ReplicaSet for an owner
        return TENANT, namespace, tenant
    if pool := annotations.get(POOL_ANNOTATION):
        return POOL, namespace, pool
    return None


def record(cache: Cache, kind: Kind, event: str | None, manifest: Manifest) -> bool:
    """Put a watch event into the cache; ``event`` is None for objects of the initial list.

    False if it is no news: most events are the echo of what we wrote and have recorded from the answer.
    """
    if event == "DELETED":
        cache.drop(kind, manifest)
        return True
    return cache.put(kind, manifest, asyncio.get_running_loop().time())


def _resource(kind: Kind) -> tuple[str, str, str]:
    return kind.group, kind.version, kind.plural


class EndlessBackoff:
    """Seconds between kopf's retries: a finite list would end the process after an outage of a minute."""

    def __iter__(self) -> "_Growing":
        return _Growing()


class _Growing:
    def __init__(self) -> None:
        self._next = 0.5

    def __iter__(self) -> "_Growing":
        return self

    def __next__(self) -> float:
        self._next = min(self._next * 2, 15.0)
        return self._next


class NullDiffBase(kopf.DiffBaseStorage):
    """on.event needs no last-handled configuration; without it two thirds of kopf's work per event are gone."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class NullProgress(kopf.ProgressStorage):
    """on.event keeps no progress."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence
