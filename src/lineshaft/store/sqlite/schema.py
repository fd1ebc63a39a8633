"""Whether a file is a store of ours and of this version, and making or migrating it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lineshaft.core.errors import NotAStore, StoreOutdated, StoreTooNew
from lineshaft.store.migrations import REVISIONS, VERSION_TABLE
from lineshaft.store.sqlite.connection import translated
from lineshaft.store.sqlite.files import StoreFiles


def revision(connection: sqlite3.Connection) -> str | None:
    """The revision that the file is at; None where it has no tables of ours."""
    names = {
        row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    }
    if VERSION_TABLE not in names:
        return None
    row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
    return None if row is None else str(row[0])


def refuse_foreign(path: Path) -> None:
    """Raise if a file is somebody else's database, before anything about it is changed."""
    if not path.is_file():
        return
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            _require_ours(connection, path.absolute())
        finally:
            connection.close()
    except sqlite3.Error:
        # Not readable like this; opening it for use says what is wrong.
        return


def require_current(files: StoreFiles) -> None:
    """Create the tables in a new file; raise unless an existing one is ours and at this version."""
    connection = files.connect()
    try:
        with translated(files.path):
            found = revision(connection)
            if found == REVISIONS[-1]:
                _forget_statistics(files, connection)
                return
            if found is None:
                _require_ours(connection, files.path)
    finally:
        connection.close()
    _refuse_unknown(found, files.path)
    if found is not None:
        raise StoreOutdated(
            f"The store {files.path} is at revision {found}; this version needs {REVISIONS[-1]}.",
            hint="Stop its workers, make a backup, and run `lineshaft migrate`.",
        )
    migrate(files)


def _forget_statistics(files: StoreFiles, connection: sqlite3.Connection) -> None:
    """Delete what ANALYZE wrote about our tables, before the connections that will plan by it are opened.

    The statements say themselves which index they go by, and the queue may have been empty when somebody, for the
    tables beside ours, had the file analysed: once it is long, a planner that believes so reads all of it, again and
    again. Without statistics it takes every table for large.
    """
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone()
    if tables[0] and connection.execute(_HAS_STATISTICS).fetchone():
        with files.gate.entered():
            connection.execute(_DELETE_STATISTICS)


_HAS_STATISTICS = "SELECT 1 FROM sqlite_stat1 WHERE tbl LIKE 'lineshaft@_%' ESCAPE '@'"
_DELETE_STATISTICS = "DELETE FROM sqlite_stat1 WHERE tbl LIKE 'lineshaft@_%' ESCAPE '@'"


def migrate(files: StoreFiles) -> tuple[str | None, str]:
    """Bring the file to the newest revision; the one it was at, and the one it is at now."""
    # Imported here, since Alembic takes longer to import than everything else together.
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    connection = files.connect()
    engine = create_engine("sqlite://", creator=files.connect, poolclass=NullPool)

    # Real transactions, DDL included: a migration that is killed leaves the file as it was.
    event.listen(engine, "begin", lambda opened: opened.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with translated(files.path), files.gate.entered():
            before = revision(connection)
            _refuse_unknown(before, files.path)
            config = Config()
            config.set_main_option("script_location", "lineshaft.store:migrations")
            with engine.connect() as opened:
                config.attributes["connection"] = opened
                command.upgrade(config, "head")
            return before, REVISIONS[-1]
    finally:
        engine.dispose()
        connection.close()


def _require_ours(connection: sqlite3.Connection, path: Path) -> None:
    # Alembic commits the version table before the others: a file that has it and no revision is being made by
    # another process, or was left by one that died of it, and `migrate` carries on.
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master").fetchall()}
    if names and VERSION_TABLE not in names:
        raise NotAStore(
            f"{path} is a SQLite database, but not a Lineshaft store.",
            hint="Correct the address; or add our tables beside yours with `lineshaft migrate`.",
        )


def _refuse_unknown(found: str | None, path: Path) -> None:
    if found is not None and found not in REVISIONS:
        raise StoreTooNew(
            f"The store {path} is at revision {found}, which this version of Lineshaft does not know.",
            hint="Upgrade Lineshaft to the version that wrote it.",
        )
