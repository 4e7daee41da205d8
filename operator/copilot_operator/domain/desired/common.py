"""What all our objects share: labels, owner, and the hash that tells our own change from somebody else's."""

from collections.abc import Mapping

from copilot_operator.domain.kinds import Kind
from copilot_operator.domain.manifest import Manifest, annotations_of, digest, owner_reference
from copilot_operator.domain.naming import (
    APPLIED_ANNOTATION,
    GATEWAY_NAME,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    NAME_LABEL,
    POOL_LABEL,
    POOL_REVISION_ANNOTATION,
    SERVER_NAME,
    TENANT_ANNOTATION,
    TENANT_LABEL,
    slug,
)
from copilot_operator.domain.snapshot import TenantSnapshot


def pool_labels(pool: str) -> dict[str, str]:
    return {MANAGED_BY_LABEL: MANAGED_BY, NAME_LABEL: SERVER_NAME, POOL_LABEL: slug(pool)}


def gateway_labels(pool: str) -> dict[str, str]:
    return {MANAGED_BY_LABEL: MANAGED_BY, NAME_LABEL: GATEWAY_NAME, POOL_LABEL: slug(pool)}


def tenant_labels(snapshot: TenantSnapshot) -> dict[str, str]:
    assert snapshot.spec
    return pool_labels(snapshot.spec.pool_ref.name) | {TENANT_LABEL: slug(snapshot.name)}


def selector(snapshot: TenantSnapshot) -> dict[str, str]:
    """The labels that select the pods of the server and no others; never changes for a tenant."""
    return {NAME_LABEL: SERVER_NAME, TENANT_LABEL: slug(snapshot.name)}


def child(
    kind: Kind, snapshot: TenantSnapshot, *, owned: bool = True, labels: Mapping[str, str] | None = None
) -> Manifest:
    """Head of a tenant's child; ``owned``: the garbage collector removes it with its tenant."""
    metadata: Manifest = {
        "name": snapshot.server,
        "namespace": snapshot.namespace,
        "labels": tenant_labels(snapshot) | dict(labels or {}),
        "annotations": {TENANT_ANNOTATION: snapshot.name},
    }
    if owned:
        metadata["ownerReferences"] = [owner_reference(snapshot.owner or snapshot.raw)]
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


def stamped(manifest: Manifest) -> Manifest:
    """The manifest with the hash of itself in an annotation: what we applied, whatever the server made of it."""
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {}) | {APPLIED_ANNOTATION: digest(manifest)}
    return manifest | {"metadata": metadata | {"annotations": annotations}}


def with_revision(manifest: Manifest, revision: str) -> Manifest:
    """The manifest with the name of the pool's revision, which the hash does not cover: names may change."""
    if not revision:
        return manifest
    metadata = manifest["metadata"]
    annotations = metadata["annotations"] | {POOL_REVISION_ANNOTATION: revision}
    return manifest | {"metadata": metadata | {"annotations": annotations}}


def is_outdated(live: Manifest, wanted: Manifest) -> bool:
    """Whether ``live`` was applied from another manifest than ``wanted``; what others made of it is not looked at."""
    return annotations_of(live).get(APPLIED_ANNOTATION) != annotations_of(wanted).get(APPLIED_ANNOTATION)
