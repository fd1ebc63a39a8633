"""Inserting runs and taking their keys, inside whatever transaction the connection has open."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from lineshaft.core import bounds
from lineshaft.core.errors import KeyReused
from lineshaft.core.states import State
from lineshaft.store.sqlite.packing import execute_values, fetch_values, packed_in_parts
from lineshaft.store.values import Accepted, NewRun

_INSERT_LANES = """
INSERT OR IGNORE INTO lineshaft_lane (id, queue, task, version, tenant)
SELECT * FROM ({values}) WHERE column1 IS NOT NULL
"""

_INSERT_RUNS = """
INSERT INTO lineshaft_run (id, state, lane, due_us, order_us, priority, key, first_id, retry_of, args)
SELECT * FROM ({values}) WHERE column1 IS NOT NULL
"""

_INSERT_PAYLOADS = """
INSERT INTO lineshaft_payload (run_id, kind, data)
SELECT value ->> 0, 'args', value ->> 1 FROM json_each(?)
"""

_HELD_KEYS = """
WITH wanted (position, task, tenant, key) AS ({values})
SELECT json_group_array(json_array(wanted.position, held.run_id, held.digest, held.expires_us, history.state,
                                   history.first_id))
FROM wanted
CROSS JOIN lineshaft_key AS held
    ON held.task = wanted.task AND held.tenant = wanted.tenant AND held.key = wanted.key
LEFT JOIN lineshaft_run_history AS history ON history.id = held.run_id
"""

_TAKE_KEYS = """
INSERT OR REPLACE INTO lineshaft_key (task, tenant, key, run_id, digest, retention_us)
SELECT * FROM ({values}) WHERE column1 IS NOT NULL
"""

# As plain text: the `sqlite3` module takes long to find out what an enumeration is.
_READY, _SCHEDULED = State.READY.value, State.SCHEDULED.value


def submit(connection: sqlite3.Connection, runs: Sequence[NewRun]) -> Sequence[Accepted]:
    """Insert runs; raises `KeyReused` before any of them is inserted."""
    # The first statement writes, so that a deferred transaction takes the write lock before it reads.
    lane_ids = {run.lane: 0 for run in runs}
    for lane in lane_ids:
        lane_ids[lane] = lane.id
    execute_values(connection, _INSERT_LANES, ((lane_id, *lane) for lane, lane_id in lane_ids.items()))
    accepted = [Accepted(run.id, True) for run in runs]
    new = runs
    if any(run.key is not None for run in runs):
        new = _resolve_keys(connection, runs, accepted)
    execute_values(connection, _INSERT_RUNS, (_row(run, lane_ids[run.lane]) for run in new))
    payloads = [(run.id, run.args.decode()) for run in new if len(run.args) > bounds.INLINE_BYTES_MAX]
    for packed in packed_in_parts(payloads):
        connection.execute(_INSERT_PAYLOADS, (packed,))
    return accepted


def _row(run: NewRun, lane_id: int) -> tuple[Any, ...]:
    return (
        run.id,
        _SCHEDULED if run.due_us > run.submitted_us else _READY,
        lane_id,
        run.due_us,
        run.order_us,
        run.priority,
        None if run.key is None else run.key.text,
        run.first_id or run.id,
        run.retry_of,
        run.args.decode() if len(run.args) <= bounds.INLINE_BYTES_MAX else None,
    )


def _resolve_keys(
    connection: sqlite3.Connection, runs: Sequence[NewRun], accepted: list[Accepted]
) -> list[NewRun]:
    """Take the keys of those submissions that create a run; these are returned, and `accepted` says what the
    others got.
    """
    # Keys in the order in which they are stored, so that each page of their table is visited once. Numbers and
    # texts rather than tuples, of which so many at once would keep the garbage collector busy.
    keys = {position: run.key for position, run in enumerate(runs) if run.key is not None}
    keyed = sorted(keys, key=lambda position: keys[position].text)
    wanted = (
        (position, runs[position].lane.task, runs[position].lane.tenant, keys[position].text)
        for position in keyed
    )
    holders: dict[int, tuple[str, str]] = {}
    lineages: dict[str, tuple[str, str]] = {}
    for position, run_id, digest, expires_us, state, first_id in fetch_values(connection, _HELD_KEYS, wanted):
        run, key = runs[position], keys[position]
        if expires_us is not None and expires_us <= run.submitted_us:
            continue
        if key.retry_failed and state == State.FAILED and digest == key.digest:
            lineages[run.id] = (first_id, run_id)
            continue
        holders[position] = (run_id, digest)
    takers: dict[str, int] = {}
    for position in keyed:
        run, key = runs[position], keys[position]
        name = f"{run.lane.task}\0{run.lane.tenant}\0{key.text}"
        first = takers.get(name)
        holder = holders.get(position) if first is None else (runs[first].id, keys[first].digest)
        if holder is None:
            takers[name] = position
            continue
        if holder[1] != key.digest:
            raise KeyReused(
                f"The key {key.text[:100]!r} of task {run.lane.task!r} (tenant {run.lane.tenant!r}) is held by run"
                f" {holder[0]}, which has other arguments.",
                hint="Derive the key from all that distinguishes the work, or submit the same arguments.",
            )
        accepted[position] = Accepted(holder[0], False)
    execute_values(connection, _TAKE_KEYS, (_key_row(runs[position]) for position in takers.values()))
    return [
        run._replace(first_id=lineages[run.id][0], retry_of=lineages[run.id][1])
        if run.id in lineages
        else run
        for run, answer in zip(runs, accepted, strict=True)
        if answer.created
    ]


def _key_row(run: NewRun) -> tuple[Any, ...]:
    assert run.key is not None
    return run.lane.task, run.lane.tenant, run.key.text, run.id, run.key.digest, run.key.retention_us
