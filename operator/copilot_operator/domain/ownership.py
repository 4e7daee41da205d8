"""Whose is an object that has the name of a child? Labels find objects; only the controller's UID decides."""

from copilot_operator.domain.kinds import CLAIM, TENANT, Kind
from copilot_operator.domain.manifest import Manifest, annotations_of, controller_uid, labels_of
from copilot_operator.domain.naming import (
    MANAGED_BY,
    MANAGED_BY_LABEL,
    POOL_ANNOTATION,
    POOL_LABEL,
    TENANT_ANNOTATION,
    slug,
)
from copilot_operator.domain.snapshot import Finding, TenantSnapshot


def obstacle(kind: Kind, live: Manifest, snapshot: TenantSnapshot) -> Finding | None:
    """Why ``live`` can't be this tenant's child; None if it is one, or a retained claim to be adopted.

    ``PreviousRemains`` ends by itself (objects of a former tenant of this name are going), ``NameTaken`` does not.
    """
    metadata = live["metadata"]
    name = metadata["name"]
    controller = controller_uid(live)
    ours = controller == snapshot.raw["metadata"]["uid"]
    if kind == CLAIM and (ours or (controller is None and _retained(live, snapshot))):
        return None  # even while it is deleted: the server uses it, and must be able to stop
    if "deletionTimestamp" in metadata:
        return Finding("PreviousRemains", f"Waits until {kind} {name}, which is being deleted, is gone")
    if ours:
        return None
    references = metadata.get("ownerReferences") or ()
    if any(ref.get("kind") == TENANT.kind and ref.get("name") == snapshot.name for ref in references):
        return Finding("PreviousRemains", f"Waits until {kind} {name} of the former tenant of this name is gone")
    return Finding("NameTaken", f"{kind} {name} exists and does not belong to this tenant: delete or rename it")


def _retained(claim: Manifest, snapshot: TenantSnapshot) -> bool:
    """Kept by ``deletionPolicy: Retain`` for a tenant of just this name in the same pool."""
    labels, annotations = labels_of(claim), annotations_of(claim)
    ours = annotations.get(TENANT_ANNOTATION) == snapshot.name
    if snapshot.shares_volume:
        ours = annotations.get(POOL_ANNOTATION) == snapshot.pool_name
    ours = ours and labels.get(MANAGED_BY_LABEL) == MANAGED_BY
    return ours and (snapshot.spec is None or labels.get(POOL_LABEL) == slug(snapshot.spec.pool_ref.name))
