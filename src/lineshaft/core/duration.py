"""Durations as people write them: `30`, `"50ms"`, `"10m"`, `"7d"`, or a timedelta; always seconds inside."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from lineshaft.core.errors import InvalidSetting

Duration = float | int | str | timedelta

_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)")


def seconds(value: Duration, what: str, *, at_most_s: float = math.inf) -> float:
    """Read a duration; `what` names it in the error that an unreadable or negative one gets."""
    hint = 'Give seconds as a number, text such as "50ms", "10m", "1h 30m", "7d", or a timedelta.'
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, bool):
        raise InvalidSetting(f"{what} is {value!r}, which is not a duration.", hint=hint)
    elif isinstance(value, int | float):
        result = float(value)
    elif isinstance(value, str):
        text = value.strip()
        parts = _PART.findall(text)
        if not parts or _PART.sub("", text).strip():
            raise InvalidSetting(f"{what} is {value!r}, which is not a duration.", hint=hint)
        result = math.fsum(float(number) * _UNIT_S[unit] for number, unit in parts)
    else:
        raise InvalidSetting(f"{what} is a {type(value).__name__}, not a duration.", hint=hint)
    if not 0 <= result <= at_most_s:  # also refuses NaN
        if result > at_most_s:
            raise InvalidSetting(f"{what} is {value!r}; it must be at most {at_most_s:,.0f} seconds.")
        raise InvalidSetting(f"{what} is {value!r}; it must not be negative.")
    return result


def brief(duration_s: float) -> str:
    """A duration as people read it, in its two largest units: "2 h 5 m", "12.3 s", "45 ms"."""
    if duration_s < 0.000_95:
        return f"{duration_s * 1e6:.0f} µs" if duration_s > 0 else "0 s"
    if duration_s < 0.995:
        return f"{duration_s * 1e3:.{1 if duration_s < 0.01 else 0}f}".removesuffix(".0") + " ms"
    if duration_s < 59.95:
        return f"{duration_s:.1f}".removesuffix(".0") + " s"
    whole_s = round(duration_s)
    size_s, unit, smaller_s, smaller = next(each for each in _LARGE_UNITS if whole_s >= each[0])
    rest = whole_s % size_s // smaller_s
    return f"{whole_s // size_s} {unit} {rest} {smaller}" if rest else f"{whole_s // size_s} {unit}"


_LARGE_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s"))
"""Each with the next smaller one."""
