"""Writing outcomes under their fences: finished runs move to history, the others go back into their lanes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import pydantic_core

from lineshaft.core import bounds
from lineshaft.core.states import FINAL
from lineshaft.store.sqlite.packing import execute_values, fetch, pack, packed_in_parts
from lineshaft.store.values import Outcome

_STILL_HELD = """
run.id = (outcome.value ->> 0) AND run.fence = (outcome.value ->> 1) AND run.worker = (outcome.value ->> 2)
    AND run.state = 'running'
"""

_TO_HISTORY = """
INSERT INTO lineshaft_run_history
    (id, state, lane, due_us, priority, attempts, crashes, fence, worker, key, first_id, retry_of, args,
     started_us, finished_us, wall_us, cpu_us, result, failure)
WITH outcome (id, fence, worker, state, started_us, finished_us, wall_us, cpu_us, charged, result, failure)
    AS ({values})
SELECT run.id, outcome.state, run.lane, run.due_us, run.priority,
       run.attempts + outcome.charged, run.crashes, run.fence, run.worker, run.key, run.first_id,
       run.retry_of, run.args,
       outcome.started_us, outcome.finished_us, outcome.wall_us, outcome.cpu_us, outcome.result, outcome.failure
FROM outcome CROSS JOIN lineshaft_run AS run
WHERE run.id = outcome.id AND run.fence = outcome.fence AND run.worker = outcome.worker
    AND run.state = 'running'
"""

_HELD = f"""
SELECT json_group_array(run.id)
FROM json_each(?1) AS outcome CROSS JOIN lineshaft_run AS run WHERE {_STILL_HELD}
"""

_EXPIRE_KEYS = """
UPDATE lineshaft_key SET expires_us = retention_us + (
    SELECT history.finished_us FROM lineshaft_run_history AS history WHERE history.id = lineshaft_key.run_id)
WHERE (task, tenant, key) IN (
    SELECT lane.task, lane.tenant, run.key
    FROM json_each(?1) AS finished
    CROSS JOIN lineshaft_run AS run ON run.id = finished.value
    CROSS JOIN lineshaft_lane AS lane ON lane.id = run.lane
    WHERE run.key IS NOT NULL)
"""

_DELETE_RUNS = "DELETE FROM lineshaft_run WHERE id IN (SELECT value FROM json_each(?1))"
_DELETE_PROGRESS = "DELETE FROM lineshaft_progress WHERE run_id IN (SELECT value FROM json_each(?1))"

_INSERT_ATTEMPTS = f"""
INSERT OR IGNORE INTO lineshaft_attempt
    (run_id, fence, number, worker, started_us, finished_us, wall_us, cpu_us, failure)
SELECT run.id, run.fence, run.attempts + 1, run.worker,
       outcome.value ->> 4, outcome.value ->> 5, outcome.value ->> 6, outcome.value ->> 7, outcome.value ->> 10
FROM json_each(?1) AS outcome CROSS JOIN lineshaft_run AS run WHERE {_STILL_HELD} AND (outcome.value ->> 8) = 1
"""

_RETURN_RUNS = """
UPDATE lineshaft_run SET
    state = back.state, due_us = back.due_us, order_us = back.order_us, attempts = attempts + back.charged,
    worker = NULL, started_us = NULL, suspect = CASE back.charged WHEN 1 THEN NULL ELSE suspect END,
    failure = coalesce(back.failure, lineshaft_run.failure)
FROM (SELECT value ->> 0 AS id, value ->> 3 AS state, value ->> 8 AS charged, value ->> 10 AS failure,
             value ->> 11 AS due_us, value ->> 12 AS order_us FROM json_each(?1)) AS back
WHERE lineshaft_run.id = back.id
"""

_INSERT_RESULTS = """
INSERT OR REPLACE INTO lineshaft_payload (run_id, kind, data)
SELECT value ->> 0, 'result', value ->> 1 FROM json_each(?1)
"""

_RELEASE_SLOTS = """
UPDATE lineshaft_slot SET held = max(0, held - freed.count)
FROM (SELECT value ->> 0 AS key, value ->> 1 AS worker, value ->> 2 AS count FROM json_each(?1)) AS freed
WHERE lineshaft_slot.key = freed.key AND lineshaft_slot.worker = freed.worker
"""


def settle(connection: sqlite3.Connection, outcomes: Sequence[Outcome]) -> Sequence[bool]:
    """Write outcomes inside an open transaction; false for those whose fence was lost."""
    if len({outcome.run_id for outcome in outcomes}) < len(outcomes):
        # A run's present and former holder in one flush, or one that tells its outcome twice.
        return [settle(connection, [outcome])[0] for outcome in outcomes]
    final = [outcome for outcome in outcomes if outcome.state in FINAL]
    back = [outcome for outcome in outcomes if outcome.state not in FINAL]
    kept: set[str] = set()
    if final:
        kept |= _finish(connection, final)
    if back:
        kept |= _return(connection, back)
    # Slots come back once, with the outcome that ends the attempt: where a fence was lost, that outcome was written
    # before, or the worker was swept or left, and its slots with it.
    _release_slots(connection, [outcome for outcome in outcomes if outcome.run_id in kept])
    if len(kept) == len(outcomes):
        return [True] * len(outcomes)
    return [outcome.run_id in kept for outcome in outcomes]


def finish_runs(
    connection: sqlite3.Connection, run_ids: Sequence[str], *, keyed: bool = True, reported: bool = True
) -> None:
    """Delete runs whose history row has just been written, and start the expiry of their keys."""
    packed = pack(run_ids)
    if keyed:
        connection.execute(_EXPIRE_KEYS, (packed,))
    if reported:
        connection.execute(_DELETE_PROGRESS, (packed,))
    connection.execute(_DELETE_RUNS, (packed,))


def _finish(connection: sqlite3.Connection, outcomes: list[Outcome]) -> set[str]:
    if execute_values(connection, _TO_HISTORY, map(_row, outcomes)) == len(outcomes):
        kept = [outcome.run_id for outcome in outcomes]
    else:
        kept = fetch(connection, _HELD, (pack([_row(outcome) for outcome in outcomes]),))
    large = [
        (outcome.run_id, outcome.result.decode())
        for outcome in outcomes
        if outcome.result is not None and _is_large(outcome.result)
    ]
    finish_runs(
        connection,
        kept,
        keyed=any(outcome.keyed for outcome in outcomes),
        reported=any(outcome.reported for outcome in outcomes),
    )
    found = set(kept)
    large = [row for row in large if row[0] in found]
    for packed in packed_in_parts(large):
        connection.execute(_INSERT_RESULTS, (packed,))
    return found


def _return(connection: sqlite3.Connection, outcomes: list[Outcome]) -> set[str]:
    rows = [(*_row(outcome), outcome.due_us, outcome.order_us) for outcome in outcomes]
    packed = pack(rows)
    kept = set(fetch(connection, _HELD, (packed,)))
    if len(kept) < len(outcomes):
        packed = pack([row for row in rows if row[0] in kept])
    connection.execute(_INSERT_ATTEMPTS, (packed,))
    connection.execute(_RETURN_RUNS, (packed,))
    return kept


def _release_slots(connection: sqlite3.Connection, outcomes: Sequence[Outcome]) -> None:
    freed: dict[tuple[str, int], int] = {}
    for outcome in outcomes:
        for key in outcome.slots:
            freed[key, outcome.worker] = freed.get((key, outcome.worker), 0) + 1
    if freed:
        connection.execute(_RELEASE_SLOTS, (pack([(*name, count) for name, count in freed.items()]),))


def _row(outcome: Outcome) -> tuple[Any, ...]:
    result: str | None = None
    if outcome.result is not None and not _is_large(outcome.result):
        result = outcome.result.decode()
    failure = None
    if outcome.failure is not None:
        failure = pydantic_core.to_json(outcome.failure.as_json()).decode()
    return (
        outcome.run_id,
        outcome.fence,
        outcome.worker,
        str(outcome.state),
        outcome.started_us,
        outcome.finished_us,
        outcome.wall_us,
        outcome.cpu_us,
        int(outcome.charged),
        result,
        failure,
    )


def _is_large(payload: bytes) -> bool:
    return len(payload) > bounds.INLINE_BYTES_MAX


_MARK_STARTED = """
UPDATE lineshaft_run SET started_us = ?4 WHERE id = ?1 AND fence = ?2 AND worker = ?3 AND state = 'running'
"""


def mark_started(connection: sqlite3.Connection, rows: Sequence[tuple[str, int, int, int]]) -> Sequence[bool]:
    """Record the start of at-most-once runs: (id, fence, worker, now)."""
    return [connection.execute(_MARK_STARTED, row).rowcount == 1 for row in rows]


_REPORT = """
INSERT OR REPLACE INTO lineshaft_progress (run_id, data)
SELECT value ->> 0, value ->> 1 FROM json_each(?1)
WHERE EXISTS (SELECT 1 FROM lineshaft_run WHERE id = (value ->> 0))
"""


def report(connection: sqlite3.Connection, rows: Sequence[tuple[str, bytes]]) -> Sequence[None]:
    """Keep the newest progress of runs."""
    newest = {run_id: data.decode() for run_id, data in rows}
    connection.execute(_REPORT, (pack(list(newest.items())),))
    return [None] * len(rows)
