"""Callers that are cancelled while the store answers them: nothing is half done, nobody else notices (FAILURES row 40).

On SQLite there is no reply on a wire: a submission is a row for the writer's thread, and a transaction is a loan of
the writer. Either is seen through or given back.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from lineshaft import App, Task
from tests.support import new_app, results_of, rows

CALLERS = 400
AT_ONCE = 8
STEPS_MAX = 30
"""Turns of the event loop after which a caller is cancelled, at most: that hits its first awaits."""
CALL_S = 0.02
"""Or so many seconds, which is about what a call takes beside the others."""

_WRITE = text("INSERT INTO ledger VALUES (:op)")


async def submits(app: App, work: Task[..., str], op: str) -> None:
    await work.submit(op, key=op)


async def writes_and_submits(app: App, work: Task[..., str], op: str) -> None:
    async with app.transaction() as tx:
        await tx.session.execute(_WRITE, {"op": op})
        await work.submit(op, tx=tx)


async def submits_and_writes_much(app: App, work: Task[..., str], op: str) -> None:
    """The statement lasts for some turns of the loop, on a thread."""
    async with app.transaction() as tx:
        await work.submit(op, tx=tx)
        await tx.session.execute(_WRITE, {"op": op})
        await tx.session.execute(
            text(
                "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000) SELECT max(x) FROM n"
            )
        )


Calls = Callable[[App, Task[..., str], str], Awaitable[None]]


@pytest.mark.parametrize("call", [submits, writes_and_submits, submits_and_writes_much])
async def test_a_cancelled_caller_leaves_nothing_half_done(tmp_path: Path, call: Calls) -> None:
    chance = random.Random(call.__name__)
    app = new_app(tmp_path)
    ends: Counter[str] = Counter()
    acknowledged: list[str] = []

    @app.task(name="work")
    async def work(op: str) -> str:
        return op

    async def one(number: int) -> None:
        op = f"op-{number}"
        caller = asyncio.ensure_future(call(app, work, op))
        if number % 5:
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() * CALL_S)
            else:
                for _ in range(chance.randrange(STEPS_MAX)):
                    await asyncio.sleep(0)
            caller.cancel()
        await asyncio.wait([caller])
        if caller.cancelled():
            ends["cancelled"] += 1
        else:
            await caller
            ends["returned"] += 1
            acknowledged.append(op)

    async with app:
        connection = app.connect()
        connection.execute("CREATE TABLE ledger (op TEXT PRIMARY KEY)")
        connection.close()
        for start in range(0, CALLERS, AT_ONCE):
            await asyncio.gather(*(one(number) for number in range(start, start + AT_ONCE)))
        stored = {row[0] for row in rows(app, "SELECT json_extract(args, '$.op') FROM lineshaft_run")}
        assert stored >= set(acknowledged)
        assert len(stored) > len(acknowledged), "some were cancelled when it was too late"
        if call is not submits:
            assert {row[0] for row in rows(app, "SELECT op FROM ledger")} == stored
        assert ends["cancelled"] >= CALLERS // 4, ends
        assert ends["returned"] >= CALLERS // 5, "one in five was not cancelled, and none of them noticed"
        # The writer is free: for others, for transactions, for workers.
        other = sqlite3.connect(tmp_path / "store.db", timeout=0.1, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
        other.close()
        await writes_and_submits(app, work, "last")
        runs = [app.run(row[0], work) for row in rows(app, "SELECT id FROM lineshaft_run")]
        async with app.worker():
            assert set(await results_of(runs)) == stored | {"last"}
        assert rows(app, "PRAGMA integrity_check") == [("ok",)]


async def test_a_key_whose_submission_was_cancelled_is_submitted_again(tmp_path: Path) -> None:
    """Who was cancelled does not know; under the same key it asks once more, and there is one run."""
    chance = random.Random(40)
    app = new_app(tmp_path)

    @app.task(name="work")
    async def work(op: str) -> str:
        return op

    created = 0
    async with app:
        for number in range(150):
            op = f"op-{number}"
            caller = asyncio.ensure_future(work.submit(op, key=op))
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait([caller])
            created += (await work.submit(op, key=op)).created
        assert rows(app, "SELECT count(*), count(DISTINCT key) FROM lineshaft_run") == [(150, 150)]
        assert 0 < created < 150, "some had been accepted, and some had not"
