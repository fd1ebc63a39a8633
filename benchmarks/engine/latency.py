"""`submit` to `result`, one run after the other on an idle system."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

from benchmarks.engine.apps import PLAIN
from benchmarks.engine.draining import app_of, percentile
from benchmarks.engine.stage import Stage
from lineshaft.cli.benchmark.fleet import Fleet
from lineshaft.cli.benchmark.work import QUEUE, orders

WARM_UP = 50
SAME_CONFIG = "worker in the same process"


async def measure(stage: Stage) -> None:
    runs = stage.size(2_000, at_least=20)
    for _ in stage.rounds():
        for config in (SAME_CONFIG, "worker in another process"):
            address = stage.store("latency")
            app, task = app_of(PLAIN, address)
            took_ms = []
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(app)
                if config == SAME_CONFIG:
                    await stack.enter_async_context(app.worker(queues=[QUEUE]))
                else:
                    (await stack.enter_async_context(Fleet(address, 1, app.runtime.clock))).go()
                for number, order in enumerate(orders(runs + WARM_UP)):
                    began_s = time.perf_counter()
                    await (await task.submit(order)).result()
                    took_ms.append((time.perf_counter() - began_s) * 1e3)
                    stage.terminal.show(config, number, runs)
            for hundredths in (50, 99):
                value = percentile(took_ms[WARM_UP:], hundredths)
                stage.record(config, f"p{hundredths}", "ms", value, runs=runs)
        stage.remove("latency")
