"""Rotation of tenants' tokens: what is taken when, and that it converges from whatever was noted."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.api.tenant import ConnectionToken
from copilot_operator.domain.desired.connection import connection
from copilot_operator.domain.manifest import owner_reference
from copilot_operator.domain.secrets import as_observed
from copilot_operator.domain.tenant_tokens import Rotation, changes_at, rotated, rotation_of, token_of
from tests.support.snapshots import NOW, NOW_TEXT, a_pool, a_snapshot, a_tenant

LATER = NOW + timedelta(hours=1)
LATER_TEXT = "2026-03-01T13:00:00Z"


def at(time: str, overlap: str | None = None) -> ConnectionToken:
    return ConnectionToken.model_validate({"rotateAt": time} | ({"overlap": overlap} if overlap else {}))


def test_every_rotation_has_a_token_of_its_own_and_the_first_is_the_one_of_always() -> None:
    tokens = {token_of("key", "uid", each) for each in ("", NOW_TEXT, LATER_TEXT)}
    assert len(tokens) == 3
    assert token_of("key", "uid", "") == token_of("key", "uid")
    assert token_of("key", "uid", "x") != token_of("key", "uid:x", "x")


def test_old_and_new_are_taken_for_the_overlap_and_then_the_new_one_alone() -> None:
    first = rotated(Rotation(), at(NOW_TEXT), NOW)
    assert first == Rotation(NOW_TEXT, "", NOW + timedelta(minutes=10))
    assert first.valid == (NOW_TEXT, "")
    assert rotated(first, at(NOW_TEXT), NOW + timedelta(minutes=9)) == first
    assert rotated(first, at(NOW_TEXT), NOW + timedelta(minutes=10)) == Rotation(NOW_TEXT)
    assert rotated(first, None, LATER) == Rotation(NOW_TEXT), "whoever takes the field away gets no old token back"


def test_without_an_overlap_the_old_one_is_dead_at_once() -> None:
    assert rotated(Rotation(), at(NOW_TEXT, "0s"), NOW).valid == (NOW_TEXT,)


def test_a_time_to_come_is_waited_for() -> None:
    assert rotated(Rotation(), at(LATER_TEXT), NOW) == Rotation()
    assert changes_at(Rotation(), at(LATER_TEXT), NOW) == LATER
    assert changes_at(Rotation(NOW_TEXT), at(NOW_TEXT), NOW) is None


def test_a_second_rotation_within_the_overlap_kills_the_first_token() -> None:
    first = rotated(Rotation(), at(NOW_TEXT, "168h"), NOW)
    assert rotated(first, at(LATER_TEXT), LATER).valid == (LATER_TEXT, NOW_TEXT)


def test_a_period_rotates_again_and_again_and_of_those_missed_once() -> None:
    wanted = ConnectionToken.model_validate({"rotateAt": NOW_TEXT, "every": "1h"})
    first = rotated(Rotation(), wanted, NOW + timedelta(minutes=30))
    assert first.valid == (NOW_TEXT, "")
    assert changes_at(Rotation(NOW_TEXT), wanted, NOW + timedelta(minutes=30)) == LATER
    second = rotated(first, wanted, LATER)
    assert second.valid == (LATER_TEXT, NOW_TEXT)
    assert changes_at(Rotation(LATER_TEXT), wanted, LATER) == LATER + timedelta(hours=1)
    days = LATER + timedelta(days=3, minutes=1)
    assert rotated(second, wanted, days).valid == ("2026-03-04T13:00:00Z", LATER_TEXT)
    before = NOW - timedelta(seconds=1)
    assert rotated(Rotation(), wanted, before) == Rotation()
    assert changes_at(Rotation(), wanted, before) == NOW


def test_a_dead_token_never_comes_back() -> None:
    held = Rotation(LATER_TEXT)
    later = LATER + timedelta(hours=1)
    assert rotated(held, at(NOW_TEXT), later) == held, "the period was taken away, and its first time is left"
    assert rotated(Rotation("nonsense"), at(NOW_TEXT), later).current == NOW_TEXT


@pytest.mark.parametrize(("every", "overlap"), [("1h", "61m"), ("30m", None), ("8761h", None)])
def test_a_period_that_is_too_short_or_too_long_is_refused(every: str, overlap: str | None) -> None:
    given = {"rotateAt": NOW_TEXT, "every": every} | ({"overlap": overlap} if overlap else {})
    with pytest.raises(ValueError, match="every"):
        ConnectionToken.model_validate(given)


HOURLY = ConnectionToken.model_validate({"rotateAt": NOW_TEXT, "every": "1h", "overlap": "20m"})


@given(st.sampled_from([None, at(NOW_TEXT), at(LATER_TEXT, "1h"), HOURLY]), st.integers(0, 20_000))
def test_what_was_rotated_stays_until_its_time(wanted: ConnectionToken | None, seconds: int) -> None:
    now = NOW + timedelta(seconds=seconds)
    once = rotated(Rotation(), wanted, now)
    assert rotated(once, wanted, now) == once
    due = changes_at(once, wanted, now)
    assert due is None or due > now
    assert due is None or rotated(once, wanted, due) != once


@pytest.mark.parametrize("rotation", [Rotation(), Rotation(NOW_TEXT), Rotation(LATER_TEXT, NOW_TEXT, LATER)])
def test_the_secret_tells_its_rotation(rotation: Rotation) -> None:
    pool = a_pool({"gateway.enabled": True})
    snapshot = a_snapshot(pool=pool, tenant_token="secret", rotation=rotation)
    assert rotation_of(as_observed(connection(snapshot)), "uid-alice") == rotation
    assert rotation_of(as_observed(connection(snapshot)), "uid-of-another") == Rotation(), "a Secret of somebody else"


def test_nonsense_in_the_notes_is_no_rotation() -> None:
    notes: dict[str, Any] = {"copilot-operator.io/token-overlap-until": "soon"}
    secret = {"metadata": {"annotations": notes, "ownerReferences": [owner_reference(a_tenant())]}}
    assert rotation_of(secret, "uid-alice") == Rotation()


@pytest.mark.parametrize("time", ["tomorrow", "2026-13-01T00:00:00Z", "2026-03-01", "2026-03-01T12:00:00+01:00"])
def test_a_time_that_is_none_is_refused(time: str) -> None:
    with pytest.raises(ValueError, match="rotateAt"):
        at(time)
