"""Batch tasks: one call for many runs, and one outcome each."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import text

from lineshaft import (
    App,
    AsyncTransaction,
    Failed,
    Limit,
    Retry,
    RunCancelled,
    RunFailed,
    RunTimedOut,
    State,
    Task,
    Transaction,
)
from lineshaft.engine.attempt import Stop
from tests.support import error_of, new_app, reaches, result_of, results_of, rows, working

KINDS = pytest.mark.parametrize("kind", ["async", "thread", "async transaction", "transaction"])
TRANSACTIONS = pytest.mark.parametrize("kind", ["async transaction", "transaction"])


class Poison(Exception):
    pass


class Shop:
    """A batch task of each kind that books numbers and does as the numbers say."""

    def __init__(self, folder: Path, kind: str, **options: Any) -> None:
        self.app = new_app(folder)
        connection = self.app.connect()
        connection.execute("CREATE TABLE booking (number INTEGER)")
        connection.close()
        self.batches: list[list[int]] = []
        self.poison: set[int] = set()
        self.failed: set[int] = set()
        self.unfit: set[int] = set()
        self.wrong: Any = ...
        self.post = self._declare(kind, {"batch": 8, **options})

    def _declare(self, kind: str, options: dict[str, Any]) -> Task[Any, Any]:
        insert = text("INSERT INTO booking (number) SELECT value FROM json_each(:numbers)")
        if kind == "async":

            @self.app.task(name="post", **options)
            async def post(numbers: list[int]) -> list[int | Failed]:
                return self.body(numbers)

        elif kind == "thread":

            @self.app.task(name="post", **options)
            def post(numbers: list[int]) -> list[int | Failed]:
                return self.body(numbers)

        elif kind == "transaction":

            @self.app.task(name="post", **options)
            def post(numbers: list[int], tx: Transaction) -> list[int | Failed]:
                tx.session.execute(insert, {"numbers": str(numbers)})
                return self.body(numbers)

        else:

            @self.app.task(name="post", **options)
            async def post(numbers: list[int], tx: AsyncTransaction) -> list[int | Failed]:
                await tx.session.execute(insert, {"numbers": str(numbers)})
                return self.body(numbers)

        return post

    def body(self, numbers: list[int]) -> Any:
        self.batches.append(numbers)
        if self.poison.intersection(numbers):
            raise Poison(f"one of {numbers}")
        if self.wrong is not ...:
            return self.wrong
        return [
            Failed(f"no {n}") if n in self.failed else object() if n in self.unfit else n * 10
            for n in numbers
        ]

    @property
    def booked(self) -> list[int]:
        return [number for (number,) in rows(self.app, "SELECT number FROM booking ORDER BY number")]


async def submitted(shop: Shop, count: int) -> list[Any]:
    return await shop.post.submit_many(range(count))


@KINDS
async def test_queued_runs_are_handed_over_at_once(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind)
    async with shop.app:
        runs = await submitted(shop, 16)
        async with shop.app.worker():
            assert await results_of(runs) == [n * 10 for n in range(16)]
    assert shop.batches == [list(range(8)), list(range(8, 16))]


@KINDS
async def test_a_partial_batch_goes_after_its_wait(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind, batch_wait="300ms")
    async with shop.app:
        runs = await submitted(shop, 2)
        started_s = time.monotonic()
        async with shop.app.worker():
            assert await results_of(runs) == [0, 10]
            assert time.monotonic() - started_s >= 0.3
    assert shop.batches == [[0, 1]]


@KINDS
async def test_a_batch_that_waits_gathers_what_comes(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind, batch=3, batch_wait="60s")
    async with working(shop.app):
        runs = []
        for number in range(3):
            runs.append(await shop.post.submit(number))
            if number < 2:
                await reaches(runs[-1], State.RUNNING)
                assert not shop.batches
        assert await results_of(runs) == [0, 10, 20]
    assert shop.batches == [[0, 1, 2]]


@KINDS
async def test_an_item_may_fail_while_the_others_succeed(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind)
    shop.failed = {3}
    async with working(shop.app):
        runs = await submitted(shop, 8)
        error = await error_of(runs[3])
        assert isinstance(error, RunFailed)
        assert "no 3" in str(error)
        assert await results_of([*runs[:3], *runs[4:]]) == [0, 10, 20, 40, 50, 60, 70]


@KINDS
async def test_a_failed_item_is_retried_by_its_policy(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind, retry=Retry(attempts=2, initial=0))
    shop.failed = {1}
    async with working(shop.app):
        runs = await submitted(shop, 2)
        await error_of(runs[1])
        assert (await runs[1].view()).attempts == 2
        assert await result_of(runs[0]) == 0
    assert sum(batch.count(0) for batch in shop.batches) == 1


@pytest.mark.parametrize("wrong", [[], [1] * 9, None, {"a": 1}, "ab", 5])
@pytest.mark.parametrize("kind", ["async", "transaction"])
async def test_a_wrong_number_of_results_fails_all_and_says_so(tmp_path: Path, kind: str, wrong: Any) -> None:
    shop = Shop(tmp_path, kind)
    shop.wrong = wrong
    async with working(shop.app):
        runs = await submitted(shop, 4)
        for run in runs:
            error = await error_of(run)
            assert isinstance(error, RunFailed)
            assert "'post' returned" in str(error)
            assert "one result" in str(error)
        assert shop.booked == []


@TRANSACTIONS
async def test_a_batch_that_raises_is_split_to_the_culprit(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind)
    shop.poison = {5}
    async with shop.app:
        runs = await submitted(shop, 8)
        async with shop.app.worker():
            error = await error_of(runs[5])
            assert "Poison: one of [5]" in str(error)
            good = [0, 1, 2, 3, 4, 6, 7]
            assert await results_of([runs[n] for n in good]) == [n * 10 for n in good]
            assert [(await run.view()).attempts for run in runs] == [1] * 8
        assert shop.booked == good


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_batch_without_a_transaction_is_not_split_unless_asked(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind)
    shop.poison = {5}
    async with shop.app:
        runs = await submitted(shop, 8)
        async with shop.app.worker():
            for run in runs:
                assert isinstance(await error_of(run), RunFailed)
    assert shop.batches == [list(range(8))]


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_batch_without_a_transaction_is_split_where_asked(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind, split=True)
    shop.poison = {5}
    async with shop.app:
        runs = await submitted(shop, 8)
        async with shop.app.worker():
            assert isinstance(await error_of(runs[5]), RunFailed)
            assert await results_of([run for n, run in enumerate(runs) if n != 5])


@TRANSACTIONS
async def test_a_batch_with_a_transaction_is_not_split_where_refused(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind, split=False)
    shop.poison = {5}
    async with shop.app:
        runs = await submitted(shop, 8)
        async with shop.app.worker():
            for run in runs:
                assert isinstance(await error_of(run), RunFailed)
        assert shop.booked == []
    assert len(shop.batches) == 1


@TRANSACTIONS
async def test_an_unfit_result_is_found_and_the_others_stand(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind)
    shop.unfit = {2, 3}
    async with working(shop.app):
        runs = await submitted(shop, 8)
        for n in shop.unfit:
            assert "object" in str(await error_of(runs[n]))
        good = [0, 1, 4, 5, 6, 7]
        assert await results_of([runs[n] for n in good]) == [n * 10 for n in good]
        assert shop.booked == good


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_without_a_transaction_an_unfit_result_fails_its_item_alone(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind)
    shop.unfit = {2}
    async with shop.app:
        runs = await submitted(shop, 8)
        async with shop.app.worker():
            assert isinstance(await error_of(runs[2]), RunFailed)
            assert await result_of(runs[3]) == 30
    assert len(shop.batches) == 1


@TRANSACTIONS
async def test_a_cancelled_item_is_left_out_and_the_others_stand(tmp_path: Path, kind: str) -> None:
    shop = Shop(tmp_path, kind, batch_wait=1)
    async with working(shop.app):
        runs = await submitted(shop, 4)
        await reaches(runs[2], State.RUNNING)
        await runs[2].cancel()
        assert isinstance(await error_of(runs[2]), RunCancelled)
        assert await results_of([runs[0], runs[1], runs[3]]) == [0, 10, 30]
        assert shop.booked == [0, 1, 3]


async def test_an_item_cancelled_while_its_batch_executes_rolls_it_back_and_splits(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "transaction")
    inside, go_on = threading.Event(), threading.Event()
    body = shop.body

    def waits(numbers: list[int]) -> Any:
        if len(numbers) == 4:
            inside.set()
            go_on.wait(3)
        return body(numbers)

    shop.body = waits  # type: ignore[method-assign]
    async with working(shop.app) as worker:
        runs = await submitted(shop, 4)
        await asyncio.to_thread(inside.wait, 20)
        # The request itself waits for the writer, which the batch holds; what it leads to is done here.
        for attempt in worker._in_flight.values():
            if attempt.run.id == runs[2].id:
                attempt.interrupt(Stop.CANCELLED)
        go_on.set()
        assert isinstance(await error_of(runs[2]), RunCancelled)
        assert await results_of([runs[0], runs[1], runs[3]]) == [0, 10, 30]
        assert shop.booked == [0, 1, 3]


@TRANSACTIONS
async def test_a_batch_that_is_too_long_fails_its_culprit_alone(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lineshaft.core.bounds.WRITER_HOLD_S_MAX", 0.3)
    app = new_app(tmp_path)
    stop = threading.Event()

    if kind == "transaction":

        @app.task(batch=4)
        def post(numbers: list[int], tx: Transaction) -> list[int]:
            _ = tx.session
            if 2 in numbers:
                stop.wait(30)
            return numbers

    else:

        @app.task(batch=4)
        async def post(numbers: list[int], tx: AsyncTransaction) -> list[int]:
            _ = tx.session
            if 2 in numbers:
                await asyncio.sleep(30)
            return numbers

    async with app:
        runs = await post.submit_many(range(4))
        async with app.worker():
            try:
                assert await results_of([runs[0], runs[1], runs[3]]) == [0, 1, 3]
                assert isinstance(await error_of(runs[2]), RunTimedOut)
            finally:
                stop.set()


@TRANSACTIONS
async def test_a_lost_fence_rolls_back_the_batch_and_spares_the_others(tmp_path: Path, kind: str) -> None:
    app = new_app(tmp_path)
    calls: list[list[int]] = []
    steal = text("UPDATE lineshaft_run SET fence = fence + 1 WHERE args LIKE '%2%'")
    connection = app.connect()
    connection.execute("CREATE TABLE booking (number INTEGER)")
    connection.close()
    insert = text("INSERT INTO booking (number) SELECT value FROM json_each(:numbers)")

    if kind == "transaction":

        @app.task(batch=4)
        def post(numbers: list[int], tx: Transaction) -> None:
            calls.append(numbers)
            tx.session.execute(insert, {"numbers": str(numbers)})
            if len(calls) == 1:
                tx.session.execute(steal)

    else:

        @app.task(batch=4)
        async def post(numbers: list[int], tx: AsyncTransaction) -> None:
            calls.append(numbers)
            await tx.session.execute(insert, {"numbers": str(numbers)})
            if len(calls) == 1:
                await tx.session.execute(steal)

    async with app:
        runs = await post.submit_many(range(4))
        async with app.worker():
            assert await results_of(runs) == [None] * 4
        assert rows(app, "SELECT number FROM booking ORDER BY number") == [(0,), (1,), (2,), (3,)]


async def test_a_batch_takes_models_whose_hints_come_later(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    seen = []

    @app.task(batch=4)
    def post(entries: list[Entry], tx: Transaction) -> list[Entry]:
        seen.append(len(entries))
        _ = tx.session
        if any(entry.name == "bad" for entry in entries):
            raise Poison
        return entries

    assert post.declaration.split
    async with app:
        runs = await post.submit_many([Entry(name="a"), Entry(name="bad"), Entry(name="c")])
        async with app.worker():
            assert await result_of(runs[0]) == Entry(name="a")
            assert isinstance(await error_of(runs[1]), RunFailed)


async def test_a_batch_keeps_to_its_limit(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    sizes = []

    @app.task(batch=10, limits=[Limit(3)])
    async def post(numbers: list[int]) -> None:
        sizes.append(len(numbers))

    async with app:
        runs = await post.submit_many(range(12))
        async with app.worker():
            await results_of(runs)
    assert sum(sizes) == 12
    assert max(sizes) <= 3


async def test_a_gathering_batch_is_handed_back_at_once_by_a_drain(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task(batch=100, batch_wait=60)
    async def post(numbers: list[int]) -> None: ...

    async with app:
        async with app.worker(grace=60):
            run = await post.submit(1)
            await reaches(run, State.RUNNING)
        view = await run.view()
        assert (view.state, view.attempts) == (State.READY, 0)


async def test_two_batch_tasks_do_not_mix(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    def declare(app: App, name: str) -> Task[Any, Any]:
        @app.task(name=name, batch=4)
        async def post(numbers: list[int]) -> list[str]:
            return [name] * len(numbers)

        return post

    one, two = declare(app, "one"), declare(app, "two")
    async with working(app):
        runs = [await task.submit(n) for n in range(6) for task in (one, two)]
        assert await results_of(runs) == ["one", "two"] * 6


class Entry(BaseModel):
    name: str
