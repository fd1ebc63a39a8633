"""SQLAlchemy sessions on lent transactions, on real files."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, Integer, MetaData, Table, func, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from lineshaft.core.errors import TransactionRefused, TransactionTooLong
from lineshaft.store.sqlite.alchemy import Sessions
from lineshaft.store.sqlite.connection import OwnConnection, open_connection, require_safe_to_join
from lineshaft.store.sqlite.loan import LentConnection, Loan

COUNTING = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
ENDLESS = f"{COUNTING} SELECT count(*) FROM n"
ENDLESS_WRITE = f"INSERT INTO author (name) {COUNTING} SELECT i FROM n"
FOREVER_S = 60.0


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list[Book]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


authors = Author.__table__


class Lender:
    """Lends like the writer does: one loan after another on one connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lent = LentConnection(open_connection(path), path)
        self.outside = open_connection(path)
        self.sessions = Sessions()

    def loan(self, hold_s: float = FOREVER_S) -> Loan:
        loan = Loan(lambda: self.lent, hold_s, threading.Event())
        loan.open()
        return loan

    @contextmanager
    def session(self) -> Iterator[tuple[Loan, Session]]:
        loan = self.loan()
        session = self.sessions.session(loan)
        try:
            yield loan, session
        finally:
            loan.finish()
            session.close()

    @asynccontextmanager
    async def async_session(self) -> AsyncIterator[tuple[Loan, AsyncSession]]:
        loan = self.loan()
        session = self.sessions.async_session(loan)
        try:
            yield loan, session
        finally:
            loan.finish()
            await session.close()

    def names(self) -> list[str]:
        return [name for (name,) in self.outside.execute("SELECT name FROM author ORDER BY id")]


@pytest.fixture
def lender(tmp_path: Path) -> Iterator[Lender]:
    lender = Lender(tmp_path / "store.db")
    engine = lender.sessions.engine(lambda: open_connection(lender.path))
    Base.metadata.create_all(engine)
    engine.dispose()
    yield lender
    lender.sessions.close()
    lender.lent.raw.close()
    lender.outside.close()


def overdue(loan: Loan) -> threading.Thread:
    """A writer that waits for its loan, in a thread."""
    thread = threading.Thread(target=loan.wait_until_returned)
    thread.start()
    return thread


# What a session can do


def test_models_and_core_commit_with_the_loan(lender: Lender) -> None:
    with lender.session() as (loan, session):
        session.add(Author(name="Ada", books=[Book(title="Notes")]))
        session.execute(insert(Author), [{"name": "Bo"}, {"name": "Cy"}])
        session.execute(authors.insert().values(name="Di"))
        session.execute(text("INSERT INTO author (name) VALUES (:name)"), {"name": "Ed"})
        session.connection().exec_driver_sql("INSERT INTO author (name) VALUES (?)", ("Flo",))
        ada = session.scalars(select(Author).where(Author.name == "Ada")).one()
        assert ada.books[0].title == "Notes"
        assert lender.names() == []
        loan.commit()
    assert lender.names() == ["Ada", "Bo", "Cy", "Di", "Ed", "Flo"]


async def test_models_and_core_commit_with_the_loan_async(lender: Lender) -> None:
    async with lender.async_session() as (loan, session):
        session.add(Author(name="Ada", books=[Book(title="Notes")]))
        await session.execute(insert(Author), [{"name": "Bo"}, {"name": "Cy"}])
        connection = await session.connection()
        await connection.exec_driver_sql("INSERT INTO author (name) VALUES (?)", ("Di",))
        ada = (await session.scalars(select(Author).where(Author.name == "Ada"))).one()
        await session.refresh(ada, ["books"])
        assert ada.books[0].title == "Notes"
        streamed = [name async for name in await session.stream_scalars(select(Author.name))]
        assert sorted(streamed) == ["Ada", "Bo", "Cy", "Di"]
        assert lender.names() == []
        loan.commit()
    assert lender.names() == ["Ada", "Bo", "Cy", "Di"]


def test_many_rows_return_their_keys(lender: Lender) -> None:
    rows = [{"name": f"n{i}"} for i in range(2_500)]
    with lender.session() as (loan, session):
        returned = session.execute(insert(Author).returning(Author.id, sort_by_parameter_order=True), rows)
        assert list(returned.scalars()) == list(range(1, 2_501))
        many = [Author(name=f"m{i}") for i in range(2_500)]
        session.add_all(many)
        session.flush()
        assert [author.id for author in many] == list(range(2_501, 5_001))
        loan.commit()
    assert len(lender.names()) == 5_000


def test_rows_counted_and_fetched_in_parts(lender: Lender) -> None:
    with lender.session() as (_, session):
        session.execute(insert(Author), [{"name": f"n{i}"} for i in range(10)])
        assert session.execute(text("UPDATE author SET name = name || '!'")).rowcount == 10  # type: ignore[attr-defined]
        result = session.execute(select(Author.id).execution_options(yield_per=4))
        assert [len(part) for part in result.partitions()] == [4, 4, 2]
        result = session.execute(select(Author.id))
        assert (result.fetchone(), len(result.fetchmany(3)), len(result.fetchall())) == ((1,), 3, 6)


def test_the_functions_of_the_dialect_and_inspection_are_there(lender: Lender) -> None:
    with lender.session() as (_, session):
        session.execute(insert(Author), [{"name": "Ada"}, {"name": "Bo"}])
        assert session.scalars(select(Author.name).where(Author.name.regexp_match("^A"))).all() == ["Ada"]
        assert session.scalar(select(func.floor(1.5))) == 1
        connection = session.connection()
        assert connection.get_isolation_level() == "SERIALIZABLE"
        assert inspect(connection).get_table_names() == ["author", "book"]
        assert inspect(connection).get_foreign_keys("book")[0]["referred_table"] == "author"
        table = Table("author", MetaData(), autoload_with=connection)
        assert isinstance(table.c.id.type, Integer)


def test_a_savepoint_of_the_users_own_rolls_back_alone(lender: Lender) -> None:
    with lender.session() as (loan, session):
        session.add(Author(name="Ada"))
        nested = session.begin_nested()
        session.add(Author(name="Bo"))
        session.flush()
        nested.rollback()
        with pytest.raises(IntegrityError), session.begin(nested=True):
            session.add_all([Author(name="Cy"), Author(name="Ada")])
        with session.begin_nested():
            session.add(Author(name="Di"))
        with session.connection().begin_nested() as of_core:
            session.execute(insert(Author).values(name="Ed"))
            of_core.rollback()
        lender.sessions.settle(session)
        loan.commit()
    assert lender.names() == ["Ada", "Di"]


async def test_a_savepoint_of_the_users_own_rolls_back_alone_async(lender: Lender) -> None:
    async with lender.async_session() as (loan, session):
        session.add(Author(name="Ada"))
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                session.add_all([Author(name="Bo"), Author(name="Ada")])
        async with session.begin_nested():
            session.add(Author(name="Cy"))
        await session.run_sync(lender.sessions.settle)
        loan.commit()
    assert lender.names() == ["Ada", "Cy"]


def test_sessions_follow_each_other_between_savepoints_of_the_engine(lender: Lender) -> None:
    loan = lender.loan()
    for name, kept in (("Ada", True), ("Bo", False), ("Cy", True)):
        loan.execute("SAVEPOINT lineshaft_run")
        with lender.sessions.session(loan) as session:
            session.add(Author(name=name))
            session.begin_nested()
            lender.sessions.settle(session)
        if not kept:
            loan.execute("ROLLBACK TO lineshaft_run")
        loan.execute("RELEASE lineshaft_run")
    loan.commit()
    assert lender.names() == ["Ada", "Cy"]


async def test_a_session_closes_after_its_part_was_rolled_back(lender: Lender) -> None:
    loan = lender.loan()
    session, async_session = lender.sessions.session(loan), lender.sessions.async_session(loan)
    loan.execute("SAVEPOINT lineshaft_run")
    session.begin_nested()
    session.execute(insert(Author).values(name="Ada"))
    await async_session.begin_nested()
    await async_session.execute(insert(Author).values(name="Bo"))
    loan.execute("ROLLBACK TO lineshaft_run")
    loan.execute("RELEASE lineshaft_run")
    session.close()
    await async_session.close()
    loan.commit()
    assert lender.names() == []


# What it must not do


def _connect_beside(session: Session) -> None:
    with session.connection().engine.connect() as connection:
        connection.execute(select(Author))


REFUSED: dict[str, Callable[[Session], Any]] = {
    "commit": lambda session: session.commit(),
    "rollback": lambda session: session.rollback(),
    "begin": lambda session: session.begin(),
    "connection.begin": lambda session: session.connection().begin(),
    "connection.commit": lambda session: session.connection().commit(),
    "connection.rollback": lambda session: session.connection().rollback(),
    "COMMIT": lambda session: session.execute(text("COMMIT")),
    "ROLLBACK": lambda session: session.connection().exec_driver_sql("ROLLBACK"),
    "PRAGMA": lambda session: session.execute(text("PRAGMA foreign_keys = OFF")),
    "ATTACH": lambda session: session.execute(text("ATTACH '' AS other")),
    "connection beside it": _connect_beside,
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_end_of_the_transaction_is_refused_and_harms_nothing(lender: Lender, what: str) -> None:
    with lender.session() as (loan, session):
        session.add(Author(name="Ada"))
        session.flush()
        with pytest.raises(TransactionRefused):
            REFUSED[what](session)
        session.add(Author(name="Bo"))
        lender.sessions.settle(session)
        loan.commit()
    assert lender.names() == ["Ada", "Bo"]


@pytest.mark.parametrize("what", REFUSED)
async def test_the_end_of_the_transaction_is_refused_async(lender: Lender, what: str) -> None:
    async with lender.async_session() as (loan, session):
        session.add(Author(name="Ada"))
        with pytest.raises(TransactionRefused):
            await session.run_sync(REFUSED[what])
        await session.run_sync(lender.sessions.settle)
        loan.commit()
    assert lender.names() == ["Ada"]


async def test_the_methods_of_an_async_session_say_what_to_do_instead(lender: Lender) -> None:
    async with lender.async_session() as (_, session):
        with pytest.raises(TransactionRefused, match=r"belongs to the task.*raise an exception to roll back"):
            await session.commit()
        with pytest.raises(TransactionRefused):
            await session.rollback()
        with pytest.raises(TransactionRefused):
            async with session.begin():
                pass
        with pytest.raises(TransactionRefused):
            await (await session.connection()).commit()
        assert await session.scalar(select(func.count(Author.id))) == 0


def test_a_transaction_object_commits_nothing(lender: Lender) -> None:
    for transaction in (Session.get_transaction, lambda session: session.connection().get_transaction()):
        with lender.session() as (_, session):
            session.execute(insert(Author).values(name="Ada"))
            with pytest.raises(TransactionRefused):
                transaction(session).commit()
    assert lender.names() == []


SPOILED: dict[str, Callable[[Session], Any]] = {
    "rollback of the session's": lambda session: session.get_transaction().rollback(),
    "rollback of the connection's": lambda session: session.connection().get_transaction().rollback(),
    "reset": lambda session: session.reset(),
    "invalidate": lambda session: session.invalidate(),
    "close of the connection": lambda session: session.connection().close(),
    "close": lambda session: session.close(),
}


@pytest.mark.parametrize("how", SPOILED)
def test_what_would_roll_back_elsewhere_is_never_a_silent_commit(lender: Lender, how: str) -> None:
    with lender.session() as (_, session):
        session.execute(insert(Author).values(name="Ada"))
        SPOILED[how](session)
        with pytest.raises((TransactionRefused, TransactionTooLong, PendingRollbackError)):
            session.execute(select(Author))
        with pytest.raises((TransactionRefused, TransactionTooLong)):
            lender.sessions.settle(session)


def test_a_failed_flush_propagates_and_cannot_be_swallowed(lender: Lender) -> None:
    with lender.session() as (_, session):
        session.add_all([Author(name="Ada"), Author(name="Ada")])
        with pytest.raises(IntegrityError) as caught:
            session.flush()
        assert isinstance(caught.value.orig, sqlite3.IntegrityError)
        with pytest.raises(PendingRollbackError, match="UNIQUE"):
            session.scalars(select(Author)).all()
        with pytest.raises(TransactionRefused):
            session.rollback()
        with pytest.raises(TransactionRefused, match="rolled back by an error"):
            lender.sessions.settle(session)
    assert lender.names() == []


def test_a_failed_statement_is_undone_alone(lender: Lender) -> None:
    with lender.session() as (loan, session):
        session.execute(insert(Author).values(name="Ada"))
        with pytest.raises(IntegrityError):
            session.execute(insert(Author).values(name="Ada"))
        with pytest.raises(OperationalError, match="no such table"):
            session.execute(text("SELECT * FROM nowhere"))
        lender.sessions.settle(session)
        loan.commit()
    assert lender.names() == ["Ada"]


def test_nothing_follows_a_statement_that_rolled_everything_back(lender: Lender) -> None:
    with lender.session() as (loan, session):
        session.execute(insert(Author).values(name="Ada"))
        with pytest.raises(IntegrityError):
            session.execute(text("INSERT OR ROLLBACK INTO author (name) VALUES ('Ada')"))
        with pytest.raises(TransactionRefused, match="rolled back by an error"):
            session.execute(insert(Author).values(name="Bo"))
        with pytest.raises(TransactionRefused):
            loan.commit()
    assert lender.names() == []


# Its end


def test_a_session_ends_with_its_loan(lender: Lender) -> None:
    loan = lender.loan()
    session = lender.sessions.session(loan)
    session.begin_nested()
    session.execute(insert(Author).values(name="Ada"))
    loan.commit()
    with pytest.raises(TransactionTooLong, match="has ended"):
        session.execute(select(Author))
    session.close()
    with pytest.raises(TransactionTooLong, match="has ended"):
        session.execute(select(Author))
    with pytest.raises(TransactionTooLong, match="has ended"):
        lender.sessions.session(loan)


async def test_a_session_ends_with_its_loan_async(lender: Lender) -> None:
    loan = lender.loan()
    session = lender.sessions.async_session(loan)
    await session.begin_nested()
    await session.execute(insert(Author).values(name="Ada"))
    loan.commit()
    with pytest.raises(TransactionTooLong, match="has ended"):
        await session.execute(select(Author))
    await session.close()
    with pytest.raises(TransactionTooLong, match="has ended"):
        await session.execute(select(Author))
    with pytest.raises(TransactionTooLong, match="has ended"):
        lender.sessions.async_session(loan)


@pytest.mark.parametrize("statement", [ENDLESS, ENDLESS_WRITE], ids=["read", "write"])
def test_a_statement_is_cut_short_when_the_time_is_over(lender: Lender, statement: str) -> None:
    loan = lender.loan(hold_s=0.1)
    writer = overdue(loan)
    with (
        lender.sessions.session(loan) as session,
        pytest.raises(TransactionTooLong, match=r"more than 0\.1 seconds"),
        session.begin_nested(),
    ):
        session.execute(text(statement))
    writer.join()
    assert lender.names() == []
    _lends_again(lender)


async def test_a_statement_is_cut_short_when_the_time_is_over_async(lender: Lender) -> None:
    loan = lender.loan(hold_s=0.1)
    writer = overdue(loan)
    async with lender.sessions.async_session(loan) as session:
        with pytest.raises(TransactionTooLong, match=r"more than 0\.1 seconds"):
            async with session.begin_nested():
                await session.execute(text(ENDLESS))
        with pytest.raises(TransactionTooLong, match=r"more than 0\.1 seconds"):
            await session.execute(select(Author))
    writer.join()
    _lends_again(lender)


def test_many_short_statements_are_cut_off_too(lender: Lender) -> None:
    loan = lender.loan(hold_s=0.05)
    writer = overdue(loan)

    def forever(session: Session) -> None:
        while True:
            session.execute(select(Author.id))

    with lender.sessions.session(loan) as session, pytest.raises(TransactionTooLong, match="more than"):
        forever(session)
    writer.join()
    _lends_again(lender)


async def test_the_loop_goes_on_while_a_statement_is_slow(lender: Lender) -> None:
    async with lender.async_session() as (loan, session):
        slow = asyncio.create_task(session.execute(text(ENDLESS)))
        for _ in range(20):
            await asyncio.sleep(0.002)
        assert not slow.done()
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        # The session is lost with the statement, and says so.
        with pytest.raises(TransactionRefused):
            await session.run_sync(lender.sessions.settle)
        loan.finish()
    _lends_again(lender)


@pytest.mark.parametrize("statement", [ENDLESS, ENDLESS_WRITE], ids=["read", "write"])
async def test_a_cancelled_task_frees_the_connection_at_once(lender: Lender, statement: str) -> None:
    async def body() -> None:
        async with lender.async_session() as (loan, session):
            await session.execute(insert(Author).values(name="Ada"))
            await session.execute(text(statement))
            loan.commit()

    for cancellations in (1, 3):
        task = asyncio.create_task(body())
        await asyncio.sleep(0.05)
        for _ in range(cancellations):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert lender.names() == []
        assert not lender.lent.raw.in_transaction
    loan = lender.loan()
    async with lender.sessions.async_session(loan) as session:
        session.add(Author(name="Bo"))
        await session.flush()
        loan.commit()
    assert lender.names() == ["Bo"]


async def test_a_timeout_around_a_statement_loses_the_session(lender: Lender) -> None:
    async with lender.async_session() as (_, session):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await session.execute(text(ENDLESS))
        with pytest.raises((TransactionRefused, PendingRollbackError)):
            await session.execute(insert(Author).values(name="Ada"))
    _lends_again(lender)


def _lends_again(lender: Lender) -> None:
    before = len(lender.names())
    with lender.session() as (loan, session):
        session.add(Author(name=f"again {before}"))
        lender.sessions.settle(session)
        loan.commit()
    assert len(lender.names()) == before + 1


# The connection below, and engines of users


def _insert_raw(connection: sqlite3.Connection) -> int:
    return connection.execute("INSERT INTO author (name) VALUES ('raw')").rowcount


async def test_the_connection_below_a_session_is_reached(lender: Lender) -> None:
    with lender.session() as (_, session):
        assert lender.sessions.on_connection(session, _insert_raw) == 1
        assert session.scalars(select(Author.name)).all() == ["raw"]
    async with lender.async_session() as (loan, async_session):
        assert await async_session.run_sync(lender.sessions.on_connection, _insert_raw) == 1
        connection = await async_session.connection()
        with pytest.raises(sqlite3.IntegrityError):
            await connection.run_sync(lender.sessions.on_connection, _insert_raw)
        loan.commit()
    assert lender.names() == ["raw"]


def test_an_engine_of_the_users_has_real_transactions(lender: Lender) -> None:
    engine = lender.sessions.engine(lambda: open_connection(lender.path))
    with engine.begin() as connection:
        assert isinstance(connection.connection.dbapi_connection, OwnConnection)
        require_safe_to_join(connection.connection.dbapi_connection, lender.path)
        connection.execute(insert(Author).values(name="Ada"))
        with connection.begin_nested() as nested:
            connection.execute(insert(Author).values(name="Bo"))
            nested.rollback()
    with engine.connect() as connection:
        connection.execute(insert(Author).values(name="Cy"))
        connection.rollback()
    with Session(engine) as session:
        session.add(Author(name="Di"))
        assert lender.sessions.on_connection(session, _insert_raw) == 1
        session.commit()
    with engine.connect() as connection:
        connection.execute(select(Author))
        busy = open_connection(lender.path)
        busy.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            busy.execute("BEGIN IMMEDIATE")
        busy.close()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM"))
    with engine.begin() as connection:
        connection.execute(insert(Author).values(name="Ed"))
    engine.dispose()
    assert lender.names() == ["Ada", "raw", "Di", "Ed"]


def test_the_package_loads_without_sqlalchemy() -> None:
    program = "import sys, lineshaft, lineshaft.store.sqlite.loan; assert 'sqlalchemy' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
