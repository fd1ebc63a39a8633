"""How one claim is shared out between tenants and their lanes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineshaft.core import bounds
from lineshaft.engine.fairness import NO_BOUND_US, WINDOW_US, place_in_lane_us, served_up_to, share_out
from lineshaft.store.values import Gate, Lane, LaneShare, OpenLane, Slots

GATE = Slots("task:gated", 1)


def lane(tenant: str, task: str = "greet", head_us: int = 0) -> OpenLane:
    return OpenLane(Lane("default", task, "1", tenant), head_us)


def gates_of(lane: Lane) -> tuple[Gate, ...]:
    return (GATE,) if lane.task.startswith("gated") else ()


def place_of(lane: Lane) -> str | None:
    """Each kind of task has a place of its own, but for those that this worker cannot execute."""
    kind = lane.task.partition(" ")[0]
    return None if kind == "unknown" else "thread" if kind == "thread" else "loop"


def shared(lanes: Sequence[OpenLane], turn: int = 0, after: str = "", **free: int) -> list[LaneShare]:
    return share_out(lanes, place_of, gates_of, free, turn, {"loop": after})


def in_turns(lanes: Sequence[OpenLane], claims: int, loop: int) -> Iterator[list[LaneShare]]:
    """What one claim after another is given."""
    after = ""
    for turn in range(claims):
        shares = shared(lanes, turn, after, loop=loop)
        for share in shares:
            after = share.lane.tenant if place_of(share.lane) == "loop" else after
        yield shares


def rows(shares: Sequence[LaneShare]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for share in shares:
        counts[share.lane.tenant] += share.rows_max
    return dict(counts)


def test_a_point_of_priority_is_worth_some_waiting() -> None:
    step_us = int(bounds.AGEING_STEP_S * 1_000_000)
    assert place_in_lane_us(5, 0) == 5
    assert place_in_lane_us(5, 2) == 5 - 2 * step_us
    assert place_in_lane_us(5, -1) == 5 + step_us


def test_a_lane_alone_gets_all_that_is_free() -> None:
    assert shared([lane("a", head_us=7)], loop=9) == [LaneShare(lane("a").lane, 9, NO_BOUND_US, ())]
    assert shared([lane("a", "gated")], loop=1) == [
        LaneShare(lane("a", "gated").lane, 1, NO_BOUND_US, (GATE,))
    ]


@pytest.mark.parametrize("free", [{}, {"loop": 0}, {"thread": 5}])
def test_where_nothing_is_free_nothing_is_asked_for(free: dict[str, int]) -> None:
    assert shared([lane("a"), lane("b")], **free) == []


def test_what_cannot_be_executed_here_is_left_to_others() -> None:
    assert rows(shared([lane("a", "unknown"), lane("b")], loop=8)) == {"b": 8}


def test_one_claim_takes_no_more_than_its_bound() -> None:
    assert rows(shared([lane("a")], loop=bounds.CLAIM_ROWS_MAX + 1)) == {"a": bounds.CLAIM_ROWS_MAX}


def test_tenants_get_the_same_however_many_lanes_they_have() -> None:
    lanes = [lane("a", f"task {n}") for n in range(5)] + [lane("b")]
    assert rows(shared(lanes, loop=20)) == {"a": 10, "b": 10}


def test_what_is_left_of_a_division_is_not_shared_out() -> None:
    assert rows(shared([lane("a"), lane("b"), lane("c")], loop=11)) == {"a": 3, "b": 3, "c": 3}


def test_places_are_shared_out_apart() -> None:
    lanes = [lane("a"), lane("b"), lane("a", "thread"), lane("c", "thread")]
    shares = shared(lanes, loop=8, thread=2)
    assert [(share.lane.tenant, share.lane.task, share.rows_max) for share in shares] == [
        ("a", "greet", 4),
        ("b", "greet", 4),
        ("a", "thread", 1),
        ("c", "thread", 1),
    ]


def test_where_not_all_can_be_served_it_is_in_turn() -> None:
    lanes = [lane(tenant) for tenant in "cab"]
    served = [list(rows(shared(lanes, after=after, loop=2))) for after in ["", "b", "a", "c", "ab", "z"]]
    assert served == [["a", "b"], ["c", "a"], ["b", "c"], ["a", "b"], ["b", "c"], ["a", "b"]]
    assert set(rows(shared(lanes, loop=2)).values()) == {1}


@given(st.lists(st.integers(1, 9), max_size=60))
def test_whatever_room_there_is_from_claim_to_claim_all_get_the_same(rooms: list[int]) -> None:
    lanes = [lane(tenant) for tenant in "abcd"]
    counts = Counter(dict.fromkeys("abcd", 0))
    after = ""
    for turn, room in enumerate(rooms):
        shares = shared(lanes, turn, after, loop=room)
        counts.update(rows(shares))
        after = shares[-1].lane.tenant
        assert max(counts.values()) - min(counts.values()) <= 1


# The lanes of one tenant


def tasks(shares: Sequence[LaneShare]) -> list[str]:
    return [share.lane.task for share in shares]


def test_lanes_that_begin_at_about_the_same_time_share_evenly() -> None:
    lanes = [lane("a", "late", WINDOW_US + 5), lane("a", "first", 5), lane("a", "soon", 6)]
    shares = shared(lanes, loop=9)
    assert tasks(shares) == ["first", "soon", "late"]
    assert {(share.rows_max, share.order_us_max) for share in shares} == {(3, WINDOW_US + 5)}


def test_a_lane_that_begins_later_waits() -> None:
    shares = shared([lane("a", "first", 5), lane("a", "late", WINDOW_US + 6)], loop=8)
    assert [(share.lane.task, share.rows_max) for share in shares] == [("first", 8)]
    assert shares[0].order_us_max == WINDOW_US + 5  # and only as far as the other begins, more or less


def test_more_lanes_than_room_take_turns() -> None:
    lanes = [lane("a", f"task {n}", n) for n in range(3)]
    assert [tasks(shared(lanes, turn, loop=2)) for turn in range(4)] == [
        ["task 0", "task 1"],
        ["task 1", "task 2"],
        ["task 2", "task 0"],
        ["task 0", "task 1"],
    ]
    assert {share.rows_max for share in shared(lanes, loop=2)} == {1}


def test_as_many_lanes_as_there_is_room_for_keep_their_order() -> None:
    lanes = [lane("a", f"task {n}", n) for n in range(3)]
    assert tasks(shared(lanes, 1, loop=3)) == ["task 0", "task 1", "task 2"]
    assert tasks(shared(lanes, 1, loop=5)) == ["task 0", "task 1", "task 2"]


def test_a_lane_behind_a_gate_holds_up_no_other() -> None:
    """Its first run may be the oldest of all, for the gate is shut."""
    lanes = [lane("a", "gated", 0), lane("a", "open", 10 * WINDOW_US), lane("a", "later", 12 * WINDOW_US)]
    shares = shared(lanes, loop=10)
    assert tasks(shares) == ["gated", "open"]
    assert {share.order_us_max for share in shares} == {11 * WINDOW_US}
    assert [share.gates for share in shares] == [(GATE,), ()]


def test_where_all_are_behind_gates_all_are_tried() -> None:
    lanes = [lane("a", f"gated {n}", n * 5 * WINDOW_US) for n in (2, 1, 0)]
    shares = shared(lanes, loop=10)
    assert tasks(shares) == ["gated 0", "gated 1", "gated 2"]
    assert {share.order_us_max for share in shares} == {11 * WINDOW_US}


def test_a_tenant_that_is_served_now_and_then_goes_round_its_lanes() -> None:
    lanes = [lane("a"), *(lane("b", f"task {n}") for n in range(2))]
    served = [tasks(shares)[0] for shares in in_turns(lanes, 8, loop=1)]
    assert Counter(served) == {"greet": 4, "task 0": 2, "task 1": 2}


# For all of them

LANES = st.lists(
    st.builds(
        lane,
        st.sampled_from("abcdef"),
        st.sampled_from(["greet", "gated", "thread", "unknown", "other"]),
        st.integers(0, 3 * WINDOW_US),
    ),
    unique_by=lambda each: each.lane,
    max_size=20,
)


@given(LANES, st.integers(0, 50), st.integers(0, 50), st.integers(0, 100))
def test_no_place_is_asked_for_more_than_it_has_and_none_is_wasted(
    lanes: list[OpenLane], loop: int, thread: int, turn: int
) -> None:
    shares = shared(lanes, turn, loop=loop, thread=thread)
    assert len({share.lane for share in shares}) == len(shares)
    for place, free in (("loop", loop), ("thread", thread)):
        asked = [share for share in shares if place_of(share.lane) == place]
        tenants = {each.lane.tenant for each in lanes if place_of(each.lane) == place}
        counts = Counter(dict.fromkeys(tenants, 0))
        for share in asked:
            assert share.rows_max >= 1
            counts[share.lane.tenant] += share.rows_max
        assert sum(counts.values()) <= free
        if free and tenants:
            assert asked
            quantum = free // len(tenants)
            # What a tenant's own lanes cannot share evenly stays free: less than one run for each of them.
            assert all(quantum - 5 < count <= max(quantum, 1) for count in counts.values())
            assert quantum or sum(counts.values()) == free


@given(LANES.filter(bool), st.integers(1, 5))
def test_every_lane_of_the_earliest_gets_its_turn(lanes: list[OpenLane], loop: int) -> None:
    mine = [each for each in lanes if place_of(each.lane) == "loop"]
    served = {share.lane for shares in in_turns(lanes, 120, loop) for share in shares}
    for tenant in {each.lane.tenant for each in mine}:
        own = [each for each in mine if each.lane.tenant == tenant]
        first = min(own, key=lambda each: each.head_order_us)
        assert first.lane in served


# Where the next claim goes on


def up_to(lanes: Sequence[OpenLane], *tenants: str) -> int | None:
    """Where it goes on, after a claim that gave these tenants something."""
    shares = [LaneShare(each.lane, 1, NO_BOUND_US) for each in lanes if each.lane.tenant in tenants]
    return served_up_to(lanes, shares, place_of)


def test_a_claim_that_served_all_whom_it_saw_goes_on_behind_the_last_of_them() -> None:
    assert up_to([lane("acme"), lane("zeta")], "acme", "zeta") is None


def test_a_claim_that_left_some_goes_on_behind_the_last_before_them() -> None:
    lanes = [lane("acme"), lane("beta"), lane("left"), lane("zeta")]
    assert up_to(lanes, "acme", "beta", "zeta") == lanes[1].lane.id, "zeta was served out of turn"


def test_a_claim_that_served_nobody_before_those_it_left_has_no_place_to_go_on_from() -> None:
    assert up_to([lane("left"), lane("zeta")], "zeta") is None
    assert up_to([lane("left")]) is None


def test_each_place_counts_for_itself() -> None:
    lanes = [
        lane("acme"),
        lane("acme", "thread"),
        lane("beta", "thread"),
        lane("left", "thread"),
        lane("zeta"),
    ]
    assert up_to(lanes, "acme", "beta", "zeta") == lanes[2].lane.id
