"""What goes wrong below the SQLite store, or beside it: refused to whom it concerns, and the store goes on."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from lineshaft.core import bounds
from lineshaft.core.errors import (
    StoreError,
    StoreFull,
    StoreUnavailable,
    TransactionRefused,
    TransactionTooLong,
)
from lineshaft.store.sqlite import listening
from lineshaft.store.sqlite.alive import Alive
from lineshaft.store.sqlite.connection import OwnConnection, open_connection, translate
from lineshaft.store.sqlite.gate import Gate
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.store.values import Slots
from lineshaft.testing.clock import VirtualClock
from lineshaft.testing.conformance.harness import World, a_key, a_lane, until

MEGABYTE = b'"' + b"x" * 1_000_000 + b'"'
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = VirtualClock()

    async def open_another() -> SqliteStore:
        return SqliteStore(tmp_path / "store.db", clock)

    world = World(clock, open_another)
    await world.open()
    yield world
    await world.close()


def store_of(world: World) -> SqliteStore:
    assert isinstance(world.store, SqliteStore)
    return world.store


async def commits(world: World) -> None:
    async with world.store.transaction() as tx:
        tx.submit([world.new()])
        tx.commit()


# The writer goes on


@pytest.mark.parametrize("lent", [False, True])
async def test_a_gate_that_cannot_be_entered_refuses_one_turn(
    world: World, monkeypatch: pytest.MonkeyPatch, lent: bool
) -> None:
    def entered(_: Gate) -> Any:
        monkeypatch.undo()
        raise OSError(37, "No locks available")

    monkeypatch.setattr(Gate, "entered", entered)
    with pytest.raises(StoreUnavailable, match="No locks available"):
        await (commits(world) if lent else world.submitted())
    await commits(world)
    await world.submitted()
    assert await world.count() == 2


class NoRollback(OwnConnection):
    """A connection that cannot roll back."""

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if statement.startswith("ROLLBACK"):
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(statement, parameters)


connect_without_rollback = partial(open_connection, factory=NoRollback)


@pytest.mark.parametrize("ends", ["in time", "too late"])
async def test_a_loan_that_cannot_be_rolled_back_harms_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(store_of(world)._files, "_connect", connect_without_rollback)
        lent = store_of(world)._writer._lent_connection()
    async with world.store.transaction(0.2) as tx:
        tx.submit([world.new()])
        if ends == "too late":
            await until(lambda: lent.broken, "the writer takes it back")
    await commits(world)
    await world.submitted()
    assert await world.count() == 2


async def test_a_flush_that_cannot_be_rolled_back_harms_no_other(world: World) -> None:
    writer = store_of(world)._writer
    writer._connection = connect_without_rollback(writer._files.path)

    def fail(connection: sqlite3.Connection, _: Any) -> Any:
        connection.execute("DELETE FROM lineshaft_lane")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await writer.write(fail, [None])
    await world.submitted()
    assert await world.count() == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_when_the_writer_ends_nobody_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store_of(world)._writer

    def fail() -> None:
        raise SystemExit

    monkeypatch.setattr(writer, "_take", fail)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="closed"):
            async with asyncio.timeout(5):
                await world.submitted()
    writer._thread.join()


# Turns


async def test_writes_wait_for_one_loan_at_most(world: World) -> None:
    hand = await world.worker()
    order: list[str] = []

    async def borrow() -> None:
        async with world.store.transaction():
            order.append("loan")
            await asyncio.sleep(0.05)

    async def beat() -> None:
        assert await asyncio.to_thread(hand.beat)
        order.append("beat")

    loans = [asyncio.create_task(borrow()) for _ in range(5)]
    await until(lambda: bool(order), "the first has the writer")
    await beat()
    assert order.count("loan") <= 2
    await asyncio.gather(*loans)


async def test_loans_wait_for_one_turn_of_writes_at_most(world: World) -> None:
    stop = False

    async def submit() -> None:
        while not stop:
            await world.submitted(*world.several(20))

    writing = [asyncio.create_task(submit()) for _ in range(10)]
    for _ in range(5):
        async with asyncio.timeout(5):
            await commits(world)
    stop = True
    await asyncio.gather(*writing)


async def test_submitters_wait_while_too_many_bytes_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "WRITER_BACKLOG_BYTES_MAX", 3_000_000)
    writer = store_of(world)._writer
    runs = [world.new(args=MEGABYTE) for _ in range(12)]
    ready = asyncio.Event()

    async def submit(run: Any) -> None:
        await ready.wait()
        await world.store.submit([run])

    waiting = [asyncio.create_task(submit(run)) for run in runs]
    async with world.store.transaction():
        ready.set()
        await asyncio.sleep(0.05)
        assert len(writer._writes) == 3
    await asyncio.gather(*waiting)
    assert await world.count() == 12
    assert (writer._rows_waiting, writer._bytes_waiting) == (0, 0)


# Errors of the library


@pytest.mark.parametrize(
    "name",
    ["SQLITE_PROTOCOL", "SQLITE_NOMEM", "SQLITE_LOCKED_SHAREDCACHE", "SQLITE_SCHEMA", "SQLITE_INTERRUPT"],
)
def test_what_may_pass_is_worth_a_retry(tmp_path: Path, name: str) -> None:
    error = sqlite3.OperationalError("no")
    error.sqlite_errorname = name
    translated = translate(error, tmp_path)
    assert isinstance(translated, StoreUnavailable)
    assert translated.retryable
    assert isinstance(translate(MemoryError(), tmp_path), StoreUnavailable)


async def test_no_room_inside_a_transaction_is_said_to_the_end(world: World) -> None:
    lent = store_of(world)._writer._lent_connection()
    lent.control("PRAGMA max_page_count = 60")
    async with world.store.transaction() as tx:
        with pytest.raises(StoreFull):
            tx.submit([world.new(args=MEGABYTE)])
        for use in (tx.savepoint, lambda: tx.submit([world.new()]), tx.commit):
            with pytest.raises(StoreFull) as refused:
                use()
            assert refused.value.retryable
    lent.control("PRAGMA max_page_count = 1000000")
    await commits(world)


# Large payloads


@contextmanager
def values_bounded(world: World, size: int) -> Iterator[None]:
    """Have SQLite refuse values that are larger, as it does at a gigabyte."""
    store = store_of(world)
    store._writer._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, size)
    connect = store._files.connect

    def bounded() -> Any:
        connection = connect()
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, size)
        return connection

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store._files, "connect", bounded)
        yield


async def test_claims_and_reads_are_bounded_by_bytes(world: World) -> None:
    with values_bounded(world, 40_000_000):
        large = await world.submitted(*(world.new(args=MEGABYTE) for _ in range(50)))
        small = await world.submitted(*world.several(10, a_lane(tenant="small")))
        hand = await world.worker()
        reply = await hand.claim()
        assert reply.more
        assert sum(len(run.args) for run in reply.runs) <= bounds.CLAIM_BYTES_MAX
        assert set(small) < {run.id for run in reply.runs}, "lanes take turns"
        runs = [*reply.runs, *await hand.take()]
        assert sorted(run.id for run in runs) == sorted(large + small)
        assert all(run.args == MEGABYTE for run in runs if run.id in large)
        assert all(await hand.settle(*(hand.ended(run, result=MEGABYTE) for run in runs)))
        assert {view.result for view in await world.store.finished(large + small)} == {MEGABYTE}
        seen = await world.store.view(large)
        assert {(view.args, view.result) for view in seen if view} == {(MEGABYTE, MEGABYTE)}


async def test_one_run_is_claimed_whatever_its_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "CLAIM_BYTES_MAX", 10)
    await world.submitted(*(world.new(args=b'"' + b"x" * 5_000 + b'"') for _ in range(3)))
    hand = await world.worker()
    replies = [await hand.claim(Slots("task:greet", 2)) for _ in range(3)]
    assert [(len(reply.runs), reply.more) for reply in replies] == [(1, True), (1, True), (0, False)]
    assert [slot.held for slot in await world.store.slots()] == [2], "only what was taken is paid for"


# Threads of transactions


async def test_bodies_that_overstay_hold_up_nobody_until_all_threads_are_theirs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LENDING_THREADS_MAX", 3)
    end = threading.Event()

    async def hang() -> None:
        async with world.store.transaction(0.05) as tx:
            await tx.off_loop(end.wait)

    for _ in range(2):
        with pytest.raises(TransactionTooLong):
            await hang()
    async with world.store.transaction() as tx:
        assert await tx.off_loop(len, "innocent") == 8
    with pytest.raises(TransactionTooLong):
        await hang()
    with pytest.raises(StoreUnavailable, match="overstayed"):
        await hang()
    end.set()
    lending = store_of(world)._lending
    assert lending is not None
    await until(lambda: lending._busy == 0, "they return")
    async with world.store.transaction() as tx:
        assert await tx.off_loop(len, "again") == 5


def test_a_body_that_hangs_keeps_no_process_alive(tmp_path: Path) -> None:
    program = f"""
import asyncio, threading
from pathlib import Path
from lineshaft.store.sqlite.store import SqliteStore

async def main():
    store = SqliteStore(Path({str(tmp_path / "store.db")!r}))
    try:
        async with store.transaction(0.05) as tx:
            await tx.off_loop(threading.Event().wait)
    except Exception as error:
        print(type(error).__name__)
    await store.close()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=30, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("TransactionTooLong\n", "")


async def test_a_body_in_a_thread_knows_that_it_holds_the_writer(world: World) -> None:
    async with world.store.transaction() as tx:
        with pytest.raises(TransactionRefused, match="tx="):
            await tx.off_loop(asyncio.run, world.store.submit([world.new()]))


# Listening, and what it leaves behind


async def test_a_look_that_fails_is_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    end = world.store.on_news(heard.append)
    [watch] = store_of(world)._listening._watches.values()
    assert watch._connection.execute("PRAGMA busy_timeout").fetchone()[0] <= 50
    failed: list[bool] = []

    def fail(_: Any) -> int:
        monkeypatch.undo()
        failed.append(True)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(listening._Watch, "_change_counter", fail)
    await until(lambda: bool(failed), "a look fails")
    heard.clear()
    connection = world.other.connect()
    connection.execute("DELETE FROM lineshaft_lane")
    connection.close()
    await until(lambda: bool(heard), "the next look sees the commit")
    end()


async def test_a_store_takes_its_address_with_it(world: World) -> None:
    connection = world.other.connect()
    store = await world.another_store()
    end = store.on_news(lambda _: None)
    found = "SELECT count(*) FROM lineshaft_listener"
    await until(lambda: connection.execute(found).fetchone() == (1,), "it listens")
    end()
    await store.close()
    assert connection.execute(found).fetchone() == (0,)
    connection.close()


async def test_addresses_that_are_gone_are_remembered_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "ADDRESSES_GOOD_S", 0.0)
    connection = world.other.connect()
    connection.execute("INSERT INTO lineshaft_listener VALUES ('nobody')")
    for _ in range(5):
        await world.submitted()
    hears = store_of(world)._listening
    assert list(hears._gone) == ["nobody"]
    connection.execute("DELETE FROM lineshaft_listener")
    connection.close()
    await world.submitted()
    await world.submitted()
    assert not hears._gone


async def test_slots_that_nobody_holds_are_pruned(world: World) -> None:
    gate = Slots("task:greet", 5)
    await world.submitted(*world.several(2))
    hand = await world.worker()
    first, second = await hand.take(gate)
    connection = world.store.connect()
    for run, rows in ((first, [(1,)]), (second, [])):
        await hand.succeed(run, slots=[gate])
        await world.store.prune(0, 0)
        assert connection.execute("SELECT held FROM lineshaft_slot").fetchall() == rows
    connection.close()


async def test_keys_expire_by_the_finish_of_their_own_run(world: World) -> None:
    await world.submitted(*(world.new(key=a_key(name, retention_s=100)) for name in ("one", "two")))
    hand = await world.worker()
    first, second = [hand.ended(run) for run in await hand.take()]
    now_us = world.clock.now_us()
    await hand.settle(first._replace(finished_us=now_us - 60_000_000), second._replace(finished_us=now_us))
    connection = world.store.connect()
    expiries = connection.execute("SELECT expires_us FROM lineshaft_key ORDER BY expires_us").fetchall()
    connection.close()
    assert expiries == [(now_us + 40_000_000,), (now_us + 100_000_000,)]


# Files made anew


def test_locks_follow_a_file_that_was_made_anew(tmp_path: Path) -> None:
    alive = Alive(tmp_path / "store.db")
    name = tmp_path / "store.db-alive"
    program = (
        "import fcntl, os, sys; descriptor = os.open(sys.argv[1], os.O_RDWR)\n"
        "try: fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2])); print('free')\n"
        "except OSError: print('held')"
    )

    def looks(worker: int) -> str:
        command = [sys.executable, "-c", program, str(name), str(worker)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert alive.take(1)
    name.unlink()
    assert alive.take(2)
    assert (looks(1), looks(2), looks(3)) == ("held", "held", "free")
    alive.drop(1)
    alive.drop(2)
    assert (looks(1), looks(2)) == ("free", "free")


async def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await SqliteStore(path).close()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(bytes(4_000))
    with pytest.raises(StoreError, match=f"{path} is damaged") as refused:
        SqliteStore(path)
    assert "lineshaft restore" in refused.value.hint
    assert not refused.value.retryable


async def test_an_error_of_a_body_beside_a_reader_stops_nobody(world: World) -> None:
    reader = world.store.connect()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM lineshaft_run").fetchall()

    async def conflict() -> None:
        async with world.store.transaction() as tx:
            session = tx.session()
            session.execute(text("CREATE TABLE once (id INTEGER PRIMARY KEY)"))
            session.execute(text("INSERT INTO once VALUES (1)"))
            with suppress(IntegrityError):
                session.execute(text("INSERT OR ROLLBACK INTO once VALUES (1)"))
            tx.commit()

    with pytest.raises(TransactionRefused):
        await conflict()
    # The log need not start over for that, which the reader would keep it from.
    await world.submitted()
    reader.close()
