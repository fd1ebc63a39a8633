"""Durations as people write them."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from lineshaft.core.duration import brief, seconds
from lineshaft.core.errors import InvalidSetting


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (0, 0),
        (30, 30),
        (0.25, 0.25),
        ("5us", 5e-6),
        ("50ms", 0.05),
        ("30s", 30),
        ("10m", 600),
        ("2h", 7_200),
        ("7d", 604_800),
        ("1w", 604_800),
        ("1.5h", 5_400),
        ("1h 30m", 5_400),
        ("1h30m", 5_400),
        ("  1d  2h ", 93_600),
        ("90 s", 90),
        (timedelta(minutes=3, milliseconds=5), 180.005),
    ],
)
def test_what_people_write(written: Any, meant: float) -> None:
    assert seconds(written, "timeout") == pytest.approx(meant, rel=1e-12)


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "soon",
        "10",
        "10x",
        "m",
        "1h and 30m",
        "1,5h",
        "--5s",
        "1h-30m",
        "5s!",
        "1e3s",
        "∞",
        ".5s",
    ],
)
def test_what_is_no_duration_is_refused(written: str) -> None:
    with pytest.raises(InvalidSetting, match=r"The timeout is .* not a duration.*1h 30m"):
        seconds(written, "The timeout")


@pytest.mark.parametrize("written", [True, None, [1], {"s": 1}, b"1s", 1j])
def test_other_types_are_refused(written: Any) -> None:
    with pytest.raises(InvalidSetting, match="not a duration"):
        seconds(written, "The timeout")


@pytest.mark.parametrize("written", [-1, -0.001, timedelta(seconds=-1), math.nan])
def test_negative_ones_are_refused(written: Any) -> None:
    with pytest.raises(InvalidSetting, match=r"The delay is .* must not be negative"):
        seconds(written, "The delay")


def test_a_bound_is_named() -> None:
    assert seconds("1h", "The delay", at_most_s=3_600) == 3_600
    with pytest.raises(InvalidSetting, match=r"at most 3,600 seconds"):
        seconds("1h 1s", "The delay", at_most_s=3_600)
    with pytest.raises(InvalidSetting):
        seconds(math.inf, "The delay", at_most_s=3_600)


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (-1.0, "0 s"),
        (0, "0 s"),
        (4e-7, "0 µs"),
        (0.000_5, "500 µs"),
        (0.000_949, "949 µs"),
        (0.000_95, "0.9 ms"),
        (0.001, "1 ms"),
        (0.009_94, "9.9 ms"),
        (0.01, "10 ms"),
        (0.012_3, "12 ms"),
        (0.994, "994 ms"),
        (0.995, "1 s"),
        (1.25, "1.2 s"),
        (59.94, "59.9 s"),
        (59.95, "1 m"),
        (61, "1 m 1 s"),
        (3_599, "59 m 59 s"),
        (3_599.5, "1 h"),
        (3_659, "1 h"),
        (7_500, "2 h 5 m"),
        (86_399, "23 h 59 m"),
        (86_400, "1 d"),
        (86_400 + 3_600, "1 d 1 h"),
        (10 * 86_400 + 7_199, "10 d 1 h"),
    ],
)
def test_what_people_read(duration_s: float, text: str) -> None:
    assert brief(duration_s) == text


@pytest.mark.parametrize(("size_s", "smaller_s"), [(86_400, 3_600), (3_600, 60), (60, 1)])
def test_two_units_say_it_all(size_s: int, smaller_s: int) -> None:
    for rest in range(1, size_s // smaller_s):
        written = brief(size_s + rest * smaller_s)
        assert seconds(written, "what is read back") == size_s + rest * smaller_s
