"""Workers and their leases: registering, the heartbeat, and the sweep over the dead.

A lease is good until the machine's boot-time clock passes what the last heartbeat wrote, and only under the
boot id it was written under; a worker whose process is certainly gone loses its lease at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pydantic_core

from lineshaft.core import bounds
from lineshaft.core.clock import Clock
from lineshaft.core.states import FailureClass, State
from lineshaft.store.sqlite.machine import Liveness
from lineshaft.store.sqlite.packing import fetch, pack
from lineshaft.store.sqlite.settlement import finish_runs
from lineshaft.store.values import Failure, NewWorker, Rescued

_REGISTER = """
INSERT INTO lineshaft_worker (host, pid, boot_id, started_us, expires_boot_us, queues, tasks, terms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_BEAT = "UPDATE lineshaft_worker SET expires_boot_us = ?2 WHERE id = ?1 AND boot_id = ?3"
_FORGET = "DELETE FROM lineshaft_worker WHERE id = ?1"
_FORGET_SLOTS = "DELETE FROM lineshaft_slot WHERE worker = ?1"
_HAND_BACK = """
UPDATE lineshaft_run SET state = 'ready', worker = NULL, started_us = NULL WHERE worker = ?1 AND started_us IS NULL
"""

_WORKERS = "SELECT id, boot_id, expires_boot_us FROM lineshaft_worker"

_HELD = """
SELECT json_group_array(json_array(id, crashes, cancel_requested, started_us)) FROM lineshaft_run
WHERE worker = ?1
"""

_TO_HISTORY = """
INSERT INTO lineshaft_run_history
    (id, state, lane, due_us, priority, attempts, crashes, fence, worker, key, first_id, retry_of, args,
     started_us, finished_us, failure)
SELECT id, ?2, lane, due_us, priority, attempts, crashes, fence, worker, key, first_id, retry_of, args,
       started_us, ?3, ?4
FROM lineshaft_run WHERE id IN (SELECT value FROM json_each(?1))
"""

_CHARGE = """
UPDATE lineshaft_run
SET state = 'scheduled', worker = NULL, crashes = crashes + 1, suspect = ?2, due_us = ?3, failure = ?4
WHERE id = ?1
"""

_COUNT_CRASH = "UPDATE lineshaft_run SET crashes = crashes + 1 WHERE id = ?1"

_SUSPECT = """
UPDATE lineshaft_run SET state = 'ready', worker = NULL, suspect = ?2
WHERE id IN (SELECT value FROM json_each(?1))
"""

_NEWEST_GROUP = "SELECT coalesce(max(suspect), 0) FROM lineshaft_run WHERE suspect IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Registry:
    """The writes about workers, with the clock and the locks they need."""

    clock: Clock
    alive: Liveness

    def register(self, connection: sqlite3.Connection, workers: Sequence[NewWorker]) -> Sequence[int]:
        numbers = []
        for worker in workers:
            row = (
                worker.host,
                worker.pid,
                self.clock.boot_id(),
                worker.started_us,
                self.clock.boot_us() + worker.lease_us,
                pack(worker.queues),
                pack(worker.tasks),
                pydantic_core.to_json(worker.terms.as_json()).decode(),
            )
            number = connection.execute(_REGISTER, row).lastrowid
            assert number is not None
            while not self.alive.take(number):
                connection.execute(_FORGET, (number,))
                number = connection.execute(_REGISTER, row).lastrowid
                assert number is not None
            # It may know what others did not, or accept arguments that they refused; sweeps go on with the former.
            _return_unknown(connection, set(worker.tasks))
            connection.execute(_RETURN_REFUSED, (pack(worker.tasks), bounds.PRUNE_ROWS_MAX))
            numbers.append(number)
        return numbers

    def beat(self, connection: sqlite3.Connection, beats: Sequence[tuple[int, int]]) -> Sequence[bool]:
        """Extend leases; a lease that has run out is extended too, unless the sweep was first."""
        now_us = self.clock.boot_us()
        boot_id = self.clock.boot_id()
        return [
            connection.execute(_BEAT, (worker, now_us + lease_us, boot_id)).rowcount == 1
            for worker, lease_us in beats
        ]

    def unregister(self, connection: sqlite3.Connection, workers: Sequence[int]) -> Sequence[None]:
        for worker in workers:
            connection.execute(_HAND_BACK, (worker,))
            if not fetch(connection, _HELD, (worker,)):
                connection.execute(_FORGET_SLOTS, (worker,))
                connection.execute(_FORGET, (worker,))
        return [None] * len(workers)

    def is_live(self, worker: int, boot_id: str, expires_boot_us: int) -> bool:
        return (
            boot_id == self.clock.boot_id()
            and expires_boot_us > self.clock.boot_us()
            and not self.alive.is_dead(worker)
        )

    def rescue(self, connection: sqlite3.Connection, sweeps: Sequence[int]) -> Sequence[Rescued]:
        """Sweep over the dead at the given wall times; selection and change are one transaction."""
        return [self._rescue(connection, now_us) for now_us in sweeps]

    def _rescue(self, connection: sqlite3.Connection, now_us: int) -> Rescued:
        returned, suspects = 0, 0
        failed: list[str] = []
        unknown: list[str] = []
        found = connection.execute(_WORKERS).fetchall()
        dead = {row[0]: row[1] for row in found if not self.is_live(*row)}
        for worker, boot_id in dead.items():
            held = fetch(connection, _HELD, (worker,))
            started = [row[0] for row in held if row[3] is not None]
            cancelled = [row[0] for row in held if row[3] is None and row[2]]
            rest = [row for row in held if row[3] is None and not row[2]]
            _end(connection, started, State.OUTCOME_UNKNOWN, now_us, None)
            _end(connection, cancelled, State.CANCELLED, now_us, None)
            unknown += started
            # A run is to blame only where its process is gone for certain and the machine is not: one that was
            # stopped, or whose loop was blocked, lost its lease just as well.
            crashed = boot_id == self.clock.boot_id() and self.alive.is_dead(worker)
            if len(held) == 1 and rest and crashed:
                if _charge(connection, rest[0], worker, now_us):
                    failed.append(rest[0][0])
            elif rest:
                suspects += len(rest)
                _suspect(connection, [row[0] for row in rest])
            returned += len(rest)
            connection.execute(_FORGET_SLOTS, (worker,))
            connection.execute(_FORGET, (worker,))
        return Rescued(returned - len(failed), suspects, tuple(failed), tuple(unknown), tuple(dead))


def _charge(connection: sqlite3.Connection, row: list[Any], worker: int, now_us: int) -> bool:
    """Charge a run that was alone when its worker died; true if that was once too often."""
    run_id, crashes = row[0], row[1] + 1
    failure = Failure(
        FailureClass.CRASH,
        "WorkerDied",
        f"Worker {worker} died while it executed this run alone; that has now happened {crashes} times.",
    )
    if crashes > bounds.CRASHES_MAX:
        connection.execute(_COUNT_CRASH, (run_id,))
        _end(connection, [run_id], State.FAILED, now_us, failure)
        return True
    # It comes back after a pause that doubles, so that it does not kill workers as fast as they start.
    due_us = now_us + 1_000_000 * 2 ** (crashes - 1) if crashes > 1 else now_us
    group = connection.execute(_NEWEST_GROUP).fetchone()[0] + 1
    connection.execute(_CHARGE, (run_id, group, due_us, _failure_json(failure)))
    return False


def _suspect(connection: sqlite3.Connection, run_ids: list[str]) -> None:
    """Put runs that died together into two groups, each to be executed with nothing beside it."""
    group = connection.execute(_NEWEST_GROUP).fetchone()[0] + 1
    middle = len(run_ids) // 2
    for half in (run_ids[:middle], run_ids[middle:]):
        if half:
            connection.execute(_SUSPECT, (pack(half), group))
            group += 1


def _end(
    connection: sqlite3.Connection, run_ids: list[str], state: State, now_us: int, failure: Failure | None
) -> None:
    if run_ids:
        connection.execute(_TO_HISTORY, (pack(run_ids), state, now_us, _failure_json(failure)))
        finish_runs(connection, run_ids)


def _failure_json(failure: Failure | None) -> str | None:
    return None if failure is None else pydantic_core.to_json(failure.as_json()).decode()


# Parking: what no worker knows is parked by the sweep, what the present code refused by its settlement. The latter
# keeps the time of its claim, and returns with a new worker only, which may have other code.

_READY_LANES = """
WITH RECURSIVE open (lane) AS (
    SELECT min(lane) FROM lineshaft_run WHERE state = 'ready' AND suspect IS NULL
    UNION ALL
    SELECT (SELECT min(lane) FROM lineshaft_run
            WHERE state = 'ready' AND suspect IS NULL AND lane > open.lane)
    FROM open WHERE open.lane IS NOT NULL
)
SELECT json_group_array(json_array(known.id, known.task, known.version))
FROM (SELECT lane FROM open
      UNION SELECT lane FROM lineshaft_run INDEXED BY lineshaft_run_suspect
            WHERE suspect IS NOT NULL AND state = 'ready') AS found
CROSS JOIN lineshaft_lane AS known ON known.id = found.lane
"""

# Named indexes: a planner with statistics of a small table would rather read all of it, and go on when it is large.
_PARK = """
UPDATE lineshaft_run SET state = 'parked', claimed_us = NULL
WHERE id IN (SELECT id FROM lineshaft_run INDEXED BY lineshaft_run_ready WHERE state = 'ready' AND suspect IS NULL
             AND lane IN (SELECT value FROM json_each(?1)) LIMIT ?2)
"""

_PARK_SUSPECTS = """
UPDATE lineshaft_run SET state = 'parked', claimed_us = NULL
WHERE id IN (SELECT id FROM lineshaft_run INDEXED BY lineshaft_run_suspect
             WHERE suspect IS NOT NULL AND state = 'ready' AND lane IN (SELECT value FROM json_each(?1)) LIMIT ?2)
"""

_PARKED_LANES = """
WITH RECURSIVE closed (lane) AS (
    SELECT min(lane) FROM lineshaft_run INDEXED BY lineshaft_run_parked WHERE state = 'parked' AND claimed_us IS NULL
    UNION ALL
    SELECT (SELECT min(lane) FROM lineshaft_run INDEXED BY lineshaft_run_parked
            WHERE state = 'parked' AND claimed_us IS NULL AND lane > closed.lane)
    FROM closed WHERE closed.lane IS NOT NULL
)
SELECT json_group_array(json_array(known.id, known.task, known.version))
FROM closed CROSS JOIN lineshaft_lane AS known ON known.id = closed.lane
"""

_RETURN_UNKNOWN = """
UPDATE lineshaft_run SET state = 'ready'
WHERE id IN (SELECT id FROM lineshaft_run INDEXED BY lineshaft_run_parked
             WHERE state = 'parked' AND claimed_us IS NULL AND lane IN (SELECT value FROM json_each(?1)) LIMIT ?2)
"""

_RETURN_REFUSED = """
UPDATE lineshaft_run SET state = 'ready'
WHERE id IN (SELECT run.id FROM lineshaft_run AS run INDEXED BY lineshaft_run_parked
             CROSS JOIN lineshaft_lane AS lane ON lane.id = run.lane
             WHERE run.state = 'parked' AND run.claimed_us IS NOT NULL
               AND EXISTS (SELECT 1 FROM json_each(?1) AS known
                           WHERE lane.task = (known.value ->> 0) AND lane.version = (known.value ->> 1))
             LIMIT ?2)
"""

_TASKS = "SELECT tasks FROM lineshaft_worker"


def park(connection: sqlite3.Connection, sweeps: Sequence[int]) -> Sequence[int]:
    """Park ready runs whose task no live worker knows, and return those that one knows by now; a bounded number of
    each in a sweep.
    """
    # Workers whose lease has run out count until they are swept: one that comes back in time would not register
    # again, which is what returns parked runs.
    known: set[tuple[str, str]] = set()
    for (tasks,) in connection.execute(_TASKS).fetchall():
        known.update((name, version) for name, version in pydantic_core.from_json(tasks))
    lanes = fetch(connection, _READY_LANES)
    unknown = [lane for lane, task, version in lanes if (task, version) not in known]
    parked = 0
    if unknown:
        wanted = (pack(unknown), bounds.PRUNE_ROWS_MAX)
        parked = (
            connection.execute(_PARK, wanted).rowcount + connection.execute(_PARK_SUSPECTS, wanted).rowcount
        )
    _return_unknown(connection, known)
    return [parked] * len(sweeps)


def _return_unknown(connection: sqlite3.Connection, known: set[tuple[str, str]]) -> None:
    """Return some of the runs that were parked because nobody knew their task."""
    lanes = fetch(connection, _PARKED_LANES)
    found = [lane for lane, task, version in lanes if (task, version) in known]
    if found:
        connection.execute(_RETURN_UNKNOWN, (pack(found), bounds.PRUNE_ROWS_MAX))
