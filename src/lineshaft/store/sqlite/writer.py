"""Group commit: one thread owns the write connection and gathers what everybody wants written.

It flushes when it is free, not on a timer: an idle system has the latency of one commit, and a busy one has
thousands of rows in each. Writes of the same kind in one flush become one call, and so a few statements
whatever their number. A flush that fails on its content is bisected until the culprit fails alone.

It serves in turns: all the writes that wait, heartbeats among them, then one transaction of user code. So
neither waits for more than one turn of the other, however many there are.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, NamedTuple, Protocol, TypeVar

from lineshaft.core import bounds
from lineshaft.core.errors import StoreFull, StoreUnavailable
from lineshaft.core.host import Event, Threading
from lineshaft.store.sqlite.connection import is_of_the_disk, translate
from lineshaft.store.sqlite.files import StoreFiles
from lineshaft.store.sqlite.loan import LentConnection, Loan
from lineshaft.store.values import News

_log = logging.getLogger("lineshaft")

Row = TypeVar("Row", contravariant=True)
Result = TypeVar("Result", covariant=True)

NO_NEWS = News(0)


class Write(Protocol[Row, Result]):
    """One kind of write: rows in, a result for each of them out, inside an open transaction."""

    def __call__(self, connection: sqlite3.Connection, rows: Sequence[Row], /) -> Sequence[Result]: ...


AfterCommit = Callable[[News], None]
"""Called on the writing thread with what the commit just made may mean to others."""


@dataclass(slots=True, eq=False)
class _Wanted:
    """Rows that one caller wants written, and whom to tell."""

    write: Write[Any, Any]
    rows: Sequence[Any]
    waiter: _Waiter | Event
    news: News
    payload_bytes: int = 0
    survives_power_loss: bool = True
    last: bool = False
    result: Any = None
    error: BaseException | None = None


class _Waiter(NamedTuple):
    """A caller on an event loop."""

    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


@dataclass(slots=True, eq=False)
class _LoanWanted:
    loan: Loan
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Writer:
    """Writes for one process."""

    def __init__(self, files: StoreFiles, after_commit: AfterCommit, threading: Threading) -> None:
        self._files = files
        self._after_commit = after_commit
        self._connection = files.connect()
        self._lent_lazily: LentConnection | None = None
        self._broken = False
        self._synchronous = True
        self._log_in_doubt = False
        self._threading = threading
        self._turn = threading.condition()
        """Guards what follows; notified when something waits, when something was served, and at the end."""
        self._writes: deque[_Wanted] = deque()
        self._loans: deque[_LoanWanted] = deque()
        self._rows_waiting = 0
        self._bytes_waiting = 0
        self._closed = False
        self._thread = threading.start(self._serve, "lineshaft-writer")

    # What callers use

    async def write(
        self,
        write: Write[Row, Result],
        rows: Sequence[Row],
        news: News = NO_NEWS,
        payload_bytes: int = 0,
        *,
        survives_power_loss: bool = True,
        last: bool = False,
        queued: Callable[[], None] | None = None,
    ) -> Sequence[Result]:
        """Write rows in the next group commit; returns when it is durable.

        What need not survive a loss of power survives the death of every process all the same. What is to be written
        `last` finds everything that was put before it. `queued` is called once these rows have been put.
        """
        loop = asyncio.get_running_loop()
        while self._is_full():
            await loop.run_in_executor(None, self._wait_for_room)
        future: asyncio.Future[Sequence[Result]] = loop.create_future()
        self._put(_Wanted(write, rows, _Waiter(future, loop), news, payload_bytes, survives_power_loss, last))
        if queued is not None:
            queued()
        # A caller that is cancelled does not undo a write under way: it may already be durable.
        result: Sequence[Result] = await asyncio.shield(future)
        return result

    def write_blocking(
        self, write: Write[Row, Result], rows: Sequence[Row], *, survives_power_loss: bool = True
    ) -> Sequence[Result]:
        """The same for a thread without an event loop."""
        told = self._threading.event()
        wanted = _Wanted(write, rows, told, NO_NEWS, survives_power_loss=survives_power_loss)
        self._put(wanted)
        told.wait()
        if wanted.error is not None:
            raise wanted.error
        result: Sequence[Result] = wanted.result
        return result

    async def borrow(self, hold_s: float) -> Loan:
        """Borrow the writer for user code; it must be given back by `Loan.finish`."""
        loop = asyncio.get_running_loop()
        loan = Loan(self._lent_connection, hold_s, self._threading.event())
        wanted = _LoanWanted(loan, loop.create_future(), loop)
        self._put(wanted)
        try:
            await asyncio.shield(wanted.future)
        except asyncio.CancelledError:
            # Granted or not yet: it is given back the moment it is granted.
            loan.abandon()
            raise
        return loan

    def close(self) -> None:
        """Write what waits, checkpoint, close. Later writes are refused."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
        self._thread.join()
        self._checkpoint()
        self._connection.close()
        if self._lent_lazily is not None:
            self._lent_lazily.raw.close()

    # How it is done

    def _put(self, wanted: _Wanted | _LoanWanted) -> None:
        with self._turn:
            # Under the lock, so that nothing is put after the last look at what waits.
            if self._closed:
                raise _closed()
            if isinstance(wanted, _LoanWanted):
                self._loans.append(wanted)
            else:
                self._writes.append(wanted)
                self._rows_waiting += len(wanted.rows)
                self._bytes_waiting += wanted.payload_bytes
            self._turn.notify_all()

    def _is_full(self) -> bool:
        return not self._closed and (
            self._rows_waiting > bounds.WRITER_BACKLOG_ROWS_MAX
            or self._bytes_waiting > bounds.WRITER_BACKLOG_BYTES_MAX
        )

    def _wait_for_room(self) -> None:
        with self._turn:
            self._turn.wait_for(lambda: not self._is_full(), timeout=1.0)

    def _serve(self) -> None:
        try:
            while self._wait_for_wishes():
                self._serve_turn()
        finally:
            # Whatever ended this thread: nobody must wait for it.
            self._refuse_all()

    def _wait_for_wishes(self) -> bool:
        """Wait until something is wanted; false when closed and nothing is."""
        with self._turn:
            self._turn.wait_for(lambda: self._writes or self._loans or self._closed)
            return bool(self._writes or self._loans)

    def _serve_turn(self) -> None:
        """All the writes that wait now, then one loan."""
        writes, loan = self._take()
        for batch in _flushes(writes):
            try:
                self._flush(batch)
            except BaseException as error:
                _log.exception("Writing to %s met an unexpected error.", self._files.path)
                for wanted in batch:
                    wanted.error = StoreUnavailable(f"{self._files.path} could not be written: {error!r}.")
            self._served(batch)
            self._tell(batch)
            self._checkpoint_now_and_then()
        if loan is not None:
            self._lend(loan)
            self._checkpoint_now_and_then()

    def _take(self) -> tuple[list[_Wanted], _LoanWanted | None]:
        with self._turn:
            writes = list(self._writes)
            self._writes.clear()
            return writes, self._loans.popleft() if self._loans else None

    def _served(self, batch: list[_Wanted]) -> None:
        with self._turn:
            self._rows_waiting -= sum(len(wanted.rows) for wanted in batch)
            self._bytes_waiting -= sum(wanted.payload_bytes for wanted in batch)
            self._turn.notify_all()

    def _refuse_all(self) -> None:
        """Close, and refuse what waits."""
        with self._turn:
            self._closed = True
            writes, loans = list(self._writes), list(self._loans)
            self._writes.clear()
            self._loans.clear()
            self._turn.notify_all()
        for wanted in writes:
            wanted.error = _closed()
        self._tell(writes)
        for loan in loans:
            _soon(loan.loop, _refuse, loan, _closed())

    def _flush(self, batch: list[_Wanted]) -> None:
        """Write a batch in one transaction, or, where its content fails, each half in its own."""
        try:
            with self._files.gate.entered():
                self._commit(batch)
        except _ContentError as failure:
            if len(batch) == 1:
                batch[0].error = failure.cause
                return
            middle = len(batch) // 2
            self._flush(batch[:middle])
            self._flush(batch[middle:])
            return
        except Exception as error:
            for wanted in batch:
                wanted.error = self._translated(error)
            return
        self._announce(reduce(or_, (wanted.news for wanted in batch)))

    # What comes after a commit must not make it look as if it had failed, nor end the writer's thread.

    def _checkpoint_now_and_then(self) -> None:
        if self._files.committed():
            self._checkpoint()

    def _checkpoint(self) -> None:
        try:
            with self._files.gate.entered():
                try:
                    self._files.checkpoint(self._connection)
                except sqlite3.Error as error:
                    if is_of_the_disk(error):
                        self._doubt_log()
                    raise
        except (sqlite3.Error, OSError) as error:
            # The log keeps what the database could not take; the next checkpoint carries on.
            _log.warning("The log of %s cannot be checkpointed now: %s", self._files.path, error)

    def _announce(self, news: News) -> None:
        try:
            self._after_commit(news)
        except Exception as error:
            # Others find the commit by looking.
            _log.warning("Other processes cannot be told of commits on %s: %s", self._files.path, error)

    def _commit(self, batch: list[_Wanted]) -> None:
        kinds: dict[Write[Any, Any], list[_Wanted]] = {}
        for wanted in batch:
            kinds.setdefault(wanted.write, []).append(wanted)
        if self._broken:
            self._connection = self._files.connect()
            self._broken, self._synchronous = False, True
        if self._log_in_doubt:
            self._start_log_over()
        self._synchronize(any(wanted.survives_power_loss for wanted in batch))
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            # In the order in which they were put first, but for those that are to find all others.
            for write, group in sorted(kinds.items(), key=lambda kind: kind[1][0].last):
                self._write_group(write, group)
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if is_of_the_disk(error):
                self._doubt_log()
            raise

    def _doubt_log(self) -> None:
        """Something of the disk failed. Start the log over at once if that can be, else before the next commit.

        The caller holds the gate, so that no other process writes behind the gap.
        """
        self._log_in_doubt = True
        if not self._broken:
            with suppress(StoreUnavailable, sqlite3.Error):
                self._start_log_over()

    def _start_log_over(self) -> None:
        """Copy the log into the database after a sync of it that failed, and begin it anew.

        The system may have taken for written what that sync was to write (https://wiki.postgresql.org/wiki/Fsync_Errors),
        earlier commits that had waited for none among it; what came behind such a gap would be lost with it.
        """
        self._files.start_log_over(self._connection)
        self._log_in_doubt = False

    def _synchronize(self, synchronous: bool) -> None:
        """Have commits wait until the disk has them, or not; a later one that waits makes earlier ones safe too."""
        if synchronous is not self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if synchronous else 'NORMAL'}")
            self._synchronous = synchronous

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            # Closing it rolls back too, and lets go of the file for others.
            _log.warning("%s is opened anew, since a rollback failed: %s", self._files.path, error)
            self._broken = True
            self._connection.close()

    def _write_group(self, write: Write[Any, Any], group: list[_Wanted]) -> None:
        rows = group[0].rows if len(group) == 1 else [row for wanted in group for row in wanted.rows]
        try:
            results = write(self._connection, rows)
        except Exception as error:
            cause = self._translated(error)
            if isinstance(cause, StoreFull | StoreUnavailable):
                raise cause from error
            raise _ContentError(cause) from error
        start = 0
        for wanted in group:
            wanted.result = results[start : start + len(wanted.rows)]
            start += len(wanted.rows)

    def _translated(self, error: BaseException) -> BaseException:
        if isinstance(error, sqlite3.Error | MemoryError):
            return translate(error, self._files.path)
        if isinstance(error, OSError):
            return StoreUnavailable(f"{self._files.path} cannot be locked or written: {error}.")
        return error

    def _tell(self, batch: list[_Wanted]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Wanted]] = {}
        for wanted in batch:
            if isinstance(wanted.waiter, _Waiter):
                by_loop.setdefault(wanted.waiter.loop, []).append(wanted)
            else:
                wanted.waiter.set()
        for loop, group in by_loop.items():
            _soon(loop, _resolve_all, group)

    # Loans

    def _lend(self, wanted: _LoanWanted) -> None:
        """Stand still while user code holds the write lock, for a bounded time."""
        try:
            with self._files.gate.entered():
                wanted.loan.open()
                _soon(wanted.loop, _grant, wanted)
                wanted.loan.wait_until_returned()
                if wanted.loan.met_failing_disk:
                    self._doubt_log()
        except BaseException as error:
            # Of no effect for one that was granted; it has ended then.
            _soon(wanted.loop, _refuse, wanted, self._translated(error))
            wanted.loan.abandon()
        self._announce(News.ALL & ~News.LISTENERS)

    def _lent_connection(self) -> LentConnection:
        """The connection of lent transactions, opened by the first."""
        if self._lent_lazily is None or self._lent_lazily.broken:
            self._lent_lazily = LentConnection(self._files.connect(), self._files.path)
        return self._lent_lazily


def _flushes(writes: Sequence[_Wanted]) -> Iterator[list[_Wanted]]:
    """Writes as they are committed together: so many at a time that others who want to write get their turn."""
    batch: list[_Wanted] = []
    rows = payload_bytes = 0
    for wanted in writes:
        batch.append(wanted)
        rows += len(wanted.rows)
        payload_bytes += wanted.payload_bytes
        if rows >= bounds.FLUSH_ROWS_MAX or payload_bytes >= bounds.CLAIM_BYTES_MAX:
            yield batch
            batch, rows, payload_bytes = [], 0, 0
    if batch:
        yield batch


def _closed() -> StoreUnavailable:
    return StoreUnavailable("The store is closed.")


class _ContentError(Exception):
    """A write refused its rows, as opposed to a store that cannot write at all."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        # That loop has been closed meanwhile: nobody is left to tell, and what was written stands.
        for arg in args:
            if isinstance(arg, _LoanWanted):
                arg.loan.abandon()


def _resolve_all(group: list[_Wanted]) -> None:
    for wanted in group:
        assert isinstance(wanted.waiter, _Waiter)
        future = wanted.waiter.future
        if future.done():
            continue
        if wanted.error is not None:
            future.set_exception(wanted.error)
            future.exception()  # its caller may have been cancelled; that is no warning's business
        else:
            future.set_result(wanted.result)


def _grant(wanted: _LoanWanted) -> None:
    if not wanted.future.done():
        wanted.future.set_result(None)


def _refuse(wanted: _LoanWanted, error: BaseException) -> None:
    if not wanted.future.done():
        wanted.future.set_exception(error)
        wanted.future.exception()
