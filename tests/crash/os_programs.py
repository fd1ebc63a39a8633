"""What runs in the processes whose operating system is bent: a worker, and a submitter that tells what it was told.

`python -m tests.crash.os_programs ROLE NAME [OPTION=VALUE …]`, with the store in LINESHAFT_STORE and in OS_RECORD
the record of what was promised to whom. `OS_RECORD_DISK` has it hold every write to the disk as well,
the file of `OS_SYNC_FAILS` says which share of syncs fails, `OS_SYNCHRONOUS` plants a weaker setting of SQLite, and with
`OS_CHECKPOINTS=often` there is a checkpoint after every few commits.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lineshaft import App, Run
from lineshaft.core.errors import LineshaftError
from lineshaft.engine.places import Concurrency
from lineshaft.store.address import sqlite_path
from lineshaft.store.sqlite import files
from lineshaft.store.sqlite.connection import OwnConnection, open_connection
from lineshaft.store.sqlite.machine import Machine
from lineshaft.store.sqlite.store import SqliteStore
from lineshaft.store.values import ClaimReply, ClaimRequest
from lineshaft.testing.clock import VirtualClock
from lineshaft.testing.conformance.harness import World
from tests.crash import os_tasks
from tests.crash.os_record import Record, tell
from tests.crash.os_recording_vfs import record_disk


async def maker() -> None:
    """Make the store, with a table of effects beside it."""
    async with os_tasks.app as app:
        connection = app.connect()
        connection.execute(os_tasks.LEDGER)
        connection.close()
        tell("made")


def _count_claims(app: App) -> None:
    """Tell of each claim how many runs it took."""
    usual = app.runtime.store.claim

    async def claim(request: ClaimRequest) -> ClaimReply:
        reply = await usual(request)
        tell("claimed", request.worker, len(reply.runs))
        return reply

    app.runtime.store.claim = claim


async def worker(*, lease: str = "10", grace: str = "5", concurrency: str = "{}") -> None:
    """Execute what there is, until SIGTERM."""
    stop = _told_to_stop()
    places = Concurrency(**json.loads(concurrency))
    _count_claims(os_tasks.app)
    async with (
        os_tasks.app as app,
        app.worker(lease=float(lease), grace=float(grace), concurrency=places) as working,
    ):
        tell("working", working.id, os.getpid())
        await stop.wait()


async def submitter(*, kinds: str = "book,note", batch: str = "5", pause: str = "0.01") -> None:
    """Submit without an end, each batch until it is accepted, and tell what was said; until SIGTERM."""
    stop = _told_to_stop()
    waiting: set[asyncio.Task[None]] = set()
    async with os_tasks.app:
        for number in itertools.count(step=int(batch)):
            if stop.is_set():
                break
            kind = kinds.split(",")[number // int(batch) % len(kinds.split(","))]
            numbers = range(number, number + int(batch))
            runs = await _accepted(getattr(os_tasks, kind), kind, numbers, stop)
            for run, each in zip(runs, numbers, strict=False):
                waiting.add(asyncio.create_task(_succeeded(run, each)))
            waiting = {task for task in waiting if not task.done()}
            await asyncio.sleep(float(pause))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def dweller(*, count: str, seconds: str, delay: str = "0", turns: str = "1") -> None:
    """Submit runs that take a while, so many times, and end."""
    async with os_tasks.app:
        for _ in range(int(turns)):
            calls = [(number, float(seconds)) for number in range(int(count))]
            due_s = time.time() + float(delay)
            runs = await os_tasks.dwell.submit_many(calls, delay=float(delay))
            tell("accepted", "dwell", [[run.id, number] for number, run in enumerate(runs)])
            tell("due", due_s, [run.id for run in runs])


async def hogger(*, task: str, mebibytes: str, neighbours: str) -> None:
    """Submit one run that uses much memory, in the middle of others, and end."""
    async with os_tasks.app:
        some = int(neighbours) // 2
        before = await os_tasks.dwell.submit_many([(number, 0.2) for number in range(some)])
        hog = await getattr(os_tasks, task).submit(int(mebibytes))
        after = await os_tasks.dwell.submit_many([(number, 0.2) for number in range(some)])
        tell("hogs", hog.id, *(run.id for run in (*before, *after)))


async def flooder(*, count: str, delay: str) -> None:
    """Submit so many runs, due at the same instant, and end."""
    due = datetime.now(UTC) + timedelta(seconds=float(delay))
    async with os_tasks.app:
        runs = await os_tasks.note.submit_many(range(int(count)), due=due)
        tell("flooded", len(runs), due.timestamp())


async def unlucky(*, at: str = "submit") -> None:
    """Claim, fail to submit or to checkpoint since nothing can be synced, and submit once more."""
    store = SqliteStore(sqlite_path(os.environ["LINESHAFT_STORE"]))
    world = World(VirtualClock(), lambda: asyncio.sleep(0, store))
    world.store = world.other = store
    await world.submitted(*world.several(2))
    hand = await world.worker()
    await hand.claim(rows_max=1)
    _have_syncs_fail(True)
    if at == "checkpoint":
        store._writer._checkpoint()
    else:
        with suppress(LineshaftError):
            await world.submitted(world.new())
    _have_syncs_fail(False)
    tell("accepted", "greet", [[run_id, 0] for run_id in await world.submitted(world.new())])
    await store.close()


async def _accepted(task: Any, kind: str, numbers: range, stop: asyncio.Event) -> list[Run[int]]:
    while not stop.is_set():
        try:
            # A key each, so that what was accepted without our hearing of it is not accepted twice.
            runs: list[Run[int]] = await task.submit_many(
                numbers, key=lambda number: f"{os.getpid()} {number}"
            )
        except LineshaftError as error:
            tell("refused", kind, numbers[0], error.code, str(error), error.retryable)
            await asyncio.sleep(0.02)
        else:
            tell("accepted", kind, [[run.id, number] for run, number in zip(runs, numbers, strict=True)])
            return runs
    return []


async def _succeeded(run: Run[int], number: int) -> None:
    while True:
        try:
            result = await run.result()
        except LineshaftError as error:
            tell("unread", run.id, error.code, str(error))
            await asyncio.sleep(0.1)
        else:
            assert result == number
            tell("succeeded", run.id, run.task)
            return


def _told_to_stop() -> asyncio.Event:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    return told


def _plant(setting: str) -> None:
    """Have every connection opened with another `synchronous`."""

    def connect(path: Path) -> OwnConnection:
        connection = open_connection(path)
        connection.execute(f"PRAGMA synchronous = {setting}")
        return connection

    path = sqlite_path(os.environ["LINESHAFT_STORE"])
    os_tasks.app._store = SqliteStore(path, machine=Machine(connect=connect))


def _have_syncs_fail(fail: bool) -> None:
    Path(os.environ["OS_SYNC_FAILS"]).write_text("1" if fail else "0")


def _sync_fails() -> bool:
    """As often as a file says, while there is one."""
    file = Path(os.environ.get("OS_SYNC_FAILS", "/nowhere"))
    return file.exists() and random.random() < float(file.read_text())


ROLES: dict[str, Callable[..., Any]] = {
    role.__name__: role for role in (maker, worker, submitter, dweller, hogger, flooder, unlucky)
}


def main(role: str, name: str, *options: str) -> None:
    logging.basicConfig(level=logging.WARNING, format=f"{name} %(message)s")
    if os.environ.get("OS_CHECKPOINTS") == "often":
        # They are where most can go wrong.
        files.LOG_BYTES_TO_CHECKPOINT, files.COMMITS_TO_CHECKPOINT = 64 * 1_024, 4
        files.LOG_BYTES_TO_WAIT = 112 * 1_024
    if os.environ.get("OS_RECORD_DISK"):
        record_disk(Record(Path(os.environ["OS_RECORD"])), _sync_fails)
    if setting := os.environ.get("OS_SYNCHRONOUS"):
        _plant(setting)
    asyncio.run(ROLES[role](**dict(option.split("=", 1) for option in options)))


if __name__ == "__main__":
    main(*sys.argv[1:])
