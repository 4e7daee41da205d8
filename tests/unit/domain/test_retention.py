"""How long sessions are kept, how full volumes are: what agents are told, and steps and sizes in words."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.domain.desired.deployment import deployment
from copilot_operator.domain.health import cannot_work
from copilot_operator.domain.retention import Retention, almost_full, retention_of, size_text
from copilot_operator.domain.snapshot import ServerState
from tests.support.snapshots import NOW, a_pool, a_snapshot

WISHES = {"sessions.ttl": "168h", "sessions.ttlAction": "DryRun", "storage.highWaterMarkPercent": 70}


def test_agents_are_told_what_the_pool_says() -> None:
    assert retention_of(a_pool().spec) == Retention(0.0, False, 85)
    assert retention_of(a_pool(WISHES).spec) == Retention(604_800.0, True, 70)


def test_no_change_of_them_touches_a_deployment() -> None:
    assert deployment(a_snapshot(pool=a_pool(WISHES))) == deployment(a_snapshot())


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.integers(1, 100))
def test_a_volume_is_told_of_from_the_mark_on_and_until_it_is_well_below(percents: list[float], mark: int) -> None:
    told: dict[str, str] = {}
    for percent in percents:
        was = bool(told)
        found = almost_full(ServerState("pod", NOW, True, disk_percent=percent), mark, told)
        assert (found is not None) == (percent >= (mark - 5 if was else mark))
        told = {"reason": found.reason, "message": found.message} if found else {}


def test_a_server_that_makes_no_session_is_replaced_unless_it_is_for_its_volume() -> None:
    state = ServerState("pod", NOW, True, busy=0, deep_failure="no session can be made")
    assert cannot_work(state) == "no session can be made"
    assert cannot_work(replace(state, disk_percent=99.5)) == ""
    assert cannot_work(replace(state, read_only=True)) == ""


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (27_181, "26.5 KiB"),
        (1_048_575, "1024 KiB"),
        (3 << 30, "3 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert size_text(size) == text
