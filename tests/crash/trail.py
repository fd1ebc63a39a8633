"""What happened, gathered outside the store: accepted operations, ends of runs, effects, calls.

The store forgets finished runs after a while, so a long test gathers as it goes. Reading is raw SQL and shares
nothing with the engine. What is gathered is kept in a SQLite file of its own, which `checker.py` looks through.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.crash.sink import Call

_TABLES = """
CREATE TABLE accepted (op TEXT, run TEXT);
CREATE TABLE ended (run TEXT PRIMARY KEY, op TEXT, kind TEXT, task TEXT, state TEXT, attempts INTEGER, crashes INTEGER,
                    due_us INTEGER, started_us INTEGER, finished_us INTEGER, retries INTEGER, failure TEXT);
CREATE INDEX ended_op ON ended (op);
CREATE TABLE effects (op TEXT, effect TEXT, attempt INTEGER, pid INTEGER);
CREATE INDEX effects_op ON effects (op);
CREATE TABLE calls (op TEXT, key TEXT, run TEXT, attempt INTEGER, pid INTEGER);
CREATE INDEX calls_op ON calls (op);
CREATE TABLE wrong (what TEXT);
"""

_ENDED = """
SELECT history.id, coalesce(history.args, payload.data), lane.task, history.state, history.attempts, history.crashes,
       history.due_us, history.started_us, history.finished_us,
       (SELECT count(*) FROM lineshaft_attempt AS attempt WHERE attempt.run_id = history.id), history.failure
FROM lineshaft_run_history AS history
JOIN lineshaft_lane AS lane ON lane.id = history.lane
LEFT JOIN lineshaft_payload AS payload ON payload.run_id = history.id AND payload.kind = 'args'
"""

_KNOWN = "SELECT op, task, state, attempts, finished_us FROM ended WHERE run = ?"


class Trail:
    """Gathers for one store."""

    def __init__(self, folder: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        """`connect` opens the store in a way that is safe beside its own processes."""
        self._accepted = folder / "accepted.txt"
        self._read_to = 0
        self._connect = connect
        self.rows = sqlite3.connect(folder / "trail.db", isolation_level=None)
        self.rows.execute("PRAGMA journal_mode = MEMORY")
        self.rows.execute("PRAGMA synchronous = OFF")
        self.rows.executescript(_TABLES)

    def gather(self, calls: list[Call]) -> None:
        """Take in what there is by now: what submitters put down, the store's history and ledger, and these calls."""
        self.rows.execute("BEGIN")
        self.rows.executemany("INSERT INTO calls VALUES (?, ?, ?, ?, ?)", calls)
        self._read_accepted()
        store = self._connect()
        try:
            self._read_history(store)
            self._take_ledger(store)
        finally:
            store.close()
        self.rows.execute("COMMIT")

    def _read_accepted(self) -> None:
        if not self._accepted.exists():
            return
        with self._accepted.open("rb") as file:
            file.seek(self._read_to)
            found = file.read()
        whole = found[: found.rfind(b"\n") + 1]
        self._read_to += len(whole)
        lines = [line.split() for line in whole.decode().splitlines()]
        self.rows.executemany("INSERT INTO accepted VALUES (?, ?)", lines)

    def _read_history(self, store: sqlite3.Connection) -> None:
        """Ends of runs: new ones, and those known already, which must be as they were."""
        for run, args, task, state, attempts, *rest in store.execute(_ENDED):
            op = next(iter(json.loads(args).values()))
            known = self.rows.execute(_KNOWN, (run,)).fetchone()
            if known is None:
                row = (run, op, op.partition("/")[0], task, state, attempts, *rest)
                self.rows.execute(f"INSERT INTO ended VALUES ({', '.join('?' * len(row))})", row)
            elif known != (op, task, state, attempts, rest[3]):
                self.wrong(f"{run} ended as {known}, and then as {(op, task, state, attempts, rest[3])}")

    def _take_ledger(self, store: sqlite3.Connection) -> None:
        """Move the ledger here, so that the store keeps its size."""
        effects = store.execute("SELECT rowid, op, effect, attempt, pid FROM ledger").fetchall()
        try:
            store.executemany("DELETE FROM ledger WHERE rowid = ?", [row[:1] for row in effects])
            store.commit()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY":
                raise
            # Somebody was stopped in the middle of a write: they are left for the next time.
            return
        self.rows.executemany("INSERT INTO effects VALUES (?, ?, ?, ?)", [row[1:] for row in effects])

    def wrong(self, what: str) -> None:
        self.rows.execute("INSERT INTO wrong VALUES (?)", (what,))

    def close(self) -> None:
        self.rows.close()
