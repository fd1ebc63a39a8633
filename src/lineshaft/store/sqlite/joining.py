"""Submitting through a SQLAlchemy session or connection that the caller manages."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from lineshaft.core.errors import TransactionRefused
from lineshaft.store.sqlite.connection import require_safe_to_join
from lineshaft.store.sqlite.submissions import Rows, insert_runs
from lineshaft.store.values import Accepted, NewRun


def submit(path: Path, runs: Sequence[NewRun], tx: Any) -> Sequence[Accepted]:
    """Insert runs through a `Session` or `Connection`, in the caller's thread."""
    if isinstance(tx, Session):
        tx = tx.connection()
    if not isinstance(tx, Connection):
        raise TransactionRefused(
            f"tx is a {type(tx).__qualname__}; it cannot carry a submission here.",
            hint="Give a transaction of app.transaction(), a SQLAlchemy session or connection, or a sqlite3"
            " connection; with asynchronous ones, await submit(tx=…).",
        )
    statements = insert_runs(runs)
    _require_ours(tx, path)
    rows: Rows | None = None
    while True:
        try:
            statement, parameters = statements.send(rows) if rows is not None else next(statements)
        except StopIteration as done:
            result: list[Accepted] = done.value
            return result
        cursor = tx.exec_driver_sql(statement, tuple(parameters))
        rows = cursor.fetchall() if cursor.returns_rows else []


async def submit_async(path: Path, runs: Sequence[NewRun], tx: Any) -> Sequence[Accepted]:
    """Insert runs through an `AsyncSession` or `AsyncConnection`."""
    if isinstance(tx, AsyncSession | AsyncConnection):
        return await tx.run_sync(lambda inner: submit(path, runs, inner))
    return submit(path, runs, tx)


def _require_ours(connection: Connection, path: Path) -> None:
    driver = connection.connection.driver_connection
    # Asynchronous drivers wrap the connection of the sqlite3 module.
    driver = getattr(driver, "_conn", driver)
    if not isinstance(driver, sqlite3.Connection):
        raise TransactionRefused(
            f"The database driver behind tx is {type(driver).__module__}; two SQLite libraries on one file would"
            " corrupt it.",
            hint="Use the standard library's driver: sqlite:// or sqlite+aiosqlite://, or app.engine().",
        )
    require_safe_to_join(driver, path)
