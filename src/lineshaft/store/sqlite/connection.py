"""Opening the file, and saying clearly why it cannot be opened or written.

The process uses one SQLite library, that of the standard library, since two copies on one file would break
each other's POSIX locks (https://www.sqlite.org/howtocorrupt.html, section 2.2).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lineshaft.core.clock import SystemClock
from lineshaft.core.errors import (
    NotAStore,
    StoreError,
    StoreFull,
    StoreUnavailable,
    TransactionRefused,
)

LIBRARY_OLDEST = (3, 38, 0)
"""The `->>` operator came with it."""
LIBRARY_WAL_RESET_MENDED = (3, 51, 3)
"""Before it, a checkpoint beside a writer that resets the log can corrupt the file."""
BUSY_TIMEOUT_S = 10.0


class OwnConnection(sqlite3.Connection):
    """A connection that Lineshaft opened: it never checkpoints by itself."""


def open_connection(path: Path, factory: type[OwnConnection] = OwnConnection) -> OwnConnection:
    """Open a connection for reading and writing; the file is created where it does not exist."""
    if sqlite3.sqlite_version_info < LIBRARY_OLDEST:
        raise StoreUnavailable(
            f"SQLite {sqlite3.sqlite_version} is too old.",
            hint=f"Use a Python with SQLite {'.'.join(map(str, LIBRARY_OLDEST))} or newer.",
        )
    if not path.parent.is_dir():
        raise StoreUnavailable(
            f"The store {path} cannot be opened: there is no directory {path.parent}.",
            hint="Create the directory, or correct the address.",
        )
    with translated(path):
        connection = sqlite3.connect(
            path,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=factory,
        )
        try:
            # Checkpoints are ours alone, under the write gate: that is what makes versions with the
            # WAL-reset fault safe, and newer ones no slower.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -65536")
            # Some distributions build SQLite to overwrite what is deleted; that stays, but not as writes of its own.
            connection.execute("PRAGMA secure_delete = FAST")
            connection.execute("PRAGMA temp_store = MEMORY")
        except BaseException:
            connection.close()
            raise
    return connection


def _write_ahead(connection: OwnConnection) -> None:
    """Have the file use a write-ahead log, from now on and for everybody.

    While several processes do this to a new file, SQLite answers that it is locked without waiting.
    """
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or clock.monotonic_s() >= deadline_s:
                raise
        else:
            return
        threading.Event().wait(0.01)


def is_of_the_disk(error: BaseException) -> bool:
    """Whether reading, writing or a sync failed, as opposed to what was asked for."""
    return (getattr(error, "sqlite_errorname", None) or "").startswith("SQLITE_IOERR")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error


_PASSING = ("SQLITE_PROTOCOL", "SQLITE_NOMEM", "SQLITE_LOCKED", "SQLITE_SCHEMA", "SQLITE_INTERRUPT")
"""Results of what is going on elsewhere: the same statement may succeed later."""


def translate(error: sqlite3.Error | MemoryError, path: Path) -> StoreError:
    """The clear error for one of SQLite's, by its result code (https://www.sqlite.org/rescode.html)."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if isinstance(error, MemoryError):
        name = "SQLITE_NOMEM"  # for which the sqlite3 module raises this
    text = f"{error} ({name})" if name else str(error)
    if name == "SQLITE_NOTADB":
        return NotAStore(f"{path} is not a SQLite database.", hint="Correct the address of the store.")
    if name.startswith("SQLITE_CORRUPT"):
        return StoreError(
            f"{path} is damaged: {text}.",
            hint="Stop its workers, move its files away together, and put a backup there: `lineshaft restore`.",
        )
    if name == "SQLITE_FULL":
        return StoreFull(
            f"There is no room left to write to {path}; nothing was written.",
            hint="Free space on that disk; work goes on by itself then.",
        )
    if name == "SQLITE_AUTH":
        return TransactionRefused(
            "A transaction of a task tried to control transactions, attach a file or change a setting.",
            hint="Leave BEGIN, COMMIT, ROLLBACK, PRAGMA and ATTACH out: the run's outcome commits with the body.",
        )
    if name.startswith("SQLITE_BUSY"):
        return StoreUnavailable(
            f"{path} stayed locked for {BUSY_TIMEOUT_S:g} seconds.",
            hint="Another program holds a write transaction on it open; end that one.",
        )
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        if _disk_is_full(path):
            return StoreFull(f"There is no room left to write to {path}; nothing was written.")
        return StoreUnavailable(
            f"{path} cannot be read or written: {text}.",
            hint="Check that the file and its directory are writable and the disk is sound.",
        )
    if name.startswith(_PASSING):
        return StoreUnavailable(f"{path} cannot be used at the moment: {text}.", hint="Try again.")
    return StoreError(f"SQLite refused: {text}.")


def _disk_is_full(path: Path) -> bool:
    """Some file systems answer a full disk with an input/output error."""
    try:
        facts = os.statvfs(path.parent)
    except OSError:
        return False
    return facts.f_bavail * facts.f_frsize < 1_048_576


def require_safe_to_join(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a caller's connection that leads elsewhere, or that could hurt the file."""
    row = connection.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()
    if not row or not row[0] or not os.path.samefile(row[0], path):
        raise TransactionRefused(
            f"The connection given as tx leads to {row[0] or 'memory' if row else 'nothing'}, not to {path}.",
            hint="Submit through a connection to the app's own store.",
        )
    if not connection.in_transaction:
        raise TransactionRefused(
            "The connection given as tx has no open transaction.",
            hint="Start one first (BEGIN IMMEDIATE), so that the submission commits with it.",
        )
    if not isinstance(connection, OwnConnection) and sqlite3.sqlite_version_info < LIBRARY_WAL_RESET_MENDED:
        raise TransactionRefused(
            f"SQLite {sqlite3.sqlite_version} can corrupt a file that connections checkpoint at will.",
            hint="Open the connection with app.connect(), or use a Python with SQLite 3.51.3 or newer.",
        )
