"""What a storage class lets a claim do."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent
from copilot_operator.cluster.storage import DEFAULT_CLASS, StorageClasses
from copilot_operator.domain.kinds import Kind


class Classes:
    """An API server with these StorageClasses, and no CSI driver."""

    def __init__(self, **classes: dict[str, Any]) -> None:
        self.classes = classes

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        if kind.kind == "StorageClass" and name in self.classes:
            return {"provisioner": "rancher.io/local-path"} | self.classes[name]
        raise Absent(f"get {name}", 404, "NotFound", "")


@pytest.mark.parametrize(
    ("name", "grows"),
    [("grows", True), ("says-no", False), ("says-nothing", False), ("gone", False), ("", False), (None, False)],
)
async def test_a_claim_grows_where_its_own_class_says_so(name: str | None, grows: bool) -> None:
    api = Classes(
        **{"grows": {"allowVolumeExpansion": True}, "says-no": {"allowVolumeExpansion": False}, "says-nothing": {}}
    )
    spec = {} if name is None else {"storageClassName": name}
    assert (await StorageClasses(cast(KubeApi, api)).of({"spec": spec})).grows is grows


async def test_where_classes_may_not_be_read_nobody_asks_and_nothing_is_made_up() -> None:
    nobody = StorageClasses(cast(KubeApi, None), readable=False)
    for found in (await nobody.look_up(None), await nobody.look_up("fast")):
        assert (found.access_mode, found.finding, found.known) == ("ReadWriteOnce", None, False)
    live = await nobody.of({"spec": {"storageClassName": "fast"}})
    assert (live.grows, live.known) == (False, False)


class Defaults(Classes):
    async def list_pages(self, kind: Kind) -> AsyncIterator[dict[str, Any]]:
        for name, each in self.classes.items():
            yield {
                "metadata": {"name": name, "creationTimestamp": name, **each},
                "provisioner": "rancher.io/local-path",
            }


async def test_without_a_default_class_the_finding_tells_both_ways_out() -> None:
    none = StorageClasses(cast(KubeApi, Defaults(fast={}, slow={"annotations": {DEFAULT_CLASS: "false"}})))
    finding = (await none.look_up(None)).finding
    assert finding
    assert finding.reason == "NoDefaultStorageClass"
    assert "mark one" in finding.message
    assert "storage.storageClassName" in finding.message
    one = StorageClasses(cast(KubeApi, Defaults(slow={"annotations": {DEFAULT_CLASS: "true"}})))
    assert (await one.look_up(None)).finding is None
