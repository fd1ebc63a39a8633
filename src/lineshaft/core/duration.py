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
        bound = "" if math.isinf(at_most_s) else f" and at most {at_most_s:g} seconds"
        raise InvalidSetting(f"{what} is {value!r}; it must not be negative{bound}.")
    return result
