"""A worker that has nothing to do: `lineshaft worker`, as it is deployed, beside an empty store."""

from __future__ import annotations

import asyncio
import os
import sys

import psutil

from benchmarks.engine.apps import PLAIN
from benchmarks.engine.draining import app_of
from benchmarks.engine.stage import Stage

CONFIG = "lineshaft worker"
TARGET = "benchmarks.engine.idle_app:app"
SETTLED_S = 3.0
"""After so long it has done what it does once."""


async def measure(stage: Stage) -> None:
    watched_s = stage.size(20)
    for _ in stage.rounds():
        address = stage.store("idle")
        # It joins a store that is there, as all but the very first do: making one loads what is not needed later.
        async with app_of(PLAIN, address)[0]:
            pass
        environment = os.environ | {"LINESHAFT_STORE": address}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lineshaft", "worker", TARGET),
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            while line := await process.stderr.readline():
                if b" serves queues " in line:
                    break
            else:
                raise RuntimeError("The worker did not start.")
            await asyncio.sleep(min(SETTLED_S, watched_s))
            worker = psutil.Process(process.pid)
            before_s = sum(worker.cpu_times()[:2])
            for second in range(watched_s):
                stage.terminal.show("watching an idle worker", second, watched_s)
                await asyncio.sleep(1)
            cpu_s = sum(worker.cpu_times()[:2]) - before_s
            memory = worker.memory_full_info()
        finally:
            process.terminate()
            await process.wait()
        stage.record(CONFIG, "CPU", "% of a core", cpu_s / watched_s * 100, seconds=watched_s)
        stage.record(CONFIG, "resident memory", "MiB", memory.rss / 2**20)
        stage.record(CONFIG, "memory of its own", "MiB", memory.uss / 2**20)
        stage.remove("idle")
