"""Whatever stands still, dies, starts again or gets lost: a session is never loaded on two servers, and never lost."""

import asyncio
import random
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_operator.agent.claims import Call, Claims
from tests.property.claims_world import Choose, World, lived_through

LIVES = 400
STEPS = 500


@contextmanager
def a_volume() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="claims-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def live(choose: Choose, steps: int, claims: type[Claims] = Claims) -> World:
    with a_volume() as volume:
        return asyncio.run(lived_through(volume, choose, steps, claims))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 63), min_size=20, max_size=600))
def test_a_session_is_never_loaded_on_two_servers_and_never_lost(choices: list[int]) -> None:
    left = iter(choices)
    live(lambda below: next(left, 0) % below, len(choices) // 3)


def test_many_long_lives() -> None:
    loads = 0
    for seed in range(60):
        loads += live(random.Random(seed).randrange, STEPS).loads
    assert loads > 300, "or nothing was tried"


class ReleasesWithPermissionsOut(Claims):
    async def release(self, id: str) -> bool:
        for held in self._held.values():
            held.permits.clear()
        return await super().release(id)


class AsksNoProofOfLife(Claims):
    async def grant(self, wanted: Any, gone: Collection[str] = ()) -> dict[str, str]:
        call = self._call

        async def blindly(method: str, params: dict[str, Any]) -> Any:
            return {} if method == "ping" or call is None else await call(method, params)

        self._call = blindly if call else None
        try:
            return await super().grant(wanted, gone)
        finally:
            self._call = call


class TakesOverFromTheLiving(Claims):
    async def grant(self, wanted: Any, gone: Collection[str] = ()) -> dict[str, str]:
        return await super().grant(wanted, {f"u{number}" for number in range(100)})


class ForgetsWhatAgentsBeforeItGave(Claims):
    async def _claim(self, name: str, holder: str, gone: Collection[str]) -> str:
        self._looked_through = True
        return await super()._claim(name, holder, gone)

    async def look_through(self) -> None:
        self._looked_through = True


class TakesEachConnectionForAnotherProcess(Claims):
    async def met(self, call: Call) -> None:
        self._void()
        await super().met(call)


@pytest.mark.parametrize(
    ("broken", "first"),
    [
        (ReleasesWithPermissionsOut, 4),
        (AsksNoProofOfLife, 98),
        (TakesOverFromTheLiving, 0),
        (ForgetsWhatAgentsBeforeItGave, 1142),
        (TakesEachConnectionForAnotherProcess, 35),
    ],
)
def test_less_would_not_do(broken: type[Claims], first: int) -> None:
    """``first``: a life that shows it; should the world have changed others after it do."""
    for seed in range(first, first + LIVES):
        try:
            live(random.Random(seed).randrange, STEPS, broken)
        except AssertionError:
            return
    raise AssertionError(f"{LIVES} lives, and nothing was found")
