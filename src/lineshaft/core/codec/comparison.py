"""Is what would arrive the same as what is sent? Equal is not enough: types count at every level.

`1 == True == 1.0 == Decimal(1)`, and a string enum equals its text, yet a task that gets another type than
was sent behaves differently. So this compares kind by kind, from the outside in, and names the place where
two values part.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from lineshaft.core.codec.canonical import PAIRS
from lineshaft.core.codec.wording import extract

HAS_SETS = "has sets"
"""Noted when a value holds sets: their order in the payload means nothing."""
NO_EQUALITY = "no equality"
"""Noted when a value holds objects that equal only themselves; compare their encodings instead."""

_PLAIN = frozenset({str, int, bool, type(None), bytes, UUID, date, timedelta})
_ABSENT = object()
_FOLD = "fold=1 does not travel without a time zone"


class Differs(Exception):
    """Two values part. `path` leads there, from the outside in."""

    def __init__(self, sent: Any, arrived: Any, why: str = "", hint: str = "") -> None:
        super().__init__()
        self.sent, self.arrived, self.why, self.hint = sent, arrived, why, hint
        self.outward: list[Any] = []
        """The way out, appended to by each level that the error passes."""

    @property
    def path(self) -> list[Any]:
        return self.outward[::-1]


def compare(sent: Any, arrived: Any, notes: set[str]) -> None:
    """Raise `Differs` unless both are the same; add what the caller must know to `notes`."""
    if sent is arrived:
        return
    kind = type(sent)
    if kind is not type(arrived):
        raise Differs(sent, arrived)
    if kind in _PLAIN:
        if sent != arrived:
            raise Differs(sent, arrived)
        return
    rule = _RULES.get(kind)
    if rule is not None:
        rule(sent, arrived, notes)
        return
    # By the class's own dictionary: asking a model class for what it lacks is slow.
    own = kind.__dict__
    if "__pydantic_fields__" in own and "__dataclass_fields__" not in own:
        _compare_models(sent, arrived, notes, own["__pydantic_fields__"])
    elif hasattr(kind, "__dataclass_fields__"):
        _compare_dataclasses(sent, arrived, notes)
    else:
        _compare_others(sent, arrived, notes)


def compare_named(sent: Mapping[Any, Any], arrived: Mapping[Any, Any], notes: set[str]) -> None:
    """`compare` for each name of two mappings whose keys are known to be fine."""
    for name, value in sent.items():
        other = arrived.get(name, _ABSENT)
        kind = type(value)
        if kind in _PLAIN and kind is type(other) and value == other:  # the common case, without a call
            continue
        try:
            compare(value, other, notes)
        except Differs as difference:
            difference.outward.append(name)
            raise
    if len(sent) != len(arrived):
        raise Differs(sent, arrived, "some of its entries are lost or added")


def _compare_models(sent: Any, arrived: Any, notes: set[str], declared: Mapping[str, Any]) -> None:
    values, others = sent.__dict__, arrived.__dict__
    if len(values) != len(declared) or len(others) != len(declared):  # cached properties lie there too
        values = {name: value for name, value in values.items() if name in declared}
        others = {name: value for name, value in others.items() if name in declared}
    compare_named(values, others, notes)
    if sent.__pydantic_extra__ or arrived.__pydantic_extra__:
        compare(sent.__pydantic_extra__, arrived.__pydantic_extra__, notes)
    if sent.__pydantic_private__ or arrived.__pydantic_private__:
        try:
            compare(sent.__pydantic_private__, arrived.__pydantic_private__, notes)
        except Differs as difference:
            difference.why = difference.why or "private attributes do not travel"
            raise


def _compare_dataclasses(sent: Any, arrived: Any, notes: set[str]) -> None:
    names = [field.name for field in fields(sent)]
    values = {name: getattr(sent, name, _ABSENT) for name in names}
    compare_named(values, {name: getattr(arrived, name, _ABSENT) for name in names}, notes)


def _compare_dicts(sent: Any, arrived: Any, notes: set[str]) -> None:
    if PAIRS in sent:
        raise Differs(sent, arrived, f"the key {PAIRS!r} is reserved")
    for key, own_key in zip(sent, arrived, strict=False):
        if type(key) is not str or type(own_key) is not str or key != own_key:
            _compare_keys(sent, arrived, notes)
            break
    compare_named(sent, arrived, notes)


def _compare_keys(sent: Any, arrived: Any, notes: set[str]) -> None:
    own_keys = {key: key for key in arrived}
    for key in sent:
        if key not in own_keys:
            raise Differs(sent, arrived, f"its key {extract(key)} does not come back")
        compare(key, own_keys[key], notes)


def _compare_sequences(sent: Any, arrived: Any, notes: set[str]) -> None:
    if len(sent) != len(arrived):
        raise Differs(sent, arrived, "its length changes")
    for position, (value, other) in enumerate(zip(sent, arrived, strict=True)):
        kind = type(value)
        if kind in _PLAIN and kind is type(other) and value == other:  # the common case, without a call
            continue
        try:
            compare(value, other, notes)
        except Differs as difference:
            difference.outward.append(position)
            raise


def _compare_sets(sent: Any, arrived: Any, notes: set[str]) -> None:
    notes.add(HAS_SETS)
    if sent != arrived:
        raise Differs(sent, arrived)
    own_members = {member: member for member in arrived}
    for member in sent:
        compare(member, own_members[member], notes)


def _compare_floats(sent: float, arrived: float, _notes: set[str]) -> None:
    both_nan = math.isnan(sent) and math.isnan(arrived)
    if not both_nan and (sent != arrived or math.copysign(1, sent) != math.copysign(1, arrived)):
        raise Differs(sent, arrived)


def _compare_decimals(sent: Decimal, arrived: Decimal, _notes: set[str]) -> None:
    if sent.as_tuple() != arrived.as_tuple():  # 1.0 and 1.00 are equal, but not the same amount on paper
        raise Differs(sent, arrived)


def _compare_datetimes(sent: datetime, arrived: datetime, _notes: set[str]) -> None:
    # Equality of aware datetimes is no help: where a clock is set back it is false by definition (PEP 495).
    if sent.replace(tzinfo=None, fold=0) != arrived.replace(tzinfo=None, fold=0):
        raise Differs(sent, arrived)
    if sent.tzinfo is None and sent.fold != arrived.fold:
        raise Differs(sent, arrived, _FOLD)
    if sent.utcoffset() != arrived.utcoffset():
        raise Differs(sent, arrived, "only offsets of whole minutes from UTC travel")


def _compare_times(sent: time, arrived: time, _notes: set[str]) -> None:
    if sent.replace(tzinfo=None, fold=0) != arrived.replace(tzinfo=None, fold=0):
        raise Differs(sent, arrived)
    if sent.tzinfo is None and sent.fold != arrived.fold:
        raise Differs(sent, arrived, _FOLD)
    if sent.utcoffset() != arrived.utcoffset() or (sent.tzinfo is None) != (arrived.tzinfo is None):
        raise Differs(sent, arrived, "a time of day needs an offset of whole minutes, or none")


def _compare_others(sent: Any, arrived: Any, notes: set[str]) -> None:
    for name in ("maxlen", "default_factory"):  # of a deque, of a defaultdict
        if getattr(sent, name, None) != getattr(arrived, name, None):
            raise Differs(sent, arrived, f"its {name} changes")
    if isinstance(sent, dict):
        _compare_dicts(sent, arrived, notes)
    elif isinstance(sent, (list, tuple, deque)):
        _compare_sequences(sent, arrived, notes)
    elif isinstance(sent, (set, frozenset)):
        _compare_sets(sent, arrived, notes)
    elif hasattr(sent, "get_secret_value"):
        if sent != arrived:
            hint = "Pass the name of the secret and look it up in the task."
            raise Differs(sent, arrived, "secret values are masked when encoded", hint)
    elif hasattr(sent, "__next__"):
        raise Differs(sent, arrived, "an iterator can be read only once", "Pass a list.")
    elif bool(sent == arrived):
        return
    elif not any("__eq__" in vars(base) for base in type(sent).__mro__[:-1]) or bool(operator.ne(sent, sent)):
        notes.add(NO_EQUALITY)
    else:
        raise Differs(sent, arrived)


_RULES: dict[type, Callable[[Any, Any, set[str]], None]] = {
    dict: _compare_dicts,
    list: _compare_sequences,
    tuple: _compare_sequences,
    set: _compare_sets,
    frozenset: _compare_sets,
    float: _compare_floats,
    Decimal: _compare_decimals,
    datetime: _compare_datetimes,
    time: _compare_times,
}
