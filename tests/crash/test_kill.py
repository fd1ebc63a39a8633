"""kill -9 at random moments while transactional tasks write rows: exactly one row a run (FAILURES row 1)."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from lineshaft import State
from tests.crash import programs
from tests.support import PATIENCE_S, Program, new_app, results_of, rows


@pytest.mark.parametrize(
    ("kind", "count", "kills"), [("book", 3_000, 5), ("book_async", 600, 3), ("book_many", 3_000, 3)]
)
async def test_every_run_writes_its_row_once_however_often_workers_are_killed(
    tmp_path: Path, kind: str, count: int, kills: int
) -> None:
    chance = random.Random(f"kill {kind}")
    app = new_app(tmp_path)
    connection = app.connect()
    connection.execute("CREATE TABLE ledger (run TEXT, number INTEGER)")
    connection.close()
    task = getattr(programs.declare_on(app), kind)
    async with app:
        runs = await task.submit_many(range(count))
        progress = []
        for _ in range(kills):
            with Program(tmp_path, "worker", "1"):
                # From the moment at which it has begun: a start takes most of a second.
                await _written_more(app, progress)
                await asyncio.sleep(chance.random() * 0.05)
            progress.append(rows(app, "SELECT count(*) FROM ledger")[0][0])
            if progress[-1] == count:
                break
        assert len(set(progress)) >= 3, f"the kills hit no work: {progress}"
        with Program(tmp_path, "worker", "1"):
            assert await results_of(runs) == list(range(count))
        assert rows(app, "SELECT number FROM ledger ORDER BY number") == [(n,) for n in range(count)]
        assert await app.runtime.store.counts() == {State.SUCCEEDED: count}
        assert rows(app, "SELECT sum(attempts) FROM lineshaft_run_history") == [(count,)]
        assert rows(app, "PRAGMA integrity_check") == [("ok",)]


async def _written_more(app: object, progress: list[int]) -> None:
    before = progress[-1] if progress else 0
    for _ in range(int(PATIENCE_S / 0.01)):
        if rows(app, "SELECT count(*) FROM ledger")[0][0] > before:  # type: ignore[arg-type]
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the worker wrote nothing")
