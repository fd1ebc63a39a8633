"""Lineshaft on SQLite: one file, durable by default, nothing to start."""

from __future__ import annotations

import asyncio

from benchmarks.peers.contract import RESULT_S_MAX, WORK_S, store
from benchmarks.peers.marks import mark
from lineshaft import App

CHUNK = 10_000

app = App("peers", store=f"sqlite:///{store()}")


@app.task
async def noop(number: int) -> int:
    """Do nothing, and tell."""
    mark(number)
    return number


@app.task
async def work(number: int) -> int:
    """Wait, and tell."""
    await asyncio.sleep(WORK_S)
    mark(number)
    return number


class Measured:
    packages = ("lineshaft", "sqlalchemy", "pydantic")

    async def open(self) -> None:
        await app.__aenter__()

    async def submit(self, number: int) -> None:
        await noop.submit(number)

    async def submit_many(self, task: str, numbers: range) -> None:
        wanted = {"noop": noop, "work": work}[task]
        for start in range(0, len(numbers), CHUNK):
            await wanted.submit_many(numbers[start : start + CHUNK])

    async def call(self, number: int) -> int:
        run = await noop.submit(number)
        return await run.result(timeout=RESULT_S_MAX)

    async def unfinished(self) -> int:
        return (await app.queue_stats("default")).unfinished

    async def close(self) -> None:
        await app.close()


measured = Measured()
