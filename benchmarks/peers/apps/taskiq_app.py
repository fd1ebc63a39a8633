"""Taskiq on Redis streams, which are its broker with acknowledgements, with results in Redis."""

from __future__ import annotations

import asyncio

import redis
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers.contract import RESULT_S_MAX, WORK_S, settings, store
from benchmarks.peers.marks import mark

AT_ONCE = 50

results = RedisAsyncResultBackend(store(), **settings()["results"])
broker = RedisStreamBroker(store(), **settings()["broker"]).with_result_backend(results)


@broker.task(task_name="noop")
async def noop(number: int) -> int:
    """Do nothing, and tell."""
    mark(number)
    return number


@broker.task(task_name="work")
async def work(number: int) -> int:
    """Wait, and tell."""
    await asyncio.sleep(WORK_S)
    mark(number)
    return number


class Measured:
    packages = ("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop")

    async def open(self) -> None:
        self._redis = redis.Redis.from_url(store())
        await broker.startup()

    async def submit(self, number: int) -> None:
        await noop.kiq(number)

    async def submit_many(self, task: str, numbers: range) -> None:
        """There is no call for many; several at once hide the way to the server."""
        wanted = {"noop": noop, "work": work}[task]
        for start in range(0, len(numbers), AT_ONCE):
            await asyncio.gather(*(wanted.kiq(number) for number in numbers[start : start + AT_ONCE]))

    async def call(self, number: int) -> int:
        task = await noop.kiq(number)
        result = await task.wait_result(check_interval=0.001, timeout=RESULT_S_MAX)
        return result.return_value

    async def unfinished(self) -> int:
        """What was delivered and not acknowledged, and what was not delivered yet."""
        [group] = self._redis.xinfo_groups("taskiq")
        waiting = self._redis.xrange("taskiq", min=b"(" + group["last-delivered-id"])
        return group["pending"] + len(waiting)

    async def close(self) -> None:
        self._redis.close()
        await broker.shutdown()


measured = Measured()
