"""What payloads look like: stored runs are read by later versions, so their form is a promise."""

from __future__ import annotations

import enum
import json
from datetime import date
from decimal import Decimal
from inspect import Parameter
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field

from lineshaft.core.codec import ArgumentsCodec, ValueCodec, digest
from lineshaft.core.codec.canonical import is_deeper_than, with_sets_in_order
from lineshaft.core.codec.wording import EXTRACT_CHARS_MAX, PROBLEMS_MAX, cause_of, cut, extract, path_text
from lineshaft.core.errors import DeclarationError, InvalidArguments, NotEncodable


class Name(enum.StrEnum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


class Plain(enum.Enum):
    X = "x"


class Order(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, extra="forbid")
    cents: int = Field(alias="amount", default=0)

    @computed_field
    @property
    def euros(self) -> float:
        return self.cents / 100


class Raw(BaseModel):
    data: bytes


Weight = NewType("Weight", float)


def twin() -> type[BaseModel]:
    class Order(BaseModel):
        weight: int

    return Order


Twin = twin()


def payload(hint: Any, value: Any) -> str:
    codec = ValueCodec("the result", hint)
    encoded = codec.encode(value)
    assert codec.decode(encoded) == value
    return encoded.decode()


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (dict[str, int], {"a": 1}, '{"a":1}'),
        (dict[Name, int], {Name.A: 1}, '{"a":1}'),
        (dict[int, int], {1: 2}, '{"1":2}'),
        (dict[Decimal, int], {Decimal("1.0"): 2}, '{"$pairs":[["1.0",2]]}'),
        (dict[date, int], {date(2026, 1, 2): 2}, '{"2026-01-02":2}'),
        (dict[tuple[int, int], str], {(1, 2): "a"}, '{"$pairs":[[[1,2],"a"]]}'),
        (dict[Plain, int], {Plain.X: 1}, '{"$pairs":[["x",1]]}'),
        (bytes, b"\xff", '"_w=="'),
        (float, float("inf"), '"Infinity"'),
        (float, 1.0, "1.0"),
        (set[int], {3, 1, 2}, "[1,2,3]"),
        (list, [1, "a"], '[1,"a"]'),
        (dict, {"a": [1]}, '{"a":[1]}'),
        (UUID, UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Order, Order(cents=5), '{"cents":5}'),
    ],
    ids=str,
)
def test_values(hint: Any, value: Any, text: str) -> None:
    assert payload(hint, value) == text


PLAIN: list[tuple[Any, Any, str]] = [
    (int | str, 5, "5"),
    (int | None, None, "null"),
    (int | str | None, None, "null"),
    (bool | int, True, "true"),
    (list[int] | str, [1], "[1]"),
    (dict[str, int] | list[int], {"a": 1}, '{"a":1}'),
    (Literal[1, 2] | str, 1, "1"),
    (Literal[1] | Literal["a"], "a", '"a"'),
    (Annotated[int, "one"] | Annotated[str, "other"], 5, "5"),
    (float | int | None, None, "null"),
]
"""Unions whose members cannot be taken for each other in JSON, and what is None in others."""


@pytest.mark.parametrize(("hint", "value", "text"), PLAIN, ids=str)
def test_unions_that_need_no_tag(hint: Any, value: Any, text: str) -> None:
    assert payload(hint, value) == text


TAGGED: list[tuple[Any, Any, str, str]] = [
    (list[int] | list[str], ["a"], "list[str]", '["a"]'),
    (list[int] | tuple[int, ...], (1,), "tuple[int, ...]", "[1]"),
    (Order | dict[str, int], Order(cents=5), "Order", '{"cents":5}'),
    (Order | int, Order(cents=5), "Order", '{"cents":5}'),
    (Literal["a"] | str, "b", "str", '"b"'),
    (Literal["a", 1] | int, "a", "Literal['a', 1]", '"a"'),
    (float | str, 1.5, "float", "1.5"),
    (bytes | str, b"a", "bytes", '"YQ=="'),
    (Annotated[int, "more"] | Decimal, Decimal(1), "Decimal", '"1"'),
    (Annotated[int, "one", "more"] | str, 5, "int", "5"),
    (Plain | int, Plain.X, "Plain", '"x"'),
]


@pytest.mark.parametrize(("hint", "value", "name", "text"), TAGGED, ids=str)
def test_unions_that_need_one(hint: Any, value: Any, name: str, text: str) -> None:
    assert payload(hint, value) == f'{{"$member":"{name}","value":{text}}}'


def test_members_of_the_same_name_are_told_apart() -> None:
    """By the same names in whatever order the hint has them: a stored payload does not change its meaning."""
    for hint in (Order | Twin, Twin | Order):
        names = [json.loads(payload(hint, value))["$member"] for value in (Order(cents=1), Twin(weight=1))]
        assert names == [f"{__name__}.Order", f"{__name__}.twin.<locals>.Order"]


def test_members_of_one_kind_are_found_by_what_fits() -> None:
    hint = list[int] | list[str] | None
    assert payload(hint, [1]) == '{"$member":"list[int]","value":[1]}'
    assert payload(hint, ["a"]) == '{"$member":"list[str]","value":["a"]}'


def test_the_order_of_pairs_does_not_count_wherever_they_are() -> None:
    codec = ValueCodec("the arguments", list[dict[Decimal, int]])
    one, two, three = Decimal(1), Decimal(2), Decimal(3)
    first = digest(codec.encode([{one: 1, two: 2}, {}]))
    assert digest(codec.encode([{two: 2, one: 1}, {}])) == first
    assert digest(codec.encode([{one: 1, three: 2}, {}])) != first
    assert digest(codec.encode([{}, {one: 1, two: 2}])) != first
    nested = ValueCodec("the arguments", dict[str, dict[Decimal, int]])
    inside = digest(nested.encode({"a": {one: 1, two: 2}, "b": {}}))
    assert digest(nested.encode({"b": {}, "a": {two: 2, one: 1}})) == inside
    assert digest(nested.encode({"b": {one: 1, two: 2}, "a": {}})) != inside


def test_new_types_are_what_they_stand_for() -> None:
    assert payload(Weight, 1.0) == "1.0"
    assert payload(dict[Weight, int], {Weight(1.5): 1}) == '{"$pairs":[[1.5,1]]}'


def test_none_fits_where_it_is_the_default_only() -> None:
    def codec(default: Any) -> ArgumentsCodec:
        return ArgumentsCodec(
            "greet", [Parameter("a", Parameter.KEYWORD_ONLY, default=default, annotation=int)]
        )

    assert codec(None).bind([], {"a": None}) == {"a": None}
    with pytest.raises(InvalidArguments):
        codec(5).bind([], {"a": None})


def test_a_default_that_would_not_survive_is_refused_when_built() -> None:
    default = Parameter("a", Parameter.KEYWORD_ONLY, default=object(), annotation=Any)
    with pytest.raises(DeclarationError, match="The defaults of task 'greet' cannot be used"):
        ArgumentsCodec("greet", [default]).build()


def test_a_value_that_fits_no_member_is_refused() -> None:
    with pytest.raises(NotEncodable, match=r"fits none of list\[int\], list\[str\]"):
        ValueCodec("the result", list[int] | list[str]).encode({"a": 1})


# What is read


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (float, '"1.5"'),
        (float, '"nan"'),
        (Order, '{"amount":5}'),
        (Order, '{"cents":5,"euros":0.05}'),
        (dict[Decimal, int], "[1]"),
        (dict[Decimal, int], '{"$pairs":1}'),
        (dict[Decimal, int], '{"$pairs":[[[],1]]}'),
        (list[int] | list[str], '{"$member":"list[int]","value":["a"]}'),
        (list[int] | list[str], '{"$member":"list[int]"}'),
        (int | float | str, "[1]"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_the_user_s_words(hint: Any, text: str) -> None:
    with pytest.raises(InvalidArguments) as excinfo:
        ValueCodec("the result", hint).decode(text.encode())
    assert "AttributeError" not in str(excinfo.value)
    assert "TypeError" not in str(excinfo.value)


def test_hints_are_given_where_they_help() -> None:
    with pytest.raises(NotEncodable) as not_text:
        ValueCodec("the result", Raw).encode(Raw(data=b"\xff"))
    with pytest.raises(NotEncodable) as no_type:
        ValueCodec("the result", Any).encode(object())
    assert "bytes" in not_text.value.hint
    assert "bytes" not in no_type.value.hint
    with pytest.raises(InvalidArguments) as refused:
        ValueCodec("the result", int).decode(b'"a"')
    assert refused.value.hint == ""


# Order and depth


@pytest.mark.parametrize(
    ("value", "document", "ordered"),
    [
        ({3, 1}, [3, 1], [1, 3]),
        ([{3, 1}, 2], [[3, 1], 2], [[1, 3], 2]),
        ([3, 1], [3, 1], [3, 1]),
        ({"a": {3, 1}}, {"a": [3, 1]}, {"a": [1, 3]}),
        ({"a": {3, 1}}, {"$member": "dict", "value": {"a": [3, 1]}}, {"$member": "dict", "value": {"a": [1, 3]}}),
        ({3, 1}, {"$member": "set", "value": [3, 1]}, {"$member": "set", "value": [1, 3]}),
        ({"$member": 1, "value": {3, 1}}, {"$member": 1, "value": [3, 1]}, {"$member": 1, "value": [1, 3]}),
        ({(1, 2): {3, 1}}, {"$pairs": [[[1, 2], [3, 1]]]}, {"$pairs": [[[1, 2], [1, 3]]]}),
        # Another shape than the value has: a serializer of the user's made it.
        ({"a": {3, 1}}, {"a": [3, 1], "b": 1}, {"a": [3, 1], "b": 1}),
        ({3, 1}, [3], [3]),
        (5, [3, 1], [3, 1]),
    ],
    ids=str,
)  # fmt: skip
def test_sets_are_put_in_order(value: Any, document: Any, ordered: Any) -> None:
    assert with_sets_in_order(value, document) == ordered


@pytest.mark.parametrize(
    ("text", "depth"),
    [("1", 0), ("[]", 1), ("[[1],[2]]", 2), ('{"a":[{}]}', 3), ('["[[[[{{{"]', 1), (r'["\"[[["]', 1)],
)
def test_the_depth_of_a_document(text: str, depth: int) -> None:
    assert not is_deeper_than(text.encode(), depth)
    assert depth == 0 or is_deeper_than(text.encode(), depth - 1)


# Words about values


class Silent:
    def __repr__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (5, "int 5"),
        (10**80 - 1, f"int {10**80 - 1}"),
        (10**80, "int of over 80 digits"),
        (-(10**90), "int of over 80 digits"),
        ([1, 2, 3, 4], "list [1, 2, 3, 4]"),
        ([1, 2, 3, 4, 5], "list [1, 2, 3, 4, ...]"),
        ((1, 2, 3, 4, 5), "tuple (1, 2, 3, 4, ...)"),
        ({1, 2, 3, 4, 5}, "set {1, 2, 3, 4, ...}"),
        (frozenset(range(5)), "frozenset frozenset({0, 1, 2, 3, ...})"),
        ({n: n for n in range(5)}, "dict {0: 0, 1: 1, 2: 2, 3: 3, ...}"),
        ([[[1]]], "list [[[1]]]"),
        ([[[[1]]]], "list [[[[...]]]]"),
        (Plain.X, f"{__name__}.Plain <Plain.X: 'x'>"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_an_extract_of_a_value(value: Any, text: str) -> None:
    assert extract(value) == text


def test_an_extract_of_what_cannot_be_shown() -> None:
    assert extract(Silent()).startswith(f"{__name__}.Silent <Silent instance at")


def test_a_long_text_is_cut() -> None:
    assert len(extract("x" * 1_000)) < 100
    assert cut("x" * EXTRACT_CHARS_MAX) == "x" * EXTRACT_CHARS_MAX
    assert cut("x" * (EXTRACT_CHARS_MAX + 1)) == "x" * (EXTRACT_CHARS_MAX - 1) + "…"
    assert cut("a\ud800b") == "a\\ud800b"


def test_the_cause_of_an_error() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert cause_of(ValueError("no ink")) == "ValueError: no ink"
    assert cause_of(ValueError()) == "ValueError"
    assert cause_of(Unprintable()) == "Unprintable: (its message cannot be shown)"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", "b", 3, "c d"), "a.b[3][c d]"),
        ((3, "a"), "[3].a"),
        (("a", "[key]", "function-after[f()]"), "a"),
        (("a", "[key]", "b"), "a.b"),
        (((1, 2), "a"), "[?].a"),
    ],
)
def test_a_path_into_a_value(parts: Any, text: str) -> None:
    assert path_text(parts) == text


def test_of_many_problems_some_are_told() -> None:
    with pytest.raises(InvalidArguments) as excinfo:
        ValueCodec("the result", list[int]).decode(json.dumps(["a"] * (PROBLEMS_MAX + 3)).encode())
    assert str(excinfo.value).count("valid integer") == PROBLEMS_MAX
    assert "and 3 more" in str(excinfo.value)
    with pytest.raises(InvalidArguments) as excinfo:
        ValueCodec("the result", list[int]).decode(json.dumps(["a"] * PROBLEMS_MAX).encode())
    assert "more" not in str(excinfo.value)
