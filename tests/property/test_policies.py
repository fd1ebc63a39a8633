"""Durations and retry policies, for all values that can be written."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineshaft.core import bounds
from lineshaft.core.duration import seconds
from lineshaft.core.errors import InvalidSetting
from lineshaft.core.policies import Retry

UNIT_S = {
    "us": Fraction(1, 1_000_000),
    "ms": Fraction(1, 1_000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3_600),
    "d": Fraction(86_400),
    "w": Fraction(604_800),
}
PARTS = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(sorted(UNIT_S)), st.sampled_from(["", " ", "  "])),
    min_size=1,
    max_size=5,
)
FRACTIONS = st.floats(0, 1, exclude_max=True)
POLICIES = st.builds(
    Retry,
    attempts=st.integers(1, bounds.ATTEMPTS_MAX),
    initial=st.floats(0, 86_400),
    factor=st.floats(1, 100),
    maximum=st.floats(0, 864_000),
)


@given(PARTS)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str, str]]) -> None:
    text = "".join(f"{number}{space}{unit} " for number, unit, space in parts)
    exact = sum(number * UNIT_S[unit] for number, unit, _ in parts)
    assert seconds(text, "it") == pytest.approx(float(exact), rel=1e-9)


@given(st.one_of(st.integers(0, 10**12), st.floats(0, 1e12), st.timedeltas(min_value=timedelta(0))))
def test_numbers_and_timedeltas_are_what_they_say(value: float | timedelta) -> None:
    expected = value.total_seconds() if isinstance(value, timedelta) else value
    assert seconds(value, "it") == expected


@given(st.text())
def test_any_text_is_read_or_refused_clearly(text: str) -> None:
    try:
        assert seconds(text, "the delay") >= 0
    except InvalidSetting as error:
        refusal = str(error)
    else:
        return
    assert "the delay" in refusal


@given(POLICIES, st.integers(1, bounds.ATTEMPTS_MAX), FRACTIONS)
def test_a_pause_lies_between_zero_and_its_ceiling(retry: Retry, attempt: int, fraction: float) -> None:
    pause_s = retry.pause_s(attempt, fraction)
    assert 0 <= pause_s <= retry.maximum_s
    assert pause_s <= retry.initial_s * float(min(Fraction(retry.factor) ** min(attempt - 1, 99), 10**300))


@given(POLICIES, st.integers(1, bounds.ATTEMPTS_MAX - 1), FRACTIONS)
def test_later_pauses_are_no_shorter(retry: Retry, attempt: int, fraction: float) -> None:
    assert retry.pause_s(attempt, fraction) <= retry.pause_s(attempt + 1, fraction)


@given(POLICIES, st.integers(1, bounds.ATTEMPTS_MAX), FRACTIONS, FRACTIONS)
def test_the_draw_is_even(retry: Retry, attempt: int, first: float, second: float) -> None:
    ceiling_s = retry.pause_s(attempt, 1.0)
    assert retry.pause_s(attempt, first) == pytest.approx(first * ceiling_s)
    low, high = sorted((first, second))
    assert retry.pause_s(attempt, low) <= retry.pause_s(attempt, high)
