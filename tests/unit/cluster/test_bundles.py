"""Certificates that pools name: one question for all, asked again in time, and a change is told."""

import asyncio
from typing import Any, cast

import pytest

from copilot_operator.api.outside import CABundleRef
from copilot_operator.cluster.bundles import FRESH_S, MENDED_S, Bundles
from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent, ApiError
from copilot_operator.domain.kinds import CONFIG_MAP, Kind
from tests.support.certificates import certificate
from tests.support.snapshots import NAMESPACE
from tests.support.virtual_time import run_in_virtual_time

ONE, TWO = certificate("one.example.com")[0], certificate("two.example.com")[0]
REF = CABundleRef(name="ca")


class Api:
    """An API server with one ConfigMap, or none, or one that does not answer."""

    def __init__(self, text: str | None) -> None:
        self.text, self.failure, self.asked = text, cast(ApiError | None, None), 0

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        assert (kind, namespace, name) == (CONFIG_MAP, NAMESPACE, "ca")
        self.asked += 1
        await asyncio.sleep(0.1)
        if self.failure:
            raise self.failure
        if self.text is None:
            raise Absent(f"get {name}", 404, "NotFound", "")
        return {"data": {"ca.crt": self.text}}


class Bed:
    def __init__(self, text: str | None) -> None:
        self.api, self.told = Api(text), list[tuple[str, str]]()
        self.bundles = Bundles(cast(KubeApi, self.api), lambda namespace, pool: self.told.append((namespace, pool)))

    async def finding(self) -> str | None:
        found = await self.bundles.find(NAMESPACE, "saas", REF)
        assert found
        return found.finding.reason if found.finding else None


def test_many_askers_share_a_question_which_is_asked_again_in_a_while_and_a_change_is_told_once() -> None:
    async def run() -> None:
        bed = Bed(ONE)
        assert await asyncio.gather(*(bed.finding() for _ in range(100))) == [None] * 100
        assert bed.api.asked == 1
        bed.api.text = TWO
        await asyncio.sleep(FRESH_S - 1)
        await bed.finding()
        assert (bed.api.asked, bed.told) == (1, [])
        await asyncio.sleep(1)
        assert await asyncio.gather(*(bed.finding() for _ in range(100))) == [None] * 100
        assert (bed.api.asked, bed.told) == (2, [(NAMESPACE, "saas")])
        await asyncio.sleep(FRESH_S)
        await bed.finding()
        assert (bed.api.asked, len(bed.told)) == (3, 1), "nothing has changed since"

    run_in_virtual_time(run())


def test_one_that_is_missing_is_looked_for_soon_and_told_when_it_comes() -> None:
    async def run() -> None:
        bed = Bed(None)
        assert await bed.finding() == "ConfigMapNotFound"
        bed.api.text = ONE
        await asyncio.sleep(MENDED_S)
        assert await bed.finding() is None
        assert bed.told == [(NAMESPACE, "saas")]

    run_in_virtual_time(run())


def test_an_api_server_that_does_not_answer_is_no_missing_config_map_and_hides_no_change() -> None:
    async def run() -> None:
        bed = Bed(ONE)
        await bed.finding()
        bed.api.failure = ApiError("get ca", 503, "ServiceUnavailable", "")
        await asyncio.sleep(FRESH_S)
        for _ in range(2):
            with pytest.raises(ApiError):
                await bed.finding()
        bed.api.failure, bed.api.text = None, TWO
        assert await bed.finding() is None
        assert bed.told == [(NAMESPACE, "saas")]

    run_in_virtual_time(run())


async def test_without_a_reference_nothing_is_asked() -> None:
    assert await Bundles(cast(KubeApi, None), lambda *_: None).find(NAMESPACE, "saas", None) is None
