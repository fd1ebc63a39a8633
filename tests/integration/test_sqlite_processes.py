"""Several processes on one SQLite file: they write in turn, die, stop, and corrupt nothing.

The children are this module, run as a program: `CHILDREN` names what each can do.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pytest

from lineshaft.core.clock import SystemClock
from lineshaft.core.errors import StoreUnavailable
from lineshaft.core.ident import SystemChance
from lineshaft.core.states import State
from lineshaft.store.sqlite import connection as connections
from lineshaft.store.sqlite import files
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.store.values import NewRun, NewWorker
from lineshaft.testing.clock import VirtualClock
from lineshaft.testing.conformance.harness import World, a_key, a_lane

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


def a_world(store: SqliteStore) -> World:
    """One process's view of a store; others are real ones."""
    world = World(VirtualClock(), lambda: asyncio.sleep(0, store))
    world.store = world.other = store
    return world


# Children


def runs_of(name: str, count: int, *, keyed: bool = False) -> list[NewRun]:
    now_us = SystemClock().now_us()
    lane = a_lane(tenant=name)
    return [
        NewRun(run_id, lane, b"[]", now_us, now_us, now_us, key=a_key(run_id) if keyed else None)
        for run_id in SystemChance().run_ids(now_us, count)
    ]


def checkpoint_often() -> None:
    files.LOG_BYTES_TO_CHECKPOINT = 32 * 1_024
    files.COMMITS_TO_CHECKPOINT = 1


async def work(path: Path, name: str) -> None:
    """Submit, claim, finish and prune, with a checkpoint after nearly every commit; tell when each one was."""
    checkpoint_often()
    store = SqliteStore(path)
    world = a_world(store)
    hand = await world.worker()
    tell("ready")
    sys.stdin.readline()
    stamps = []
    for turn in range(120):
        await store.submit(runs_of(name, 20))
        stamps.append(time.monotonic())
        if turn % 4 == 0:
            await hand.succeed(*(await hand.claim(rows_max=10)).runs)
            await store.counts()
    tell(json.dumps(stamps))
    await store.unregister(hand.id)
    await store.close()


async def acknowledge(path: Path, name: str) -> None:
    """Submit from many coroutines at once, and say which runs were accepted, until killed."""
    checkpoint_often()
    store = SqliteStore(path)
    tell("ready")

    async def submit() -> None:
        while True:
            accepted = await store.submit(runs_of(name, 3, keyed=True))
            tell(" ".join(run.id for run in accepted))

    await asyncio.gather(*(submit() for _ in range(40)))


async def hold(path: Path, name: str) -> None:
    """Register as a worker, take what there is, and wait."""
    store = SqliteStore(path)
    world = a_world(store)
    hand = await world.worker(lease_s=3_600)
    tell(json.dumps([hand.id, [run.id for run in await hand.take()]]))
    sys.stdin.readline()


async def squat(path: Path, name: str) -> None:
    """Hold the byte of a worker that was never registered, as a registration that is rolled back does."""
    descriptor = os.open(f"{path}-alive", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, int(name))
    tell("ready")
    sys.stdin.readline()


CHILDREN: dict[str, Callable[[Path, str], object]] = {
    "work": work,
    "acknowledge": acknowledge,
    "hold": hold,
    "squat": squat,
}


def tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


class Child:
    """A process that runs one of the above."""

    def __init__(self, what: str, path: Path, name: str) -> None:
        command = [sys.executable, "-m", "tests.integration.test_sqlite_processes", what, str(path), name]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.endswith("\n"), "the child died"
        return line[:-1]

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> str:
        """Kill it if it still runs; what it had written and nobody had read."""
        self.process.kill()
        return self.process.communicate(timeout=PATIENCE_S)[0]


@contextmanager
def children(*wanted: tuple[str, Path, str]) -> Iterator[list[Child]]:
    started = [Child(*each) for each in wanted]
    try:
        yield started
    finally:
        for child in started:
            child.end()


def is_sound(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


# Writing together


def test_two_processes_write_and_checkpoint_one_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    asyncio.run(closed(path))
    reader = sqlite3.connect(path)
    with children(("work", path, "a"), ("work", path, "b"), ("work", path, "c")) as workers:
        for child in workers:
            assert child.line() == "ready"
        for child in workers:
            child.go_on()
        stamps = {name: json.loads(child.line()) for name, child in zip("abc", workers, strict=True)}
        for child in workers:
            assert child.process.wait(PATIENCE_S) == 0
    # A reader beside them never saw a torn page.
    assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    reader.close()
    assert is_sound(path)
    connection = sqlite3.connect(path)
    [total] = connection.execute(
        "SELECT (SELECT count(*) FROM lineshaft_run) + (SELECT count(*) FROM lineshaft_run_history)"
    ).fetchone()
    connection.close()
    assert total == 3 * 120 * 20
    assert_fair(stamps)


def assert_fair(stamps: dict[str, list[float]]) -> None:
    """While all write, each gets on: nobody has the file to itself for long."""
    began, ended = max(each[0] for each in stamps.values()), min(each[-1] for each in stamps.values())
    turns = sorted((at, name) for name, each in stamps.items() for at in each if began <= at <= ended)
    assert len(turns) > 60, "they were to write at the same time"
    shares = {name: sum(who == name for _, who in turns) / len(turns) for name in stamps}
    assert min(shares.values()) > 0.1, shares
    longest = max(len(list(group)) for _, group in groupby(who for _, who in turns))
    assert longest < len(turns) / 3


async def closed(path: Path) -> None:
    await SqliteStore(path).close()


# Dying


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged: set[str] = set()
    for turn in range(3):
        with children(("acknowledge", path, f"turn-{turn}")) as [child]:
            assert child.line() == "ready"
            for _ in range(100):
                acknowledged.update(child.line().split())
            child.signal(signal.SIGKILL)
            # Of the rest, the first line may be the end of one that was read ahead, and the last may be cut off.
            acknowledged.update(each for line in child.end().split("\n")[1:-1] for each in line.split())
        assert is_sound(path)
    connection = sqlite3.connect(path)
    recovered = {run_id for (run_id,) in connection.execute("SELECT id FROM lineshaft_run")}
    keys = {run_id for (run_id,) in connection.execute("SELECT run_id FROM lineshaft_key")}
    connection.close()
    assert len(acknowledged) >= 900
    assert acknowledged <= recovered
    assert keys == recovered, "a run and its key are accepted together, or neither is"


async def test_a_worker_whose_process_was_killed_is_dead_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    world = a_world(SqliteStore(path))
    await world.submitted(*runs_of("a", 3))
    with children(("hold", path, "a")) as [child]:
        worker, held = json.loads(await asyncio.to_thread(child.line))
        assert len(held) == 3
        [seen] = await world.store.workers()
        assert (seen.id, seen.alive, seen.held) == (worker, True, 3)
        child.signal(signal.SIGKILL)
        await asyncio.to_thread(child.end)
    [seen] = await world.store.workers()
    assert not seen.alive, "its lease is good for an hour, and it is gone all the same"
    assert (await world.rescue()).returned == 3
    await world.store.close()


async def test_a_worker_that_is_stopped_keeps_its_lease_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    clock = Later()
    world = a_world(SqliteStore(path, clock))
    await world.submitted(*runs_of("a", 2))
    with children(("hold", path, "a")) as [child]:
        worker, _ = json.loads(await asyncio.to_thread(child.line))
        child.signal(signal.SIGSTOP)
        assert (await world.rescue()).workers == ()
        clock.later_us = 4_000_000_000
        assert (await world.rescue()).workers == (worker,)
        child.signal(signal.SIGCONT)
    assert await world.store.counts() == {State.READY: 2}
    await world.store.close()


class Later(SystemClock):
    """The machine's clock, and then some."""

    later_us = 0

    def boot_us(self) -> int:
        return super().boot_us() + self.later_us


async def test_a_number_that_another_process_still_holds_is_not_given(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    worker = NewWorker("workshop", os.getpid(), 0, (), (("greet", "1"),), 3_600_000_000)
    first = await store.register(worker)
    with children(("squat", path, str(first + 1))) as [child]:
        assert await asyncio.to_thread(child.line) == "ready"
        assert await store.register(worker) == first + 2
    assert [each.id for each in await store.workers()] == [first, first + 2]
    await store.close()


async def test_a_store_that_others_lock_too_long_says_so_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_S", 0.1)
    world = a_world(SqliteStore(tmp_path / "store.db"))
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for write in (world.submitted, lambda: world.store.transaction().__aenter__()):
        with pytest.raises(StoreUnavailable, match="stayed locked"):
            await write()
    other.execute("ROLLBACK")
    other.close()
    await world.submitted()
    assert await world.count() == 1
    await world.store.close()


if __name__ == "__main__":
    asyncio.run(CHILDREN[sys.argv[1]](Path(sys.argv[2]), sys.argv[3]))  # type: ignore[arg-type]
