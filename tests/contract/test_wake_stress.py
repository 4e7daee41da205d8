"""A short run of ``make stress-wake``: servers that sleep and are woken leave nothing behind, and lose nothing."""

from pathlib import Path

import pytest

from tests.stress.wake import Plan, measured


@pytest.mark.parametrize("real", [True, False], ids=["real", "stand-in"])
async def test_servers_that_sleep_and_are_woken_leave_nothing_behind(tmp_path: Path, real: bool) -> None:
    found = await measured(Plan(wakes=3, tenants=2, real=real), tmp_path)
    assert [found[bad] for bad in ("left", "lost", "refused", "errors")] == [[], 0, 0, 0], found
