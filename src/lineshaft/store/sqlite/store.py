"""The embedded store, put together from its parts: the whole port over one SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lineshaft.core import bounds
from lineshaft.core.clock import Clock, SystemClock
from lineshaft.core.errors import LineshaftError, StoreUnavailable, TransactionRefused
from lineshaft.core.states import FINAL, State
from lineshaft.store.migrations import REVISIONS
from lineshaft.store.sqlite import (
    backups,
    cancelling,
    claims,
    leases,
    pruning,
    reads,
    retrying,
    settlement,
    submissions,
)
from lineshaft.store.sqlite.connection import OwnConnection, require_safe_to_join, translated
from lineshaft.store.sqlite.files import StoreFiles
from lineshaft.store.sqlite.lending import LendingThreads, marked, refuse_inside
from lineshaft.store.sqlite.listening import Listening, forget
from lineshaft.store.sqlite.machine import Machine
from lineshaft.store.sqlite.schema import refuse_foreign, require_current
from lineshaft.store.sqlite.transaction import LentTransaction
from lineshaft.store.sqlite.writer import Writer
from lineshaft.store.values import (
    Accepted,
    AttemptView,
    ClaimReply,
    ClaimRequest,
    Held,
    NewRun,
    News,
    NewWorker,
    Outcome,
    Pace,
    Pruned,
    QueueView,
    Rescued,
    RunFilter,
    RunView,
    SlotHolder,
    StoreFacts,
    WorkerView,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from lineshaft.store.sqlite.alchemy import Sessions

T = TypeVar("T")


class SqliteStore:
    """One SQLite file. Usable from any number of threads and event loops of this process."""

    def __init__(self, path: Path, clock: Clock | None = None, machine: Machine | None = None) -> None:
        self._clock = clock or SystemClock()
        machine = machine or Machine()
        refuse_foreign(path)
        self._files = StoreFiles(path, machine)
        try:
            require_current(self._files)
        except BaseException:
            self._files.close()
            raise
        self.path = self._files.path
        self.address = f"sqlite:///{self.path}"
        self._registry = leases.Registry(self._clock, machine.alive(self.path))
        self._readers = ThreadPoolExecutor(2, "lineshaft-reader")
        self._lending = LendingThreads()
        self._reading = threading.local()
        self._read_connections: list[OwnConnection] = []
        self._sessions: Sessions | None = None
        self._engine: Engine | None = None
        self._closed = False
        self._listening = Listening(self._files, machine.pokes(), self._clock)
        self._writer = Writer(self._files, self._listening.committed, machine.threading)
        # Bound once: the writer gathers rows by the identity of their write.
        self._claim = partial(claims.claim_now, self._clock)
        self._beat = self._registry.beat
        self._rescue = self._registry.rescue

    # Submissions

    async def submit(
        self, runs: Sequence[NewRun], queued: Callable[[], None] | None = None
    ) -> Sequence[Accepted]:
        refuse_inside(self.path)
        size = sum(len(run.args) for run in runs)
        return await self._writer.write(submissions.submit, runs, News.WORK, size, queued=queued)

    def submit_with(self, runs: Sequence[NewRun], tx: Any) -> Sequence[Accepted]:
        if isinstance(tx, LentTransaction):
            return tx.submit(runs)
        if isinstance(tx, sqlite3.Connection):
            return self._join(runs, tx)
        if _is_sqlalchemy(tx):
            return self._sqlalchemy().on_connection(tx, partial(self._join, runs))
        raise _not_a_transaction(tx)

    async def submit_with_async(self, runs: Sequence[NewRun], tx: Any) -> Sequence[Accepted]:
        if isinstance(tx, LentTransaction):
            return await tx.off_loop(tx.submit, runs)
        if _is_sqlalchemy(tx):
            joined: Sequence[Accepted] = await tx.run_sync(
                self._sqlalchemy().on_connection, partial(self._join, runs)
            )
            return joined
        raise _not_a_transaction(tx)

    def _join(self, runs: Sequence[NewRun], connection: sqlite3.Connection) -> Sequence[Accepted]:
        """Insert through a connection of the caller's."""
        require_safe_to_join(connection, self.path)
        with translated(self.path):
            return submissions.submit(connection, runs)

    # Claims

    async def claim(self, request: ClaimRequest) -> ClaimReply:
        # After a loss of power no claim holds any more: those that are forgotten are as good as swept.
        return (await self._writer.write(self._claim, [request], survives_power_loss=False, last=True))[0]

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        opens = any(outcome.slots or outcome.state not in FINAL for outcome in outcomes)
        news = News.FINISHED | News.WORK if opens else News.FINISHED
        size = sum(len(outcome.result) for outcome in outcomes if outcome.result is not None)
        return await self._writer.write(settlement.settle, outcomes, news, size)

    async def mark_started(self, run_id: str, fence: int, worker: int) -> bool:
        row = (run_id, fence, worker, self._clock.now_us())
        return (await self._writer.write(settlement.mark_started, [row]))[0]

    async def report(self, progress: Sequence[tuple[str, bytes]]) -> None:
        await self._writer.write(settlement.report, progress, News.FINISHED, survives_power_loss=False)

    # Leases

    async def register(self, worker: NewWorker) -> int:
        return (await self._writer.write(self._registry.register, [worker], News.WORK))[0]

    def beat(self, worker: int, lease_us: int) -> bool:
        return self._writer.write_blocking(self._beat, [(worker, lease_us)], survives_power_loss=False)[0]

    async def unregister(self, worker: int) -> None:
        await self._writer.write(self._registry.unregister, [worker], News.WORK)
        # Not before that is durable: whose row is there and whose byte is free has crashed.
        self._registry.alive.drop(worker)

    async def rescue(self, now_us: int) -> Rescued:
        return (await self._writer.write(self._rescue, [now_us], News.WORK | News.FINISHED))[0]

    async def park(self, now_us: int) -> int:
        return (await self._writer.write(leases.park, [now_us], News.WORK))[0]

    async def held(self, worker: int) -> Sequence[Held]:
        return await self._read(reads.held, worker)

    async def cancel_requests(self, worker: int) -> Sequence[str]:
        return await self._read(reads.cancel_requests, worker)

    # Reads

    async def view(self, run_ids: Sequence[str]) -> Sequence[RunView | None]:
        return await self._read(reads.view, run_ids)

    async def finished(self, run_ids: Sequence[str]) -> Sequence[RunView]:
        return await self._read(reads.finished, run_ids)

    async def listing(self, wanted: RunFilter) -> Sequence[RunView]:
        return await self._read(reads.listing, wanted)

    async def attempts(self, run_id: str) -> Sequence[AttemptView]:
        return await self._read(reads.attempts, run_id)

    async def progress(self, run_id: str) -> bytes | None:
        return await self._read(reads.progress, run_id)

    async def ahead(self, run_id: str, at_most: int) -> int:
        return await self._read(reads.ahead, run_id, at_most)

    async def retried_by(self, run_id: str) -> str | None:
        return await self._read(reads.retried_by, run_id)

    async def queues(self) -> Sequence[QueueView]:
        return await self._read(reads.queues)

    async def workers(self) -> Sequence[WorkerView]:
        return await self._read(partial(reads.workers, self._registry))

    async def slots(self) -> Sequence[SlotHolder]:
        return await self._read(reads.slots)

    async def pace_open_us(self, pace: Pace) -> int:
        return await self._read(reads.pace_open_us, pace)

    async def counts(self) -> dict[State, int]:
        return await self._read(reads.counts)

    async def facts(self) -> StoreFacts:
        counts = await self.counts()
        details = await self._read(_settings)
        details |= self._files.facts()
        return StoreFacts(
            address=self.address,
            engine=f"SQLite {sqlite3.sqlite_version}",
            schema=REVISIONS[-1],
            bytes=self._files.bytes_in_all(),
            unfinished=sum(count for state, count in counts.items() if state not in FINAL),
            finished=sum(count for state, count in counts.items() if state in FINAL),
            details=details,
        )

    async def _read(self, read: Callable[..., T], *args: Any) -> T:
        if self._closed:
            raise StoreUnavailable("The store is closed.")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, partial(self._read_now, read, *args))

    def _read_now(self, read: Callable[..., T], *args: Any) -> T:
        connection: OwnConnection | None = getattr(self._reading, "connection", None)
        with translated(self.path):
            if connection is None:
                connection = self._files.connect()
                connection.execute("PRAGMA query_only = ON")
                self._reading.connection = connection
                self._read_connections.append(connection)
            return read(connection, *args)

    # Operations

    async def cancel(self, run_id: str, now_us: int) -> State:
        refuse_inside(self.path)
        return (await self._writer.write(cancelling.cancel, [(run_id, now_us)], News.CANCEL | News.FINISHED))[
            0
        ]

    async def retry(self, run: NewRun) -> None:
        refuse_inside(self.path)
        await self._writer.write(retrying.retry, [run], News.WORK)

    async def prune(self, finished_before_us: int, now_us: int) -> Pruned:
        gone = self._listening.take_gone()
        if gone:
            await self._writer.write(forget, gone)
        return (await self._writer.write(pruning.prune, [(finished_before_us, now_us)]))[0]

    async def backup(self, target: str, progress: Callable[[int, int], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(
            None, backups.backup, self._files, Path(target), progress
        )

    # Transactions

    @asynccontextmanager
    async def transaction(self, hold_s: float = bounds.WRITER_HOLD_S_MAX) -> AsyncIterator[LentTransaction]:
        refuse_inside(self.path)
        self._lending.require_room()
        loan = await self._writer.borrow(min(hold_s, bounds.WRITER_HOLD_S_MAX))
        try:
            with marked(loan):
                yield LentTransaction(loan, self._sqlalchemy, self._lending)
        finally:
            # Rolling back a revoked loan may wait for a statement to stop; it never waits for the writer.
            loan.finish()

    def connect(self) -> OwnConnection:
        """A connection of the caller's own, safe to use beside ours and to submit with."""
        return self._files.connect()

    def engine(self) -> Engine:
        """A SQLAlchemy engine whose connections are such: one for all who ask, closed with the store."""
        if self._engine is None:
            self._engine = self._sqlalchemy().engine(self.connect)
        return self._engine

    def _sqlalchemy(self) -> Sessions:
        if self._sessions is None:
            # SQLAlchemy takes a while to import, and most processes never write through it.
            from lineshaft.store.sqlite.alchemy import Sessions

            self._sessions = Sessions()
        return self._sessions

    # Wakes

    def on_news(self, listener: Callable[[News], None]) -> Callable[[], None]:
        return self._listening.subscribe(asyncio.get_running_loop(), listener, self._writer)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with suppress(LineshaftError):
            await self._listening.say_goodbye(self._writer)
        self._listening.stop_listening()
        await asyncio.get_running_loop().run_in_executor(None, self._close_now)

    def _close_now(self) -> None:
        self._writer.close()
        self._listening.close()
        self._lending.shutdown()
        if self._engine is not None:
            self._engine.dispose()
        if self._sessions is not None:
            self._sessions.close()
        self._readers.shutdown()
        for connection in self._read_connections:
            connection.close()
        self._files.close()


def _is_sqlalchemy(tx: Any) -> bool:
    return any(kind.__module__.startswith("sqlalchemy.") for kind in type(tx).__mro__)


def _not_a_transaction(tx: Any) -> TransactionRefused:
    return TransactionRefused(
        f"tx is a {type(tx).__qualname__}, which cannot carry a submission.",
        hint="Give a transaction of a task or of app.transaction(), a SQLAlchemy session or connection, or"
        " a sqlite3 connection.",
    )


def _settings(connection: sqlite3.Connection) -> dict[str, str]:
    names = ("journal_mode", "synchronous", "page_size", "page_count", "freelist_count")
    return {name: str(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in names}
