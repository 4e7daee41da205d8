"""Objects as the API server speaks them: plain dicts, and the few questions everybody asks of one."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Manifest: TypeAlias = dict[str, Any]


def controller_uid(manifest: Mapping[str, Any]) -> str | None:
    """UID of the owner that controls the object (metadata.ownerReferences[].controller), None without one."""
    references: Iterable[Manifest] = manifest.get("metadata", {}).get("ownerReferences") or ()
    return next((reference["uid"] for reference in references if reference.get("controller")), None)


def labels_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    return manifest.get("metadata", {}).get("labels") or {}


def annotations_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    return manifest.get("metadata", {}).get("annotations") or {}


def condition_of(status: Mapping[str, Any], name: str) -> Manifest:
    """The condition of that type in an object's status; empty if it was never written."""
    found: Iterable[Manifest] = status.get("conditions") or ()
    return next((each for each in found if each.get("type") == name), {})


def digest(value: Any) -> str:
    """16 hexadecimal digits that name a JSON value; the order of a map's keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def owner_reference(owner: Mapping[str, Any]) -> Manifest:
    """The controlling reference to ``owner`` (metav1.OwnerReference). It blocks nobody's deletion."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
