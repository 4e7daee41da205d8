"""Durations are read as Go reads them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.api.duration import MAX_LENGTH, SECONDS, duration_s

PARTS = st.lists(st.tuples(st.integers(0, 99_999), st.sampled_from(list(SECONDS))), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("1h30m", 5400), ("1.5h", 5400), ("5s", 5), ("100ms", 0.1), ("0.001s", 0.001), ("5m5m", 600)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "+5m", "5 m", "5m ", "5m\n", "1d", ".5s", "5.s", "1e3s", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write a number with a unit"):
        duration_s(text)


@given(PARTS)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert len(text) <= MAX_LENGTH
    milliseconds = sum(number * {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}[unit] for number, unit in parts)
    assert duration_s(text) == milliseconds / 1000


@given(st.text(alphabet="0123456789.hms -+", max_size=12))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with suppress(ValueError):  # and nothing else
        assert duration_s(text) >= 0
