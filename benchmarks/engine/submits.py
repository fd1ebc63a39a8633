"""`submit_many`: without keys, with fresh keys, and with keys that are held already."""

from __future__ import annotations

import asyncio
import time
from itertools import islice
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
    for _ in stage.rounds():
        app, task = app_of(PLAIN, stage.store("submit"))
        async with app:
            await _submitted(stage, task, runs, PLAIN_CONFIG)
            await _submitted(stage, task, runs, "calls of 1,000", call_runs=1_000)
            await _submitted(stage, task, runs, "calls of 10,000, two at once", at_once=2)
            await _submitted(stage, task, runs, FRESH_CONFIG, key=_key_of)
            await _submitted(stage, task, runs, "calls of 10,000, keys held", key=_key_of)
        stage.remove("submit")


def _key_of(order: Order) -> str:
    # As keys are in practice: not in the order in which they are stored.
    return f"{order.id * 2_654_435_761 % 2**32:08x}-{order.id}"


async def _submitted(
    stage: Stage,
    task: Task[Any, Any],
    runs: int,
    config: str,
    *,
    call_runs: int = 10_000,
    at_once: int = 1,
    **options: Any,
) -> None:
    """Calls of `submit_many`, so many at once. Only they are timed, not the making of what they are given."""
    left = orders(runs)
    took_s = took_cpu_s = 0.0
    done = 0
    while calls := [call for _ in range(at_once) if (call := list(islice(left, call_runs)))]:
        stage.terminal.show(f"submitting, {config}", done, runs)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(task.submit_many(call, **options) for call in calls))
        took_s += time.perf_counter() - began_s
        took_cpu_s += time.process_time() - began_cpu_s
        done += sum(map(len, calls))
    stage.record(config, "rate", "runs/s", runs / took_s, runs=runs)
    stage.record(config, "CPU", "µs/run", took_cpu_s / runs * 1e6, runs=runs)
