"""Whether a store and those who work on it are well: each question with what was found and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lineshaft.control.desk import Desk, desk_at, use_case
from lineshaft.control.stores import require_existing
from lineshaft.core.duration import brief
from lineshaft.core.errors import StoreError
from lineshaft.core.states import State
from lineshaft.store.address import sqlite_path
from lineshaft.store.values import QueueView, StoreFacts, WorkerView

OLDEST_READY_S_MAX = 300.0
"""A ready run that is older than this means that the workers do not keep up."""
DISK_FREE_BYTES_MIN = 256 * 1_048_576
VOLATILE = frozenset({"tmpfs", "ramfs"})
"""File systems in memory: what they hold is gone with the machine."""
NETWORKED = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "glusterfs"}
)
"""File systems whose locks SQLite's write-ahead log cannot rely on (https://www.sqlite.org/wal.html)."""
_SYNCHRONOUS = {"0": "OFF", "1": "NORMAL", "2": "FULL", "3": "EXTRA"}


class Level(StrEnum):
    """How bad a finding is; only problems make `doctor` fail."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One question, and its answer."""

    name: str
    level: Level
    found: str
    advice: str = ""


async def examine(address: str, *, oldest_ready_s_max: float = OLDEST_READY_S_MAX) -> list[Check]:
    """Examine the store at an address, one that cannot be opened included. Raises if nothing is there."""
    require_existing(address)
    try:
        async with desk_at(address) as desk:
            return await _examine(desk, oldest_ready_s_max)
    except StoreError as error:
        return [Check("store", Level.PROBLEM, f"{error.code}: {error.message}", error.hint)]


@use_case("stores.examine")
async def _examine(desk: Desk, oldest_ready_s_max: float) -> list[Check]:
    facts = await desk.store.facts()
    workers = await desk.store.workers()
    queues = await desk.store.queues()
    counts = await desk.store.counts()
    return [
        Check("store", Level.OK, f"{facts.address}, {size(facts.bytes)}"),
        Check("schema", Level.OK, f"revision {facts.schema}, as this version needs"),
        *_of_sqlite(facts),
        *_of_disk(facts),
        _of_workers(workers, queues),
        _of_age(queues, desk.clock.now_us(), oldest_ready_s_max),
        _of_parked(counts),
        _of_failed(counts),
    ]


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1_024:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1_024
    return f"{count:.1f} TiB"


def file_system(path: Path) -> str:
    """The type of the file system that a path lies on; empty where it cannot be told."""
    import psutil

    there = path.absolute()
    there = there.parent if not there.is_dir() else there
    best = ("", "")
    for partition in psutil.disk_partitions(all=True):
        if there.resolve().is_relative_to(partition.mountpoint):
            best = max(best, (partition.mountpoint, partition.fstype))
    return best[1]


def _of_sqlite(facts: StoreFacts) -> list[Check]:
    details = facts.details
    checks = []
    if fault := details.get("wal_reset_fault"):
        if fault == "mended":
            checks.append(Check("library", Level.OK, facts.engine))
        else:
            text = f"{facts.engine}, its WAL-reset fault {fault}"
            advice = "Let no other program write to the file; SQLite 3.51.3 has it mended."
            checks.append(Check("library", Level.OK, text, advice))
    journal = details.get("journal_mode", "wal")
    synchronous = details.get("synchronous", "2")
    text = f"journal_mode={journal}, synchronous={_SYNCHRONOUS.get(synchronous, synchronous)}"
    sound = journal == "wal" and synchronous in ("2", "3")
    advice = (
        "" if sound else "Accepted runs may not survive a loss of power; let nothing change the settings."
    )
    checks.append(Check("settings", Level.OK if sound else Level.PROBLEM, text, advice))
    log, most = int(details.get("log_bytes", 0)), int(details.get("log_bytes_max", 2**62))
    checks.append(
        Check("write-ahead log", Level.OK, size(log))
        if log <= most
        else Check(
            "write-ahead log",
            Level.PROBLEM,
            f"{size(log)}, over its bound of {size(most)}",
            "A reader keeps it from starting over: look for a program with a long transaction on the file.",
        )
    )
    return checks


def _of_disk(facts: StoreFacts) -> list[Check]:
    checks = []
    if free := facts.details.get("disk_free_bytes"):
        room = int(free)
        # A checkpoint and a backup each need about as much again.
        low = room < max(DISK_FREE_BYTES_MIN, facts.bytes)
        advice = f"Free some: at least {size(max(DISK_FREE_BYTES_MIN, facts.bytes))}." if low else ""
        checks.append(Check("disk room", Level.PROBLEM if low else Level.OK, f"{size(room)} free", advice))
    if facts.address.startswith("sqlite:"):
        kind = file_system(sqlite_path(facts.address))
        level, advice = Level.OK, ""
        if kind in VOLATILE:
            level, advice = (
                Level.PROBLEM,
                "It lies in memory and is gone with the machine; move it to a disk.",
            )
        elif kind in NETWORKED:
            level, advice = Level.PROBLEM, "Locks and the log need a local disk; move the store to one."
        checks.append(Check("file system", level, kind or "unknown", advice))
    return checks


def _of_workers(workers: Sequence[WorkerView], queues: Sequence[QueueView]) -> Check:
    alive = [worker for worker in workers if worker.alive]
    dead = len(workers) - len(alive)
    text = f"{len(alive)} alive" + (f", {dead} dead and not yet swept" if dead else "")
    ready = sum(queue.counts.get(State.READY, 0) for queue in queues)
    if not alive and (ready or dead):
        waiting = f"; {ready:,} ready {'run waits' if ready == 1 else 'runs wait'}" if ready else ""
        return Check("workers", Level.PROBLEM, text + waiting, "Start one: lineshaft worker MODULE:APP.")
    if not alive:
        return Check("workers", Level.WARNING, text, "Nothing waits for one either.")
    return Check("workers", Level.OK, text)


def _of_age(queues: Sequence[QueueView], now_us: int, at_most_s: float) -> Check:
    ready = [(view.oldest_ready_us, view.queue) for view in queues if view.oldest_ready_us is not None]
    if not ready:
        return Check("oldest ready run", Level.OK, "none is ready")
    oldest_us, queue = min(ready)
    age_s = max(0.0, (now_us - oldest_us) / 1e6)
    text = f"{brief(age_s)} old, in queue {queue!r}"
    if age_s <= at_most_s:
        return Check("oldest ready run", Level.OK, text)
    return Check(
        "oldest ready run",
        Level.PROBLEM,
        text,
        f"Ask why: lineshaft queues show {queue}; lineshaft runs list --queue {queue} --state ready.",
    )


def _of_parked(counts: dict[State, int]) -> Check:
    parked = counts.get(State.PARKED, 0)
    if not parked:
        return Check("parked runs", Level.OK, "none")
    return Check(
        "parked runs",
        Level.PROBLEM,
        f"{parked:,}",
        "No worker can execute them: lineshaft runs list --state parked, then lineshaft runs why RUN.",
    )


def _of_failed(counts: dict[State, int]) -> Check:
    failed, unknown = counts.get(State.FAILED, 0), counts.get(State.OUTCOME_UNKNOWN, 0)
    if not failed and not unknown:
        return Check("failed runs", Level.OK, "none in the history kept")
    text = f"{failed:,} failed" + (f", {unknown:,} with unknown outcome" if unknown else "")
    return Check(
        "failed runs", Level.WARNING, f"{text} in the history kept", "See lineshaft runs list --state failed."
    )
