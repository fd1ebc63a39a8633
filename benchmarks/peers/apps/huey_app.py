"""Huey on SQLite: one file, with its results in it."""

from __future__ import annotations

import time

from huey import SqliteHuey

from benchmarks.peers.contract import RESULT_S_MAX, WORK_S, settings, store
from benchmarks.peers.marks import mark

huey = SqliteHuey("peers", filename=store(), **settings()["storage"])


@huey.task()
def noop(number: int) -> int:
    """Do nothing, and tell."""
    mark(number)
    return number


@huey.task()
def work(number: int) -> int:
    """Wait, and tell."""
    time.sleep(WORK_S)
    mark(number)
    return number


class Measured:
    packages = ("huey",)

    async def open(self) -> None:
        pass

    async def submit(self, number: int) -> None:
        noop(number)

    async def submit_many(self, task: str, numbers: range) -> None:
        """There is no call for many."""
        wanted = {"noop": noop, "work": work}[task]
        for number in numbers:
            wanted(number)

    async def call(self, number: int) -> int:
        result: int = noop(number).get(blocking=True, timeout=RESULT_S_MAX, backoff=1, max_delay=0.001)
        return result

    async def unfinished(self) -> int:
        """What waits. What runs is in no table: it was deleted when it was taken."""
        return huey.pending_count()

    async def close(self) -> None:
        huey.storage.close()


measured = Measured()
