"""A worker with nothing to execute: it claims and settles straight at the store, and nothing else costs time."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from lineshaft.app import App
from lineshaft.cli.benchmark.work import QUEUE, TASK, Order, orders
from lineshaft.core.states import State
from lineshaft.engine.fairness import share_out
from lineshaft.engine.task import Task
from lineshaft.store.values import ClaimRequest, NewWorker, Outcome

CLAIM = 500
"""Runs in each claim that is measured."""
LEASE_US = 3_600_000_000


class BareWorker:
    """Takes runs of the benchmark's task, and puts as many back."""

    def __init__(self, app: App, task: Task[[Order], object]) -> None:
        self._task = task
        self._store = app.runtime.store
        self._clock = app.runtime.clock
        self._id = 0

    async def register(self) -> None:
        now_us = self._clock.now_us()
        self._id = await self._store.register(
            NewWorker(socket.gethostname(), os.getpid(), now_us, (QUEUE,), ((TASK, "1"),), LEASE_US)
        )

    async def unregister(self) -> None:
        await self._store.unregister(self._id)

    async def measure(self, cycles: int, show: Callable[[int, int], None]) -> float:
        """Seconds that so many claims took, with the settling; what is taken is put back unmeasured."""
        took_s = 0.0
        for number in range(cycles):
            began_s = self._clock.monotonic_s()
            count = await self.cycle(CLAIM)
            took_s += self._clock.monotonic_s() - began_s
            await self._task.submit_many(orders(count))
            show(number + 1, cycles)
        return took_s

    async def take_down(self, count: int, left: int, show: Callable[[int, int], None]) -> None:
        """Settle until so few of `count` runs are left."""
        total = count - left
        while count > left:
            taken = await self.cycle(min(1_000, count - left))
            if not taken:
                break
            count -= taken
            show(total - (count - left), total)

    async def cycle(self, rows_max: int) -> int:
        """Claim once and settle what was claimed; how many runs that were."""
        now_us = self._clock.now_us()
        reply = await self._store.claim(
            ClaimRequest(
                worker=self._id,
                now_us=now_us,
                plan=lambda lanes: share_out(
                    [lane for lane in lanes if lane.lane.queue == QUEUE],
                    lambda _: "loop",
                    lambda _: (),
                    {"loop": rows_max},
                    0,
                    {},
                ),
                after_lane=-1,
                idle=True,
            )
        )
        outcomes = [
            Outcome(
                run.id,
                run.fence,
                self._id,
                State.SUCCEEDED,
                now_us,
                now_us,
                result=b'{"order":1,"cents":1}',
            )
            for run in reply.runs
        ]
        await self._store.settle(outcomes)
        return len(outcomes)
