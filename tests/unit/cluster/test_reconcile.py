"""A cycle whose lease is in doubt is tried again: no event would remind us of what was not written."""

from typing import Any, cast

import pytest

from copilot_operator.cluster.answers import Answers
from copilot_operator.cluster.cache import Cache
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.execute import Executor, NotLeading
from copilot_operator.cluster.reconcile import Reconciler
from copilot_operator.cluster.tenants import Tenants
from copilot_operator.domain.kinds import TENANT
from copilot_operator.domain.snapshot import Finding, TenantSnapshot
from tests.support.snapshots import NAMESPACE, a_snapshot


class Seen:
    """A gatherer that has seen just this; every other call of the API would fail."""

    async def snapshot(self, namespace: str, name: str) -> TenantSnapshot:
        return a_snapshot(unusable=Finding("PoolNotFound", "there is none"))


async def test_a_status_that_may_not_be_written_now_is_not_forgotten() -> None:
    api, cache = cast(KubeApi, None), Cache()
    nothing: Any = lambda *_: None  # noqa: E731
    answers = Answers(cache, nothing)
    reconciler = Reconciler(
        api,
        cache,
        answers,
        cast(Tenants, Seen()),
        nothing,
        Executor(api, answers, lambda: False),
        lambda: False,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
    )
    with pytest.raises(NotLeading):
        await reconciler((TENANT, NAMESPACE, "alice"))
