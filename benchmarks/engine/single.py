"""One `submit` after the other, and many at once: each returns when its run is durable."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.engine.apps import PLAIN
from benchmarks.engine.draining import app_of, percentile
from benchmarks.engine.stage import Stage
from lineshaft import Task
from lineshaft.cli.benchmark.work import orders

CALLERS = 100


async def measure(stage: Stage) -> None:
    for _ in stage.rounds():
        app, task = app_of(PLAIN, stage.store("single"))
        async with app:
            await _one_after_the_other(stage, task, stage.size(1_000, at_least=10))
            await _at_once(stage, task, stage.size(20_000, at_least=CALLERS))
        stage.remove("single")


async def _one_after_the_other(stage: Stage, task: Task[Any, Any], runs: int) -> None:
    took_ms = []
    for number, order in enumerate(orders(runs)):
        began_s = time.perf_counter()
        await task.submit(order)
        took_ms.append((time.perf_counter() - began_s) * 1e3)
        stage.terminal.show("one after the other", number + 1, runs)
    for hundredths in (50, 99):
        value = percentile(took_ms, hundredths)
        stage.record("one after the other", f"p{hundredths}", "ms", value, runs=runs)


async def _at_once(stage: Stage, task: Task[Any, Any], runs: int) -> None:
    pending = orders(runs)

    async def call() -> None:
        for order in pending:
            await task.submit(order)

    began_s = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(CALLERS)))
    rate = runs / (time.perf_counter() - began_s)
    stage.record(f"{CALLERS} callers at once", "rate", "runs/s", rate, runs=runs)
