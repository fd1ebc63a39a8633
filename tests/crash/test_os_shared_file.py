"""Several processes write, checkpoint, read and copy one file at once: it stays sound (row 14).

`integration/test_sqlite_processes.py` shows the same of the store alone.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lineshaft.store.sqlite import backups
from lineshaft.store.sqlite.files import StoreFiles
from tests.crash.os_processes import Scenario, stop

OFTEN = {"OS_CHECKPOINTS": "often"}
COPIES = 4


def read_consistently(connection: sqlite3.Connection) -> int:
    """Look at the file as of one moment, twice; how many runs there were."""
    connection.execute("BEGIN")
    before = counts(connection)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert counts(connection) == before, "a reader saw the file change under its feet"
    connection.execute("COMMIT")
    runs, booked, rows = before
    assert booked == rows, "an effect without its outcome, or the other way round"
    return runs


def counts(connection: sqlite3.Connection) -> tuple[int, int, int]:
    found: tuple[int, int, int] = connection.execute(
        "SELECT (SELECT count(*) FROM lineshaft_run) + (SELECT count(*) FROM lineshaft_run_history),"
        " (SELECT count(*) FROM lineshaft_run_history AS run JOIN lineshaft_lane AS lane ON lane.id = run.lane"
        "  WHERE lane.task = 'book'),"
        " (SELECT count(*) FROM ledger)"
    ).fetchone()
    return found


def copy(store: Path, target: Path) -> int:
    """Back the store up; how many runs are in the copy."""
    files = StoreFiles(store)
    try:
        backups.backup(files, target, lambda _done, _all: None)
    finally:
        files.close()
    connection = sqlite3.connect(target, isolation_level=None)
    try:
        return read_consistently(connection)
    finally:
        connection.close()


def test_a_file_that_many_write_check_read_and_copy_stays_sound(tmp_path: Path) -> None:
    with Scenario(tmp_path) as scenario:
        scenario.make_store()
        workers = [scenario.start("worker", name, environment=OFTEN) for name in "ab"]
        submitters = [
            scenario.start("submitter", name, environment=OFTEN, kinds="book,note", pause="0")
            for name in "cd"
        ]
        scenario.until(lambda: len(scenario.told("succeeded")) > 100)
        reader = sqlite3.connect(f"{scenario.store.as_uri()}?mode=ro", uri=True, isolation_level=None)
        seen, copied = [], []
        for number in range(COPIES):
            known = len(scenario.accepted())
            seen.append(read_consistently(reader))
            copied.append(copy(scenario.store, tmp_path / f"copy {number}.db"))
            assert known <= seen[-1] <= copied[-1], "what was accepted before is not there"
            scenario.until(lambda before=known: len(scenario.accepted()) > before + 200)
        reader.close()
        for process in submitters:
            stop(process)
        scenario.until(scenario.all_succeeded)
        for process in workers:
            stop(process)
        scenario.require_sound()
        assert scenario.told("refused") == []
        assert len(scenario.rows("SELECT DISTINCT worker FROM lineshaft_run_history")) == 2
