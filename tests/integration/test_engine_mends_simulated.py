"""Faults that the simulation found, each as small as it can be told; `tests/simulation/seeds.txt` has their seeds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lineshaft import AsyncTransaction, Limit, RunCancelled, Transaction
from lineshaft.core.errors import StoreError, StoreUnavailable
from lineshaft.store.sqlite.connection import OwnConnection, open_connection
from lineshaft.store.sqlite.machine import Machine
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.store.values import ClaimReply, ClaimRequest, NewWorker, Pace
from lineshaft.testing.clock import VirtualClock
from lineshaft.testing.conformance.harness import World
from tests.support import PATIENCE_S, Overlap, error_of, new_app, result_of, working


async def test_what_a_claim_took_whose_reply_was_lost_is_executed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody but the worker itself could give it back: it lives, and holds it."""
    app, bodies = new_app(tmp_path), Overlap()

    @app.task(limits=[Limit(1)])
    async def work() -> str:
        bodies.enter()
        await asyncio.sleep(0.01)
        bodies.leave()
        return "done"

    async with working(app):
        store = app.runtime.store
        claim, lost = store.claim, 0

        async def losing(request: ClaimRequest) -> ClaimReply:
            nonlocal lost
            reply = await claim(request)
            if reply.runs and lost < 2:
                lost += 1
                raise StoreUnavailable("The reply was lost.")
            return reply

        monkeypatch.setattr(store, "claim", losing)
        runs = [await work.submit() for _ in range(3)]
        assert [await result_of(run) for run in runs] == ["done"] * 3
        assert lost == 2
        assert bodies.most[None] == 1
        assert [(view.attempts, view.crashes) for view in [await run.view() for run in runs]] == [(1, 0)] * 3


@pytest.mark.parametrize("kind", ["in a group", "async", "in a batch"])
async def test_a_run_that_is_cancelled_before_its_transaction_opens_is_charged_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    app, waits, may_open = new_app(tmp_path), asyncio.Event(), asyncio.Event()

    @app.task(name="in a group")
    def in_group(number: int, tx: Transaction) -> None: ...

    @app.task(name="async")
    async def alone(number: int, tx: AsyncTransaction) -> None: ...

    @app.task(name="in a batch", batch=2)
    def in_batch(numbers: list[int], tx: Transaction) -> None: ...

    task = {"in a group": in_group, "async": alone, "in a batch": in_batch}[kind]
    async with working(app):
        store = app.runtime.store
        transaction = store.transaction

        @asynccontextmanager
        async def late(*args: Any) -> AsyncIterator[Any]:
            if not may_open.is_set():
                waits.set()
                await may_open.wait()
                raise StoreUnavailable("It was refused in the end.")
            async with transaction(*args) as lent:
                yield lent

        monkeypatch.setattr(store, "transaction", late)
        runs = await task.submit_many([1, 2])
        await asyncio.wait_for(waits.wait(), PATIENCE_S)
        assert await runs[0].cancel() == "running"
        await asyncio.sleep(0.3)  # the worker hears of it
        may_open.set()
        assert isinstance(await error_of(runs[0]), RunCancelled)
        assert (await runs[0].view()).attempts == 0
        assert await result_of(runs[1]) is None


async def test_a_claim_that_had_to_wait_counts_for_its_rate_from_when_it_was_served(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def open_another() -> SqliteStore:
        return SqliteStore(tmp_path / "store.db", clock)

    world = World(clock, open_another)
    await world.open()
    pace = Pace("task:greet/rate", 3, 10_000_000)
    await world.submitted(*world.several(20))
    hand = await world.worker()
    async with world.store.transaction():
        waits = asyncio.ensure_future(hand.claim(pace))
        await asyncio.sleep(0.05)
        clock.advance(10)
    assert len((await waits).runs) == 3
    assert await hand.take(pace) == []
    clock.advance(10)
    assert len(await hand.take(pace)) == 3
    await world.close()


class Refusing(OwnConnection):
    """Refuses to commit, if told to."""

    refuses = False

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if self.refuses and statement.startswith("COMMIT"):
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(statement, *parameters)


async def test_a_worker_whose_leaving_was_not_written_has_not_crashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is there, and so is its process: it lives until its lease ends, and what it held is charged nothing."""
    machine = Machine(connect=lambda path: open_connection(path, Refusing))
    store = SqliteStore(tmp_path / "store.db", machine=machine)
    worker = await store.register(NewWorker("workshop", 1, 0, (), (), 60_000_000))
    monkeypatch.setattr(Refusing, "refuses", True)
    with pytest.raises(StoreError, match="disk I/O error"):
        await store.unregister(worker)
    monkeypatch.setattr(Refusing, "refuses", False)
    assert [(view.id, view.alive) for view in await store.workers()] == [(worker, True)]
    assert (await store.rescue(0)).workers == ()
    await store.unregister(worker)
    assert await store.workers() == []
    await store.close()
