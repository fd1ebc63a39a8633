"""What one app has running in one process: the open store, its workers, and those who wait.

Opened lazily by the first thing that needs it, from whatever thread or event loop that is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lineshaft.core.host import Host
from lineshaft.engine.registry import Registry
from lineshaft.engine.transactions import AsyncTransaction, Transaction
from lineshaft.engine.wait import Waiters
from lineshaft.store.port import Store
from lineshaft.store.values import Accepted, NewRun, News, Outcome

if TYPE_CHECKING:
    from lineshaft.engine.worker import Worker


class Runtime:
    """Shared by an app's tasks, run handles and workers."""

    def __init__(
        self,
        registry: Registry,
        open_store: Callable[[], Store],
        host: Host | None = None,
    ) -> None:
        self.registry = registry
        self.host = host or Host()
        self.clock = self.host.clock
        self.chance = self.host.chance
        self._open_store = open_store
        self._store: Store | None = None
        self._lock = threading.Lock()
        self._waiters: dict[asyncio.AbstractEventLoop, Waiters] = {}
        self.workers: list[Worker] = []

    @property
    def store(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = self._open_store()
            return self._store

    @property
    def is_open(self) -> bool:
        return self._store is not None

    # Submitting

    async def insert(self, runs: Sequence[NewRun], tx: Any = None) -> Sequence[Accepted]:
        """Insert runs, in our own group commit or in the caller's transaction."""
        if tx is None:
            # Workers hear of it before it is committed: an idle one then claims it in the same commit.
            return await self.store.submit(runs, lambda: self.announce(min(run.due_us for run in runs)))
        if not is_async(tx):
            return self.insert_now(runs, tx)
        lent = tx.lent if isinstance(tx, AsyncTransaction) else None
        accepted = await self.store.submit_with_async(runs, tx if lent is None else lent)
        self._announce_after_commit(tx)
        return accepted

    def insert_now(self, runs: Sequence[NewRun], tx: Any) -> Sequence[Accepted]:
        """The same in the caller's thread."""
        lent = tx.lent if isinstance(tx, Transaction) else None
        accepted = self.store.submit_with(runs, tx if lent is None else lent)
        self._announce_after_commit(tx)
        return accepted

    def announce(self, due_us: int | None = None) -> None:
        """Tell the workers of this process that there may be work."""
        for worker in self.workers:
            worker.submitted(due_us)

    def _announce_after_commit(self, tx: Any) -> None:
        """SQLAlchemy tells us of its commits; those of a raw connection are found by looking."""
        if isinstance(tx, Transaction | AsyncTransaction):
            # Who lent it announces it.
            tx.submitted = True
            return
        target = getattr(tx, "sync_session", None) or getattr(tx, "sync_connection", None) or tx
        if not any(kind.__module__.startswith("sqlalchemy") for kind in type(target).__mro__):
            return
        from sqlalchemy import event
        from sqlalchemy.orm import Session

        name = "after_commit" if isinstance(target, Session) else "commit"
        event.listen(target, name, lambda _: self.announce(), once=True)

    # Waiting

    def waiters(self) -> Waiters:
        """Those of the running event loop."""
        loop, store = asyncio.get_running_loop(), self.store
        with self._lock:
            found = self._waiters.get(loop)
            if found is None:
                for old in [other for other in self._waiters if other.is_closed()]:
                    self._waiters.pop(old).forget()
                found = self._waiters[loop] = Waiters(store, store)
            return found

    def ended(self, outcomes: Sequence[Outcome], all_of_them: bool = True) -> None:
        """Runs ended here, durably; where a fence was lost, the store knows of more."""
        for waiters in list(self._waiters.values()):
            waiters.ended(outcomes)
        if not all_of_them:
            self.recheck()

    def cancel_wanted(self) -> None:
        for worker in self.workers:
            worker.wake(News.CANCEL)

    def recheck(self) -> None:
        """Runs ended in this process without a worker: let those who wait look."""
        for waiters in list(self._waiters.values()):
            waiters.look()

    async def close(self) -> None:
        """Stop waiting and close the store. Workers must have been stopped."""
        with self._lock:
            waiters, self._waiters = self._waiters, {}
            store, self._store = self._store, None
        for loop, waiting in waiters.items():
            await _on(loop, waiting)
        if store is not None:
            await store.close()


async def _on(loop: asyncio.AbstractEventLoop, waiters: Waiters) -> None:
    """Close waiters on the event loop that they belong to."""
    if loop is asyncio.get_running_loop():
        await waiters.close()
    elif loop.is_running():
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(waiters.close(), loop))
    else:
        waiters.forget()


def is_async(tx: Any) -> bool:
    """Whether submitting with this `tx` has to be awaited."""
    return isinstance(tx, AsyncTransaction) or any(
        kind.__module__.startswith("sqlalchemy.ext.asyncio") for kind in type(tx).__mro__
    )
