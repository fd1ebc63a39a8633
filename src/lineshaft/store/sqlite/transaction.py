"""A lent transaction as the engine and user code see it: parts, outcomes, sessions, one commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lineshaft.store.sqlite import settlement, submissions
from lineshaft.store.sqlite.connection import translate
from lineshaft.store.sqlite.lending import LendingThreads
from lineshaft.store.sqlite.loan import PART, Loan
from lineshaft.store.values import Accepted, NewRun, Outcome

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from lineshaft.store.sqlite.alchemy import Sessions

T = TypeVar("T")

# Texts of our own, for the reason that `loan` gives.
_BEGIN_PART = f"SAVEPOINT {PART} /* lineshaft */"
_END_PART = f"RELEASE {PART} /* lineshaft */"
_FORGET_PART = f"ROLLBACK TO {PART} /* lineshaft */"


class LentTransaction:
    """One transaction on the store, in which several runs may each have a part (a savepoint)."""

    def __init__(self, loan: Loan, sessions: Callable[[], Sessions], threads: LendingThreads) -> None:
        self._loan = loan
        self._threads = threads
        self._sessions = sessions

    def savepoint(self) -> None:
        self._loan.control(_BEGIN_PART)

    def release(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        """Settle, and end the part; where a fence was lost the part is rolled back whole."""
        kept = self._loan.run(lambda connection: settlement.settle(connection, outcomes))
        if all(kept):
            self._loan.control(_END_PART)
        else:
            self.rollback_savepoint()
        return kept

    def rollback_savepoint(self) -> None:
        self._loan.control(_FORGET_PART)
        self._loan.control(_END_PART)

    def submit(self, runs: Sequence[NewRun]) -> Sequence[Accepted]:
        """Insert runs as part of this transaction."""
        try:
            return self._loan.run(lambda connection: submissions.submit(connection, runs))
        except sqlite3.Error as error:
            raise translate(error, self._loan.path) from error

    async def off_loop(self, use: Callable[..., T], *args: Any) -> T:
        future = self._threads.submit(use, *args)
        # When the loan is over nothing can come of it any more, so nobody waits longer than that.
        patience_s = self._loan.hold_s + 1.0
        try:
            await asyncio.wait([future], timeout=patience_s)
        except asyncio.CancelledError:
            await asyncio.wait([future], timeout=patience_s)
            future.add_done_callback(_forget)
            raise
        if not future.done():
            future.add_done_callback(_forget)
            raise self._loan.too_long()
        return future.result()

    def commit(self) -> None:
        self._loan.commit()

    def session(self) -> Session:
        return self._sessions().session(self._loan)

    def async_session(self) -> AsyncSession:
        return self._sessions().async_session(self._loan)

    def finish(self, session: Session) -> None:
        self._sessions().settle(session)

    async def finish_async(self, session: AsyncSession) -> None:
        await session.run_sync(self._sessions().settle)


def _forget(future: asyncio.Future[Any]) -> None:
    """Look at how something ended for which nobody waits, so that asyncio does not complain."""
    if not future.cancelled():
        future.exception()
