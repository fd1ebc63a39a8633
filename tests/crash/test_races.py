"""Cancel, complete, time out and rescue in the same instant, many times: one outcome, by fence (FAILURES row 41)."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
from collections import Counter
from pathlib import Path

from lineshaft import App, AsyncTransaction, Context, Run, RunCancelled, State, Transaction
from lineshaft.core.clock import SystemClock
from lineshaft.core.errors import RunTimedOut
from lineshaft.engine.worker import DEADLINE_LOOK_S
from lineshaft.store.sqlite.store import SqliteStore
from tests.crash.harness import Site
from tests.crash.workload import EDGE_S
from tests.support import PATIENCE_S, eventually

ROUNDS = 15
RUNS = 24
INSTANT_S = 0.03
"""Everything that can happen to a run of a round happens within this."""


class Later(SystemClock):
    """The clock of a machine on which all leases have run out."""

    def boot_us(self) -> int:
        return super().boot_us() + 3_600_000_000


def insert(tx: Transaction | AsyncTransaction, ctx: Context) -> tuple[object, dict[str, object]]:
    from sqlalchemy import text

    return text("INSERT INTO ledger VALUES (:run, :attempt)"), {"run": ctx.run_id, "attempt": ctx.attempt}


def program(folder: Path, clock: SystemClock | None = None) -> App:
    """One of two programs on one file; they share nothing else."""
    app = App("races", store=SqliteStore(folder / "store.db", clock))

    @app.task(name="plain", timeout=INSTANT_S)
    async def plain(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    @app.task(name="booked", timeout=INSTANT_S)
    async def booked(seconds: float, tx: AsyncTransaction, ctx: Context) -> str:
        await tx.session.execute(*insert(tx, ctx))
        await asyncio.sleep(seconds / 10)
        return "done"

    app.tasks = plain, booked  # type: ignore[attr-defined]
    return app


async def test_one_outcome_however_many_want_to_decide_it(tmp_path: Path) -> None:
    """A sweep that takes every worker for dead, as many times as there are rounds, beside cancels and timeouts."""
    chance = random.Random(41)
    one, sweeper = program(tmp_path), program(tmp_path, Later())
    seen: dict[str, tuple[object, ...]] = {}
    ends: Counter[object] = Counter()
    async with one, sweeper:
        _execute(tmp_path, "CREATE TABLE ledger (run TEXT, attempt INTEGER)")
        async with one.worker(lease=1, grace=5):
            for _ in range(ROUNDS):
                runs = await _submit(one, chance)
                told = asyncio.gather(*(_told(run) for run in runs))
                await asyncio.gather(
                    _sweep(sweeper, chance),
                    *(_cancel(run, chance) for run in runs[::2]),
                )
                for run, end in zip(runs, await told, strict=True):
                    found = await _ended(tmp_path, run)
                    assert end == found[0], "who waited was told what stands in the history"
                    seen[run.id] = found
                    ends[end] += 1
        # Nothing that had ended has changed since, and nothing has ended twice.
        history = {row[0]: row[1:] for row in _execute(tmp_path, _HISTORY)}
        assert history == seen
        assert _execute(tmp_path, "SELECT count(*) FROM lineshaft_run") == [(0,)]
        assert _execute(tmp_path, _WRONG_ROWS) == []
    assert ends.keys() == {State.SUCCEEDED, State.CANCELLED, State.FAILED}, "each of them won sometimes"
    assert min(ends.values()) >= 5, ends
    assert sum(fence > 1 for _, fence, *_ in seen.values()) >= 5, "some were rescued first"


_HISTORY = "SELECT id, state, fence, attempts, started_us, finished_us FROM lineshaft_run_history"
_WRONG_ROWS = """
SELECT history.id, state, (SELECT count(*) FROM ledger WHERE run = history.id) AS rows
FROM lineshaft_run_history AS history JOIN lineshaft_lane AS known ON known.id = lane
WHERE task = 'booked' AND rows <> (state = 'succeeded')
"""


def _execute(folder: Path, statement: str, *parameters: object) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(folder / "store.db", isolation_level=None)
    try:
        return connection.execute(statement, parameters).fetchall()
    finally:
        connection.close()


async def _submit(app: App, chance: random.Random) -> list[Run[str]]:
    plain, booked = app.tasks  # type: ignore[attr-defined]
    # Timeouts are looked at every now and then: half of these end before that, and half would end after it.
    times = [INSTANT_S * chance.uniform(0.3, 1.7) + chance.choice((0, DEADLINE_LOOK_S)) for _ in range(RUNS)]
    return [*await plain.submit_many(times), *await booked.submit_many(times[:4])]


async def _cancel(run: Run[str], chance: random.Random) -> None:
    await asyncio.sleep(INSTANT_S * chance.uniform(0, 2))
    await run.cancel()


async def _sweep(sweeper: App, chance: random.Random) -> None:
    await asyncio.sleep(INSTANT_S * chance.uniform(0, 2))
    await sweeper.runtime.store.rescue(SystemClock().now_us())


async def _told(run: Run[str]) -> State:
    """How it ended, by what whoever waits is told."""
    try:
        assert await run.result(timeout=PATIENCE_S) == "done"
    except RunCancelled:
        return State.CANCELLED
    except RunTimedOut:
        return State.FAILED
    return State.SUCCEEDED


async def _ended(folder: Path, run: Run[str]) -> tuple[object, ...]:
    [found] = _execute(folder, f"{_HISTORY} WHERE id = ?", run.id)
    return found[1:]


async def test_a_worker_that_wakes_while_others_decide_about_its_work(tmp_path: Path) -> None:
    """The same between processes: stopped past its lease, and let go when the sweep and the cancels come."""
    chance = random.Random(41)
    async with Site(tmp_path) as site:
        with site.worker("--lease", "1") as first, site.worker("--lease", "1") as second:
            await eventually(lambda: len(site.rows("SELECT 1 FROM lineshaft_worker")) == 2)
            for number in range(3):
                runs = await site.submit({"edges": 60}, f"round-{number}")
                await asyncio.sleep(EDGE_S * 0.5)
                stopped = (first, second)[number % 2]
                stopped.send(signal.SIGSTOP)
                await asyncio.sleep(chance.uniform(0.8, 1.4))
                stopped.send(signal.SIGCONT)
                await asyncio.gather(*(_cancel(run, chance) for run in runs[::4]))  # type: ignore[arg-type]
                await site.until_empty()
                site.gather()
        await site.finish()
        assert site.violations() == []
        ends = site.tally()["edges"]
        assert sum(ends.values()) == 180
        assert ends.keys() == {"succeeded", "failed", "cancelled"}
