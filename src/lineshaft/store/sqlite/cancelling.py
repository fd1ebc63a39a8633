"""Cancelling: at once where nothing executes the run, by request to its worker otherwise."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from lineshaft.core.errors import RunNotFound
from lineshaft.core.states import State
from lineshaft.store.sqlite.packing import pack
from lineshaft.store.sqlite.settlement import finish_runs

_STATE = """
SELECT state FROM lineshaft_run WHERE id = ?1
UNION ALL
SELECT state FROM lineshaft_run_history WHERE id = ?1
"""
_REQUEST = "UPDATE lineshaft_run SET cancel_requested = 1 WHERE id = ?1"
_TO_HISTORY = """
INSERT INTO lineshaft_run_history
    (id, state, lane, due_us, priority, attempts, crashes, fence, worker, key, first_id, retry_of, args,
     finished_us, failure)
SELECT id, 'cancelled', lane, due_us, priority, attempts, crashes, fence, worker, key, first_id, retry_of, args,
       ?2, failure
FROM lineshaft_run WHERE id IN (SELECT value FROM json_each(?1))
"""


def cancel(connection: sqlite3.Connection, wishes: Sequence[tuple[str, int]]) -> Sequence[State]:
    """Cancel runs: (id, now). What state each is in then."""
    return [_cancel(connection, run_id, now_us) for run_id, now_us in wishes]


def _cancel(connection: sqlite3.Connection, run_id: str, now_us: int) -> State:
    row = connection.execute(_STATE, (run_id,)).fetchone()
    if row is None:
        raise RunNotFound(f"There is no run {run_id}.", hint="It may have been pruned; look at `runs list`.")
    state = State(row[0])
    if state in (State.RUNNING, State.COMPENSATING):
        connection.execute(_REQUEST, (run_id,))
    elif state in (State.SCHEDULED, State.READY, State.WAITING, State.PAUSED, State.PARKED):
        connection.execute(_TO_HISTORY, (pack([run_id]), now_us))
        finish_runs(connection, [run_id])
        return State.CANCELLED
    return state
