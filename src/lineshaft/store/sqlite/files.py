"""The files of one store: the database, its log, and the locks beside it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from lineshaft.core.errors import StoreUnavailable
from lineshaft.store.sqlite.connection import BUSY_TIMEOUT_S, LIBRARY_WAL_RESET_MENDED, OwnConnection
from lineshaft.store.sqlite.machine import Machine

LOG_BYTES_TO_CHECKPOINT = 4 * 1_048_576
"""Above this size the write-ahead log is copied into the database after a commit, and starts over in its place:
a commit that overwrites takes half the time of one that lets the file grow."""
COMMITS_TO_CHECKPOINT = 64
"""But not after each one: this many lie between two checkpoints."""
LOG_BYTES_TO_WAIT = 256 * 1_048_576
"""Above this one a checkpoint waits for readers, so that the log can start over."""
READERS_WAIT_MS = 500
"""For so long; a reader that stays longer lets the log grow until it goes."""


class StoreFiles:
    """Opens connections on one database file and keeps its log bounded."""

    def __init__(self, path: Path, machine: Machine | None = None) -> None:
        machine = machine or Machine()
        self.path = path.absolute()
        self._connect = machine.connect
        self._log = f"{self.path}-wal"
        self._commits_since_checkpoint = COMMITS_TO_CHECKPOINT
        self.connect().close()
        self.gate = machine.gate(self.path)

    def connect(self) -> OwnConnection:
        return self._connect(self.path)

    def committed(self) -> bool:
        """Take note of a commit; whether the log has grown enough since the last checkpoint for another."""
        # The file keeps its size when the log starts over inside it, so the size alone would have us
        # checkpoint after every commit; how far the database lags is only known by doing it.
        self._commits_since_checkpoint += 1
        return (
            self._commits_since_checkpoint >= COMMITS_TO_CHECKPOINT
            and self._log_bytes() >= LOG_BYTES_TO_CHECKPOINT
        )

    def checkpoint(self, connection: OwnConnection) -> None:
        """Copy the log into the database. The caller holds the gate."""
        self._commits_since_checkpoint = 0
        if self._log_bytes() < LOG_BYTES_TO_WAIT:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            return
        self._truncate(connection)

    def start_log_over(self, connection: OwnConnection) -> None:
        """Copy all of the log, and truncate it; raises if that cannot be. The caller holds the gate."""
        if not self._truncate(connection):
            raise StoreUnavailable(
                f"{self.path} cannot be written until its log has started over, after a sync that failed.",
                hint="Check the disk. Something that reads the file keeps the log in use; end that.",
            )

    def _truncate(self, connection: OwnConnection) -> bool:
        # Readers are waited for, but not as long as a writer would be: all processes wait here with us.
        connection.execute(f"PRAGMA busy_timeout = {READERS_WAIT_MS}")
        try:
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT_S * 1_000)}")
        return not busy

    def _log_bytes(self) -> int:
        try:
            return os.stat(self._log).st_size
        except OSError:
            return 0  # it is not there yet, or cannot be looked at: then it is no time for a checkpoint

    def bytes_in_all(self) -> int:
        """Size of the database and its log."""
        total = 0
        for name in (self.path, self._log):
            try:
                total += os.stat(name).st_size
            except FileNotFoundError:
                continue
        return total

    def facts(self) -> dict[str, str]:
        """What `doctor` asks of the files."""
        mended = sqlite3.sqlite_version_info >= LIBRARY_WAL_RESET_MENDED
        room = os.statvfs(self.path.parent)
        return {
            "log_bytes": str(self.bytes_in_all() - os.stat(self.path).st_size),
            "log_bytes_max": str(LOG_BYTES_TO_WAIT),
            "disk_free_bytes": str(room.f_bavail * room.f_frsize),
            "wal_reset_fault": "mended" if mended else "guarded against",
        }

    def close(self) -> None:
        self.gate.close()
