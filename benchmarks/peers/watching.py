"""Watching runs being executed, by their marks alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.peers.marks import Marks
from benchmarks.peers.processes import Workers

LOOK_S: Final = 0.004
START_S_MAX: Final = 60.0
"""How long workers may take until the first run is done."""
SILENCE_S_MAX: Final = 20.0
"""After how long without any progress what is missing is given up."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen between the first mark and the last one."""

    done: int
    rate: float | None
    """Runs per second: those after the first that were seen, over the time from these to the last. The start of the
    workers does not count. None if everything was done at the first look."""
    last_s: float
    """Seconds from the beginning of the watch to the last progress."""


def watch(
    marks: Marks,
    count: int,
    workers: Workers,
    *,
    until: int | None = None,
    silence_s: float = SILENCE_S_MAX,
    every_second: Callable[[], object] = lambda: None,
) -> Watched:
    """Look until `until` of the first `count` runs are done (all, if not given), or until nothing happens any more.

    Raises RuntimeError if the workers end.
    """
    began_s = last_s = time.perf_counter()
    first: tuple[float, int] | None = None
    done = marks.done(count)
    wanted = count if until is None else until
    seconds = 0
    while True:
        now_s = time.perf_counter()
        seen = marks.done(count)
        if seen != done:
            first = first or (now_s, seen)
            done, last_s = seen, now_s
        patience_s = silence_s if first else max(silence_s, START_S_MAX)
        if done >= wanted or now_s - last_s > patience_s:
            break
        if not workers.alive:
            raise RuntimeError("The workers have ended.")
        if now_s - began_s > seconds:
            seconds += 1
            every_second()
        time.sleep(LOOK_S)
    rate = (done - first[1]) / (last_s - first[0]) if first and last_s > first[0] else None
    return Watched(done, rate, last_s - began_s)
