"""arq on Redis, which keeps its jobs in a sorted set and its results beside them."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers.contract import RESULT_S_MAX, WORK_S, settings, store
from benchmarks.peers.marks import mark

AT_ONCE = 50
SERVER = RedisSettings.from_dsn(store())


async def noop(_: dict[str, Any], number: int) -> int:
    """Do nothing, and tell."""
    mark(number)
    return number


async def work(_: dict[str, Any], number: int) -> int:
    """Wait, and tell."""
    await asyncio.sleep(WORK_S)
    mark(number)
    return number


class WorkerSettings:
    """What `python -m arq` reads."""

    functions: ClassVar = [noop, work]
    redis_settings = SERVER


for name, value in settings()["worker"].items():
    setattr(WorkerSettings, name, value)


class Measured:
    packages = ("arq", "redis", "hiredis")

    async def open(self) -> None:
        self._pool = await create_pool(SERVER)

    async def submit(self, number: int) -> None:
        await self._pool.enqueue_job("noop", number)

    async def submit_many(self, task: str, numbers: range) -> None:
        """There is no call for many; several at once hide the way to the server."""
        for start in range(0, len(numbers), AT_ONCE):
            chunk = numbers[start : start + AT_ONCE]
            await asyncio.gather(*(self._pool.enqueue_job(task, number) for number in chunk))

    async def call(self, number: int) -> int:
        job = await self._pool.enqueue_job("noop", number)
        assert job is not None
        result: int = await job.result(timeout=RESULT_S_MAX, poll_delay=0.001)
        return result

    async def unfinished(self) -> int:
        count: int = await self._pool.zcard("arq:queue")
        return count

    async def close(self) -> None:
        await self._pool.aclose()


measured = Measured()
