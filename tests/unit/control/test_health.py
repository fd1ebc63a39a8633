"""What the doctor finds."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from lineshaft.control import health
from lineshaft.control.desk import Desk
from lineshaft.control.health import Check, Level
from lineshaft.core.errors import InvalidSetting
from lineshaft.core.states import State
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.store.values import Lane, NewRun, NewWorker, StoreFacts

HOUR_US = 3_600_000_000


async def examine(path: Path, **options: float) -> dict[str, Check]:
    return {check.name: check for check in await health.examine(f"sqlite:///{path}", **options)}


async def submit(desk: Desk, *, ago_us: int = 0) -> str:
    now_us = desk.clock.now_us() - ago_us
    [run_id] = desk.chance.run_ids(now_us, 1)
    await desk.store.submit([NewRun(run_id, Lane("q", "charge", "1", "acme"), b"{}", now_us, now_us, now_us)])
    return run_id


async def test_a_new_store_has_nothing_wrong(tmp_path: Path) -> None:
    await SqliteStore(tmp_path / "shop.db").close()
    checks = await examine(tmp_path / "shop.db")
    assert [
        check for check in checks.values() if check.level is Level.PROBLEM and check.name != "file system"
    ] == []
    assert checks["settings"].found == "journal_mode=wal, synchronous=FULL"
    assert checks["workers"].level is Level.WARNING


async def test_work_that_nobody_does_is_wrong(tmp_path: Path) -> None:
    desk = Desk(SqliteStore(tmp_path / "shop.db"))
    await submit(desk, ago_us=HOUR_US)
    await desk.store.close()
    checks = await examine(tmp_path / "shop.db")
    assert checks["workers"].level is Level.PROBLEM
    assert checks["workers"].found == "0 alive; 1 ready run waits"
    assert checks["oldest ready run"].level is Level.PROBLEM
    assert (await examine(tmp_path / "shop.db", oldest_ready_s_max=1e6))["oldest ready run"].level is Level.OK


async def test_parked_and_failed_runs_are_told(tmp_path: Path) -> None:
    desk = Desk(SqliteStore(tmp_path / "shop.db"))
    await submit(desk)
    now_us = desk.clock.now_us()
    await desk.store.register(NewWorker("ada", 1, now_us, (), (("other", "1"),), HOUR_US))
    assert await desk.store.park(now_us) == 1
    checks = await examine(tmp_path / "shop.db")
    assert (checks["workers"].level, checks["workers"].found) == (Level.OK, "1 alive")
    assert (checks["parked runs"].level, checks["parked runs"].found) == (Level.PROBLEM, "1")
    await desk.store.close()
    assert health._of_failed({State.FAILED: 2, State.OUTCOME_UNKNOWN: 1}).found.startswith("2 failed, 1 with")


async def test_a_store_of_another_version_is_told_instead_of_raised(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    await SqliteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE lineshaft_schema_version SET version_num = '9999'")
    connection.close()
    checks = await examine(path)
    assert list(checks) == ["store"]
    assert checks["store"].found.startswith("store-too-new")


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="There is no store"):
        asyncio.run(examine(tmp_path / "shop.db"))
    assert not list(tmp_path.iterdir())


def facts(**details: str) -> StoreFacts:
    return StoreFacts("sqlite:////shop.db", "SQLite 3.51.3", "0001", 10_000, 0, 0, details)


def test_settings_that_lose_work_are_wrong() -> None:
    levels = {check.name: check.level for check in health._of_sqlite(facts(synchronous="1"))}
    assert levels["settings"] is Level.PROBLEM


def test_a_log_beyond_its_bound_is_wrong() -> None:
    checks = health._of_sqlite(facts(log_bytes="2000", log_bytes_max="1000"))
    assert [check.level for check in checks if check.name == "write-ahead log"] == [Level.PROBLEM]


def test_a_full_disk_is_wrong() -> None:
    assert health._of_disk(facts(disk_free_bytes="1000"))[0].level is Level.PROBLEM
    assert health._of_disk(facts(disk_free_bytes=str(10**12)))[0].level is Level.OK


@pytest.mark.parametrize(
    ("kind", "level"), [("ext4", Level.OK), ("tmpfs", Level.PROBLEM), ("nfs4", Level.PROBLEM)]
)
def test_the_file_system_matters(monkeypatch: pytest.MonkeyPatch, kind: str, level: Level) -> None:
    monkeypatch.setattr(health, "file_system", lambda _: kind)
    [check] = health._of_disk(facts())
    assert (check.found, check.level) == (kind, level)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (1_023, "1023 bytes"), (1_536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert health.size(count) == text
