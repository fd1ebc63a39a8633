"""Whether every promise was kept, by what the trail and the store hold when all is over. Raw SQL, nothing of the engine.

Each of `RULES` and `LEFT_OVER` is a query whose every row is a broken promise. So that they can be read, a rule is a sentence.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.crash.trail import Trail
from tests.crash.workload import KINDS

RULES = {
    "a run that was accepted is lost": """
        SELECT op, run FROM accepted WHERE run NOT IN (SELECT run FROM ended)""",
    "an operation has two runs": """
        SELECT op, count(*), group_concat(run) FROM ended GROUP BY op HAVING count(*) > 1""",
    "an operation was accepted as two runs": """
        SELECT op, group_concat(DISTINCT run) FROM accepted GROUP BY op HAVING count(DISTINCT run) > 1""",
    "a run ended as its kind never does": """
        SELECT run, op, state, failure FROM ended
        WHERE NOT EXISTS (SELECT 1 FROM ends WHERE ends.kind = ended.kind AND ends.state = ended.state)""",
    "a transaction's effect is missing": """
        SELECT op, run FROM ended JOIN kinds USING (kind)
        WHERE kinds.effect = 'ledger' AND state = 'succeeded'
          AND NOT EXISTS (SELECT 1 FROM effects WHERE effects.op = ended.op AND effect = 'booked')""",
    "a transaction's effect happened twice": """
        SELECT op, effect, count(*) FROM effects GROUP BY op, effect HAVING count(*) > 1""",
    "a transaction's effect stands though its run did not succeed": """
        SELECT op FROM effects WHERE effect = 'booked'
          AND op NOT IN (SELECT op FROM ended WHERE state = 'succeeded')""",
    "a transaction's effect is that of another attempt": """
        SELECT effects.op, effects.attempt, ended.attempts FROM effects JOIN ended USING (op)
        WHERE effect = 'booked' AND attempt IS NOT NULL AND attempt <> ended.attempts""",
    "a row was committed without the run submitted beside it": """
        SELECT op FROM effects WHERE effect = 'ordered' AND op NOT IN (SELECT op FROM ended)""",
    "a run was committed without the row written beside it": """
        SELECT op FROM ended WHERE op GLOB '*:tx/*' AND op NOT GLOB 'calls/child/*'
          AND op NOT IN (SELECT op FROM effects WHERE effect = 'ordered')""",
    "a run submitted by a transaction is missing": """
        SELECT op FROM ended WHERE kind = 'books_and_submits' AND state = 'succeeded'
          AND 'calls/child/' || op NOT IN (SELECT op FROM ended)""",
    "a run was submitted by a transaction that did not commit": """
        SELECT op FROM ended WHERE op GLOB 'calls/child/*'
          AND substr(op, 13) NOT IN (SELECT op FROM ended WHERE state = 'succeeded')""",
    "a call outside was never made": """
        SELECT op, run FROM ended JOIN kinds USING (kind)
        WHERE kinds.effect = 'sink' AND state = 'succeeded' AND op NOT IN (SELECT op FROM calls)""",
    "a call outside came under several idempotency keys": """
        SELECT op, group_concat(DISTINCT key) FROM calls GROUP BY op HAVING count(DISTINCT key) > 1""",
    "a call outside came from a run that was never accepted": """
        SELECT op, run FROM calls WHERE run NOT IN (SELECT run FROM ended)""",
    "at-most-once work happened more than once": """
        SELECT op, count(*) FROM calls JOIN kinds ON kinds.kind = substr(op, 1, instr(op, '/') - 1)
        WHERE at_most_once GROUP BY op HAVING count(*) > 1""",
    "a run started before it was due": """
        SELECT op, due_us, started_us FROM ended WHERE started_us < due_us AND state <> 'cancelled'""",
    "a run's attempts are not those that are recorded": """
        SELECT op, attempts, retries FROM ended WHERE state = 'succeeded' AND attempts <> retries + 1""",
    "a run that ended changed again": "SELECT what FROM wrong",
}

LEFT_OVER = {
    "a run is not finished": "SELECT id, state FROM lineshaft_run",
    "a worker is still registered": "SELECT id, pid FROM lineshaft_worker",
    "a slot is still held": "SELECT key, worker, held FROM lineshaft_slot WHERE held > 0",
    "progress of no run": "SELECT run_id FROM lineshaft_progress",
    "a payload of no run": """
        SELECT run_id FROM lineshaft_payload WHERE run_id NOT IN (SELECT id FROM lineshaft_run_history)""",
    "an attempt of no run": """
        SELECT run_id FROM lineshaft_attempt WHERE run_id NOT IN (SELECT id FROM lineshaft_run_history)""",
    "a key that nobody ever lets go": """
        SELECT key, run_id FROM lineshaft_key WHERE expires_us IS NULL""",
    "the file is not sound": "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
}

SHOWN_MAX = 5
"""Broken promises of one sort that are shown; the others are counted."""


def violations(trail: Trail, store: Path) -> list[str]:
    """Every broken promise, once all processes have ended."""
    rows = trail.rows
    rows.execute("CREATE TEMP TABLE kinds (kind TEXT PRIMARY KEY, effect TEXT, at_most_once INTEGER)")
    rows.execute("CREATE TEMP TABLE ends (kind TEXT, state TEXT)")
    for name, kind in KINDS.items():
        rows.execute("INSERT INTO kinds VALUES (?, ?, ?)", (name, kind.effect, kind.at_most_once))
        rows.executemany("INSERT INTO ends VALUES (?, ?)", [(name, state) for state in kind.ends])
    try:
        found = _broken(rows, RULES)
    finally:
        rows.execute("DROP TABLE kinds")
        rows.execute("DROP TABLE ends")
    connection = sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return found + _broken(connection, LEFT_OVER)
    finally:
        connection.close()


def tally(trail: Trail) -> dict[str, dict[str, int]]:
    """How many runs of each kind ended in each state."""
    counts: dict[str, dict[str, int]] = {}
    for kind, state, count in trail.rows.execute(
        "SELECT kind, state, count(*) FROM ended GROUP BY kind, state"
    ):
        counts.setdefault(kind, {})[state] = count
    return counts


def _broken(connection: sqlite3.Connection, rules: dict[str, str]) -> list[str]:
    found = []
    for rule, query in rules.items():
        rows = connection.execute(query).fetchall()
        found += [f"{rule}: {', '.join(map(str, row))}" for row in rows[:SHOWN_MAX]]
        if len(rows) > SHOWN_MAX:
            found.append(f"{rule}: and {len(rows) - SHOWN_MAX:,} more")
    return found
