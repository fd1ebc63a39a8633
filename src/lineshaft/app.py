"""The App: where tasks and queues are declared, and where the parts of the engine are put together."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from lineshaft.core import bounds
from lineshaft.core.duration import Duration, seconds
from lineshaft.core.policies import Limit, Rate
from lineshaft.engine.declare import TaskOptions, check_name, declare
from lineshaft.engine.registry import Registry
from lineshaft.engine.runtime import Runtime
from lineshaft.engine.task import Task
from lineshaft.store.address import DEFAULT, open_store

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy import Engine

    from lineshaft.core.host import Host
    from lineshaft.engine.places import Concurrency
    from lineshaft.engine.run import Run
    from lineshaft.engine.transactions import AsyncTransaction
    from lineshaft.engine.worker import PoolOfProcesses, Worker
    from lineshaft.store.port import Store

P = ParamSpec("P")
R = TypeVar("R")


class App:
    """Everything is declared on an app, and everything it does is kept in its store.

    `store` is an address such as `sqlite:///shop.db`; left out, `LINESHAFT_STORE` says it, and without that it is
    `sqlite:///lineshaft.db`. It is opened by the first thing that needs it. Finished runs are kept for `history`.
    """

    def __init__(
        self,
        name: str,
        *,
        store: str | Store | None = None,
        history: Duration = bounds.HISTORY_RETENTION_S,
        host: Host | None = None,
    ) -> None:
        check_name(name, "An app's name")
        self.name = name
        self.registry = Registry()
        self._store = store
        self._history_s = seconds(history, "App history")
        self.runtime = Runtime(self.registry, self._open_store, host)

    def __repr__(self) -> str:
        return f"<App {self.name}>"

    @property
    def store_address(self) -> str:
        """Where this app keeps its runs."""
        if self._store is None:
            return os.environ.get("LINESHAFT_STORE") or DEFAULT
        return self._store if isinstance(self._store, str) else "the store that it was given"

    def _open_store(self) -> Store:
        if self._store is None or isinstance(self._store, str):
            return open_store(self.store_address)
        return self._store

    # Declaring

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self, function: None = None, /, **options: Unpack[TaskOptions]
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, function: Any = None, /, **options: Unpack[TaskOptions]) -> Any:
        """Make a function a task: work that may run elsewhere and later, retried as a whole.

        A run whose worker died is executed again; one whose function raised only as `retry` says. `timeout`
        bounds one attempt (an hour where left out). `run_in` is "async" for async functions and "thread" for
        others, unless "process" is asked for. With `at_most_once` an attempt is recorded before it starts and
        never repeated. `batch` hands over up to so many queued runs at once, after at most `batch_wait`;
        `split` looks for the culprit of a batch that raised, by halves (the default where the task takes
        a transaction). Raises `DeclarationError` or `InvalidSetting` for what cannot work.
        """

        def decorate(function: Callable[P, R]) -> Task[P, R]:
            declaration = declare(function, options)
            self.registry.add(declaration)
            return Task(function, declaration, lambda: self.runtime)

        return decorate if function is None else decorate(function)

    def queue(self, name: str, *, limits: Sequence[Limit | Rate] = ()) -> None:
        """Give a queue limits, shared by all tasks in it. Queues without limits need no declaration."""
        caller = sys._getframe(1)  # noqa: SLF001 - for `explain`, as a task's function knows its place by itself
        self.registry.add_queue(name, limits, f"{caller.f_code.co_filename}:{caller.f_lineno}")

    # Running

    @asynccontextmanager
    async def worker(
        self,
        *,
        queues: Sequence[str] = (),
        concurrency: Concurrency | None = None,
        lease: Duration = bounds.LEASE_S,
        grace: Duration = 10.0,
    ) -> AsyncIterator[Worker]:
        """Execute runs in this process while the block lasts; drained when it ends.

        Attempts that outlast `grace` then go back to the queue.
        """
        from lineshaft.engine.worker import Worker

        runtime = self.runtime
        worker = Worker(
            store=runtime.store,
            host=runtime.host,
            registry=self.registry,
            make_pool=_make_pool,
            told=runtime.ended,
            queues=queues,
            concurrency=concurrency,
            lease_s=lease_seconds(lease),
            history_retention_s=self._history_s,
            grace_s=seconds(grace, "grace"),
        )
        await worker.start()
        runtime.workers.append(worker)
        try:
            yield worker
        finally:
            runtime.workers.remove(worker)
            await worker.stop()

    async def __aenter__(self) -> App:
        """Open the store now, so that a wrong address shows at once."""
        _ = self.runtime.store
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the store. What was accepted stays accepted."""
        await self.runtime.close()

    # Transactions

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncTransaction]:
        """A transaction on the store's database: the user's rows and submissions with `tx=` commit as one.

        Commits when the block ends, rolls back when it raises. On SQLite it holds the one writer: keep it
        short, and wait for nothing else in it.
        """
        from lineshaft.engine.transactions import AsyncTransaction

        async with self.runtime.store.transaction() as lent:
            tx = AsyncTransaction(lent)
            try:
                yield tx
                await tx.finish()
            finally:
                await tx.close()
            await tx.commit()
        self.runtime.announce()

    def connect(self) -> sqlite3.Connection:
        """A `sqlite3` connection to the store, safe beside ours and to submit through with `tx=`."""
        connection: sqlite3.Connection = self.runtime.store.connect()
        return connection

    def engine(self) -> Engine:
        """A SQLAlchemy engine on the store, for those who manage transactions themselves."""
        engine: Engine = self.runtime.store.engine()
        return engine

    # Looking

    async def queue_stats(self, name: str) -> QueueStats:
        """How much waits in a queue, how long its oldest ready run has waited, how many failed."""
        now_us = self.runtime.clock.now_us()
        for queue in await self.runtime.store.queues():
            if queue.queue == name:
                oldest_us = queue.oldest_ready_us
                age_s = 0.0 if oldest_us is None else max(0.0, (now_us - oldest_us) / 1_000_000)
                return QueueStats(queue.unfinished, queue.failed, age_s)
        return QueueStats(0, 0, 0.0)

    def run(self, run_id: str, task: Task[Any, R]) -> Run[R]:
        """The handle of a run by its id."""
        return task.run(run_id)


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A queue in three numbers."""

    unfinished: int
    failed: int
    oldest_age_s: float


def lease_seconds(lease: Duration) -> float:
    """A lease that can be kept: neither shorter than a heartbeat may be late, nor hours."""
    from lineshaft.core.errors import InvalidSetting

    lease_s = seconds(lease, "lease")
    if not 1.0 <= lease_s <= 3_600:
        raise InvalidSetting(f"lease is {lease!r}; it must lie between 1 second and 1 hour.")
    return lease_s


def _make_pool(concurrency: Concurrency) -> PoolOfProcesses:
    from lineshaft.data.compute.pool import ProcessPool

    return ProcessPool(
        children=concurrency.processes,
        runs_per_child_max=concurrency.runs_per_process_max,
        memory_bytes_max=concurrency.process_bytes_max,
    )
