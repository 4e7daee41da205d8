"""The PersistentVolumeClaim with a server's state: COPILOT_HOME, home and workspace."""

from copilot_operator.api.quantity import quantity_value
from copilot_operator.domain.desired.common import child, stamped
from copilot_operator.domain.kinds import CLAIM
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.snapshot import TenantSnapshot


def claim(snapshot: TenantSnapshot) -> Manifest:
    """The claim as the API server takes it.

    A claim can grow and nothing else: of a live one the larger size, the access mode and the class stay.
    With ``deletionPolicy: Retain`` it has no owner, so it outlives its tenant; a tenant of that name finds it again.
    """
    assert snapshot.spec
    assert snapshot.pool
    storage = snapshot.pool.spec.storage
    manifest = child(CLAIM, snapshot, owned=snapshot.spec.deletion_policy == "Delete")
    spec: Manifest = {
        "accessModes": [snapshot.storage.access_mode],
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
    return kept | {"resources": {"requests": {"storage": _larger(spec["resources"]["requests"]["storage"], live)}}}


def _larger(size: str, live: Manifest) -> str:
    has = live.get("resources", {}).get("requests", {}).get("storage")
    return size if has is None or quantity_value(size) >= quantity_value(str(has)) else str(has)
