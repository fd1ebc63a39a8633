"""Retrying by an operator: what has ended stays as it is, and a new run of its lineage takes its key over."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from lineshaft.core.errors import InvalidTransition, KeyReused, RunNotFound
from lineshaft.core.states import State
from lineshaft.store.sqlite.reads import retried_by
from lineshaft.store.sqlite.submissions import submit
from lineshaft.store.values import NewRun, SubmissionKey

_STATE = """
SELECT state, 0 FROM lineshaft_run WHERE id = ?1
UNION ALL
SELECT state, 1 FROM lineshaft_run_history WHERE id = ?1
"""

_LEAVE_KEY = """
DELETE FROM lineshaft_key WHERE task = ?1 AND tenant = ?2 AND key = ?3 AND run_id = ?4 RETURNING retention_us
"""


def retry(connection: sqlite3.Connection, runs: Sequence[NewRun]) -> Sequence[None]:
    """Insert runs, each of which retries the finished one named by its `retry_of`."""
    for run in runs:
        _retry(connection, run)
    return [None] * len(runs)


def _retry(connection: sqlite3.Connection, run: NewRun) -> None:
    old = run.retry_of
    assert old is not None
    row = connection.execute(_STATE, (old,)).fetchone()
    if row is None:
        raise RunNotFound(f"There is no run {old}.", hint="It may have been pruned; look at `runs list`.")
    state, is_finished = State(row[0]), bool(row[1])
    if not is_finished:
        raise InvalidTransition(
            f"Run {old} is {state}; only a run that has ended without success is retried.",
            hint=f"Ask `lineshaft runs why {old}` what it waits for, or cancel it first.",
        )
    if state is State.SUCCEEDED:
        raise InvalidTransition(f"Run {old} has succeeded and is not retried.", hint="Submit the work anew.")
    newer = retried_by(connection, old)
    if newer is not None:
        raise InvalidTransition(
            f"Run {old} has been retried already, by run {newer}.", hint="Look at that one."
        )
    key = run.key
    if key is None:
        submit(connection, [run])
        return
    _with_key(connection, run, key, old)


def _with_key(connection: sqlite3.Connection, run: NewRun, key: SubmissionKey, old: str) -> None:
    left = connection.execute(_LEAVE_KEY, (run.lane.task, run.lane.tenant, key.text, old)).fetchall()
    if left:
        run = run._replace(key=key._replace(retention_us=left[0][0]))
    try:
        holder = submit(connection, [run])[0]
        held_by = None if holder.created else holder.id
    except KeyReused:
        held_by = "another run, with other arguments"
    if held_by is not None:
        raise InvalidTransition(
            f"Run {old} cannot be retried: its key {key.text[:100]!r} is held by {held_by} meanwhile.",
            hint="Look at that run; a key stands for one piece of work.",
        )
