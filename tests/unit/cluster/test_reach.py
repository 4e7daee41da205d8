"""Which namespaces are served where some are to be: those that may be read, each as a whole."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Forbidden, Unavailable
from copilot_operator.cluster.observe import SELECTORS
from copilot_operator.cluster.reach import PERIOD_S, Reach, ReachChanged
from copilot_operator.cluster.resync import Resync
from copilot_operator.domain.kinds import NODE, POOL, Kind
from copilot_operator.domain.manifest import Manifest


class Api:
    """An API server that forbids listing these (namespace, plural). ``asked``: what was listed, and where."""

    def __init__(self, *forbids: tuple[str, str]) -> None:
        self.forbids = set(forbids)
        self.away = False
        self.unsure = ""  # what the API server could not evaluate
        self.asked: set[tuple[str, str]] = set()
        self.pools: dict[str, list[str]] = {}

    async def create(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        if self.away:
            raise Unavailable("create", 0, "", "no answer")
        assert (kind.plural, namespace) == ("selfsubjectaccessreviews", "")
        asked = manifest["spec"]["resourceAttributes"]
        allowed = (asked["namespace"], asked["resource"]) not in self.forbids
        assert (asked.get("name") == "copilot-operator-mark") == (asked["resource"] == "leases")
        if self.unsure:
            return manifest | {"status": {"allowed": False, "evaluationError": self.unsure}}
        return manifest | {"status": {"allowed": allowed}}

    async def list_pages(self, kind: Kind, *, namespace: str, selector: str) -> AsyncIterator[Manifest]:
        self.asked.add((namespace, kind.plural))
        if (namespace, kind.plural) in self.forbids:
            raise Forbidden(f"list {kind.path(namespace)}", 403, "Forbidden", "")
        for name in self.pools.get(namespace, ()) if kind == POOL else ():
            yield {"metadata": {"namespace": namespace, "name": name, "uid": name, "resourceVersion": "1"}}


def reach(api: Api, *wanted: str) -> Reach:
    return Reach(cast(KubeApi, api), wanted)


async def test_all_namespaces_are_served_without_a_question_where_none_is_named() -> None:
    assert await reach(cast(Api, None)).look()


async def test_one_line_tells_what_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    found = reach(Api(), "a", "b")
    for _ in range(3):
        assert await found.look()
    assert found.served == ("a", "b")
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    for what in ("nodes", "storage classes", "an installation that serves all namespaces"):
        assert what in line.getMessage()


async def test_a_namespace_where_anything_may_not_be_read_is_left_out_as_a_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = reach(Api(("b", "pods"), ("b", "leases")), "a", "b")
    assert await found.look()
    assert (found.served, found.why_not) == (("a",), "")
    (said,) = [line for line in caplog.records if line.levelno == logging.ERROR]
    told: Any = said
    assert (told.namespace, told.may_not_list) == ("b", "pods, leases")


async def test_where_none_may_be_read_the_operator_waits_and_says_why() -> None:
    api = Api(("a", "secrets"))
    found = reach(api, "a")
    assert not await found.look()
    assert found.why_not == "none of the namespaces to watch may be read: a: may not list secrets"
    api.forbids.clear()
    assert await found.look()
    assert (found.served, found.why_not) == (("a",), "")


@pytest.mark.looptime
@pytest.mark.parametrize("change", [("a", "pods"), ("b", "pods")])
async def test_what_is_lost_or_comes_back_has_the_operator_begin_anew(change: tuple[str, str]) -> None:
    api = Api(("b", "pods"))
    found = reach(api, "a", "b")
    await found.look()
    task = asyncio.create_task(found.follow())
    await asyncio.sleep(10 * PERIOD_S)
    api.unsure = "webhook: connection refused"  # nothing follows from that
    await asyncio.sleep(5 * PERIOD_S)
    assert not task.done()
    api.unsure, api.away = "", True  # nor from no answer
    await asyncio.sleep(10 * PERIOD_S)
    api.away = False
    assert not task.done()
    api.forbids ^= {change}
    with pytest.raises(ReachChanged, match=f"than when it began: {change[0]}$"):
        await asyncio.wait_for(task, 2 * PERIOD_S)


async def test_of_the_cluster_itself_nothing_is_listed() -> None:
    api, cache = Api(), Cache()
    api.pools = {"a": ["one"], "b": ["two"], "c": ["three"]}
    resync = Resync(cast(KubeApi, api), cache, lambda kind, manifest: None, ("a", "b"))
    await resync.run_once()
    assert api.asked == {(namespace, kind.plural) for namespace in "ab" for kind in SELECTORS if kind != NODE}
    assert cache.keys(POOL) == [("a", "one"), ("b", "two")]
    assert resync.forbidden == {NODE}, "what nobody asked for is not known, and none of it is gone"
    del api.pools["a"]
    await resync.run_once()
    assert cache.keys(POOL) == [("b", "two")]


async def test_what_may_not_be_read_any_more_is_not_gone() -> None:
    api, cache = Api(), Cache()
    api.pools = {"a": ["one"], "b": ["two"]}
    resync = Resync(cast(KubeApi, api), cache, lambda kind, manifest: None, ("a", "b"))
    await resync.run_once()
    api.pools, api.forbids = {}, {("b", "copilotpools")}
    with pytest.raises(Forbidden):
        await resync.run_once()
    assert cache.keys(POOL) == [("a", "one"), ("b", "two")]
