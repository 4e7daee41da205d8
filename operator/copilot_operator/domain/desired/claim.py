"""The PersistentVolumeClaim with a server's state: COPILOT_HOME, home and workspace; or, where servers share it, with
the sessions of all servers of a pool, and who has which (``agent/claims.py``)."""

from copilot_operator.api.quantity import quantity_value
from copilot_operator.domain.desired.common import child, pool_labels, stamped
from copilot_operator.domain.kinds import CLAIM
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import POOL_ANNOTATION
from copilot_operator.domain.snapshot import TenantSnapshot


def claim(snapshot: TenantSnapshot) -> Manifest:
    """The claim as the API server takes it.

    A claim can grow and nothing else: of a live one the larger size, the access mode and the class stay; the size, too,
    where its class lets no volume grow, for a refusal would keep the server from whatever comes after it.
    With ``deletionPolicy: Retain`` it has no owner, so it outlives its tenant; a tenant of that name finds it again.
    Each server of a pool with shared storage asks for the same one.
    """
    assert snapshot.spec
    assert snapshot.pool
    storage = snapshot.pool.spec.storage
    manifest = child(CLAIM, snapshot, owned=snapshot.spec.deletion_policy == "Delete")
    access_mode = snapshot.storage.access_mode
    if snapshot.shares_volume:
        pool, access_mode = snapshot.pool_name, "ReadWriteMany"
        named = {"name": snapshot.claim, "labels": pool_labels(pool), "annotations": {POOL_ANNOTATION: pool}}
        manifest["metadata"] |= named
    spec: Manifest = {
        "accessModes": [access_mode],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name:
        spec["storageClassName"] = storage.storage_class_name
    # the stamp names what we want, not what the live claim already is, else the first apply would seem outdated
    return stamped(manifest | {"spec": {"resources": spec["resources"]}}) | {"spec": _fitted(spec, snapshot)}


def _fitted(spec: Manifest, snapshot: TenantSnapshot) -> Manifest:
    if snapshot.children.claim is None:
        return spec
    live = snapshot.children.claim["spec"]
    kept = {field: live[field] for field in ("accessModes", "storageClassName") if field in live}
    size, has = spec["resources"]["requests"]["storage"], size_of(snapshot.children.claim)
    if has and (quantity_value(size) < quantity_value(has) or not snapshot.storage.grows):
        size = has
    return kept | {"resources": {"requests": {"storage": size}}}


def size_of(claim: Manifest) -> str | None:
    """What a live claim asks for."""
    has = claim["spec"].get("resources", {}).get("requests", {}).get("storage")
    return None if has is None else str(has)


def is_smaller(claim: Manifest, size: str) -> bool:
    """Whether a live claim asks for less."""
    has = size_of(claim)
    return has is not None and quantity_value(has) < quantity_value(size)
