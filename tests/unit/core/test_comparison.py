"""Is what would arrive the same as what is sent: by type at every level, and where they part."""

from __future__ import annotations

import enum
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr, SecretStr

from lineshaft.core.codec.comparison import HAS_SETS, NO_EQUALITY, Differs, compare, compare_named


class Colour(enum.StrEnum):
    RED = "red"


class Line(BaseModel):
    model_config = ConfigDict(extra="allow")
    amount: int = 1
    names: list[str] = []
    _private: int = PrivateAttr(default=0)

    @cached_property
    def doubled(self) -> int:
        return self.amount * 2


@dataclass
class Point:
    x: Any
    unseen: Any = field(default=0, compare=False)


class Plain:
    """Equals only itself."""


class Equal:
    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


class NeverEqual:
    """Not even itself, like a NaN."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


Pair = namedtuple("Pair", "a b")
CEST = timezone(timedelta(hours=2))


def naive(day: int, fold: int = 0) -> datetime:
    return datetime(2026, 1, day, fold=fold)  # noqa: DTZ001 - people send such times


def with_private(value: int) -> Line:
    line = Line()
    line._private = value
    return line


def looked_at(line: Line) -> Line:
    assert line.doubled
    return line


def noted(sent: Any, arrived: Any) -> set[str]:
    notes: set[str] = set()
    compare(sent, arrived, notes)
    return notes


def differing(sent: Any, arrived: Any) -> Differs:
    with pytest.raises(Differs) as excinfo:
        compare(sent, arrived, set())
    return excinfo.value


SAME: list[tuple[Any, Any]] = [
    ("a" * 99, "".join(["a"] * 99)),
    (10**30, 10**15 * 10**15),
    (b"ab", bytes([97, 98])),
    (UUID(int=5), UUID(int=5)),
    (date(2026, 1, 1), date(2026, 1, 1)),
    (timedelta(days=1), timedelta(hours=24)),
    (0.1 + 0.2, 0.30000000000000004),
    (float("nan"), float("nan")),
    (-0.0, float("-0.0")),
    (Decimal("1.00"), Decimal("1.00")),
    (naive(1), naive(1)),
    (datetime(2026, 1, 1, tzinfo=CEST), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2), "CEST"))),
    (datetime(2026, 1, 1, fold=1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
    (time(1, 2, 3), time(1, 2, 3)),
    (time(1, tzinfo=UTC), time(1, tzinfo=timezone.utc)),  # noqa: UP017 - another object
    ([1, [2.0]], [1, [2.0]]),
    ((1, 2), (1, 2)),
    ({"a": [1]}, {"a": [1]}),
    ({1: "a", 2: "b"}, {1: "a", 2: "b"}),
    (Point(1, unseen=2), Point(1, unseen=2)),
    (Line(amount=3, names=["a"]), Line(amount=3, names=["a"])),
    (looked_at(Line()), Line()),
    (Line(), looked_at(Line())),
    (Line(more=[1]), Line(more=[1])),  # type: ignore[call-arg]  # extras are allowed
    (with_private(5), with_private(5)),
    (deque([1, 2], maxlen=3), deque([1, 2], maxlen=3)),
    (defaultdict(list, a=[1]), defaultdict(list, a=[1])),
    (OrderedDict(a=1), OrderedDict(a=1)),
    (Pair(1, 2), Pair(1, 2)),
    (Colour.RED, Colour("red")),
    (SecretStr("a"), SecretStr("a")),
    (Equal(1), Equal(1)),
]


@pytest.mark.parametrize(("sent", "arrived"), SAME, ids=lambda value: type(value).__name__)
def test_the_same(sent: Any, arrived: Any) -> None:
    assert noted(sent, arrived) == set()


DIFFERENT: list[tuple[Any, Any, str]] = [
    (1, True, ""),
    (1, 1.0, ""),
    (Decimal(1), 1, ""),
    (None, 0, ""),
    (Colour.RED, "red", ""),
    ("a", "b", ""),
    ([1], (1,), ""),
    (1.0, 2.0, ""),
    (float("nan"), 1.0, ""),
    (1.0, float("nan"), ""),
    (0.0, -0.0, ""),
    (Decimal("1.0"), Decimal("1.00"), ""),
    ([1, 2], [1], "length"),
    ([1], [1, 2], "length"),
    ({1, 2}, {1}, ""),
    ({1, 2}, {True, 2}, ""),
    ({"a": 1}, {}, ""),
    ({}, {"a": 1}, "lost or added"),
    ({1: "a"}, {"1": "a"}, "key int 1 does not come back"),
    ({1: "a"}, {True: "a"}, ""),
    ({"a": 1, 2: "b"}, {"a": 1, "2": "b"}, "key int 2 does not come back"),
    ({"$pairs": 1}, {"$pairs": 1}, "reserved"),
    (naive(1), naive(2), ""),
    (naive(1, fold=1), naive(1), "fold=1"),
    (datetime(2026, 1, 1, tzinfo=UTC), naive(1), "offsets"),
    (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=CEST), "offsets"),
    (time(1), time(2), ""),
    (time(1, fold=1), time(1), "fold=1"),
    (time(1, tzinfo=UTC), time(1), "offset"),
    (time(1, tzinfo=UTC), time(1, tzinfo=CEST), "offset"),
    (Point(1), Point(2), ""),
    (Point(1, unseen=1), Point(1, unseen=2), ""),
    (Line(amount=1), Line(amount=2), ""),
    (Line(more=1), Line(more=2), ""),  # type: ignore[call-arg]
    (Line(more=1), Line(), ""),  # type: ignore[call-arg]
    (with_private(1), with_private(2), "private attributes"),
    (with_private(1), Line(), "private attributes"),
    (deque([1], maxlen=3), deque([1]), "maxlen"),
    (deque([1]), deque([2]), ""),
    (defaultdict(list), defaultdict(int), "default_factory"),
    (OrderedDict(a=1), OrderedDict(a=2), ""),
    (Pair(1, 2), Pair(1, 3), ""),
    (frozenset({1}), frozenset({2}), ""),
    (SecretStr("a"), SecretStr("**********"), "secret"),
    (iter([1]), iter([1]), "read only once"),
    (Equal(1), Equal(2), ""),
]


@pytest.mark.parametrize(("sent", "arrived", "why"), DIFFERENT, ids=lambda value: type(value).__name__)
def test_different(sent: Any, arrived: Any, why: str) -> None:
    assert why in differing(sent, arrived).why


def test_the_clock_may_be_set_back() -> None:
    """The second 02:30 of that night: Python calls no two such times equal (PEP 495)."""
    zoneinfo = pytest.importorskip("zoneinfo")
    try:
        berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("this machine has no time zones")
    sent = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=berlin)
    arrived = datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=1)))
    assert sent != arrived
    assert noted(sent, arrived) == set()
    assert differing(sent.replace(fold=0), arrived).why


@pytest.mark.parametrize(
    ("sent", "arrived", "path"),
    [
        ({"a": [0, {"b": Point(1)}]}, {"a": [0, {"b": Point(2)}]}, ["a", 1, "b", "x"]),
        ([(1, Line(names=["a"]))], [(1, Line(names=["b"]))], [0, 1, "names", 0]),
        (deque([[1], [2]]), deque([[1], [3]]), [1, 0]),
        (1, 2, []),
    ],
)
def test_the_place_is_named(sent: Any, arrived: Any, path: list[Any]) -> None:
    assert differing(sent, arrived).path == path


def test_the_two_that_part_are_named() -> None:
    difference = differing({"a": [1, "2"]}, {"a": [1, 2]})
    assert (difference.sent, difference.arrived, difference.path) == ("2", 2, ["a", 1])


def test_a_reason_from_within_private_attributes_is_kept() -> None:
    class Holder(BaseModel):
        _inner: Any = PrivateAttr(default=None)

    sent, arrived = Holder(), Holder()
    sent._inner, arrived._inner = deque([1], maxlen=1), deque([1])
    assert "maxlen" in differing(sent, arrived).why


@pytest.mark.parametrize("kind", [set, frozenset])
def test_sets_are_noted_wherever_they_are(kind: type) -> None:
    assert noted([kind([1, 2])], [kind([2, 1])]) == {HAS_SETS}
    assert noted({"a": kind([Decimal("1.0")])}, {"a": kind([Decimal("1.0")])}) == {HAS_SETS}


def test_members_of_sets_are_compared_by_type() -> None:
    class Members(frozenset[Any]):
        pass

    for kind in (set, frozenset, Members):
        difference = differing(kind([Decimal("1.0")]), kind([Decimal("1.00")]))
        assert (difference.sent, difference.arrived) == (Decimal("1.0"), Decimal("1.00"))
    assert noted(Members([1]), Members([1])) == {HAS_SETS}


@pytest.mark.parametrize("kind", [Plain, NeverEqual])
def test_what_equals_only_itself_is_noted(kind: Any) -> None:
    assert noted([kind()], [kind()]) == {NO_EQUALITY}


def test_an_object_is_the_same_as_itself() -> None:
    same = NeverEqual()
    assert noted(same, same) == set()
    unread: Iterable[int] = iter([1])
    assert noted(unread, unread) == set()


def test_named_values_that_are_lost_or_added_are_found() -> None:
    compare_named({"a": 1, "b": [2]}, {"a": 1, "b": [2]}, set())
    with pytest.raises(Differs) as excinfo:
        compare_named({"a": 1}, {"a": 1, "b": 2}, set())
    assert "lost or added" in excinfo.value.why
    with pytest.raises(Differs) as excinfo:
        compare_named({"a": 1, "b": None}, {"a": 1}, set())
    assert excinfo.value.path == ["b"]
