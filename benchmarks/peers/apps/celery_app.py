"""Celery on Redis, with results in Redis; what its documentation says of acknowledging late and of prefetching."""

from __future__ import annotations

import time

import redis
from celery import Celery

from benchmarks.peers.contract import RESULT_S_MAX, WORK_S, settings, store
from benchmarks.peers.marks import mark

app = Celery("peers", broker=store(), backend=store())
app.conf.update(**settings()["conf"])


@app.task(name="noop")
def noop(number: int) -> int:
    """Do nothing, and tell."""
    mark(number)
    return number


@app.task(name="work")
def work(number: int) -> int:
    """Wait, and tell."""
    time.sleep(WORK_S)
    mark(number)
    return number


class Measured:
    packages = ("celery", "kombu", "redis", "hiredis")

    async def open(self) -> None:
        self._redis = redis.Redis.from_url(store())

    async def submit(self, number: int) -> None:
        noop.delay(number)

    async def submit_many(self, task: str, numbers: range) -> None:
        """There is no call for many; one producer for all of them is the fastest that there is."""
        wanted = {"noop": noop, "work": work}[task]
        with app.producer_or_acquire() as producer:
            for number in numbers:
                wanted.apply_async((number,), producer=producer)

    async def call(self, number: int) -> int:
        result: int = noop.delay(number).get(timeout=RESULT_S_MAX)
        return result

    async def unfinished(self) -> int:
        return self._redis.llen("celery") + self._redis.hlen("unacked")

    async def close(self) -> None:
        self._redis.close()
        app.close()


measured = Measured()
