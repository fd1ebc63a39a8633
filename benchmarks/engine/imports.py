"""What `import lineshaft` adds to the start of an interpreter."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from benchmarks.engine.stage import Stage

CONFIG = "import lineshaft"


async def measure(stage: Stage) -> None:
    starts = stage.size(10, at_least=2)
    for _ in stage.rounds():
        wall_ms, cpu_ms = [], []
        for number in range(starts):
            stage.terminal.show("starting interpreters", number, starts)
            bare, with_it = _start("pass"), _start("import lineshaft")
            wall_ms.append((with_it[0] - bare[0]) * 1e3)
            cpu_ms.append((with_it[1] - bare[1]) * 1e3)
        stage.record(CONFIG, "time", "ms", statistics.median(wall_ms), starts=starts)
        stage.record(CONFIG, "CPU", "ms", statistics.median(cpu_ms), starts=starts)


def _start(script: str) -> tuple[float, float]:
    """Seconds and CPU seconds of a fresh interpreter."""
    began_s = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", script])
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{script!r} ended with {process.returncode}.")
    return took_s, usage.ru_utime + usage.ru_stime
