"""What error messages say about values: their kind and a short extract, never the whole of a huge one."""

from __future__ import annotations

import reprlib
from typing import Any

EXTRACT_CHARS_MAX = 200
PROBLEMS_MAX = 10

_MACHINERY = ("[key]", "json-or-python[", "function-", "chain[", "union[", "tagged-union[", "nullable[")
"""How parts of a path begin that name Pydantic's inner workings and no place in the value."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxdict = _short.maxlist = _short.maxtuple = _short.maxset = _short.maxfrozenset = 4
_short.maxlevel = 3


def kind_name(kind: type) -> str:
    """The name of a type as its users know it."""
    name: str = getattr(kind, "__qualname__", kind.__name__).rpartition("<locals>.")[2]
    return name if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{name}"


def extract(value: Any) -> str:
    """The kind of a value and the beginning of its repr; never raises."""
    kind = type(value)
    if value is None:
        return "None"
    try:
        # A large integer has no cheap repr, and none at all beyond 4300 digits.
        text = "of over 80 digits" if kind is int and abs(value) >= 10**80 else _short.repr(value)
    except Exception:
        text = "whose repr raises"
    return cut(f"{kind_name(kind)} {text}")


def cut(text: str) -> str:
    """The text, shortened to what an error message may carry, printable everywhere."""
    text = text[: EXTRACT_CHARS_MAX + 1].encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= EXTRACT_CHARS_MAX else text[: EXTRACT_CHARS_MAX - 1] + "…"


def cause_of(error: BaseException) -> str:
    """The message of an error raised by somebody else's code; never raises."""
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be shown)"
    return cut(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def validation_problems(error: Any) -> list[str]:
    """One line for each problem in a `pydantic.ValidationError`, `PROBLEMS_MAX` at most; never raises."""
    try:
        problems = error.errors(include_url=False, include_context=False)
    except Exception as broken:
        return [f"the values were refused, and the reasons cannot be shown ({cause_of(broken)})"]
    lines = []
    for problem in problems[:PROBLEMS_MAX]:
        where = cut(path_text(problem["loc"]))
        what = cut(str(problem["msg"]))
        got = "" if problem["type"] in ("missing", "json_invalid") else f" (got {extract(problem['input'])})"
        lines.append(f"{where}: {what}{got}" if where else f"{what}{got}")
    if len(problems) > PROBLEMS_MAX:
        lines.append(f"and {len(problems) - PROBLEMS_MAX} more")
    return lines


def path_text(parts: Any) -> str:
    """A path into a value, such as `order.lines[3].price`."""
    text = ""
    for part in parts:
        if isinstance(part, str) and part.startswith(_MACHINERY):
            continue
        if isinstance(part, str) and part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{part if isinstance(part, (str, int)) else '?'}]"
    return text
