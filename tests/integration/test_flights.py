"""The flights example, as `make run` starts it: it settles everything, and a kill changes no total."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 3_000
AGREES = "Totals agree to the cent"


def start(directory: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.flights", "--limit", str(LIMIT)]
    environment = {name: value for name, value in os.environ.items() if name != "LINESHAFT_STORE"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def rows(store: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def settled(store: Path) -> int:
    """Flights in the ledger so far; none before its table is there."""
    try:
        return int(str(rows(store, "SELECT count(*) FROM ledger")[0][0]))
    except sqlite3.Error:
        return 0


def test_it_settles_every_flight_and_checks_itself(tmp_path: Path) -> None:
    program = start(tmp_path)
    output, _ = program.communicate()
    assert program.returncode == 0, output
    assert AGREES in output
    store = tmp_path / f"flights-{LIMIT}.db"
    assert settled(store) == LIMIT
    assert rows(store, "SELECT count(*) FROM lineshaft_run") == [(0,)]
    # Started again, it finds everything done and submits nothing.
    before = rows(store, "SELECT count(*) FROM lineshaft_run_history")
    output, _ = start(tmp_path).communicate()
    assert AGREES in output
    assert rows(store, "SELECT count(*) FROM lineshaft_run_history") == before


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_moment_it_continues_to_the_same_totals(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = tmp_path / f"flights-{LIMIT}.db"
    kills = 0
    for _ in range(3):
        program = start(tmp_path)
        enough = settled(store) + chance.randrange(1, LIMIT // 4)
        while program.poll() is None and settled(store) < enough:
            time.sleep(0.01)
        if program.poll() is None:
            program.send_signal(signal.SIGKILL)
            kills += 1
        program.communicate()
    assert kills >= 2, "it ended before it could be killed"
    output, _ = start(tmp_path).communicate()
    assert AGREES in output
    assert rows(store, "PRAGMA integrity_check") == [("ok",)]
    assert rows(store, "SELECT count(*), count(DISTINCT flight_key) FROM ledger") == [(LIMIT, LIMIT)]
    assert rows(store, "SELECT count(*) FROM lineshaft_run_history WHERE state <> 'succeeded'") == [(0,)]
