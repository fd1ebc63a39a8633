"""The SQLite store against the suites."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lineshaft.core.clock import Clock
from lineshaft.store.port import Store
from lineshaft.store.sqlite.alive import Alive
from lineshaft.store.sqlite.backups import restore
from lineshaft.store.sqlite.loan import PART
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.testing import conformance


class Sqlite:
    part_control = tuple(f"{control} {PART}" for control in ("SAVEPOINT", "RELEASE", "ROLLBACK TO"))

    @pytest.fixture
    def tmp_path(self) -> Iterator[Path]:
        """A folder in memory where the machine has one: these tests ask for no durability."""
        memory = Path("/dev/shm")
        with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
            yield Path(folder)

    async def open_store(self, tmp_path: Path, clock: Clock) -> SqliteStore:
        return SqliteStore(tmp_path / "store.db", clock)

    def end_process(self, store: Store, worker: int) -> None:
        assert isinstance(store, SqliteStore)
        # The kernel lets go of a worker's lock with its process.
        Alive(store.path).drop(worker)

    def restore(self, backup: Path, tmp_path: Path) -> None:
        tmp_path.mkdir()
        restore(backup, tmp_path / "store.db")


class TestSubmissions(Sqlite, conformance.Submissions):
    pass


class TestClaims(Sqlite, conformance.Claims):
    pass


class TestLeases(Sqlite, conformance.Leases):
    pass


class TestReads(Sqlite, conformance.Reads):
    pass


class TestOperations(Sqlite, conformance.Operations):
    pass


class TestTransactions(Sqlite, conformance.Transactions):
    pass


class TestWakes(Sqlite, conformance.Wakes):
    pass
