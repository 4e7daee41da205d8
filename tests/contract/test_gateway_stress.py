"""A short run of ``make stress-gateway``: no turn is lost and no connection closed, and the run is not blind."""

from pathlib import Path

import pytest

from tests.stress.gateways import Plan, measured

SEED = 7


@pytest.mark.parametrize("keep", [True, False], ids=["as deployed", "gateways that keep nothing for each other"])
async def test_a_short_stress(tmp_path: Path, keep: bool) -> None:
    found = await measured(Plan(events=6, seed=SEED, clients=30, servers=3, keep=keep, real=False), tmp_path)
    if keep:
        assert [found[bad] for bad in ("lost", "connections_closed", "stuck", "errors")] == [0, 0, 0, 0], found
        assert found["turns"] > 50
    else:
        assert found["lost"], "nothing would show that a turn is lost"
