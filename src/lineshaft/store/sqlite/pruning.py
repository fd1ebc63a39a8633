"""Deleting what is beyond its retention, in batches bounded so that nobody waits long for the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from lineshaft.core import bounds
from lineshaft.core.ident import earliest_id
from lineshaft.store.sqlite.packing import fetch, pack
from lineshaft.store.values import Pruned

# Ids sort by submission, and a run finishes after that: so only ids older than the line can be beyond it.
_OLD_RUNS = """
SELECT json_group_array(id) FROM (
    SELECT id FROM lineshaft_run_history WHERE id < ?1 AND finished_us < ?2 ORDER BY id LIMIT ?3)
"""
_DELETE = {
    "history": "DELETE FROM lineshaft_run_history WHERE id IN (SELECT value FROM json_each(?1))",
    "attempts": "DELETE FROM lineshaft_attempt WHERE run_id IN (SELECT value FROM json_each(?1))",
    "payloads": "DELETE FROM lineshaft_payload WHERE run_id IN (SELECT value FROM json_each(?1))",
}
_DELETE_KEYS = """
DELETE FROM lineshaft_key WHERE (task, tenant, key) IN (
    SELECT task, tenant, key FROM lineshaft_key
    WHERE expires_us IS NOT NULL AND expires_us <= ?1 ORDER BY expires_us LIMIT ?2)
"""
_DELETE_PACES = """
DELETE FROM lineshaft_pace WHERE key IN (SELECT key FROM lineshaft_pace WHERE arrival_ns < ?1 LIMIT ?2)
"""
_DELETE_SLOTS = """
DELETE FROM lineshaft_slot WHERE (key, worker) IN (
    SELECT key, worker FROM lineshaft_slot WHERE held = 0 LIMIT ?1)
"""


def prune(connection: sqlite3.Connection, steps: Sequence[tuple[int, int]]) -> Sequence[Pruned]:
    """One step for each (finished before, now)."""
    return [_prune(connection, finished_before_us, now_us) for finished_before_us, now_us in steps]


def _prune(connection: sqlite3.Connection, finished_before_us: int, now_us: int) -> Pruned:
    old = (earliest_id(max(finished_before_us, 0)), finished_before_us, bounds.PRUNE_ROWS_MAX)
    run_ids = fetch(connection, _OLD_RUNS, old)
    if run_ids:
        packed = (pack(run_ids),)
        for statement in _DELETE.values():
            connection.execute(statement, packed)
    keys = connection.execute(_DELETE_KEYS, (now_us, bounds.PRUNE_ROWS_MAX)).rowcount
    # A rate whose next arrival lies in the past says the same as no row at all.
    connection.execute(_DELETE_PACES, (now_us * 1_000, bounds.PRUNE_ROWS_MAX))
    connection.execute(_DELETE_SLOTS, (bounds.PRUNE_ROWS_MAX,))
    return Pruned(len(run_ids), keys)
