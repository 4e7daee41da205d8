"""What others changed just before we wrote is heard of, though our answer is newer than its watch event."""

from typing import Any

import pytest

from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.cache import Cache
from copilot_operator.domain.kinds import DEPLOYMENT, POOL, TENANT, Kind
from copilot_operator.domain.manifest import Manifest


def an_object(version: int, *, generation: int = 1, spec: Any = None, status: Any = None, **metadata: Any) -> Manifest:
    identity = {"name": "a", "namespace": "apps", "uid": "1", "resourceVersion": str(version), "generation": generation}
    return {"metadata": identity | metadata, "spec": spec or {}} | ({"status": status} if status else {})


class Told:
    def __init__(self, kind: Kind, before: Manifest) -> None:
        self.cache, self.changed = Cache(), list[Manifest]()
        self.cache.put(kind, before, 0.0)
        self.answers = Answers(self.cache, lambda kind, manifest: self.changed.append(manifest))


@pytest.mark.parametrize("kind", [TENANT, POOL])
@pytest.mark.parametrize(
    "change", [{"spec": {"suspended": False}, "generation": 2}, {"annotations": {"copilot-operator.io/paused": "true"}}]
)
async def test_a_wish_that_came_just_before_our_status(kind: Kind, change: dict[str, Any]) -> None:
    told = Told(kind, an_object(10, spec={"suspended": True}))
    told.answers.keep(kind, an_object(12, **{"spec": {"suspended": True}, **change}, status={"x": 1}), of_status=True)
    (heard,) = told.changed
    assert heard["metadata"]["resourceVersion"] == "12"
    assert not told.cache.put(kind, an_object(11, **change), 1.0), "its own event is no news any more"


async def test_our_status_alone_is_no_news() -> None:
    told = Told(TENANT, an_object(10, spec={"suspended": True}))
    told.answers.keep(TENANT, an_object(11, spec={"suspended": True}, status={"x": 1}), of_status=True)
    assert told.changed == []
    assert told.cache.version(TENANT, "apps", "a") == "11"


@pytest.mark.parametrize(("status", "told_of"), [({"replicas": 1}, 0), ({"replicas": 0}, 1)])
async def test_what_a_controller_said_just_before_our_change(status: Any, told_of: int) -> None:
    told = Told(DEPLOYMENT, an_object(10, status={"replicas": 1}))
    told.answers.keep(DEPLOYMENT, an_object(12, generation=2, status=status, annotations={"ours": "1"}))
    assert len(told.changed) == told_of


async def test_an_answer_that_is_older_than_what_we_know_tells_nothing() -> None:
    told = Told(TENANT, an_object(10, spec={"suspended": True}))
    told.answers.keep(TENANT, an_object(9, spec={"suspended": False}), of_status=True)
    assert told.changed == []
