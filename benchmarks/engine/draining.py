"""Having worker processes execute runs, and taking stock afterwards."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from typing import Any

import psutil

from benchmarks.engine.apps import ENTRY, AppAndTask
from benchmarks.engine.stage import Stage
from lineshaft import App, Task
from lineshaft.cli.benchmark.fleet import Fleet
from lineshaft.cli.benchmark.work import orders

CALL_RUNS = 10_000
"""Runs that each call of `submit_many` takes where nothing else is said."""
DRAIN_S_MAX = 600.0
CALLS_AT_ONCE = 2
"""One is written while the next is prepared."""


def app_of(make: str, address: str) -> AppAndTask:
    """The app that a worker process is told to make, made here."""
    module, _, name = make.partition(":")
    app, task, *_ = getattr(import_module(module), name)(address)
    return app, task


async def fill(stage: Stage, task: Task[Any, Any], count: int, **options: Any) -> None:
    """Submit so many runs as fast as can be."""
    left, done = orders(count), 0
    while part := list(islice(left, CALL_RUNS * CALLS_AT_ONCE)):
        stage.terminal.show("submitting", done, count)
        halves = (part[start : start + CALL_RUNS] for start in range(0, len(part), CALL_RUNS))
        await asyncio.gather(*(task.submit_many(half, **options) for half in halves))
        done += len(part)


class Meter:
    """CPU seconds and memory of processes."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self._before_s = self._cpu_s()
        self.resident_mib_max = 0.0

    def look(self) -> None:
        """Take note of the memory in use now."""
        sizes = [process.memory_info().rss / 2**20 for process in self._processes]
        self.resident_mib_max = max(self.resident_mib_max, *sizes)

    @property
    def cpu_s(self) -> float:
        """Spent since the meter was made, by all of them."""
        return self._cpu_s() - self._before_s

    def _cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)


@dataclass(slots=True)
class Drained:
    """What a drain found."""

    runs_per_s: float | None = None
    """None where all was done before the first was seen."""
    cpu_us_per_run: float = 0.0
    resident_mib_max: float = 0.0
    lost: int = 0
    doubled: int = 0
    left: int = 0
    """Runs of the store that were not finished afterwards."""


@asynccontextmanager
async def working(
    address: str, processes: int, app: App, make: str, drained: Drained
) -> AsyncIterator[Fleet]:
    """Worker processes around a block; what they executed is compared with what the store says, after it."""
    before, finished = _count(app)
    async with Fleet(address, processes, app.runtime.clock, make) as fleet:
        yield fleet
    drained.left, finished_by_now = _count(app)
    ended = finished_by_now - finished
    drained.lost += before - drained.left - ended
    drained.doubled += fleet.done - ended


async def drain(stage: Stage, address: str, app: App, make: str, runs: int, *, processes: int = 1) -> Drained:
    """Drain so many runs of a store that has at least as many."""
    drained = Drained()
    async with working(address, processes, app, make, drained) as fleet:
        meter = Meter(fleet.pids)
        fleet.go()

        def show(done: int) -> None:
            meter.look()
            stage.terminal.show("draining", min(done, runs), runs)

        async with asyncio.timeout(DRAIN_S_MAX):
            done, took_s = await fleet.drain(runs, show)
        drained.runs_per_s = done / took_s if done and took_s else None
        drained.cpu_us_per_run = meter.cpu_s / fleet.done * 1e6
        drained.resident_mib_max = meter.resident_mib_max
    return drained


async def filled_and_drained(stage: Stage, make: str, runs: int, *, processes: int = 1) -> Drained:
    """Submit runs to a store of their own and drain it."""
    address = stage.store("drain")
    app, task = app_of(make, address)
    async with app:
        _execute(app, ENTRY)
        await fill(stage, task, runs)
        drained = await drain(stage, address, app, make, runs, processes=processes)
    stage.remove("drain")
    return drained


def merged(drains: Sequence[Drained]) -> Drained:
    """Several drains of the same number of runs as one."""
    rates = [drained.runs_per_s for drained in drains if drained.runs_per_s]
    return Drained(
        statistics.harmonic_mean(rates) if rates else None,
        statistics.fmean(drained.cpu_us_per_run for drained in drains),
        max(drained.resident_mib_max for drained in drains),
        sum(drained.lost for drained in drains),
        sum(drained.doubled for drained in drains),
    )


def record(stage: Stage, config: str, drained: Drained, **settings: Any) -> None:
    """Put a drain down."""
    stage.record(config, "rate", "runs/s", drained.runs_per_s, **settings)
    stage.record(config, "CPU", "µs/run", drained.cpu_us_per_run, **settings)
    stage.record(config, "lost", "runs", drained.lost, **settings)
    stage.record(config, "doubled", "runs", drained.doubled, **settings)


def record_beside(stage: Stage, config: str, drained: Drained, other: Drained, **settings: Any) -> None:
    """Put a drain down, and how many times faster it was than another one of the same round."""
    record(stage, config, drained, **settings)
    rates = (drained.runs_per_s, other.runs_per_s)
    stage.record(config, "ratio", "×", rates[0] / rates[1] if rates[0] and rates[1] else None, **settings)
    cpu_ratio = other.cpu_us_per_run / drained.cpu_us_per_run if drained.cpu_us_per_run else None
    stage.record(config, "ratio of CPU", "×", cpu_ratio, **settings)


def _count(app: App) -> tuple[int, int]:
    """Runs that are not finished, and those that are."""
    [unfinished] = _execute(app, "SELECT count(*) FROM lineshaft_run")
    [finished] = _execute(app, "SELECT count(*) FROM lineshaft_run_history")
    return unfinished, finished


def _execute(app: App, statement: str) -> list[Any]:
    connection = app.connect()
    try:
        return [row[0] for row in connection.execute(statement)]
    finally:
        connection.close()


def percentile(values: Sequence[float], hundredths: int) -> float:
    """The value that so many of a hundred do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * hundredths // 100)]
