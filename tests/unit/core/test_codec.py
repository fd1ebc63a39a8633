"""The codec: what arrives equals what was sent, or the submission is refused."""

from __future__ import annotations

import enum
import inspect
import math
import subprocess
import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    computed_field,
    field_validator,
)
from typing_extensions import TypeAliasType, TypedDict

from lineshaft.core.bounds import PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX
from lineshaft.core.codec import ArgumentsCodec, ValueCodec, digest
from lineshaft.core.errors import (
    DeclarationError,
    InvalidArguments,
    NotEncodable,
    PayloadTooLarge,
)


class Order(BaseModel):
    id: str
    cents: int


class Refund(BaseModel):
    id: str
    cents: int


class UrgentOrder(Order):
    hours: int = 1


class Colour(str, enum.Enum):  # noqa: UP042 - the older spelling is met in the wild
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Plain(enum.Enum):
    ONE = 1
    X = "x"


@dataclass
class Parcel:
    label: bytes
    weights: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: float


class Span(NamedTuple):
    start: datetime
    days: int


class Options(TypedDict, total=False):
    until: datetime
    level: Level


class Loose(BaseModel):
    when: datetime | str = ""
    factor: float = 0.0
    raw: bytes = b""
    tags: frozenset[str] = frozenset()


class Raw(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    raw: bytes


class Renamed(BaseModel):
    value: int = Field(validation_alias="in", serialization_alias="out")

    @computed_field  # type: ignore[prop-decorator]  # documented use of Pydantic
    @property
    def double(self) -> int:
        return 2 * self.value


class Hidden(BaseModel):
    _seen: int = PrivateAttr(default=0)


class Tree(BaseModel):
    children: list[Tree] = []


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Angry:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __hash__ = None  # type: ignore[assignment]  # it shall not be hashable either


class Grumpy(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def refuse(cls, value: int) -> int:
        if value < 0:
            raise KeyError("a validator may raise anything")
        return value


Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | str | int | None")
Stamp = TypeAliasType("Stamp", datetime | str)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
FAR_WEST = timezone(timedelta(hours=-11, minutes=-30))
ONE = UUID(int=1)


def parameter(
    name: str,
    annotation: Any = inspect.Parameter.empty,
    default: Any = inspect.Parameter.empty,
    kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD,
) -> inspect.Parameter:
    return inspect.Parameter(name, kind, annotation=annotation, default=default)


def travelled(hint: Any, value: Any) -> Any:
    codec = ValueCodec("the value", hint)
    return codec.decode(codec.encode(codec.validate(value)))


EXACT = [
    (int, -5),
    (int, 10**4000),
    (bool, True),
    (float, -0.0),
    (float, 5e-324),
    (float, math.inf),
    (list[float], [-math.inf, 1.5]),
    (str, "NUL \0 is a character like others"),
    (bytes, bytes(range(256))),
    (bytes | str, b"\xff"),
    (bytes | str | None, "_w=="),
    (bytes | str | None, None),
    (datetime, NOW),
    (datetime, NOW.replace(tzinfo=None)),
    (datetime, NOW.astimezone(FAR_WEST)),
    (datetime, datetime.min),  # noqa: DTZ901 - naive ones travel too
    (date, date.max),
    (time, time(1, 2, 3, 4)),
    (time, time(1, 2, tzinfo=FAR_WEST)),
    (timedelta, timedelta.max),
    (timedelta, timedelta(days=-1, microseconds=3)),
    (Decimal, Decimal("-1.00")),
    (Decimal, Decimal("1E+400")),
    (UUID, ONE),
    (Colour, Colour.RED),
    (Level, Level.LOW),
    (Plain, Plain.X),
    (Order, Order(id="1", cents=2)),
    (Parcel, Parcel(b"\xff", {3, 1, 2})),
    (Point, Point(1, 2.0)),
    (Span, Span(NOW, 2)),
    (Options, {"until": NOW, "level": Level.LOW}),
    (set[Plain], {Plain.ONE, Plain.X}),
    (frozenset[tuple[int, str]], frozenset({(1, "a"), (2, "b")})),
    (tuple[int, ...], (1, 2)),
    (tuple[str, Order], ("a", Order(id="1", cents=2))),
    (dict[int, str], {1: "a", -2: "b"}),
    (dict[tuple[int, str], Plain], {(2, "b"): Plain.ONE, (1, "a"): Plain.X}),
    (dict[bytes | None, int], {b"\xff": 1, None: 2}),
    (dict[frozenset[int], set[str]], {frozenset({1, 2}): {"a", "b"}}),
    (dict[float, Level], {1.0: Level.LOW, math.inf: Level.LOW}),
    (Optional[Order], None),  # noqa: UP045 - the older spelling is met in the wild
    (Literal["a", 1], 1),
    (int | float, 1),
    (int | float, 1.0),
    (int | str | float, "NaN"),
    (datetime | str, NOW),
    (datetime | str, NOW.isoformat()),
    (UUID | str, ONE),
    (UUID | str, str(ONE)),
    (Decimal | float, Decimal("1.0")),
    (Decimal | float, 1.0),
    (date | datetime, date(2026, 1, 1)),
    (date | datetime, NOW.replace(tzinfo=None)),
    (Colour | str, Colour.RED),
    (Colour | str, "red"),
    (Order | Refund, Order(id="1", cents=2)),
    (Order | Refund, Refund(id="1", cents=2)),
    (list[int] | list[str], ["1"]),
    (list[int] | tuple[int, ...] | set[int], (1, 2)),
    (dict[str, str] | datetime, {"$member": "datetime", "value": "2026-01-01"}),
    (dict[str, list[datetime | str | None]], {"a": [NOW, "b", None]}),
    (Stamp, NOW),
    (list[Stamp], ["2026-01-01T00:00:00"]),
    (Json, {"a": [1, "b", None, {}]}),
    (Annotated[list[int], Field(max_length=2)], [1, 2]),
    (Annotated[float, Field(gt=0)], math.inf),
    (Any, {"a": [1, 1.5, None, True, "x", {}]}),
    (None, None),
    (Raw, Raw(raw=b"\xff")),
    (Renamed, Renamed.model_validate({"in": 3})),
    (Tree, Tree(children=[Tree(), Tree(children=[Tree()])])),
    (Loose, Loose(when=NOW, tags=frozenset("abc"))),
    (Sequence[int], [1, 2]),
    (deque[int], deque([1, 2])),
    (defaultdict[str, list[int]], defaultdict(list, a=[1])),
    (Path | str, Path("/a")),
    (Annotated[bytes, AfterValidator(lambda value: value)] | str, b"\xff"),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Dog(kind="dog")),
]


def hints_of(cases: list[Any]) -> list[str]:
    return [f"{number}-{case[0]}"[:60] for number, case in enumerate(cases)]


@pytest.mark.parametrize(("hint", "value"), EXACT, ids=hints_of(EXACT))
def test_what_arrives_equals_what_was_sent(hint: Any, value: Any) -> None:
    arrived = travelled(hint, value)
    assert arrived == value
    assert type(arrived) is type(value)


def test_members_of_ambiguous_unions_keep_their_types() -> None:
    arrived = travelled(list[Decimal | float | int], [Decimal(1), 1.0, 1])
    assert [type(item) for item in arrived] == [Decimal, float, int]


def test_nan_survives_where_the_hint_is_float() -> None:
    assert math.isnan(travelled(float, math.nan))
    assert math.isnan(travelled(dict[str, float | None], {"a": math.nan})["a"])


def test_an_aware_datetime_keeps_instant_and_offset_where_the_clock_is_set_back() -> None:
    sent = datetime(2025, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Stockholm"), fold=1)
    arrived = travelled(datetime, sent)
    assert arrived.timestamp() == sent.timestamp()
    assert arrived.utcoffset() == timedelta(hours=1)


REFUSED_AT_ENCODING = [
    (Any, (1, 2), "would come back as list"),
    (Any, {1: "a"}, "key int 1"),
    (Any, math.nan, "would come back as str"),
    (Any, NOW, "would come back as str"),
    (Any, Order(id="1", cents=2), "would come back as dict"),
    (Any, Colour.RED, "would come back as str"),
    (Any, {"a": [{"$pairs": []}]}, "reserved"),
    (Any, "\ud800", "surrogates"),
    (str, "\ud800", "surrogates"),
    (Any, object(), "unknown type: <class 'object'>"),
    (int, 10**4400, "out of range"),
    (Order, UrgentOrder(id="1", cents=2), "UrgentOrder"),
    (list[Order], [UrgentOrder(id="1", cents=2)], r"\[0\]"),
    (Order, Order.model_construct(id="1", cents="2"), "cents"),
    (Sequence[int], (1, 2), "would come back as list"),
    (deque[int], deque([1], maxlen=3), "maxlen"),
    (SecretStr, SecretStr("hunter2"), "look it up in the task"),
    (Loose, Loose(when="2026-01-01T00:00:00"), "when: str"),
    (Loose, Loose(factor=math.nan), "factor"),
    (Loose, Loose(raw=b"\xff"), "ser_json_bytes"),
    (datetime, NOW.astimezone(timezone(timedelta(seconds=3))), "whole minutes"),
    (datetime, NOW.replace(tzinfo=None, fold=1), "fold"),
    (time, time(1, tzinfo=ZoneInfo("Europe/Stockholm")), "offset"),
]


@pytest.mark.parametrize(("hint", "value", "message"), REFUSED_AT_ENCODING, ids=hints_of(REFUSED_AT_ENCODING))
def test_what_would_not_survive_is_refused(hint: Any, value: Any, message: str) -> None:
    codec = ValueCodec("the value", hint)
    with pytest.raises(NotEncodable, match=message) as caught:
        codec.encode(codec.validate(value))
    assert "hunter2" not in str(caught.value)


REFUSED_AT_VALIDATION = [
    (int, "5"),
    (int, True),
    (int, 1.0),
    (str, b"a"),
    (float, "1"),
    (float, 2**53 + 1),
    (bytes, "a"),
    (bytes, bytearray(b"a")),
    (datetime, "2026-01-01"),
    (date, NOW),
    (Order, {"id": "1", "cents": 2}),
    (Order | None, {"id": "1", "cents": 2}),
    (list[Order], [{"id": "1", "cents": 2}]),
    (Parcel, {"label": b""}),
    (list[int], (1,)),
    (Colour, "red"),
    (datetime | str, 5),
    (Decimal, Decimal("NaN")),
    (None, 0),
    (Options, {"level": Level.LOW, "more": 1}),
]


@pytest.mark.parametrize(("hint", "value"), REFUSED_AT_VALIDATION, ids=hints_of(REFUSED_AT_VALIDATION))
def test_validation_does_not_guess(hint: Any, value: Any) -> None:
    with pytest.raises(InvalidArguments, match="The value"):
        ValueCodec("the value", hint).validate(value)


def test_an_integer_is_taken_for_a_float() -> None:
    assert repr(ValueCodec("the value", float).validate(3)) == "3.0"


def test_private_attributes_that_would_be_lost_are_refused() -> None:
    value = Hidden()
    assert travelled(Hidden, value) == value
    value._seen = 1
    with pytest.raises(NotEncodable, match="private"):
        ValueCodec("the value", Hidden).encode(value)


def recursive() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [recursive(), nested(5_000), Angry(), [Angry()], {"a": Angry()}], ids="rdalm"
)
@pytest.mark.parametrize("hint", [Any, list[Any], int, Order])
def test_poison_ends_as_one_of_our_errors(hint: Any, value: Any) -> None:
    codec = ValueCodec("the value", hint)
    with pytest.raises((NotEncodable, InvalidArguments)) as caught:
        codec.encode(codec.validate(value))
    assert len(str(caught.value)) < 1_000


def test_the_depth_of_a_payload_is_bounded() -> None:
    codec = ValueCodec("the value", Any)
    deepest = nested(PAYLOAD_DEPTH_MAX)
    assert codec.decode(codec.encode(deepest)) == deepest
    with pytest.raises(NotEncodable, match=f"deeper than {PAYLOAD_DEPTH_MAX}"):
        codec.encode(nested(PAYLOAD_DEPTH_MAX + 1))
    assert codec.encode(["[" * 500, '\\"[' * 500, [{} for _ in range(500)]])


def test_the_size_of_a_payload_is_bounded() -> None:
    codec = ValueCodec("the value", str)
    assert len(codec.encode("a" * (PAYLOAD_BYTES_MAX - 2))) == PAYLOAD_BYTES_MAX
    with pytest.raises(PayloadTooLarge, match="1,048,577 bytes"):
        codec.encode("a" * (PAYLOAD_BYTES_MAX - 1))
    with pytest.raises(PayloadTooLarge, match="the bound is 10"):
        ValueCodec("the value", str, payload_bytes_max=10).encode("a" * 9)


def test_tags_are_the_same_in_every_process() -> None:
    hint = Annotated[bytes, AfterValidator(lambda value: value)] | str
    assert ValueCodec("the value", hint).encode(b"a") == b'{"$member":"bytes","value":"YQ=="}'


def test_messages_never_carry_a_huge_value() -> None:
    with pytest.raises(InvalidArguments) as caught:
        ValueCodec("the value", dict[str, int]).validate({f"key {i}": "x" * 10_000 for i in range(10_000)})
    assert len(str(caught.value)) < 3_000
    assert "and 9990 more" in str(caught.value)


def test_a_validator_that_raises_anything_ends_as_invalid_arguments() -> None:
    with pytest.raises(InvalidArguments, match="KeyError"):
        ValueCodec("the value", Grumpy).decode(b'{"value": -1}')


@pytest.mark.parametrize("hint", [Iterable[int], object(), Angry, "int | Undefined"])
def test_hints_that_cannot_be_encoded_are_refused_when_built(hint: Any) -> None:
    with pytest.raises(DeclarationError, match="the value"):
        ValueCodec("the value", hint).build()


def test_payloads_from_before_a_hint_was_widened_still_arrive() -> None:
    old = ValueCodec("the value", datetime).encode(NOW)
    assert ValueCodec("the value", datetime | str | None).decode(ValueCodec("v", str).encode("x")) == "x"
    assert ValueCodec("the value", datetime | None).decode(old) == NOW


def test_a_tag_that_the_hint_no_longer_knows_is_refused() -> None:
    sent = ValueCodec("the value", datetime | str).encode(NOW)
    with pytest.raises(InvalidArguments):
        ValueCodec("the value", dict[str, str] | UUID).decode(sent)


# ------------------------------------------------------------------------------------- arguments


def charge() -> ArgumentsCodec:
    return ArgumentsCodec(
        "charge",
        [
            parameter("order", Order),
            parameter("note", str, ""),
            parameter("factor", float, default=None, kind=inspect.Parameter.KEYWORD_ONLY),
        ],
    )


def test_arguments_are_bound_encoded_and_decoded_by_name() -> None:
    codec, order = charge(), Order(id="1", cents=2)
    values = codec.bind((order,), {"factor": 1})
    assert list(values.items()) == [("order", order), ("note", ""), ("factor", 1.0)]
    payload = codec.encode(values)
    assert payload == b'{"order":{"id":"1","cents":2},"note":"","factor":1.0}'
    assert codec.decode(payload) == values
    assert codec.call_arguments(values) == ((), values)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidArguments) as caught:
        charge().bind((1, 2, 3), {"note": "", "nonsense": 0})
    text = str(caught.value)
    assert "task 'charge'" in text
    assert "takes 2 arguments by position, got 3" in text
    assert "note: given twice" in text
    assert "nonsense: there is no such parameter" in text
    with pytest.raises(InvalidArguments) as caught:
        charge().bind((), {"note": 5})
    assert "note: Input should be a valid string (got int 5)" in str(caught.value)
    assert "order: missing" in str(caught.value)


def test_a_dict_for_a_model_is_refused_with_a_hint() -> None:
    with pytest.raises(InvalidArguments, match=r"order.*instance of Order.*got dict.*Pass the object itself"):
        charge().bind(({"id": "1", "cents": 2},), {})


def test_parameters_that_came_later_get_their_defaults() -> None:
    arrived = charge().decode(b'{"order":{"id":"1","cents":2}}')
    assert arrived == {"order": Order(id="1", cents=2), "note": "", "factor": None}


@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"[]", b"{}", b'{"note":""}', b'{"order":{"id":"1","cents":2},"old":1}', b"\xff"],
)
def test_payloads_that_do_not_fit_are_refused(payload: bytes) -> None:
    with pytest.raises(InvalidArguments, match="charge"):
        charge().decode(payload)


def test_positional_only_parameters() -> None:
    codec = ArgumentsCodec(
        "f", [parameter("a", int, kind=inspect.Parameter.POSITIONAL_ONLY), parameter("b", int, default=2)]
    )
    values = codec.bind((1,), {})
    assert codec.call_arguments(codec.decode(codec.encode(values))) == ((1,), {"b": 2})
    with pytest.raises(InvalidArguments, match="a: can only be given by position"):
        codec.bind((), {"a": 1})


def test_a_function_without_parameters() -> None:
    codec = ArgumentsCodec("f", [])
    assert codec.encode(codec.bind((), {})) == b"{}"
    assert codec.decode(b"{}") == {}
    with pytest.raises(InvalidArguments, match="takes 0 arguments"):
        codec.bind((1,), {})


def test_untyped_parameters_take_plain_json() -> None:
    codec = ArgumentsCodec("f", [parameter("x")])
    assert codec.decode(codec.encode(codec.bind(([1, "a", None],), {}))) == {"x": [1, "a", None]}
    with pytest.raises(NotEncodable, match="x: tuple"):
        codec.encode(codec.bind(((1,),), {}))


@pytest.mark.parametrize("kind", [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD])
def test_variadic_parameters_are_refused_at_declaration(kind: Any) -> None:
    with pytest.raises(DeclarationError, match="'f'"):
        ArgumentsCodec("f", [parameter("rest", int, kind=kind)])


def test_a_default_that_can_change_is_new_for_each_run() -> None:
    codec = ArgumentsCodec("f", [parameter("x", list[int], [1])])
    codec.decode(b"{}")["x"].append(2)
    assert codec.decode(b"{}") == {"x": [1]}


@pytest.mark.parametrize("default", ["5", object(), 1.5])
def test_defaults_that_do_not_fit_are_refused_when_built(default: Any) -> None:
    with pytest.raises(DeclarationError, match="'f'"):
        ArgumentsCodec("f", [parameter("x", int, default)]).build()


# ---------------------------------------------------------------------------------------- digest


def test_the_same_arguments_have_the_same_digest() -> None:
    codec = ValueCodec("the value", dict[str, int])
    assert digest(codec.encode({"a": 1, "b": 2})) == digest(codec.encode({"b": 2, "a": 1}))
    pairs = ValueCodec("the value", dict[tuple[int, ...], set[str]])
    one = pairs.encode({(1,): {"x", "y"}, (2,): set()})
    other = pairs.encode({(2,): set(), (1,): {"y", "x"}})
    assert one != other  # the order of a dictionary travels
    assert digest(one) == digest(other)
    assert len(digest(one)) == 16


def test_other_arguments_have_another_digest() -> None:
    codec = ValueCodec("the value", Any)
    payloads = [codec.encode(value) for value in ([1, 2], [2, 1], [1.0, 2], ["1", 2], {"1": 2}, [[1, 2]])]
    assert len({digest(payload) for payload in payloads}) == len(payloads)


PROGRAM = """
import sys
from lineshaft.core.codec import ValueCodec
assert "pydantic" not in sys.modules
from pydantic import BaseModel
class M(BaseModel):
    tags: set[str]
value = (set("abcdefgh"), M(tags=set("hgfedcba")), [frozenset("xyz")], {frozenset("ab"): {"q", "r"}})
codec = ValueCodec("v", tuple[set[str], M, list[frozenset[str] | str], dict[frozenset[str], set[str]]])
sys.stdout.buffer.write(codec.encode(value))
"""


def test_sets_are_encoded_alike_in_every_process_and_importing_is_light() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "src"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
