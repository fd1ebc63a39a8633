"""Submitting from one process while another drains: how long each `submit` takes."""

from __future__ import annotations

import asyncio
import time

from benchmarks.engine.apps import PLAIN
from benchmarks.engine.draining import Drained, app_of, fill, percentile, working
from benchmarks.engine.stage import Stage
from lineshaft.cli.benchmark.work import orders

PAUSE_S = 0.002
CONFIG = "one at a time, during a drain"


async def measure(stage: Stage) -> None:
    runs = stage.size(100_000, at_least=200)
    for _ in stage.rounds():
        address = stage.store("beside")
        app, task = app_of(PLAIN, address)
        drained = Drained()
        took_ms: list[float] = []
        submitted = 0
        async with app:
            await fill(stage, task, runs)
            async with working(address, 1, app, PLAIN, drained) as fleet:
                fleet.go()
                for order in orders(runs):
                    await asyncio.sleep(PAUSE_S)
                    if fleet.done >= runs * 0.9:
                        break
                    began_s = time.perf_counter()
                    await task.submit(order)
                    if fleet.done:
                        took_ms.append((time.perf_counter() - began_s) * 1e3)
                    submitted += 1
                    stage.terminal.show("submitting during a drain", fleet.done, runs)
                await fleet.drain(runs + submitted, lambda done: stage.terminal.show("draining", done, runs))
        for hundredths in (50, 99):
            value = percentile(took_ms, hundredths) if took_ms else None
            stage.record(CONFIG, f"p{hundredths}", "ms", value, runs=runs, submits=len(took_ms))
        stage.record(CONFIG, "lost", "runs", drained.lost + submitted)
        stage.record(CONFIG, "doubled", "runs", drained.doubled)
        stage.remove("beside")
