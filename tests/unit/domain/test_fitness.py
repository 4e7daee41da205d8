"""Clusters that are too old, and CRDs of another version than the operator's."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.api.crd import RESOURCES, definition
from copilot_operator.domain.fitness import Difference, as_published, difference, too_old

OURS = definition(RESOURCES[0])


def schema(crd: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def holders(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each field of a schema: the path of what holds it, and its name."""
    for name, part in node.get("properties", {}).items():
        yield prefix, name
        yield from holders(part, f"{prefix}{name}.")
    for key in ("items", "additionalProperties"):
        if isinstance(part := node.get(key), dict):
            yield from holders(part, f"{prefix.removesuffix('.')}[].")


def at(node: dict[str, Any], prefix: str) -> dict[str, Any]:
    for step in filter(None, prefix.split(".")):
        node = node["properties"][step.replace("[]", "")]
        for _ in range(step.count("[]")):
            node = node["items"] if "items" in node else node["additionalProperties"]
    return node


@pytest.mark.parametrize(("version", "wrong"), [
    ("v1.29.14", True), ("v1.9.0", True), ("v1.30.0", False), ("v1.30.2-gke.100", False), ("v2.0.0", False),
    ("v1.36.3+k3s1", False), ("", False), ("unknown", False),
])  # fmt: skip
def test_clusters_without_sidecars_are_too_old(version: str, wrong: bool) -> None:
    assert (f"{version} is too old" in too_old(version)) is wrong
    assert not wrong or "1.30 or later" in too_old(version)


def test_crds_of_this_version_are_neither_older_nor_newer() -> None:
    for resource in RESOURCES:
        ours = definition(resource)
        assert difference(copy.deepcopy(ours), ours) == Difference(ours["metadata"]["name"])


def published(crd: dict[str, Any]) -> dict[str, Any]:
    """As an API server publishes it (OpenAPI v3), beside the kinds that come with it."""
    names, version = crd["spec"]["names"], crd["spec"]["versions"][0]["name"]
    kind = {"group": crd["spec"]["group"], "version": version, "kind": names["kind"]}
    found = copy.deepcopy(schema(crd)) | {"x-kubernetes-group-version-kind": [kind]}
    found["properties"]["metadata"] = {"allOf": [{"$ref": "#/components/schemas/ObjectMeta"}]}
    of_list = {"x-kubernetes-group-version-kind": [kind | {"kind": names["listKind"]}]}
    return {"ObjectMeta": {"type": "object"}, f"{kind['kind']}List": of_list, kind["kind"]: found}


def test_what_is_published_of_the_crds_tells_of_which_version_they_are() -> None:
    schemas: dict[str, Any] = {}
    for resource in RESOURCES:
        assert as_published(schemas, definition(resource)) is None, "the CRD is missing"
        schemas |= published(definition(resource))
    for resource in RESOURCES:
        ours = definition(resource)
        live = as_published(schemas, ours)
        assert live
        assert difference(live, ours) == Difference(ours["metadata"]["name"])
        spec = schemas[resource.kind]["properties"]["spec"]["properties"]
        spec["toCome"] = spec.pop(next(iter(spec)))
        assert difference(live, ours).more[0] == "spec.toCome"
        assert difference(live, ours).lacks


@given(field=st.sampled_from(sorted(set(holders(schema(OURS))))))
def test_any_field_that_is_missing_or_too_many_is_named(field: tuple[str, str]) -> None:
    prefix, name = field
    other = copy.deepcopy(OURS)
    del at(schema(other), prefix)["properties"][name]
    older, newer = difference(other, OURS), difference(OURS, other)
    assert f"lacks {prefix}{name};" in older.older
    assert not older.newer
    assert f"nothing for {prefix}{name};" in newer.newer
    assert not newer.older


def test_a_crd_without_our_version_is_older() -> None:
    other = copy.deepcopy(OURS)
    other["spec"]["versions"][0]["name"] = "v1alpha0"
    assert "lacks version v1alpha1" in difference(other, OURS).older
    other["spec"]["versions"][0] |= {"name": "v1alpha1", "served": False}
    assert "lacks version v1alpha1" in difference(other, OURS).older


def test_many_fields_are_counted() -> None:
    other = copy.deepcopy(OURS)
    spec = schema(other)["properties"]["spec"]["properties"]
    for number in range(8):
        spec[f"toCome{number}"] = {"type": "string"}
    assert "spec.toCome4 and 3 more;" in difference(other, OURS).newer
