"""A worker of the harness: `python -m tests.crash.worker [--lease S] [--grace S] [--arm POINT[=SIGNAL]]…`.

With `--arm` it is killed at a point of `points.py`, or gets the signal that is named. With `--timings FILE` it
writes down, once a second, how long its claims took. Ends with SIGTERM, by draining.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.crash import points, workload


def time_claims(path: Path) -> None:
    """Append, for each second with claims, the time at its end and how long each took, in microseconds.

    A claim's time is that of its statements inside the open transaction, without the wait for the writer.
    """
    claim = points.claims.claim
    taken_us: list[int] = []
    written_s = time.monotonic()

    def timed(*args: Any) -> Any:
        nonlocal written_s
        began_ns = time.perf_counter_ns()
        try:
            return claim(*args)
        finally:
            taken_us.append((time.perf_counter_ns() - began_ns) // 1_000)
            if time.monotonic() - written_s >= 1.0:
                written_s = time.monotonic()
                with path.open("a") as file:
                    file.write(json.dumps([round(time.time(), 1), taken_us]) + "\n")
                taken_us.clear()

    points.claims.claim = timed


async def work(lease: float, grace: float) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with workload.app, workload.app.worker(lease=lease, grace=grace):
        workload.tell_that_it_is_up()
        await told.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lease", type=float, default=10)
    parser.add_argument("--grace", type=float, default=5)
    parser.add_argument("--arm", action="append", default=[])
    parser.add_argument("--timings", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(process)d %(asctime)s %(message)s")
    for wanted in options.arm:
        points.arm(wanted, Path(os.environ["PROGRAM_FOLDER"], "reached.txt"))
    if options.timings:
        time_claims(options.timings)
    asyncio.run(work(options.lease, options.grace))


if __name__ == "__main__":
    main()
