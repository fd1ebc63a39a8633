"""The values that cross the store's ports."""

from __future__ import annotations

from itertools import product

from lineshaft.core.states import FailureClass
from lineshaft.store.values import Failure, Lane, Pruned


def test_a_lane_has_the_same_id_in_every_process() -> None:
    assert Lane("default", "greet", "1", "acme").id == 44_435_351_949_346_222
    lanes = [
        Lane(*names) for names in product(("a", "b"), ("", "ab", "a\0b"), ("1", "2"), ("t", "åäö", "\udc80"))
    ]
    ids = {lane.id for lane in lanes}
    assert len(ids) == len(lanes)
    assert all(0 <= number < 2**63 for number in ids)


def test_a_failure_survives_the_way_to_storage() -> None:
    failure = Failure(FailureClass.TIMEOUT, "shop.Slow", "too slow", "line 1")
    assert Failure.from_json(failure.as_json()) == failure
    assert Failure.from_json({"class": "error", "type": "x", "message": "y"}).traceback == ""


def test_pruned_rows_add_up() -> None:
    assert Pruned(3, 4).total == 7
