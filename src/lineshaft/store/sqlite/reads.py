"""Looking at runs, queues and workers, on connections that only read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import pydantic_core

from lineshaft.core.ident import submitted_us
from lineshaft.core.states import FINAL, State
from lineshaft.store.sqlite.gates import open_again_us
from lineshaft.store.sqlite.leases import Registry
from lineshaft.store.sqlite.packing import PAYLOADS_AT_ONCE, fetch, pack
from lineshaft.store.values import (
    AttemptView,
    Failure,
    Held,
    Lane,
    Pace,
    QueueView,
    RunFilter,
    RunView,
    SlotHolder,
    Terms,
    WorkerView,
)

ROWS_AT_ONCE = 1_000
"""So many rows, with what lies in them of payloads, go through one JSON value."""

_LANE = "lane.queue, lane.task, lane.version, lane.tenant"

_UNFINISHED = f"""json_array(
    run.id, {_LANE}, run.state, run.attempts, run.crashes, run.due_us, run.priority, run.key, run.first_id,
    run.retry_of, run.worker, run.fence, run.started_us, run.failure, run.cancel_requested, run.suspect,
    run.claimed_us, NULL, NULL, NULL"""

_FINISHED = f"""json_array(
    run.id, {_LANE}, run.state, run.attempts, run.crashes, run.due_us, run.priority, run.key, run.first_id,
    run.retry_of, run.worker, run.fence, run.started_us, run.failure, 0, NULL,
    NULL, run.finished_us, run.wall_us, run.cpu_us"""

_LARGE = """
SELECT json_group_array(json_array(run_id, kind, data)) FROM lineshaft_payload
WHERE run_id IN (SELECT value FROM json_each(?1)) AND kind IN (SELECT value FROM json_each(?2))
"""

_VIEW = f"""
SELECT json_group_array(json(view)) FROM (
    SELECT {_UNFINISHED}, run.args, NULL) AS view
    FROM json_each(?1) AS wanted CROSS JOIN lineshaft_run AS run ON run.id = wanted.value
    CROSS JOIN lineshaft_lane AS lane ON lane.id = run.lane
    UNION ALL
    SELECT {_FINISHED}, run.args, run.result)
    FROM json_each(?1) AS wanted CROSS JOIN lineshaft_run_history AS run ON run.id = wanted.value
    CROSS JOIN lineshaft_lane AS lane ON lane.id = run.lane)
"""

_ENDED = f"""
SELECT json_group_array({_FINISHED}, NULL, run.result))
FROM json_each(?1) AS wanted CROSS JOIN lineshaft_run_history AS run ON run.id = wanted.value
CROSS JOIN lineshaft_lane AS lane ON lane.id = run.lane
"""


def _listing(columns: str, table: str) -> str:
    return f"""
SELECT json_group_array(json(view)) FROM (
    SELECT {columns}, NULL, NULL) AS view
    FROM {table} AS run CROSS JOIN lineshaft_lane AS lane ON lane.id = run.lane
    WHERE (?1 IS NULL OR run.state IN (SELECT value FROM json_each(?1)))
      AND (?2 IS NULL OR lane.task IN (SELECT value FROM json_each(?2)))
      AND (?3 IS NULL OR lane.tenant IN (SELECT value FROM json_each(?3)))
      AND (?4 IS NULL OR lane.queue IN (SELECT value FROM json_each(?4)))
      AND run.id < ?5
    ORDER BY run.id DESC LIMIT ?6)
"""


_LIST_UNFINISHED = _listing(_UNFINISHED, "lineshaft_run")
_LIST_FINISHED = _listing(_FINISHED, "lineshaft_run_history")
# What failed is rare among what finished, and is asked for most: it has an index of its own.
_LIST_FAILED = _LIST_FINISHED.replace("WHERE (", "WHERE run.state <> 'succeeded' AND (", 1)


def view(connection: sqlite3.Connection, run_ids: Sequence[str]) -> Sequence[RunView | None]:
    """Runs as they stand, in the order asked for."""
    # One snapshot: a run that moves to history between two statements would be in neither or both.
    found = {row[0]: _run_view(row) for row in _in_parts(connection, _VIEW, run_ids, ("args", "result"))}
    return [found.get(run_id) for run_id in run_ids]


def finished(connection: sqlite3.Connection, run_ids: Sequence[str]) -> Sequence[RunView]:
    """Those that have finished, without their arguments."""
    return [_run_view(row) for row in _in_parts(connection, _ENDED, run_ids, ("result",))]


def _in_parts(
    connection: sqlite3.Connection, statement: str, run_ids: Sequence[str], kinds: Sequence[str]
) -> Iterator[list[Any]]:
    """Rows with their large payloads of these kinds: no JSON value on the way holds too much of either."""
    for start in range(0, len(run_ids), ROWS_AT_ONCE):
        rows = fetch(connection, statement, (pack(run_ids[start : start + ROWS_AT_ONCE]),))
        for first in range(0, len(rows), PAYLOADS_AT_ONCE):
            part = rows[first : first + PAYLOADS_AT_ONCE]
            # Arguments and result are a row's last two.
            large = [
                row[0]
                for row in part
                if (row[-1] is None and row[5] in FINAL) or (row[-2] is None and "args" in kinds)
            ]
            found = fetch(connection, _LARGE, (pack(large), pack(kinds))) if large else ()
            payloads = {(run_id, kind): data for run_id, kind, data in found}
            for row in part:
                row[-2] = payloads.get((row[0], "args"), row[-2])
                row[-1] = payloads.get((row[0], "result"), row[-1])
                yield row


def listing(connection: sqlite3.Connection, wanted: RunFilter) -> Sequence[RunView]:
    """Runs newest first, from both tables."""
    names = [wanted.states, wanted.tasks, wanted.tenants, wanted.queues]
    parameters = [pack(sorted(name)) if name else None for name in names]
    parameters += [wanted.before_id or "~", wanted.rows_max]  # type: ignore[list-item]  # "~" is above every id
    rows: list[Any] = []
    if not wanted.states or wanted.states - FINAL:
        rows += fetch(connection, _LIST_UNFINISHED, parameters)
    if not wanted.states or wanted.states & FINAL:
        rare = bool(wanted.states) and State.SUCCEEDED not in wanted.states
        rows += fetch(connection, _LIST_FAILED if rare else _LIST_FINISHED, parameters)
    # A run that finished between the two statements is in both results; the later one tells its end.
    newest = sorted({row[0]: row for row in rows}.items(), reverse=True)
    return [_run_view(row) for _, row in newest[: wanted.rows_max]]


def _run_view(row: list[Any]) -> RunView:
    run_id, *names = row[:5]
    state, attempts, crashes, due_us, priority, key, first_id, retry_of, worker, fence = row[5:15]
    started_us, failure, cancel_requested, suspect, claimed_us, finished_us, wall_us, cpu_us, args, result = (
        row[15:]
    )
    return RunView(
        id=run_id,
        lane=Lane(*names),
        state=State(state),
        attempts=attempts,
        crashes=crashes,
        submitted_us=submitted_us(run_id),
        due_us=due_us,
        priority=priority,
        key=key,
        first_id=first_id,
        retry_of=retry_of,
        worker=worker,
        fence=fence,
        cancel_requested=bool(cancel_requested),
        suspect=suspect,
        args=b"" if args is None else args.encode(),
        result=None if result is None else result.encode(),
        failure=_failure(failure),
        claimed_us=claimed_us,
        started_us=started_us,
        finished_us=finished_us,
        wall_us=wall_us,
        cpu_us=cpu_us,
    )


def _failure(text: str | None) -> Failure | None:
    return None if text is None else Failure.from_json(pydantic_core.from_json(text))


_ATTEMPTS = """
SELECT number, fence, started_us, finished_us, wall_us, cpu_us, failure FROM lineshaft_attempt
WHERE run_id = ? ORDER BY fence
"""


def attempts(connection: sqlite3.Connection, run_id: str) -> Sequence[AttemptView]:
    """Attempts that did not end the run, oldest first."""
    rows = connection.execute(_ATTEMPTS, (run_id,)).fetchall()
    return [
        AttemptView(number, fence, started_us, finished_us, wall_us, cpu_us, _failure(failure))
        for number, fence, started_us, finished_us, wall_us, cpu_us, failure in rows
    ]


def progress(connection: sqlite3.Connection, run_id: str) -> bytes | None:
    """The newest progress of a run, as it was reported."""
    row = connection.execute("SELECT data FROM lineshaft_progress WHERE run_id = ?", (run_id,)).fetchone()
    return None if row is None else row[0].encode()


_QUEUES = """
SELECT json_group_array(json_array(queue, state, count, due_us)) FROM (
    SELECT lane.queue AS queue, per_lane.state AS state, sum(per_lane.count) AS count,
           min(per_lane.due_us) AS due_us
    FROM (SELECT lane, state, count(*) AS count, min(due_us) AS due_us FROM lineshaft_run GROUP BY lane, state)
         AS per_lane
    CROSS JOIN lineshaft_lane AS lane ON lane.id = per_lane.lane
    GROUP BY lane.queue, per_lane.state)
"""


_FAILED = """
SELECT lane.queue, count(*)
FROM lineshaft_run_history AS run CROSS JOIN lineshaft_lane AS lane ON lane.id = run.lane
WHERE run.state <> 'succeeded' AND run.state = 'failed' GROUP BY lane.queue
"""


def queues(connection: sqlite3.Connection) -> Sequence[QueueView]:
    """Unfinished and failed runs by queue."""
    failed = dict(connection.execute(_FAILED).fetchall())
    counts: dict[str, dict[State, int]] = {}
    oldest: dict[str, int] = {}
    for queue, state, count, due_us in fetch(connection, _QUEUES):
        counts.setdefault(queue, {})[State(state)] = count
        if state == State.READY:
            oldest[queue] = due_us
    return [
        QueueView(queue, counts.get(queue, {}), oldest.get(queue), failed.get(queue, 0))
        for queue in sorted(counts.keys() | failed.keys())
    ]


_WORKERS = """
SELECT id, host, pid, started_us, boot_id, expires_boot_us, queues, tasks, terms,
       (SELECT count(*) FROM lineshaft_run WHERE worker = lineshaft_worker.id)
FROM lineshaft_worker ORDER BY id
"""


def workers(registry: Registry, connection: sqlite3.Connection) -> Sequence[WorkerView]:
    """The registry of workers."""
    return [
        WorkerView(
            id=number,
            host=host,
            pid=pid,
            started_us=started_us,
            alive=registry.is_live(number, boot_id, expires_boot_us),
            queues=tuple(pydantic_core.from_json(names)),
            tasks=tuple((name, version) for name, version in pydantic_core.from_json(tasks)),
            terms=Terms.from_json(pydantic_core.from_json(terms)),
            held=held,
        )
        for (
            number,
            host,
            pid,
            started_us,
            boot_id,
            expires_boot_us,
            names,
            tasks,
            terms,
            held,
        ) in connection.execute(_WORKERS).fetchall()
    ]


def slots(connection: sqlite3.Connection) -> Sequence[SlotHolder]:
    """Slots of concurrency limits in use."""
    rows = connection.execute(
        "SELECT key, worker, held FROM lineshaft_slot WHERE held > 0 ORDER BY key, worker"
    ).fetchall()
    return [SlotHolder(*row) for row in rows]


def pace_open_us(connection: sqlite3.Connection, pace: Pace) -> int:
    """When a rate lets the next start through."""
    row = connection.execute("SELECT arrival_ns FROM lineshaft_pace WHERE key = ?", (pace.key,)).fetchone()
    return 0 if row is None else open_again_us(row[0], pace)


_AHEAD = """
SELECT count(*) FROM (
    SELECT 1 FROM lineshaft_run AS run CROSS JOIN lineshaft_run AS other
    WHERE run.id = ?1 AND other.state = 'ready' AND other.suspect IS NULL AND other.lane = run.lane
      AND other.order_us < run.order_us
    LIMIT ?2)
"""


def ahead(connection: sqlite3.Connection, run_id: str, at_most: int) -> int:
    """How many ready runs of its lane come before a run, counted up to a bound."""
    count: int = connection.execute(_AHEAD, (run_id, at_most)).fetchone()[0]
    return count


_RETRIED_BY = """
SELECT id FROM lineshaft_run WHERE retry_of = ?1
UNION ALL
SELECT id FROM lineshaft_run_history WHERE retry_of = ?1
"""


def retried_by(connection: sqlite3.Connection, run_id: str) -> str | None:
    """The run that retries a finished one."""
    row = connection.execute(_RETRIED_BY, (run_id,)).fetchone()
    return None if row is None else row[0]


_COUNTS = """
SELECT state, count(*) FROM lineshaft_run GROUP BY state
UNION ALL
SELECT state, count(*) FROM lineshaft_run_history WHERE state <> 'succeeded' GROUP BY state
UNION ALL
SELECT 'succeeded', (SELECT count(*) FROM lineshaft_run_history)
                    - (SELECT count(*) FROM lineshaft_run_history WHERE state <> 'succeeded')
"""


def counts(connection: sqlite3.Connection) -> dict[State, int]:
    """Runs by state."""
    return {State(state): count for state, count in connection.execute(_COUNTS).fetchall() if count}


_HELD = f"""
SELECT json_group_array(json_array(run.id, run.fence, run.due_us, run.priority, {_LANE}))
FROM lineshaft_run AS run CROSS JOIN lineshaft_lane AS lane ON lane.id = run.lane WHERE run.worker = ?1
"""


def held(connection: sqlite3.Connection, worker: int) -> Sequence[Held]:
    """Runs that a worker holds."""
    return [
        Held(run_id, fence, Lane(*names), due_us, priority)
        for run_id, fence, due_us, priority, *names in fetch(connection, _HELD, (worker,))
    ]


_CANCEL_REQUESTS = """
SELECT json_group_array(id) FROM lineshaft_run WHERE worker = ?1 AND cancel_requested = 1
"""


def cancel_requests(connection: sqlite3.Connection, worker: int) -> Sequence[str]:
    """Runs of a worker that somebody wants cancelled."""
    found: list[str] = fetch(connection, _CANCEL_REQUESTS, (worker,))
    return found
