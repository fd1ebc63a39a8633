"""Copying a store while it is in use, and putting a copy back so that nothing old can interfere."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lineshaft.core.errors import NotAStore, StoreError, StoreUnavailable
from lineshaft.store.sqlite.connection import translated
from lineshaft.store.sqlite.files import StoreFiles
from lineshaft.store.sqlite.schema import revision

PAGES_A_STEP = 1_024
FENCE_JUMP = 1_000_000
"""How far fences and incarnations jump in a restore: beyond any that the lost store can have given."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore found, and what may happen twice because of it."""

    unfinished: int
    """Runs that had not finished when the backup was taken; some may have finished since."""
    running: int
    """Of these, the ones that were executing just then."""


def backup(files: StoreFiles, target: Path, progress: Callable[[int, int], None]) -> None:
    """Write a copy, consistent as of one moment; `progress` hears of pages done and in all."""
    if target.exists():
        raise StoreError(f"{target} exists already.", hint="Name a file that does not exist yet.")
    source = files.connect()
    partial = target.with_name(f"{target.name}.partial")
    try:
        with translated(target):
            copy = sqlite3.connect(partial)
            try:
                # One read transaction over all steps: the copy never has to start over under load.
                source.execute("BEGIN")
                source.execute("SELECT count(*) FROM sqlite_master").fetchone()
                source.backup(
                    copy, pages=PAGES_A_STEP, progress=lambda _, left, total: progress(total - left, total)
                )
                source.execute("COMMIT")
                copy.execute("PRAGMA journal_mode = DELETE")
            finally:
                copy.close()
        _sync(partial)
        partial.replace(target)
        _sync(target.parent)
    finally:
        source.close()
        partial.unlink(missing_ok=True)


def restore(source: Path, target: Path) -> Restored:
    """Put a backup in place of a store that no process uses; every run in it is free to be claimed."""
    if not source.is_file():
        raise StoreUnavailable(f"There is no backup {source}.")
    # A log that was left behind would be replayed into the restored file.
    for there in (target, target.with_name(f"{target.name}-wal"), target.with_name(f"{target.name}-journal")):
        if there.exists():
            raise StoreError(
                f"{there} exists already.", hint="Move it away first, together with the files beside it."
            )
    with translated(source):
        copy = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
        try:
            if revision(copy) is None:
                raise NotAStore(f"{source} is not a backup of a Lineshaft store.")
            partial = target.with_name(f"{target.name}.partial")
            partial.unlink(missing_ok=True)
            restored = sqlite3.connect(partial, isolation_level=None)
            try:
                copy.backup(restored)
                report = _free(restored)
            finally:
                restored.close()
        finally:
            copy.close()
    _sync(partial)
    partial.replace(target)
    _sync(target.parent)
    return report


def _free(connection: sqlite3.Connection) -> Restored:
    connection.execute("BEGIN IMMEDIATE")
    unfinished = connection.execute("SELECT count(*) FROM lineshaft_run").fetchone()[0]
    running = connection.execute("SELECT count(*) FROM lineshaft_run WHERE state = 'running'").fetchone()[0]
    connection.execute(f"UPDATE lineshaft_run SET fence = fence + {FENCE_JUMP}")
    # Runs that were executing keep their worker, which is dead now: the sweep treats them as it always
    # does, at-most-once ones included.
    connection.execute("UPDATE lineshaft_worker SET boot_id = 'before the restore'")
    connection.execute("DELETE FROM lineshaft_listener")
    # There is no row yet where no worker ever registered before the backup.
    connection.execute(
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'lineshaft_worker', 0"
        " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'lineshaft_worker')"
    )
    connection.execute(f"UPDATE sqlite_sequence SET seq = seq + {FENCE_JUMP} WHERE name = 'lineshaft_worker'")
    connection.execute("COMMIT")
    return Restored(unfinished, running)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
