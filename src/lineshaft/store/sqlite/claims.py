"""Taking runs: look at the lanes, let the plan share them out, take what it says, pay the gates."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from lineshaft.core import bounds
from lineshaft.core.clock import Clock
from lineshaft.store.sqlite.gates import Gates
from lineshaft.store.sqlite.packing import PAYLOADS_AT_ONCE, fetch, pack
from lineshaft.store.values import Claimed, ClaimReply, ClaimRequest, Lane, LaneShare, OpenLane

# A loose index scan: one probe a lane that has ready runs, however many there are in it.
_LOOK = """
WITH RECURSIVE open (lane) AS (
    SELECT min(lane) FROM lineshaft_run WHERE state = 'ready' AND suspect IS NULL AND lane > ?1
    UNION ALL
    SELECT (SELECT min(lane) FROM lineshaft_run
            WHERE state = 'ready' AND suspect IS NULL AND lane > open.lane)
    FROM open WHERE open.lane IS NOT NULL LIMIT ?2
)
SELECT json_object(
    'lanes', (SELECT json_group_array(json_array(
                  open.lane,
                  (SELECT order_us FROM lineshaft_run
                   WHERE state = 'ready' AND suspect IS NULL AND lane = open.lane ORDER BY order_us LIMIT 1),
                  known.queue, known.task, known.version, known.tenant))
              FROM open CROSS JOIN lineshaft_lane AS known ON known.id = open.lane),
    'due', (SELECT min(due_us) FROM lineshaft_run WHERE state = 'scheduled'),
    'suspect', (SELECT min(suspect) FROM lineshaft_run WHERE state = 'ready' AND suspect IS NOT NULL))
"""

_PROMOTE = """
UPDATE lineshaft_run SET state = 'ready'
WHERE id IN (SELECT id FROM lineshaft_run WHERE state = 'scheduled' AND due_us <= ?1 ORDER BY due_us LIMIT ?2)
"""

_IS_REGISTERED = "SELECT 1 FROM lineshaft_worker WHERE id = ?1"
_NEXT_GROUP = "SELECT min(suspect) FROM lineshaft_run WHERE state = 'ready' AND suspect > ?1"
_NO_PLACE_US = 2**62
"""No run's place in its lane comes after this."""

_COLUMNS = """json_group_array(json_array(
    run.id, run.lane, run.fence + 1, run.attempts, run.crashes, run.args, run.due_us, run.first_id, run.key,
    run.cancel_requested, run.order_us, run.priority))"""

_TAKE = f"""
SELECT {_COLUMNS}
FROM json_each(?1) AS share
CROSS JOIN lineshaft_run AS run
WHERE run.id IN (SELECT head.id FROM lineshaft_run AS head
                 WHERE head.state = 'ready' AND head.suspect IS NULL
                   AND head.lane = (share.value ->> 0) AND head.order_us <= (share.value ->> 1)
                 ORDER BY head.order_us LIMIT ?2)
"""

_TAKE_SUSPECTS = f"""
SELECT {_COLUMNS} FROM lineshaft_run AS run WHERE run.state = 'ready' AND run.suspect = ?1
"""

_HOLD = """
UPDATE lineshaft_run SET state = 'running', fence = fence + 1, worker = ?1, claimed_us = ?3, started_us = NULL
WHERE id IN (SELECT value FROM json_each(?2))
"""

_LANES = """
SELECT json_group_array(json_array(id, queue, task, version, tenant)) FROM lineshaft_lane
WHERE id IN (SELECT value FROM json_each(?1))
"""

_PAYLOADS = """
SELECT json_group_array(json_array(run_id, data)) FROM lineshaft_payload
WHERE kind = 'args' AND run_id IN (SELECT value FROM json_each(?1))
"""


def claim_now(
    clock: Clock, connection: sqlite3.Connection, requests: Sequence[ClaimRequest]
) -> Sequence[ClaimReply]:
    """Serve claims by the time when they are served.

    One that waited for the writer would have its rates open again counted from when it asked: too soon.
    """
    now_us = clock.now_us()
    return claim(connection, [request._replace(now_us=max(request.now_us, now_us)) for request in requests])


def claim(connection: sqlite3.Connection, requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
    """Serve claims one after another, inside the writer's open transaction."""
    return [_claim(connection, request) for request in requests]


def _claim(connection: sqlite3.Connection, request: ClaimRequest) -> ClaimReply:
    if connection.execute(_IS_REGISTERED, (request.worker,)).fetchone() is None:
        # It was swept meanwhile: nobody would ever look after what it took now.
        return ClaimReply((), request.after_lane, False, None, suspects_wait=False)
    look = _look(connection, request.after_lane)
    if look["due"] is not None and look["due"] <= request.now_us:
        connection.execute(_PROMOTE, (request.now_us, bounds.CLAIM_ROWS_MAX))
        look = _look(connection, request.after_lane)
    suspects = look["suspect"]
    while suspects is not None:
        reply = _claim_suspects(connection, request, suspects)
        if reply is not None:
            return reply
        suspects = connection.execute(_NEXT_GROUP, (suspects,)).fetchone()[0]
    open_lanes = [OpenLane(Lane(*names), head) for _, head, *names in look["lanes"]]
    shares, gates, opens_us = _passable(connection, request, open_lanes)
    lanes = {share.lane.id: share.lane for share in shares}
    rows: list[list[Any]] = []
    more = False
    for rows_max, group in gates.by_rows().items():
        taken = fetch(
            connection, _TAKE, (pack([(share.lane.id, share.order_us_max) for share in group]), rows_max)
        )
        more = more or len(taken) >= rows_max
        rows += taken
    found, rows = len(rows), _within_bytes(connection, rows)
    more = more or len(rows) < found
    gates.pay(_count_by_lane(rows))
    # A share that ends at some place in its lane leaves what comes after it.
    more = more or (bool(rows) and (gates.left_over or any(_is_bounded(share) for share in shares)))
    visited_all = len(open_lanes) < bounds.LANES_VISITED_MAX
    waits = [
        us for us in (look["due"], gates.next_open_us, *opens_us) if us is not None and us > request.now_us
    ]
    return ClaimReply(
        runs=_hold(connection, request, rows, lanes),
        last_lane=-1 if visited_all else look["lanes"][-1][0],
        more=more or not visited_all or (look["due"] is not None and look["due"] <= request.now_us),
        next_due_us=min(waits, default=None),
        suspects_wait=False,
    )


def _passable(
    connection: sqlite3.Connection, request: ClaimRequest, lanes: Sequence[OpenLane]
) -> tuple[Sequence[LaneShare], Gates, list[int]]:
    """Share out between the lanes whose gates are open, and when gates that are shut open again.

    What a shut lane would get goes to the others: it is planned anew without it.
    """
    opens_us: list[int] = []
    while True:
        shares = request.plan(lanes)
        gates = Gates(connection, shares, request.worker, request.now_us)
        shut = gates.shut()
        if not shut:
            return shares, gates, opens_us
        gates.pay({})
        if gates.next_open_us is not None:
            opens_us.append(gates.next_open_us)
        lanes = [lane for lane in lanes if lane.lane not in shut]


def _look(connection: sqlite3.Connection, after_lane: int) -> dict[str, Any]:
    """Open lanes after one, and from the smallest on if there is room for more; what is due; who is suspect."""
    look: dict[str, Any] = fetch(connection, _LOOK, (after_lane, bounds.LANES_VISITED_MAX))
    room = bounds.LANES_VISITED_MAX - len(look["lanes"])
    if after_lane >= 0 and room > 0:
        start = fetch(connection, _LOOK, (-1, room))["lanes"]
        look["lanes"] += [lane for lane in start if lane[0] <= after_lane]
    return look


def _is_bounded(share: LaneShare) -> bool:
    return share.order_us_max < _NO_PLACE_US


def _claim_suspects(
    connection: sqlite3.Connection, request: ClaimRequest, suspects: int
) -> ClaimReply | None:
    """Take a group of suspects, once the worker could be blamed for nothing else.

    None where this worker can execute nothing of the group now: it is left to others, or until a gate opens.
    """
    rows = fetch(connection, _TAKE_SUSPECTS, (suspects,))
    known = fetch(connection, _LANES, (pack([row[1] for row in rows]),))
    lanes = {lane_id: Lane(*names) for lane_id, *names in known}
    shares = request.plan([OpenLane(lane, 0) for lane in lanes.values()])
    if not shares:
        return None
    gates = Gates(connection, shares, request.worker, request.now_us)
    allowed = {share.lane.id: rows_max for rows_max, group in gates.by_rows().items() for share in group}
    taken = []
    for row in rows:
        if allowed.get(row[1], 0) > 0:
            allowed[row[1]] -= 1
            taken.append(row)
    if not taken:
        return None
    if not request.idle:
        return ClaimReply((), request.after_lane, False, None, suspects_wait=True)
    taken = _within_bytes(connection, taken)
    gates.pay(_count_by_lane(taken))
    runs = _hold(connection, request, taken, lanes)
    return ClaimReply(runs, request.after_lane, False, gates.next_open_us, suspects_wait=True)


def _hold(
    connection: sqlite3.Connection, request: ClaimRequest, rows: list[list[Any]], lanes: dict[int, Lane]
) -> Sequence[Claimed]:
    if not rows:
        return ()
    connection.execute(_HOLD, (request.worker, pack([row[0] for row in rows]), request.now_us))
    rows.sort(key=itemgetter(10))
    return [
        Claimed(
            run_id,
            lanes[lane],
            fence,
            attempts,
            crashes,
            args.encode(),
            due_us,
            first_id,
            key,
            bool(cancel),
            priority,
        )
        for run_id, lane, fence, attempts, crashes, args, due_us, first_id, key, cancel, _, priority in rows
    ]


def _within_bytes(connection: sqlite3.Connection, rows: list[list[Any]]) -> list[list[Any]]:
    """Runs with their large arguments, as many as a bound of bytes has room for, and one at least.

    In turn from each lane, so that none with large arguments keeps out the others.
    """
    if len(rows) * bounds.INLINE_BYTES_MAX <= bounds.CLAIM_BYTES_MAX and all(
        row[5] is not None for row in rows
    ):
        return rows
    turns: dict[int, int] = {}
    order = []
    for row in sorted(rows, key=itemgetter(10)):
        turns[row[1]] = turns.get(row[1], 0) + 1
        order.append((turns[row[1]], row))
    order.sort(key=lambda each: each[0])
    kept: list[list[Any]] = []
    room = bounds.CLAIM_BYTES_MAX
    for start in range(0, len(order), PAYLOADS_AT_ONCE):
        part = [row for _, row in order[start : start + PAYLOADS_AT_ONCE]]
        large = [row[0] for row in part if row[5] is None]
        payloads = dict(fetch(connection, _PAYLOADS, (pack(large),))) if large else {}
        for row in part:
            row[5] = payloads.get(row[0], row[5])
            room -= len(row[5])
            if room < 0 and kept:
                return kept
            kept.append(row)
    return kept


def _count_by_lane(rows: list[list[Any]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for row in rows:
        counts[row[1]] = counts.get(row[1], 0) + 1
    return counts
