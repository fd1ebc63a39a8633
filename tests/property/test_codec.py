"""The codec, over random hints with random values: exact, or refused; and over random bytes."""

from __future__ import annotations

import contextlib
import enum
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Union
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from lineshaft.core.codec import ArgumentsCodec, ValueCodec, digest
from lineshaft.core.errors import InvalidArguments, NotEncodable


class Mark(enum.Enum):
    ONE = 1
    TEXT = "x"
    NOTHING = None


class Word(enum.StrEnum):
    YES = "yes"


class Item(BaseModel):
    name: str
    count: int


class Twin(BaseModel):
    name: str
    count: int


class Vague(BaseModel):
    """Fields that may well not survive; then they must be refused."""

    one: datetime | str | bytes | float
    many: dict[str, UUID | str | list[Decimal | float]] = {}
    anything: Any = None


@dataclass(frozen=True)
class Pair:
    left: bytes
    right: Decimal


class Row(NamedTuple):
    day: date
    price: Decimal


Typed = tuple[Any, st.SearchStrategy[Any]]
"""A hint, and values that it describes."""

text = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["2026-01-01", "1.0", "NaN", str(UUID(int=1))]
)
offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))) | st.just(UTC)
decimals = st.decimals(allow_nan=False, allow_infinity=False)

# Those that can be members of sets and keys of dictionaries.
HASHABLE: list[Typed] = [
    (type(None), st.none()),
    (bool, st.booleans()),
    (int, st.integers()),
    (float, st.floats(allow_nan=False)),
    (str, text),
    (bytes, st.binary(max_size=8)),
    (Decimal, decimals),
    (UUID, st.uuids()),
    (date, st.dates()),
    (datetime, st.datetimes(timezones=st.none() | offsets).map(lambda one: one.replace(fold=0))),
    (time, st.times(timezones=st.none() | offsets).map(lambda one: one.replace(fold=0))),
    (timedelta, st.timedeltas()),
    (Mark, st.sampled_from(Mark)),
    (Word, st.sampled_from(Word)),
    (Literal["a", 1, None], st.sampled_from(["a", 1, None])),
    (Pair, st.builds(Pair, st.binary(max_size=8), decimals)),
]
LEAVES: list[Typed] = [
    *HASHABLE,
    (Item, st.builds(Item, name=text, count=st.integers())),
    (Twin, st.builds(Twin, name=text, count=st.integers())),
    (Row, st.builds(Row, st.dates(), decimals)),
]


def made(leaves: list[Typed], wrap: Callable[[st.SearchStrategy[Typed]], st.SearchStrategy[Typed]]) -> Any:
    return st.recursive(st.sampled_from(leaves), wrap, max_leaves=5)


def union(members: list[Typed]) -> Typed:
    return Union[tuple(hint for hint, _ in members)], st.one_of(*[values for _, values in members])  # noqa: UP007


def of_hashables(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return (
        st.lists(inner, min_size=2, max_size=3).map(union)
        | inner.map(lambda one: (frozenset[one[0]], st.frozensets(one[1], max_size=3)))
        | st.tuples(inner, inner).map(
            lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))
        )
    )


hashables = made(HASHABLE, of_hashables)


def of_all(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return (
        st.lists(inner, min_size=2, max_size=3).map(union)
        | inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=3)))
        | inner.map(lambda one: (tuple[one[0], ...], st.lists(one[1], max_size=3).map(tuple)))
        | hashables.map(lambda one: (set[one[0]], st.sets(one[1], max_size=3)))
        | st.tuples(hashables, inner).map(
            lambda two: (dict[two[0][0], two[1][0]], st.dictionaries(two[0][1], two[1][1], max_size=3))
        )
    )


typed = made(LEAVES, of_all)
vague = st.builds(
    Vague,
    one=st.datetimes() | text | st.binary(max_size=4) | st.floats(),
    many=st.dictionaries(text, st.uuids() | text | st.lists(decimals | st.floats(), max_size=3), max_size=3),
    anything=st.recursive(
        st.floats() | text | st.none() | st.dates(), lambda inner: st.lists(inner) | st.tuples(inner)
    ),
)
often = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def kinds(value: Any) -> Any:
    """The types of a value at every level, in an order that does not depend on sets."""
    if isinstance(value, dict):
        return dict, sorted(repr((kinds(key), kinds(item))) for key, item in value.items())
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(kinds(item)) for item in value)
    if isinstance(value, (list, tuple)):
        return type(value), [kinds(item) for item in value]
    if isinstance(value, BaseModel):
        return type(value), kinds(dict(value))
    return type(value)


@often
@given(st.data())
def test_values_that_their_hints_describe_arrive_as_they_were(data: st.DataObject) -> None:
    hint, values = data.draw(typed)
    codec = ValueCodec("the value", hint)
    value = codec.validate(data.draw(values))
    payload = codec.encode(value)
    arrived = codec.decode(payload)
    assert arrived == value
    assert kinds(arrived) == kinds(value)
    assert codec.encode(arrived) == payload
    assert digest(payload) == digest(codec.encode(arrived))


@often
@given(vague)
def test_a_vague_model_is_exact_or_refused(value: Vague) -> None:
    codec = ValueCodec("the value", Vague)
    try:
        payload = codec.encode(codec.validate(value))
    except NotEncodable:
        return
    arrived = codec.decode(payload)
    assert kinds(arrived) == kinds(value)
    assert repr(arrived) == repr(value)  # unlike ==, it takes NaN for NaN and 0.0 for another than -0.0


@often
@given(st.data())
def test_values_of_any_other_hint_are_exact_or_refused(data: st.DataObject) -> None:
    hint, _ = data.draw(typed)
    _, values = data.draw(typed)
    codec = ValueCodec("the value", hint)
    try:
        value = codec.validate(data.draw(values))
        payload = codec.encode(value)
    except (InvalidArguments, NotEncodable):
        return
    arrived = codec.decode(payload)
    assert arrived == value
    assert kinds(arrived) == kinds(value)


@often
@given(st.floats(), st.lists(st.floats() | st.none()))
def test_every_float_is_exact(one: float, many: list[float | None]) -> None:
    codec = ValueCodec("the value", tuple[float, list[float | None]])
    arrived = codec.decode(codec.encode((one, many)))
    assert repr(arrived) == repr((one, many))
    assert math.isnan(arrived[0]) == math.isnan(one)


@often
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda i: st.lists(i) | st.dictionaries(st.text(), i),
    )
)
def test_untyped_values_are_exact_or_refused(value: Any) -> None:
    codec = ValueCodec("the value", Any)
    try:
        payload = codec.encode(value)
    except NotEncodable:
        return
    assert repr(codec.decode(payload)) == repr(value)


documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["datetime", "Item", "list[str]"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["$member", "value", "$pairs", "x", "name", "count"]), inner, max_size=3
        )
    ),
)
HINTS = [hint for hint, _ in LEAVES] + [
    datetime | str | list[int] | list[str] | dict[str, int] | Item | Twin,
    dict[tuple[int, str], set[bytes]],
    dict[bytes, dict[float, Item | Twin]],
    list[Vague],
    Any,
]


@often
@given(st.sampled_from(HINTS), st.binary())
def test_any_bytes_are_decoded_or_refused(hint: Any, payload: bytes) -> None:
    codecs = [ValueCodec("the value", hint), ArgumentsCodec("f", [_parameter(hint)])]
    for codec in codecs:
        with contextlib.suppress(InvalidArguments):
            codec.decode(payload)


@often
@given(st.sampled_from(HINTS), documents)
def test_any_document_is_decoded_or_refused(hint: Any, document: Any) -> None:
    for payload in (json.dumps(document).encode(), json.dumps({"x": document}).encode()):
        for codec in (ValueCodec("the value", hint), ArgumentsCodec("f", [_parameter(hint)])):
            with contextlib.suppress(InvalidArguments):
                codec.decode(payload)


def _parameter(hint: Any) -> inspect.Parameter:
    return inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=hint)


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_deep_payloads_are_refused(depth: int) -> None:
    for hint in HINTS:
        with pytest.raises(InvalidArguments):
            ValueCodec("the value", hint).decode(b"[" * depth + b"]" * depth)
