"""Lending the writer to user code, for a bounded time.

User code gets a connection of its own, on which nothing but its transaction happens; the writer stands still
meanwhile. It may read and write rows as it likes, but an authorizer refuses it control over the transaction,
since the outcome of its run has to commit together with what it wrote.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lineshaft.core.errors import StoreError, TransactionRefused, TransactionTooLong
from lineshaft.core.host import Event
from lineshaft.store.sqlite.connection import OwnConnection, is_of_the_disk, translate

_log = logging.getLogger("lineshaft")

T = TypeVar("T")

# Python caches prepared statements by their text, and the authorizer is asked when one is prepared: with
# texts of our own, a user's COMMIT is never served from our cache.
_BEGIN = "BEGIN IMMEDIATE /* lineshaft */"
_COMMIT = "COMMIT /* lineshaft */"
_ROLLBACK = "ROLLBACK /* lineshaft */"

PART = "lineshaft_part"
"""The savepoint that holds what one run writes."""

_INTERRUPT_EVERY_S = 0.01

_SPOILING = ("SQLITE_FULL", "SQLITE_IOERR")
"""Results after which SQLite may or may not have rolled everything back, by no fault of the borrower."""


class LentConnection:
    """The connection on which lent transactions happen, one at a time."""

    def __init__(self, connection: OwnConnection, path: Path) -> None:
        self.raw = connection
        self.path = path
        self.broken = False
        """A rollback failed, so it was closed, and another has to be opened."""
        self._ours = False
        connection.set_authorizer(self._authorize)

    def control(self, statement: str) -> None:
        """Execute transaction control of our own."""
        self._ours = True
        try:
            self.raw.execute(statement)
        finally:
            self._ours = False

    def roll_back(self) -> None:
        """End what is open; does not raise, since whoever lends has to go on."""
        try:
            if not self.broken and self.raw.in_transaction:
                self.control(_ROLLBACK)
        except sqlite3.Error as error:
            # Closing it rolls back too, and lets go of the file for others.
            _log.warning("%s is opened anew, since a rollback failed: %s", self.path, error)
            self.broken = True
            self.raw.close()

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if self._ours:
            return sqlite3.SQLITE_OK
        if action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            return sqlite3.SQLITE_DENY
        # Savepoints are for everybody, but whoever ended ours would keep what is to be rolled back with it.
        if action == sqlite3.SQLITE_SAVEPOINT and (second or "").lower() == PART:
            return sqlite3.SQLITE_DENY
        # Reading the schema through a pragma is what SQLAlchemy's inspection needs.
        if action == sqlite3.SQLITE_PRAGMA and first not in _HARMLESS_PRAGMAS:
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK


_HARMLESS_PRAGMAS = frozenset(
    {
        "database_list",
        "table_info",
        "table_xinfo",
        "table_list",
        "index_list",
        "index_info",
        "index_xinfo",
        "foreign_key_list",
    }
)


class Loan:
    """One transaction on the writer, for one borrower.

    Every use goes through `run`, so that a borrower that overstays is cut off between two statements (or in
    one, by an interrupt) and can write nothing more.
    """

    def __init__(self, lent: Callable[[], LentConnection], hold_s: float, returned: Event) -> None:
        self._lent_lazily = lent
        self._lent: LentConnection | None = None
        self.hold_s = hold_s
        self._returned = returned
        self._lock = threading.RLock()
        self._over = False
        self._overdue = False
        self._revoked = False
        self._lost: StoreError | None = None
        """Why everything was rolled back, if an error did that."""
        self.met_failing_disk = False
        """Whether that was an error of the disk, such as a sync that failed."""

    @property
    def path(self) -> Path:
        """The store's file, for errors to name."""
        assert self._lent is not None
        return self._lent.path

    # What the writer does

    def open(self) -> None:
        """Begin; called by the writer when it stands still."""
        with self._lock:
            if self._over:
                return
            self._lent = self._lent_lazily()
            self._lent.control(_BEGIN)

    def wait_until_returned(self) -> None:
        """Stand still until the borrower is done, or its time is over."""
        if not self._returned.wait(self.hold_s):
            self._revoke()

    def _revoke(self) -> None:
        self._overdue = True
        # An interrupt that comes between two statements is forgotten, so it is repeated until one lets go.
        while not self._lock.acquire(timeout=_INTERRUPT_EVERY_S):
            if self._lent is not None:
                self._lent.raw.interrupt()
        try:
            self._cut_off()
        finally:
            self._lock.release()

    def _cut_off(self) -> None:
        """End it if its time is over; the lock is held."""
        if self._overdue and not self._over:
            self._revoked = True
            self._end()

    # What the borrower does

    def run(self, use: Callable[[sqlite3.Connection], T]) -> T:
        """Use the connection, from any thread."""
        with self._lock:
            self._cut_off()
            if self._over or self._lent is None:
                raise self._too_late()
            try:
                return use(self._lent.raw)
            except (sqlite3.Error, MemoryError) as error:
                name = getattr(error, "sqlite_errorname", "")
                if name == "SQLITE_INTERRUPT":
                    self._cut_off()
                    raise self._too_late() from error
                if name == "SQLITE_AUTH":
                    raise translate(error, self._lent.path) from error
                self.met_failing_disk = self.met_failing_disk or is_of_the_disk(error)
                if name.startswith(_SPOILING) or isinstance(error, MemoryError):
                    self._lose(translate(error, self._lent.path))
                raise
            finally:
                # Some errors (ON CONFLICT ROLLBACK, an interrupted write) roll back everything; whatever
                # came after one would commit by itself.
                if not self._over and not self._lent.raw.in_transaction:
                    self._lose(_rolled_back())

    def _lose(self, error: StoreError) -> None:
        """End it for an error, which every later use and the commit meet again."""
        if not self._over:
            self._lost = error
            self._end()

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute one statement of the engine's own and return its rows."""
        return self.run(lambda connection: connection.execute(statement, parameters).fetchall())

    def control(self, statement: str) -> None:
        """Execute transaction control of the engine's own."""

        def use(_: sqlite3.Connection) -> None:
            assert self._lent is not None
            self._lent.control(statement)

        self.run(use)

    def commit(self) -> None:
        """Make it durable and give the writer back; rolls back and raises if it cannot."""
        with self._lock:
            if self._over or self._lent is None:
                raise self._too_late()
            try:
                self._lent.control(_COMMIT)
            except (sqlite3.Error, MemoryError) as error:
                self.met_failing_disk = self.met_failing_disk or is_of_the_disk(error)
                self._lose(translate(error, self._lent.path))
                raise self._too_late() from error
            self._end()

    def finish(self) -> None:
        """Give the writer back; what was not committed is rolled back. May be called twice."""
        with self._lock:
            if not self._over:
                self._end()

    abandon = finish

    @property
    def is_over(self) -> bool:
        return self._over

    def _end(self) -> None:
        self._over = True
        try:
            if self._lent is not None:
                self._lent.roll_back()
        finally:
            self._returned.set()

    def too_long(self) -> TransactionTooLong:
        """The error of a borrower that overstayed."""
        return TransactionTooLong(
            f"A transaction held the writer for more than {self.hold_s:g} seconds and was rolled back.",
            hint="Do slow work (remote calls, long computation) before it, in a step or task of its own.",
        )

    def _too_late(self) -> StoreError:
        if self._lost is not None:
            return type(self._lost)(self._lost.message, hint=self._lost.hint)
        if self._revoked:
            return self.too_long()
        return TransactionTooLong("This transaction has ended.", hint="Use it only while its task runs.")


def _rolled_back() -> TransactionRefused:
    return TransactionRefused(
        "This transaction was rolled back by an error in it.",
        hint="Let such an error propagate; leave ON CONFLICT ROLLBACK out.",
    )
