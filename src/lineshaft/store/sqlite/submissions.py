"""Inserting runs and taking their keys, inside whatever transaction the connection has open."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from lineshaft.core import bounds
from lineshaft.core.errors import KeyReused
from lineshaft.core.states import State
from lineshaft.store.sqlite.packing import fetch, pack, packed_in_parts
from lineshaft.store.values import Accepted, NewRun

_INSERT_LANES = """
INSERT OR IGNORE INTO lineshaft_lane (id, queue, task, version, tenant)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?)
"""

_INSERT_RUNS = """
INSERT INTO lineshaft_run
    (id, state, lane, due_us, order_us, priority, key, first_id, retry_of, args)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
       value ->> 8, value ->> 9
FROM json_each(?)
"""

_INSERT_PAYLOADS = """
INSERT INTO lineshaft_payload (run_id, kind, data)
SELECT value ->> 0, 'args', value ->> 1 FROM json_each(?)
"""

_HELD_KEYS = """
SELECT json_group_array(json_array(wanted.key, held.run_id, held.digest, held.expires_us, history.state,
                                   history.first_id))
FROM json_each(?) AS wanted
CROSS JOIN lineshaft_key AS held
    ON held.task = (wanted.value ->> 0) AND held.tenant = (wanted.value ->> 1) AND held.key = (wanted.value ->> 2)
LEFT JOIN lineshaft_run_history AS history ON history.id = held.run_id
"""

_TAKE_KEYS = """
INSERT OR REPLACE INTO lineshaft_key (task, tenant, key, run_id, digest, retention_us, expires_us)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, NULL FROM json_each(?)
"""


def submit(connection: sqlite3.Connection, runs: Sequence[NewRun]) -> Sequence[Accepted]:
    """Insert runs; raises `KeyReused` before any of them is inserted."""
    # The first statement writes, so that a deferred transaction takes the write lock before it reads.
    lanes = {run.lane: None for run in runs}
    connection.execute(_INSERT_LANES, (pack([(lane.id, *lane) for lane in lanes]),))
    accepted: list[Accepted] = [Accepted(run.id, True) for run in runs]
    lineages: dict[int, tuple[str, str]] = {}
    if any(run.key is not None for run in runs):
        _resolve_keys(connection, runs, accepted, lineages)
    rows, payloads = [], []
    for position, run in enumerate(runs):
        if not accepted[position].created:
            continue
        first_id, retry_of = lineages.get(position) or (run.first_id or run.id, run.retry_of)
        inline: str | None = run.args.decode()
        if len(run.args) > bounds.INLINE_BYTES_MAX:
            payloads.append((run.id, inline))
            inline = None
        rows.append(
            (
                run.id,
                State.SCHEDULED if run.due_us > run.submitted_us else State.READY,
                run.lane.id,
                run.due_us,
                run.order_us,
                run.priority,
                None if run.key is None else run.key.text,
                first_id,
                retry_of,
                inline,
            )
        )
    if rows:
        connection.execute(_INSERT_RUNS, (pack(rows),))
    for packed in packed_in_parts(payloads):
        connection.execute(_INSERT_PAYLOADS, (packed,))
    return accepted


def _resolve_keys(
    connection: sqlite3.Connection,
    runs: Sequence[NewRun],
    accepted: list[Accepted],
    lineages: dict[int, tuple[str, str]],
) -> None:
    """Find out which submissions create a run, and take the keys of those.

    `lineages` gets the first run, and the retried one, of those that replace a failed holder.
    """
    keyed = [(position, run, run.key) for position, run in enumerate(runs) if run.key is not None]
    names = [(run.lane.task, run.lane.tenant, key.text) for _, run, key in keyed]
    # A holder is (run id, digest of its arguments).
    holders: dict[tuple[str, str, str], tuple[str, str]] = {}
    for index, run_id, digest, expires_us, state, first_id in fetch(connection, _HELD_KEYS, (pack(names),)):
        position, run, key = keyed[index]
        if expires_us is not None and expires_us <= run.submitted_us:
            continue
        if key.retry_failed and state == State.FAILED and digest == key.digest:
            lineages[position] = (first_id, run_id)
            continue
        holders[names[index]] = (run_id, digest)
    taken = []
    for (position, run, key), name in zip(keyed, names, strict=True):
        holder = holders.get(name)
        if holder is None:
            holders[name] = (run.id, key.digest)
            taken.append((*name, run.id, key.digest, key.retention_us))
        elif holder[1] != key.digest:
            raise KeyReused(
                f"The key {key.text[:100]!r} of task {run.lane.task!r} (tenant {run.lane.tenant!r}) is held by run"
                f" {holder[0]}, which has other arguments.",
                hint="Derive the key from all that distinguishes the work, or submit the same arguments.",
            )
        else:
            accepted[position] = Accepted(holder[0], False)
    if taken:
        connection.execute(_TAKE_KEYS, (pack(taken),))
