"""Claiming from a backlog of a hundred thousand, a million, five million, against one of a thousand.

Two comparisons, each in turns within a round. *Claims*: so many claims of 500 runs with their settling, straight at
the store, and what is taken is put back; nothing but the depth of the queue differs. *Drains*: a worker process
drains the same number of runs with the deep backlog behind them and with nothing behind them.

The large backlog is submitted with `submit_many`, like any other; it grows from depth to depth.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from benchmarks.engine.apps import PLAIN
from benchmarks.engine.draining import app_of, drain, fill, filled_and_drained, record_beside
from benchmarks.engine.stage import Stage
from lineshaft.cli.benchmark.bare import CLAIM, BareWorker

SMALL = 1_000
DEPTHS = (100_000, 1_000_000, 5_000_000)
CYCLES = 20
"""Claims that each side takes in one turn."""
DRAINED = 20_000


def claims_config(depth: int) -> str:
    return f"claims, {depth:,} queued"


async def measure(stage: Stage) -> None:
    small = _Side(stage, "backlog-small")
    large = _Side(stage, "backlog-large")
    async with small.app, large.app:
        await small.grow(SMALL)
        for depth in DEPTHS:
            await large.grow(stage.size(depth, at_least=SMALL))
            await _claims(stage, small, large, claims_config(depth))
            await _drains(stage, large, f"drain, {depth:,} queued")
    stage.remove("backlog-small")
    stage.remove("backlog-large")


class _Side:
    def __init__(self, stage: Stage, name: str) -> None:
        self._stage = stage
        self.address = stage.store(name)
        self.app, self.task = app_of(PLAIN, self.address)
        self.queued = 0

    async def grow(self, queued: int) -> None:
        """Fill it up."""
        await fill(self._stage, self.task, queued - self.queued)
        self.queued = queued

    async def claims(self, worker: BareWorker, cycles: int) -> tuple[float, float]:
        """Seconds and CPU seconds that so many claims took, with their settling."""
        began_s = time.process_time()
        took_s = await worker.measure(
            cycles, partial(self._stage.terminal.show, f"claims, {self.queued:,} queued")
        )
        return took_s, time.process_time() - began_s


async def _claims(stage: Stage, small: _Side, large: _Side, config: str) -> None:
    cycles = stage.size(CYCLES, at_least=2)
    workers = {side: BareWorker(side.app, side.task) for side in (small, large)}
    for worker in workers.values():
        await worker.register()
    settings: dict[str, Any] = {"claims": 2 * cycles, "runs_per_claim": CLAIM, "small": SMALL}
    for _ in stage.rounds():
        took_s = {small: 0.0, large: 0.0}
        cpu_s = {small: 0.0, large: 0.0}
        for side in (small, large, large, small):
            seconds, cpu_seconds = await side.claims(workers[side], cycles)
            took_s[side] += seconds
            cpu_s[side] += cpu_seconds
        runs = 2 * cycles * CLAIM
        stage.record(config, "rate", "runs/s", runs / took_s[large], **settings)
        stage.record(config, "rate with 1,000 queued", "runs/s", runs / took_s[small], **settings)
        stage.record(config, "ratio", "×", took_s[small] / took_s[large], **settings)
        stage.record(config, "ratio of CPU", "×", cpu_s[small] / cpu_s[large], **settings)
    for worker in workers.values():
        await worker.unregister()


async def _drains(stage: Stage, large: _Side, config: str) -> None:
    runs = stage.size(DRAINED, at_least=500)
    for _ in stage.rounds():
        deep = await drain(stage, large.address, large.app, PLAIN, runs)
        alone = await filled_and_drained(stage, PLAIN, runs)
        depth, large.queued = large.queued, deep.left
        await large.grow(depth)
        record_beside(stage, config, deep, alone, runs=runs)
        stage.record(config, "memory, most", "MiB", deep.resident_mib_max, runs=runs)
