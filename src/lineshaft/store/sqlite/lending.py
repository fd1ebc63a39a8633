"""What surrounds a loan: the threads of its bodies, and the mark by which code knows that it holds one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any, TypeVar

from lineshaft.core import bounds
from lineshaft.core.errors import StoreUnavailable, TransactionRefused
from lineshaft.core.threads import Threads
from lineshaft.store.sqlite.loan import Loan

T = TypeVar("T")

_held: ContextVar[tuple[Loan, ...]] = ContextVar("lineshaft_loans", default=())


@contextmanager
def marked(loan: Loan) -> Iterator[None]:
    """Mark the code inside, and the tasks and threads that it starts, as holding a loan."""
    before = _held.get()
    _held.set((*(outer for outer in before if not outer.is_over), loan))
    try:
        yield
    finally:
        # Not by the token: a block that is collected, not left, ends in another context.
        _held.set(before)


def refuse_inside(path: Path) -> None:
    """Refuse what would wait for the very transaction that it is called in."""
    if any(not loan.is_over and loan.path == path for loan in _held.get()):
        raise TransactionRefused(
            "This was called inside a transaction that holds the store, and would wait for its end.",
            hint="Submit with tx=, so that the run commits with the transaction; do anything else after it.",
        )


class LendingThreads:
    """Threads for bodies of transactions, apart from all others: whoever holds the writer must not wait for one.

    One transaction is lent at a time; the others are for bodies that overstayed and will not return.
    """

    def __init__(self) -> None:
        self._threads = Threads("lineshaft-lending")
        self._lock = threading.Lock()
        self._busy = 0

    def require_room(self) -> None:
        """Raise where no further body could be started."""
        if self._busy >= bounds.LENDING_THREADS_MAX:
            raise StoreUnavailable(
                f"{self._busy} bodies of transactions that overstayed hold all threads.",
                hint="Look for what they wait for without an end; a restart of this process frees them.",
            )

    def submit(self, use: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Call it in a thread and in the context of who calls, at once."""
        self.require_room()
        context = copy_context()

        def occupy() -> T:
            try:
                return context.run(use, *args)
            finally:
                self._count(-1)

        self._count(+1)
        try:
            return asyncio.get_running_loop().run_in_executor(self._threads, occupy)
        except BaseException:
            self._count(-1)
            raise

    def _count(self, change: int) -> None:
        with self._lock:
            self._busy += change

    def shutdown(self) -> None:
        self._threads.shutdown()
