"""A short run of ``make stress-rotate``: tokens end, no turn fails, and the run is not blind. Real CLI."""

from pathlib import Path

from tests.stress.rotation import Plan, measured


async def test_no_turn_fails_while_tokens_end_and_servers_take_the_next_ones(tmp_path: Path) -> None:
    found = await measured(Plan(life_s=60, lasts_s=240, enough=3), tmp_path)
    assert [found[bad] for bad in ("failed", "stuck", "errors", "with_ended_token")] == [0, 0, 0, 0], found
    assert found["rotations"] >= 3, found
    assert found["turns"] >= 10, found


async def test_with_servers_that_keep_their_token_the_same_run_fails_turns(tmp_path: Path) -> None:
    found = await measured(Plan(life_s=20, lasts_s=120, clients=2, servers=1, rotates=False), tmp_path)
    assert found["turns"] > found["failed"] > 0, found
    assert found["with_ended_token"] > 0, found
