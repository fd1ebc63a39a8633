"""How one claim is shared out: tenants evenly, then the earliest first.

Every tenant with ready runs gets the same quantum of what is free; this is deficit round robin with equal
weights and runs of equal size (M. Shreedhar, G. Varghese, "Efficient Fair Queuing Using Deficit Round-Robin",
SIGCOMM 1995), where the deficits stay zero. Within a tenant only those lanes give runs whose first one is
among its earliest, to within a second, so that priority and age hold across its tasks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from lineshaft.core import bounds
from lineshaft.store.values import Gate, Lane, LaneShare, OpenLane

WINDOW_US = 1_000_000
"""Lanes of a tenant whose first runs lie this close together count as equally early."""
NO_BOUND_US = 2**62


def place_in_lane_us(due_us: int, priority: int) -> int:
    """Where a run stands in its lane: each point of priority is worth some waiting."""
    return due_us - priority * int(bounds.AGEING_STEP_S * 1_000_000)


def share_out(
    lanes: Sequence[OpenLane],
    place_of: Callable[[Lane], str | None],
    gates_of: Callable[[Lane], tuple[Gate, ...]],
    free: Mapping[str, int],
    turn: int,
    after: Mapping[str, str] | None,
) -> list[LaneShare]:
    """What each lane may give. `place_of` names where a lane's runs execute, None where they cannot; `free` says
    how many runs each place takes now. Where not all can be served, those come first that follow the tenant who was
    served last at that place, `after`; without that, tenants come in the order of the lanes (see `served_up_to`).
    `turn` is counted up, and rotates the lanes of one tenant.
    """
    by_place: dict[str, dict[str, list[OpenLane]]] = {}
    for lane in lanes:
        place = place_of(lane.lane)
        if place is not None and free.get(place, 0) > 0:
            by_place.setdefault(place, {}).setdefault(lane.lane.tenant, []).append(lane)
    shares: list[LaneShare] = []
    for place, tenants in by_place.items():
        quantum, served = divmod(free[place], len(tenants))
        names = list(tenants)
        if after is not None:
            names.sort()
            start = bisect_right(names, after.get(place, ""))
            names = names[start:] + names[:start]
        lanes_turn = turn
        if quantum == 0:
            # By the turn itself a tenant could meet the same lane whenever it is served.
            lanes_turn = turn // len(names)
            quantum, names = 1, names[:served]
        for name in names:
            shares += _of_tenant(tenants[name], min(quantum, bounds.CLAIM_ROWS_MAX), gates_of, lanes_turn)
    return shares


def served_up_to(
    lanes: Sequence[OpenLane], shares: Sequence[LaneShare], place_of: Callable[[Lane], str | None]
) -> int | None:
    """The lane behind which the next claim has to begin, where some tenants could not be served; None elsewhere.

    For claims that see only some of all lanes: going on behind the last lane seen, and by tenant among those, can
    keep in step so that some tenants never come up.
    """
    shared = {(place_of(share.lane), share.lane.tenant) for share in shares}
    last: dict[str | None, int] = {}
    left: set[str | None] = set()
    for position, lane in enumerate(lanes):
        place = place_of(lane.lane)
        if (place, lane.lane.tenant) not in shared:
            left.add(place)
        elif place not in left:
            last[place] = position
    positions = [last[place] for place in left if place in last]
    return lanes[min(positions)].lane.id if positions else None


def _of_tenant(
    lanes: list[OpenLane], quantum: int, gates_of: Callable[[Lane], tuple[Gate, ...]], turn: int
) -> list[LaneShare]:
    if len(lanes) == 1:
        only = lanes[0].lane
        return [LaneShare(only, quantum, NO_BOUND_US, gates_of(only))]
    ordered = sorted(lanes, key=lambda lane: lane.head_order_us)
    # A lane behind a gate may stay shut however early its runs are, and must not hold up the others.
    ungated = [lane for lane in ordered if not gates_of(lane.lane)]
    latest_us = (ungated[0] if ungated else ordered[-1]).head_order_us + WINDOW_US
    early = [lane for lane in ordered if lane.head_order_us <= latest_us]
    each = max(1, quantum // len(early))
    count = min(len(early), quantum)
    start = turn % len(early) if count < len(early) else 0
    chosen = (early[start:] + early[:start])[:count]
    return [LaneShare(lane.lane, each, latest_us, gates_of(lane.lane)) for lane in chosen]
