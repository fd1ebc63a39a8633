"""`submit_many`: without keys, with fresh keys, and with keys that are held already."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.engine.apps import PLAIN
from benchmarks.engine.draining import app_of
from benchmarks.engine.stage import Stage
from lineshaft import Task
from lineshaft.cli.benchmark.work import Order, orders

PLAIN_CONFIG = "calls of 10,000"
FRESH_CONFIG = "calls of 10,000, fresh keys"


async def measure(stage: Stage) -> None:
    runs = stage.size(50_000)
    pending = list(orders(runs))
    for _ in stage.rounds():
        address = stage.store("submit")
        app, task = app_of(PLAIN, address)
        async with app:
            await _submitted(stage, task, pending, PLAIN_CONFIG)
            await _submitted(stage, task, pending, "calls of 1,000", call_runs=1_000)
            await _submitted(stage, task, pending, "calls of 10,000, two at once", at_once=2)
            await _submitted(stage, task, pending, FRESH_CONFIG, key=_key_of)
            await _submitted(stage, task, pending, "calls of 10,000, keys held", key=_key_of)
        stage.remove("submit")


def _key_of(order: Order) -> str:
    # As keys are in practice: not in the order in which they are stored.
    return f"{order.id * 2_654_435_761 % 2**32:08x}-{order.id}"


async def _submitted(
    stage: Stage,
    task: Task[Any, Any],
    pending: list[Order],
    config: str,
    *,
    call_runs: int = 10_000,
    at_once: int = 1,
    **options: Any,
) -> None:
    calls = iter([pending[start : start + call_runs] for start in range(0, len(pending), call_runs)])

    async def submit() -> None:
        for call in calls:
            await task.submit_many(call, **options)

    stage.terminal.show(f"submitting, {config}", 0, len(pending))
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(submit() for _ in range(at_once)))
    took_s, took_cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    stage.record(config, "rate", "runs/s", len(pending) / took_s, runs=len(pending))
    stage.record(config, "CPU", "µs/run", took_cpu_s / len(pending) * 1e6, runs=len(pending))
