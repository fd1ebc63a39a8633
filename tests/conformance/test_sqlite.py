"""The SQLite store against the suites, with its writer in a thread as in production, and inline as in simulation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest

from lineshaft.core.clock import Clock
from lineshaft.store.port import Store
from lineshaft.store.sqlite.alive import Alive
from lineshaft.store.sqlite.backups import restore
from lineshaft.store.sqlite.loan import PART
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.testing import conformance
from lineshaft.testing.conformance import Capability


class Threaded:
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


class Inline(Threaded):
    lacks: ClassVar[Mapping[Capability, str]] = {
        Capability.BOUNDED_TRANSACTIONS: "nobody stands beside an inline loan and counts",
        Capability.CONCURRENT_WRITES: "a second inline store would block the one event loop",
    }

    async def open_store(self, tmp_path: Path, clock: Clock) -> SqliteStore:
        return SqliteStore(tmp_path / "store.db", clock, threaded=False)


class TestSubmissions(Threaded, conformance.Submissions):
    pass


class TestClaims(Threaded, conformance.Claims):
    pass


class TestLeases(Threaded, conformance.Leases):
    pass


class TestReads(Threaded, conformance.Reads):
    pass


class TestOperations(Threaded, conformance.Operations):
    pass


class TestTransactions(Threaded, conformance.Transactions):
    pass


class TestWakes(Threaded, conformance.Wakes):
    pass


class TestSubmissionsInline(Inline, conformance.Submissions):
    pass


class TestClaimsInline(Inline, conformance.Claims):
    pass


class TestLeasesInline(Inline, conformance.Leases):
    pass


class TestReadsInline(Inline, conformance.Reads):
    pass


class TestOperationsInline(Inline, conformance.Operations):
    pass


class TestTransactionsInline(Inline, conformance.Transactions):
    pass


class TestWakesInline(Inline, conformance.Wakes):
    pass
