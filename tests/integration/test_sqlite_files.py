"""The SQLite store and its files: what may be opened, what is refused and how, what the files grow to."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lineshaft.core import bounds
from lineshaft.core.errors import (
    InvalidSetting,
    LineshaftError,
    NotAStore,
    StoreError,
    StoreOutdated,
    StoreTooNew,
    StoreUnavailable,
    TransactionRefused,
)
from lineshaft.store.address import open_store, sqlite_path
from lineshaft.store.migrations import REVISIONS, VERSION_TABLE
from lineshaft.store.sqlite import connection as connections
from lineshaft.store.sqlite import files, schema
from lineshaft.store.sqlite.backups import restore
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.testing.clock import VirtualClock
from lineshaft.testing.conformance.harness import World

ROOT = Path(__file__).parents[2]
SEEDS = itertools.count()


async def a_world(path: Path, **options: Any) -> World:
    clock = VirtualClock()

    async def open_another() -> SqliteStore:
        return SqliteStore(path, clock, **options)

    world = World(clock, open_another, seed=next(SEEDS))
    await world.open()
    return world


async def a_store_at(path: Path) -> None:
    world = await a_world(path)
    await world.submitted(*world.several(3))
    await world.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# What is opened


async def test_a_new_file_becomes_a_store_and_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for expected in (3, 6):
        await a_store_at(path)
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT count(*) FROM lineshaft_run").fetchone() == (expected,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    await a_store_at(path)


@pytest.mark.parametrize("name", ["with space.db", "åäö.db", "50%.db", "what?.db", "a#b.db", "quote'd.db"])
async def test_any_name_will_do_for_a_store_and_its_backup(tmp_path: Path, name: str) -> None:
    await a_store_at(tmp_path / name)
    world = await a_world(tmp_path / name)
    await world.store.backup(str(tmp_path / f"backup of {name}"), lambda *_: None)
    await world.close()
    restored = restore(tmp_path / f"backup of {name}", tmp_path / f"again {name}")
    assert (restored.unfinished, restored.running) == (3, 0)
    await a_store_at(tmp_path / f"again {name}")


async def test_a_store_that_was_being_made_is_finished_by_the_next(tmp_path: Path) -> None:
    # Killed between the version table and the others.
    path = tmp_path / "store.db"
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)")
    connection.commit()
    connection.close()
    await a_store_at(path)


def test_many_processes_make_one_store(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lineshaft.store.sqlite.store import SqliteStore;"
        "import alembic.command, sqlalchemy; print('here', flush=True); sys.stdin.readline();"
        "SqliteStore(Path(sys.argv[1])); print('opened', flush=True)"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "store.db")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [child.communicate(timeout=60)[0] for child in children] == ["opened\n"] * 6


# What is refused


def test_what_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear all, " * 100)
    before = fingerprint(path)
    with pytest.raises(NotAStore, match=r"letter\.txt is not a SQLite database"):
        SqliteStore(path)
    assert fingerprint(path) == before
    assert names(tmp_path) == ["letter.txt"]


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE customer (name TEXT)")
    connection.commit()
    connection.close()
    before = fingerprint(path)
    with pytest.raises(NotAStore, match="not a Lineshaft store"):
        SqliteStore(path)
    assert fingerprint(path) == before, "its journal mode is its owner's"
    assert names(tmp_path) == ["shop.db"]


async def test_tables_of_ours_can_stand_beside_others(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE customer (name TEXT)")
    connection.commit()
    connection.close()
    opened = files.StoreFiles(path)
    assert schema.migrate(opened) == (None, REVISIONS[-1])
    assert schema.migrate(opened) == (REVISIONS[-1], REVISIONS[-1])
    opened.close()
    await a_store_at(path)


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await a_store_at(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    connection.close()
    for opening in (SqliteStore, lambda path: schema.migrate(files.StoreFiles(path))):
        with pytest.raises(StoreTooNew, match="9999"):
            opening(path)


async def test_a_store_of_an_older_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    await a_store_at(path)
    monkeypatch.setattr(schema, "REVISIONS", (*REVISIONS, "9999"))
    with pytest.raises(StoreOutdated, match=r"needs 9999.*lineshaft migrate"):
        SqliteStore(path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="there is no directory"):
        SqliteStore(tmp_path / "gone" / "store.db")
    assert names(tmp_path) == []


def test_a_directory_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=str(tmp_path)):
        SqliteStore(tmp_path)


@pytest.mark.parametrize("exists", [False, True])
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "sealed"
    folder.mkdir()
    if exists:
        asyncio.run(a_store_at(folder / "store.db"))
        (folder / "store.db").chmod(0o444)
    program = (
        "import sys; from pathlib import Path; from lineshaft.store.sqlite.store import SqliteStore\n"
        "from lineshaft.core.errors import StoreUnavailable\n"
        "try: SqliteStore(Path(sys.argv[1]))\n"
        "except StoreUnavailable as error: print(error)"
    )
    command = [sys.executable, "-c", program, str(folder / "store.db")]
    if os.geteuid() == 0:
        # Root may write anywhere, unless it lets go of that.
        if shutil.which("setpriv") is None:
            pytest.skip("running as root, and without setpriv (util-linux) to give up its privileges")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    folder.chmod(0o555)
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    finally:
        folder.chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{folder / 'store.db'} cannot be read or written" in done.stdout
    assert "writable" in done.stdout


@pytest.mark.parametrize(
    "address",
    ["sqlite:///:memory:", "sqlite:///", "sqlite://", "sqlite:///a.db?mode=ro", "shop.db", "redis://x"],
)
def test_an_address_that_names_no_file_is_refused(address: str) -> None:
    with pytest.raises(InvalidSetting, match=r"sqlite:///file\.db"):
        open_store(address)


def test_addresses_are_relative_with_three_slashes_and_absolute_with_four() -> None:
    assert sqlite_path("sqlite:///shop.db") == Path("shop.db")
    assert sqlite_path("sqlite:////data/shop.db") == Path("/data/shop.db")


def test_a_backup_has_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no backup"):
        restore(tmp_path / "gone", tmp_path / "store.db")
    (tmp_path / "letter.txt").write_text("Dear all, " * 100)
    with pytest.raises(NotAStore):
        restore(tmp_path / "letter.txt", tmp_path / "store.db")
    sqlite3.connect(tmp_path / "shop.db").execute("CREATE TABLE customer (name TEXT)").connection.close()
    with pytest.raises(NotAStore):
        restore(tmp_path / "shop.db", tmp_path / "store.db")
    assert not (tmp_path / "store.db").exists()


async def test_a_restore_replaces_nothing(tmp_path: Path) -> None:
    await a_store_at(tmp_path / "store.db")
    world = await a_world(tmp_path / "store.db")
    await world.store.backup(str(tmp_path / "backup"), lambda *_: None)
    await world.close()
    before = fingerprint(tmp_path / "store.db")
    with pytest.raises(StoreError, match="exists already"):
        restore(tmp_path / "backup", tmp_path / "store.db")
    assert fingerprint(tmp_path / "store.db") == before


# Connections of the caller's own


async def test_a_foreign_connection_is_joined_only_where_the_library_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await a_world(tmp_path / "store.db")
    foreign = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    own = world.store.connect()
    for oldest_sound, accepted in (((99, 0, 0), [own]), ((3, 0, 0), [own, foreign])):
        monkeypatch.setattr(connections, "LIBRARY_WAL_RESET_MENDED", oldest_sound)
        for connection in (own, foreign):
            connection.execute("BEGIN IMMEDIATE")
            if connection in accepted:
                assert world.store.submit_with([world.new()], connection)[0].created
            else:
                with pytest.raises(TransactionRefused, match=r"app\.connect\(\)"):
                    world.store.submit_with([world.new()], connection)
            connection.execute("COMMIT")
    assert await world.count() == 3
    foreign.close()
    own.close()
    await world.close()


async def test_a_connection_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    world = await a_world(tmp_path / "store.db")
    for elsewhere in (":memory:", tmp_path / "other.db"):
        connection = sqlite3.connect(elsewhere, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransactionRefused, match="leads to"):
            world.store.submit_with([world.new()], connection)
        connection.close()
    await world.close()


# The log


async def test_the_log_stays_bounded_under_steady_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOG_BYTES_TO_CHECKPOINT", 256 * 1_024)
    monkeypatch.setattr(files, "COMMITS_TO_CHECKPOINT", 4)
    world = await a_world(tmp_path / "store.db")
    log = tmp_path / "store.db-wal"
    sizes = []
    for _ in range(100):
        await world.submitted(*(world.new(args=b'"' + b"x" * 2_000 + b'"') for _ in range(50)))
        await world.other.counts()
        sizes.append(log.stat().st_size)
    database = (tmp_path / "store.db").stat().st_size
    assert database > 8_000_000, "enough was written to see it"
    assert max(sizes) < 3_000_000
    await world.close()
    assert not log.exists()


async def test_a_reader_that_stays_does_not_stop_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOG_BYTES_TO_CHECKPOINT", 16 * 1_024)
    monkeypatch.setattr(files, "LOG_BYTES_TO_WAIT", 64 * 1_024)
    monkeypatch.setattr(files, "READERS_WAIT_MS", 20)
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_S", 60.0)
    world = await a_world(tmp_path / "store.db")
    reader = world.store.connect()
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM lineshaft_run").fetchone() == (0,)
    for _ in range(files.COMMITS_TO_CHECKPOINT * 2):
        await world.submitted(*world.several(20))
    reader.execute("COMMIT")
    reader.close()
    sizes = []
    for _ in range(files.COMMITS_TO_CHECKPOINT + 1):
        await world.submitted()
        sizes.append((tmp_path / "store.db-wal").stat().st_size)
    assert min(sizes) < 64 * 1_024, "the log starts over once it can"
    await world.close()


# What comes after a commit cannot undo it


async def test_a_checkpoint_that_fails_does_not_make_a_commit_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = await a_world(tmp_path / "store.db")

    def full(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(files, "LOG_BYTES_TO_CHECKPOINT", 0)
    monkeypatch.setattr(files, "COMMITS_TO_CHECKPOINT", 1)
    monkeypatch.setattr(files.StoreFiles, "checkpoint", full)
    await world.submitted()
    hand = await world.worker()
    assert await hand.succeed(await hand.take_one()) == [True]
    async with world.store.transaction() as tx:
        tx.submit([world.new()])
        tx.commit()
    assert await world.count() == 2
    assert "cannot be checkpointed now" in caplog.text
    await world.close()


async def test_news_that_cannot_be_told_do_not_stop_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = await a_world(tmp_path / "store.db")

    def broken(*_: Any) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(world.store._writer, "_after_commit", broken)  # type: ignore[attr-defined]
    for _ in range(3):
        await world.submitted()
    async with world.store.transaction() as tx:
        tx.submit([world.new()])
        tx.commit()
    assert await world.count() == 4
    assert "cannot be told" in caplog.text
    await world.close()


async def test_a_closed_store_refuses_clearly(tmp_path: Path) -> None:
    world = await a_world(tmp_path / "store.db")
    await world.close()
    for use in (
        lambda: world.store.submit([world.new()]),
        world.store.counts,
        lambda: world.store.rescue(0),
        lambda: world.store.transaction().__aenter__(),
    ):
        with pytest.raises(LineshaftError, match="closed"):
            await use()
    await world.store.close()


# Where payloads lie


async def test_payloads_beyond_a_bound_lie_in_a_table_of_their_own(tmp_path: Path) -> None:
    world = await a_world(tmp_path / "store.db")
    small, large = (b'"' + b"x" * (bounds.INLINE_BYTES_MAX - 2 + more) + b'"' for more in (0, 1))
    for payload, rows in ((small, []), (large, [("args",), ("result",)])):
        [run_id] = await world.submitted(world.new(args=payload))
        hand = await world.worker()
        claimed = await hand.take_one()
        assert claimed.args == payload
        assert await hand.settle(hand.ended(claimed, result=payload)) == [True]
        assert (await world.view(run_id)).result == payload
        connection = world.store.connect()
        found = connection.execute(
            "SELECT kind FROM lineshaft_payload WHERE run_id = ? ORDER BY kind", (run_id,)
        ).fetchall()
        connection.close()
        assert found == rows
        await world.store.unregister(hand.id)
    await world.close()
