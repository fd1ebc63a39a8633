"""Dramatiq on Redis, with its default middleware, and with results in Redis."""

from __future__ import annotations

import time

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.contract import RESULT_S_MAX, WORK_S, settings, store
from benchmarks.peers.marks import mark

broker = RedisBroker(url=store(), **settings()["broker"])
broker.add_middleware(Results(backend=RedisBackend(url=store())))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def noop(number: int) -> int:
    """Do nothing, and tell."""
    mark(number)
    return number


@dramatiq.actor(store_results=True)
def work(number: int) -> int:
    """Wait, and tell."""
    time.sleep(WORK_S)
    mark(number)
    return number


class Measured:
    packages = ("dramatiq", "redis", "hiredis")

    async def open(self) -> None:
        self._redis = redis.Redis.from_url(store())

    async def submit(self, number: int) -> None:
        noop.send(number)

    async def submit_many(self, task: str, numbers: range) -> None:
        """There is no call for many."""
        wanted = {"noop": noop, "work": work}[task]
        for number in numbers:
            wanted.send(number)

    async def call(self, number: int) -> int:
        result: int = noop.send(number).get_result(block=True, timeout=int(RESULT_S_MAX * 1e3))
        return result

    async def unfinished(self) -> int:
        """A message stays in this hash until it is acknowledged."""
        return self._redis.hlen("dramatiq:default.msgs")

    async def close(self) -> None:
        self._redis.close()
        broker.close()


measured = Measured()
