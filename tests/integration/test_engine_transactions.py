"""Tasks with a transaction, and submissions in transactions of the caller's."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from lineshaft import (
    App,
    AsyncTransaction,
    Concurrency,
    Context,
    Retry,
    RunFailed,
    RunTimedOut,
    State,
    Task,
    Transaction,
)
from lineshaft.core.errors import RunNotFound, TransactionRefused, TransactionTooLong
from tests.support import error_of, eventually, new_app, result_of, results_of, rows, working


class Base(DeclarativeBase):
    pass


class Booking(Base):
    __tablename__ = "booking"
    number: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(default="")


def shop(folder: Path) -> App:
    app = new_app(folder)
    with app.engine().begin() as connection:
        Base.metadata.create_all(connection)
    app.engine().dispose()
    return app


def bookings(app: App) -> list[int]:
    return [number for (number,) in rows(app, "SELECT number FROM booking ORDER BY number")]


def booking_task(app: App, kind: str, **options: Any) -> Task[Any, Any]:
    """Books a number; with a word says how to fail after it."""
    if kind == "sync":

        @app.task(name="book", **options)
        def book(number: int, then: str, tx: Transaction, ctx: Context) -> int:
            tx.session.add(Booking(number=number))
            _then(then, ctx)
            return number

        return book

    @app.task(name="book", **options)
    async def book_async(number: int, then: str, tx: AsyncTransaction, ctx: Context) -> int:
        tx.session.add(Booking(number=number))
        await tx.session.flush()
        _then(then, ctx)
        return number

    return book_async


def _then(what: str, ctx: Context) -> None:
    if what == "raise" or (what == "raise once" and ctx.attempt == 1):
        raise ValueError("after the row")
    if what == "exit":
        raise SystemExit(1)


KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@KINDS
async def test_the_row_and_the_outcome_commit_as_one(tmp_path: Path, kind: str) -> None:
    app = shop(tmp_path)
    book = booking_task(app, kind)
    async with working(app):
        runs = [await book.submit(number, "") for number in range(5)]
        assert await results_of(runs) == list(range(5))
        assert bookings(app) == list(range(5))


@KINDS
async def test_raising_rolls_back_all_of_that_run_alone(tmp_path: Path, kind: str) -> None:
    app = shop(tmp_path)
    book = booking_task(app, kind)
    async with app:
        runs = await book.submit_many([(n, {7: "raise", 9: "exit"}.get(n, "")) for n in range(20)])
        async with app.worker():
            assert isinstance(await error_of(runs[7]), RunFailed)
            assert isinstance(await error_of(runs[9]), RunFailed)
            good = [n for n in range(20) if n not in {7, 9}]
            assert await results_of([runs[n] for n in good]) == good
            assert [(await run.view()).attempts for run in runs] == [1] * 20
        assert bookings(app) == good


@KINDS
async def test_a_retry_books_once(tmp_path: Path, kind: str) -> None:
    app = shop(tmp_path)
    book = booking_task(app, kind, retry=Retry(attempts=2, initial=0))
    async with working(app):
        run = await book.submit(1, "raise once")
        assert await result_of(run) == 1
        assert bookings(app) == [1]


@KINDS
async def test_a_refused_result_rolls_back(tmp_path: Path, kind: str) -> None:
    app = shop(tmp_path)
    if kind == "sync":

        @app.task
        def book(tx: Transaction) -> int:
            tx.session.add(Booking(number=1))
            return object()  # type: ignore[return-value]

    else:

        @app.task
        async def book(tx: AsyncTransaction) -> int:
            tx.session.add(Booking(number=1))
            return object()  # type: ignore[return-value]

    async with working(app):
        assert isinstance(await error_of(await book.submit()), RunFailed)
        assert bookings(app) == []


@KINDS
async def test_what_the_body_submits_commits_with_it(tmp_path: Path, kind: str) -> None:
    app = shop(tmp_path)

    @app.task
    async def child(number: int) -> int:
        return number

    if kind == "sync":

        @app.task(name="parent")
        def parent(fail: bool, tx: Transaction) -> str:
            run = child.blocking.submit(1, tx=tx)
            child.blocking.submit_many([2, 3], tx=tx)
            if fail:
                raise ValueError(run.id)
            return run.id

    else:

        @app.task(name="parent")
        async def parent(fail: bool, tx: AsyncTransaction) -> str:
            run = await child.submit(1, tx=tx)
            await child.submit_many([2, 3], tx=tx)
            if fail:
                raise ValueError(run.id)
            return run.id

    async with working(app):
        first = await result_of(await parent.submit(False))
        assert await result_of(child.run(first)) == 1
        error = await error_of(await parent.submit(True))
        lost = str(error).split("ValueError: ")[1].split()[0]
        with pytest.raises(RunNotFound):
            await child.run(lost).status()
        await eventually(lambda: _succeeded(app, 4))


async def _succeeded(app: App, count: int) -> bool:
    return await app.runtime.store.counts() == {State.SUCCEEDED: count, State.FAILED: 1}


@pytest.mark.parametrize("how", ["commit", "rollback", "text", "raw", "pragma", "attach"])
@KINDS
async def test_a_body_cannot_control_the_transaction(tmp_path: Path, kind: str, how: str) -> None:
    app = shop(tmp_path)
    statements = {
        "text": "COMMIT",
        "raw": "ROLLBACK",
        "pragma": "PRAGMA synchronous = OFF",
        "attach": "ATTACH 'x.db' AS x",
    }
    if kind == "sync":

        @app.task
        def breaks(tx: Transaction) -> None:
            tx.session.add(Booking(number=1))
            tx.session.flush()
            if how in statements:
                tx.session.execute(text(statements[how]))
            else:
                getattr(tx.session, how)()

    else:

        @app.task
        async def breaks(tx: AsyncTransaction) -> None:
            tx.session.add(Booking(number=1))
            await tx.session.flush()
            if how in statements:
                await tx.session.execute(text(statements[how]))
            else:
                await getattr(tx.session, how)()

    async with working(app):
        error = await error_of(await breaks.submit())
        assert isinstance(error, RunFailed)
        assert "TransactionRefused" in str(error), error
        assert bookings(app) == []
        assert not (tmp_path / "x.db").exists()


@KINDS
async def test_swallowing_a_refusal_keeps_nothing_half_done(tmp_path: Path, kind: str) -> None:
    app = shop(tmp_path)
    if kind == "sync":

        @app.task
        def stubborn(tx: Transaction) -> None:
            tx.session.add(Booking(number=1))
            with pytest.raises(TransactionRefused):
                tx.session.commit()

    else:

        @app.task
        async def stubborn(tx: AsyncTransaction) -> None:
            tx.session.add(Booking(number=1))
            with pytest.raises(TransactionRefused):
                await tx.session.commit()

    async with working(app):
        run = await stubborn.submit()
        try:
            await result_of(run)
        except RunFailed:
            assert bookings(app) == []
        else:
            assert bookings(app) == [1]


async def test_a_transaction_that_is_too_long_fails_its_own_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lineshaft.core.bounds.WRITER_HOLD_S_MAX", 0.3)
    app = shop(tmp_path)
    done = threading.Event()

    @app.task
    def book(number: int, tx: Transaction) -> int:
        tx.session.add(Booking(number=number))
        if number == 3:
            done.wait(30)
        return number

    async with app:
        runs = await book.submit_many(range(8))
        async with app.worker():
            try:
                others = [run for number, run in enumerate(runs) if number != 3]
                assert await results_of(others) == [0, 1, 2, 4, 5, 6, 7]
                error = await error_of(runs[3])
                assert isinstance(error, RunTimedOut)
                assert "0.3 seconds" in str(error)
                assert [(await run.view()).attempts for run in runs] == [1] * 8
            finally:
                done.set()
        assert bookings(app) == [0, 1, 2, 4, 5, 6, 7]


async def test_many_slow_bodies_share_commits_without_being_too_long_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lineshaft.core.bounds.WRITER_HOLD_S_MAX", 1.0)
    app = shop(tmp_path)
    calls: list[int] = []

    @app.task
    def book(number: int, tx: Transaction) -> int:
        calls.append(number)
        tx.session.add(Booking(number=number))
        time.sleep(0.05)
        return number

    async with app:
        runs = await book.submit_many(range(40))
        async with app.worker():
            assert await results_of(runs) == list(range(40))
        assert bookings(app) == list(range(40))
    assert sorted(calls) == list(range(40)), "each body was executed once"


async def test_an_async_transaction_that_waits_for_ever_holds_up_nobody_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lineshaft.core.bounds.WRITER_HOLD_S_MAX", 0.3)
    app = shop(tmp_path)

    @app.task
    async def book(number: int, tx: AsyncTransaction) -> int:
        tx.session.add(Booking(number=number))
        if number == 0:
            await asyncio.sleep(600)
        return number

    async with app:
        runs = await book.submit_many(range(3))
        async with app.worker():
            assert await results_of(runs[1:]) == [1, 2]
            error = await error_of(runs[0])
            assert isinstance(error, RunTimedOut)
            assert "held the writer" in str(error)
        assert bookings(app) == [1, 2]


async def test_a_submission_that_would_wait_for_its_own_transaction_is_refused(tmp_path: Path) -> None:
    app = shop(tmp_path)

    @app.task
    async def child() -> None: ...

    @app.task
    async def forgets_tx(tx: AsyncTransaction) -> None:
        tx.session.add(Booking(number=1))
        await child.submit()

    async with working(app):
        error = await error_of(await forgets_tx.submit())
        assert isinstance(error, RunFailed)
        assert "tx=" in str(error)
        assert bookings(app) == []

        async def forgets() -> None:
            async with app.transaction() as tx:
                tx.session.add(Booking(number=2))
                await child.submit()

        with pytest.raises(TransactionRefused, match="tx="):
            await forgets()
        assert bookings(app) == []


@KINDS
async def test_a_lost_fence_rolls_back_what_the_body_wrote(tmp_path: Path, kind: str) -> None:
    app = shop(tmp_path)
    seen: list[int] = []
    # While the body runs nobody else can write; so it raises its own fence, as a rescuer did just before.
    steal = text("UPDATE lineshaft_run SET fence = fence + 1")
    if kind == "sync":

        @app.task
        def book(tx: Transaction) -> None:
            seen.append(1)
            tx.session.add(Booking(number=len(seen)))
            if len(seen) == 1:
                tx.session.execute(steal)

    else:

        @app.task
        async def book(tx: AsyncTransaction) -> None:
            seen.append(1)
            tx.session.add(Booking(number=len(seen)))
            if len(seen) == 1:
                await tx.session.execute(steal)

    async with working(app):
        run = await book.submit()
        await result_of(run)
        assert (await run.view()).attempts == 1
        assert bookings(app) == [2]


@KINDS
async def test_an_error_that_loses_the_transaction_fails_the_run_and_is_not_repeated(
    tmp_path: Path, kind: str
) -> None:
    app = shop(tmp_path)
    calls: list[int] = []
    twice = text("INSERT OR ROLLBACK INTO booking (number, text) VALUES (1, '')")

    if kind == "sync":

        @app.task(name="clash")
        def clash(tx: Transaction) -> None:
            calls.append(1)
            tx.session.execute(twice)
            tx.session.execute(twice)

    else:

        @app.task(name="clash")
        async def clash(tx: AsyncTransaction) -> None:
            calls.append(1)
            await tx.session.execute(twice)
            await tx.session.execute(twice)

    async with working(app):
        assert isinstance(await error_of(await clash.submit()), RunFailed)
        assert bookings(app) == []
    assert len(calls) == 1


@KINDS
async def test_a_commit_that_always_fails_fails_the_run(tmp_path: Path, kind: str) -> None:
    app = shop(tmp_path)
    connection = app.connect()
    connection.execute(
        "CREATE TABLE part (id INTEGER PRIMARY KEY, whole INTEGER REFERENCES part DEFERRABLE INITIALLY DEFERRED)"
    )
    connection.close()
    calls: list[int] = []
    orphan = text("INSERT INTO part (id, whole) VALUES (1, 99)")

    if kind == "sync":

        @app.task(name="clash")
        def clash(tx: Transaction) -> None:
            calls.append(1)
            tx.session.execute(orphan)

    else:

        @app.task(name="clash")
        async def clash(tx: AsyncTransaction) -> None:
            calls.append(1)
            await tx.session.execute(orphan)

    async with working(app):
        store: Any = app.runtime.store
        lent = store._writer._lent_connection()
        lent._ours = True
        lent.raw.execute("PRAGMA foreign_keys = ON")
        lent._ours = False
        run = await clash.submit()
        assert isinstance(await error_of(run), RunFailed)
        assert rows(app, "SELECT count(*) FROM part") == [(0,)]
    assert len(calls) <= 2


async def test_a_session_is_of_no_use_after_its_run(tmp_path: Path) -> None:
    app = shop(tmp_path)
    kept: list[Transaction] = []

    @app.task
    def keeps(tx: Transaction) -> None:
        _ = tx.session
        kept.append(tx)

    async with working(app):
        await result_of(await keeps.submit())
        with pytest.raises(TransactionTooLong, match="has ended"):
            kept[0].session.execute(text("SELECT 1"))


async def test_blocked_default_threads_do_not_hold_up_transactions(tmp_path: Path) -> None:
    app = shop(tmp_path)
    stop, blocked = threading.Event(), threading.Semaphore(0)

    def block() -> None:
        blocked.release()
        stop.wait(60)

    @app.task
    async def blocks() -> None:
        await asyncio.to_thread(block)

    book = booking_task(app, "async")
    async with working(app, grace=0):
        try:
            await blocks.submit_many([()] * 50)
            # As many threads as asyncio has at most.
            for _ in range(min(32, (os.cpu_count() or 1) + 4)):
                await eventually(lambda: blocked.acquire(blocking=False))
            assert await result_of(await book.submit(1, "")) == 1
            async with app.transaction() as tx:
                tx.session.add(Booking(number=2))
            assert bookings(app) == [1, 2]
        finally:
            stop.set()


async def test_busy_task_threads_do_not_hold_up_transactions(tmp_path: Path) -> None:
    app = shop(tmp_path)
    stop, blocked = threading.Event(), threading.Semaphore(0)

    @app.task
    def blocks() -> None:
        blocked.release()
        stop.wait(60)

    @app.task(batch=2)
    def post(numbers: list[int], tx: Transaction) -> list[int]:
        tx.session.add_all([Booking(number=number) for number in numbers])
        return numbers

    @app.task(batch=2)
    def plain(numbers: list[int]) -> list[int]:
        return numbers

    async with working(app, concurrency=Concurrency(threads=2)):
        try:
            await blocks.submit_many([()] * 4)
            for _ in range(2):
                await eventually(lambda: blocked.acquire(blocking=False))
            assert await results_of(await post.submit_many([1, 2])) == [1, 2]
            assert await results_of(await plain.submit_many([1, 2])) == [1, 2]
        finally:
            stop.set()


# Transactions of the caller's


def child_task(app: App) -> Task[Any, Any]:
    @app.task(name="child")
    async def child(number: int) -> int:
        return number

    return child


class OwnSession(Session):
    pass


async def test_app_transaction_carries_rows_and_submissions(tmp_path: Path) -> None:
    app = shop(tmp_path)
    child = child_task(app)
    async with working(app):
        async with app.transaction() as tx:
            tx.session.add(Booking(number=1))
            run = await child.submit(1, tx=tx)
            many = await child.submit_many([2, 3], tx=tx)
            assert (await app.runtime.store.view([run.id]))[0] is None
        assert await results_of([run, *many]) == [1, 2, 3]
        with suppress(ZeroDivisionError):
            async with app.transaction() as tx:
                tx.session.add(Booking(number=2))
                lost = await child.submit(4, tx=tx)
                raise ZeroDivisionError
        with pytest.raises(RunNotFound):
            await lost.status()
        assert bookings(app) == [1]


async def test_app_transaction_without_a_session_submits(tmp_path: Path) -> None:
    app = shop(tmp_path)
    child = child_task(app)
    async with working(app):
        async with app.transaction() as tx:
            run = await child.submit(1, tx=tx, key="k")
            assert (await child.submit(1, tx=tx, key="k")).id == run.id
        assert await result_of(run) == 1


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("what", ["session", "own session", "connection", "sqlite3"])
async def test_a_synchronous_transaction_carries_a_submission(
    tmp_path: Path, what: str, commit: bool
) -> None:
    app = shop(tmp_path)
    child = child_task(app)

    def write() -> Any:
        end = "commit" if commit else "rollback"
        if what == "sqlite3":
            connection = app.connect()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO booking (number, text) VALUES (1, '')")
            run = child.blocking.submit(1, tx=connection)
            connection.execute(end)
            connection.close()
            return run
        engine = app.engine()
        if what == "connection":
            with engine.connect() as sql:
                sql.execute(text("INSERT INTO booking (number, text) VALUES (1, '')"))
                run = child.blocking.submit(1, tx=sql)
                getattr(sql, end)()
        else:
            with (Session if what == "session" else OwnSession)(engine) as session:
                session.add(Booking(number=1))
                run = child.blocking.submit(1, tx=session)
                getattr(session, end)()
        engine.dispose()
        return run

    async with working(app):
        run = await asyncio.to_thread(write)
        if commit:
            assert await result_of(run) == 1
            assert bookings(app) == [1]
        else:
            with pytest.raises(RunNotFound):
                await run.status()
            assert bookings(app) == []


async def test_a_synchronous_transaction_may_be_awaited_with(tmp_path: Path) -> None:
    app = shop(tmp_path)
    child = child_task(app)
    async with working(app):
        engine = app.engine()
        with Session(engine) as session:
            run = await child.submit(1, tx=session)
            session.commit()
        engine.dispose()
        assert await result_of(run) == 1


async def test_the_session_of_a_transaction_carries_a_submission_too(tmp_path: Path) -> None:
    app = shop(tmp_path)
    child = child_task(app)
    async with working(app):
        async with app.transaction() as tx:
            assert isinstance(tx.session, AsyncSession)
            run = await child.submit(1, tx=tx.session)
        assert await result_of(run) == 1


async def test_an_async_transaction_is_refused_where_nobody_awaits(tmp_path: Path) -> None:
    app = shop(tmp_path)
    child = child_task(app)
    async with app:
        async with app.transaction() as tx:
            with pytest.raises(TransactionRefused, match="Await submit"):
                child.blocking.submit(1, tx=tx)
            with pytest.raises(TransactionRefused, match="Await submit"):
                await asyncio.to_thread(child.blocking.submit_many, [1], tx=tx)
        assert await app.runtime.store.counts() == {}


async def test_what_cannot_carry_a_submission_is_refused(tmp_path: Path) -> None:
    app = shop(tmp_path)
    child = child_task(app)
    elsewhere = sqlite3.connect(tmp_path / "other.db")
    elsewhere.execute("BEGIN")
    idle = app.connect()
    async with app:
        for tx, says in ((elsewhere, "leads to"), (idle, "no open transaction"), (object(), "cannot carry")):
            with pytest.raises(TransactionRefused, match=says):
                await child.submit(1, tx=tx)
    elsewhere.close()
    idle.close()


async def test_a_run_is_found_though_its_raw_connection_told_nobody(tmp_path: Path) -> None:
    app = shop(tmp_path)
    child = child_task(app)
    async with working(app):
        await asyncio.sleep(0.1)
        connection = app.connect()
        connection.execute("BEGIN IMMEDIATE")
        run = await child.submit(1, tx=connection)
        connection.execute("COMMIT")
        connection.close()
        assert await result_of(run) == 1
