"""Quantities are exact: no float comes near them."""

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.api.quantity import FACTORS, MAX_LENGTH, quantity_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100m", "0.1"),
        ("2", "2"),
        ("384Mi", 384 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("10G", 10**10),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("5e-1", "0.5"),
        ("1n", "1e-9"),
        ("0", 0),
        (".5", "0.5"),
        ("5.", 5),
        ("4616189618054758400m", "4616189618054758.4"),
    ],
)
def test_quantities(text: str, value: int | str) -> None:
    assert quantity_value(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "Gi", "-1", "1 Gi", "1GB", "1gi", "1K", ".", "٣", "1e", "1e100", "1Gi\n"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="write a number with or without a unit"):
        quantity_value(text)


@given(st.integers(0, 10**15 - 1), st.integers(0, 10**9 - 1), st.sampled_from(sorted(FACTORS)))
def test_units_multiply_exactly(whole: int, billionths: int, unit: str) -> None:
    text = f"{whole}.{billionths:09}{unit}"
    assert len(text) <= MAX_LENGTH
    assert quantity_value(text) * 10**9 == (whole * 10**9 + billionths) * FACTORS[unit]


@given(st.text(alphabet="0123456789.eEKMGikmn-+ ", max_size=10))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    with suppress(ValueError):  # and nothing else
        assert quantity_value(text) >= 0
