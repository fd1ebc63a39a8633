"""Draining a backlog: no-op runs with a typed argument and result, all defaults on."""

from __future__ import annotations

from benchmarks.engine.apps import PLAIN
from benchmarks.engine.draining import filled_and_drained, record
from benchmarks.engine.stage import Stage


async def measure(stage: Stage) -> None:
    runs = stage.size(60_000)
    for _ in stage.rounds():
        for processes, config in ((1, "1 process"), (2, "2 processes")):
            drained = await filled_and_drained(stage, PLAIN, runs, processes=processes)
            record(stage, config, drained, runs=runs)
            stage.record(config, "memory, most", "MiB", drained.resident_mib_max, runs=runs)
