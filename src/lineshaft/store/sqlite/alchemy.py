"""SQLAlchemy sessions on a lent transaction, and an engine for transactions of the user's own.

A lent transaction is no connection of SQLAlchemy's: all of it goes through `Loan.run`, so the shim below has the
shape of a DBAPI connection and nothing behind it but that. What SQLAlchemy does to a transaction by itself (a
rollback when a session closes) is not for the shim to do, and what a user would do to it is refused, since the
run's outcome has to commit together with what the run wrote. The names of the engines' dialects are registered as
https://docs.sqlalchemy.org/en/21/core/connections.html#registering-new-dialects says.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import Any, Generic, NamedTuple, NoReturn, Protocol, TypeVar, cast

from sqlalchemy import (
    Connection,
    Engine,
    NullPool,
    PoolProxiedConnection,
    QueuePool,
    RootTransaction,
    create_engine,
    event,
)
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteExecutionContext
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_

from lineshaft.core.errors import TransactionRefused, TransactionTooLong
from lineshaft.store.sqlite.loan import Loan

T = TypeVar("T")

INTERRUPT_EVERY_S = 0.01
"""SQLite forgets an interrupt that comes between two statements, so one that has to arrive is repeated."""


class Sessions:
    """Opens the sessions of one store; its two engines are built when first used, and once.

    A session is used for one run and closed. Before the run's outcome is written it is settled.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lineshaft-session")
        self._prepared: sqlite3.Connection | None = None

    def session(self, loan: Loan) -> Session:
        """A session for the thread that calls."""
        loan.run(self._prepare)
        return _LentSession(_LentConnection(self._engine, self._engine.raw_connection(), loan.run))

    def async_session(self, loan: Loan) -> AsyncSession:
        """A session for an event loop, which is never blocked: every statement runs in a thread.

        When the task that awaits a statement is cancelled, the statement is interrupted and the session is lost.
        """
        loan.run(self._prepare)

        def run(use: Callable[[sqlite3.Connection], T]) -> T:
            return await_(_in_thread(self._executor, loan, use))

        engine = self._async_engine
        connection = _LentConnection(engine.sync_engine, self._engine.raw_connection(), run)
        return AsyncSession(AsyncConnection(engine, connection), sync_session_class=_LentSession)

    @staticmethod
    def settle(session: Session) -> None:
        """Do what a commit does to the session: write what is pending, keep the open savepoints.

        Raises what a commit would raise, among it `TransactionRefused` for a session that cannot commit any more:
        a flush failed and its error was swallowed, a statement was cancelled, or the session was closed.
        For an async session: `await session.run_sync(sessions.settle)`.
        """
        connection = session.get_bind()
        assert isinstance(connection, Connection)
        session.flush()
        while (nested := session.get_nested_transaction()) is not None:
            nested.commit()
        if connection.invalidated or not connection.in_transaction():
            raise TransactionRefused(
                "The session of this task was rolled back by an error in it, so nothing of it can be kept.",
                hint="Let such an error propagate, or put what may fail into a begin_nested() block.",
            )

    @staticmethod
    def on_connection(bound: Session | Connection, use: Callable[[sqlite3.Connection], T]) -> T:
        """Use the SQLite connection under a session or connection, ours or the user's, in its transaction.

        For an async one: `await bound.run_sync(sessions.on_connection, use)`.
        """
        connection = bound.connection() if isinstance(bound, Session) else bound
        below: Any = connection.connection.dbapi_connection
        if isinstance(below, _Shim):
            return below.run(use)
        if not isinstance(below, sqlite3.Connection):
            raise TransactionRefused(
                "The session or connection given as tx is not on the standard library's SQLite.",
                hint="Use one of app.engine(), or tx.session in a task.",
            )
        return use(below)

    @staticmethod
    def engine(connect: Callable[[], sqlite3.Connection]) -> Engine:
        """An ordinary engine on connections of ours, for users who manage transactions themselves.

        A transaction takes the write lock when it begins, so it never fails half way because another wrote
        meanwhile. With the isolation level AUTOCOMMIT there is none.
        """
        engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
                connection.exec_driver_sql("BEGIN IMMEDIATE")

        return engine

    def close(self) -> None:
        """End the thread of the async sessions."""
        self._executor.shutdown()

    @cached_property
    def _engine(self) -> Engine:
        return create_engine("sqlite+lineshaft://", creator=_Shim, poolclass=NullPool)

    @cached_property
    def _async_engine(self) -> AsyncEngine:
        engine = create_async_engine("sqlite+lineshaft_async://", creator=_Shim, poolclass=NullPool)
        # An async pool may only be asked by a coroutine. Connecting to a loan waits for nothing, so sessions
        # are opened through the pool of the other engine, and this one is told here what a first connect tells.
        with self._engine.connect() as connection:
            engine.dialect.initialize(connection)
        return engine

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Give the connection the SQL functions that SQLAlchemy expects, once."""
        if connection is not self._prepared:
            define_functions: Callable[[Any], None] = SQLiteDialect_pysqlite(dbapi=sqlite3).on_connect()
            define_functions(connection)
            self._prepared = connection


def _refuse(*_: object) -> NoReturn:
    raise TransactionRefused(
        "The transaction belongs to the task; its outcome commits together with what the task writes.",
        hint="Leave begin, commit and rollback out; raise an exception to roll back, "
        "or use begin_nested() for a part.",
    )


# What users hold


class _LentSession(Session):
    """A session on a lent transaction: it may do anything but end it."""

    def __init__(self, bind: _LentConnection, **options: Any) -> None:
        # Whatever transaction object a user gets hold of, its commit and rollback reach our connection.
        super().__init__(bind, join_transaction_mode="control_fully", **options)
        self._lent = bind

    def get_bind(self, *_: Any, **__: Any) -> Connection:
        if self._lent.closed:
            raise TransactionTooLong("This transaction has ended.", hint="Use it only while its task runs.")
        return self._lent

    def begin(self, nested: bool = False) -> SessionTransaction:
        return super().begin(nested=True) if nested else _refuse()

    def commit(self) -> None:
        _refuse()

    def rollback(self) -> None:
        _refuse()

    def close(self) -> None:
        # First, so that closing rolls no savepoint back: what becomes of the work is decided elsewhere.
        self._lent.shim.close()
        try:
            super().close()
        finally:
            self._lent.close()


class _LentConnection(Connection):
    """SQLAlchemy's view of a loan: in a transaction from the start, and never in another one."""

    def __init__(self, engine: Engine, pooled: PoolProxiedConnection, run: _Run) -> None:
        super().__init__(engine, pooled)
        self.shim = cast("_Shim", pooled.dbapi_connection)
        self.shim.run = run
        super().begin()

    def begin(self) -> RootTransaction:
        _refuse()

    def commit(self) -> None:
        _refuse()

    def rollback(self) -> None:
        _refuse()


# What SQLAlchemy holds


class _Outcome(NamedTuple):
    """All that a statement leaves behind: no cursor stays open on a connection that is only lent."""

    rows: list[Any]
    description: Any
    rowcount: int
    lastrowid: int | None


class _Run(Protocol):
    """`Loan.run`, or a way to it."""

    def __call__(self, use: Callable[[sqlite3.Connection], T], /) -> T: ...


class _Shim:
    """The shape of a DBAPI connection; `run` leads to the loan."""

    run: _Run = staticmethod(_refuse)

    def cursor(self, **_: Any) -> _Cursor:
        return _Cursor(self.run)

    def commit(self) -> None:
        _refuse()

    def rollback(self) -> None:
        """Only SQLAlchemy's own bookkeeping comes here, after which its connection begins nothing more."""

    def close(self) -> None:
        self.run = _refuse


class _Cursor:
    """The shape of a DBAPI cursor."""

    arraysize = 1

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._rows: Iterator[Any] = iter(())
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    def execute(self, statement: str, parameters: Any = ()) -> None:
        self._keep(self._run(lambda connection: _outcome(connection.execute(statement, parameters))))

    def executemany(self, statement: str, parameters: Sequence[Any]) -> None:
        self._keep(self._run(lambda connection: _outcome(connection.executemany(statement, parameters))))

    def _keep(self, outcome: _Outcome) -> None:
        rows, self.description, self.rowcount, self.lastrowid = outcome
        self._rows = iter(rows)

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return list(islice(self._rows, size or self.arraysize))

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def close(self) -> None:
        self._rows = iter(())

    async def _async_soft_close(self) -> None:
        """Asked by async sessions when they hand a result over: its rows have all been read already."""


def _outcome(cursor: sqlite3.Cursor) -> _Outcome:
    try:
        # The count of rows is complete, and a statement with RETURNING done, only after the last row.
        rows = cursor.fetchall()
        return _Outcome(rows, cursor.description, cursor.rowcount, cursor.lastrowid)
    finally:
        cursor.close()


class _Dialect(SQLiteDialect_pysqlite):
    """SQLite without what would control the connection."""

    driver = "lineshaft"
    supports_statement_cache = True

    def on_connect(self) -> None:  # type: ignore[override]
        return None

    def get_isolation_level(self, dbapi_connection: Any) -> Any:  # noqa: ARG002
        return "SERIALIZABLE"

    def do_rollback_to_savepoint(self, connection: Connection, name: str) -> None:
        # A block that is left, or a session closed, when there is nothing to roll back any more.
        with suppress(TransactionTooLong, TransactionRefused):
            super().do_rollback_to_savepoint(connection, name)  # type: ignore[no-untyped-call]


class _ExecutionContext(SQLiteExecutionContext):
    """Lets `stream` work, on rows that have all been read."""

    def create_server_side_cursor(self) -> Any:
        return self._dbapi_connection.cursor()


class _AsyncDialect(_Dialect):
    driver = "lineshaft_async"
    supports_statement_cache = True
    is_async = True
    supports_server_side_cursors = True
    execution_ctx_cls = _ExecutionContext


registry.register("sqlite.lineshaft", __name__, _Dialect.__name__)
registry.register("sqlite.lineshaft_async", __name__, _AsyncDialect.__name__)


# The way into a thread


async def _in_thread(executor: ThreadPoolExecutor, loan: Loan, use: Callable[[sqlite3.Connection], T]) -> T:
    statement = _Statement(use)
    done = asyncio.get_running_loop().run_in_executor(executor, loan.run, statement)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        # Who asked is gone, but the loan can be given back only when the connection is free.
        while not done.done():
            statement.interrupt()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([done], timeout=INTERRUPT_EVERY_S)
        if not done.cancelled():
            done.exception()  # how it ended is nobody's business any more
        raise


class _Statement(Generic[T]):
    """A use of the connection that another thread can cut short, and nothing but this use."""

    def __init__(self, use: Callable[[sqlite3.Connection], T]) -> None:
        self._use = use
        self._lock = threading.Lock()
        self._under_way_on: sqlite3.Connection | None = None

    def __call__(self, connection: sqlite3.Connection) -> T:
        with self._lock:
            self._under_way_on = connection
        try:
            return self._use(connection)
        finally:
            with self._lock:
                self._under_way_on = None

    def interrupt(self) -> None:
        with self._lock:
            if self._under_way_on is not None:
                self._under_way_on.interrupt()
