"""Plays many seeds: `make campaign`, for as many as asked for, or for so many minutes.

make campaign                 2,000 seeds that nobody played before
make campaign SEEDS=100000
make campaign MINUTES=60
make campaign SEED=4711       one seed; with its history, and every step before what it breaks
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

from tests.simulation import rare
from tests.simulation.judge import Verdict, judge, judge_twice, judged
from tests.simulation.script import play
from tests.simulation.world import simulation

SEEDS = 2_000
AT_ONCE = 10
"""Seeds that a process plays before it tells."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, help=f"how many to play (default: {SEEDS})")
    parser.add_argument("--minutes", type=float, help="for how long to play instead")
    parser.add_argument("--first", type=int, help="the first one (default: a number from the clock)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--seed", type=int, help="play this one, and show its history")
    parser.add_argument(
        "--lines", action="store_true", help="play once in this process, a line of JSON a seed"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    if options.seed is not None:
        return _show(options.seed)
    first = int(time.time()) if options.first is None else options.first
    if options.lines:
        for seed in range(first, first + options.seeds):
            print(json.dumps(judge(seed).as_json()), flush=True)
        return 0
    seeds = options.seeds or (10**9 if options.minutes else SEEDS)
    return Campaign(first, seeds, options.minutes, options.jobs).run()


def _show(seed: int) -> int:
    with simulation(seed, play, keep_steps=True) as record:
        verdict = judged(record)
    for line in record.steps or ():
        print(line)
    print(f"\nprofile: {record.profile}\n")
    for text in verdict.violations:
        print(f"✗ {text}")
    return _said(verdict)


def _said(verdict: Verdict) -> int:
    if not verdict.violations:
        print(f"· seed {verdict.seed} keeps every law")
    return bool(verdict.violations)


def several(first: int, count: int) -> list[dict[str, object]]:
    """Play seeds twice each, in a process of a pool."""
    warnings.simplefilter("ignore")
    return [judge_twice(seed).as_json() for seed in range(first, first + count)]


def _end_with(parent: int) -> None:
    """In a process of a pool: leave interrupts to the parent, and end when that is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Campaign:
    """Plays seeds in several processes, and tells how it goes."""

    def __init__(self, first: int, seeds: int, minutes: float | None, jobs: int) -> None:
        self._first = first
        self._seeds = seeds
        self._until_s = time.monotonic() + minutes * 60 if minutes else None
        self._jobs = jobs
        self._began_s = time.monotonic()
        self._played = 0
        self._failed: list[Verdict] = []
        self._sums: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._reached: Counter[str] = Counter()

    def run(self) -> int:
        pool = ProcessPoolExecutor(
            self._jobs,
            mp_context=get_context("spawn"),
            initializer=_end_with,
            initargs=(os.getpid(),),
            max_tasks_per_child=100,
        )
        try:
            with pool:
                self._play(pool)
        except KeyboardInterrupt:
            print("\n· interrupted")
        self._summary()
        return bool(self._failed)

    def _play(self, pool: ProcessPoolExecutor) -> None:
        parts = self._parts()
        under_way: set[Future[list[dict[str, object]]]] = set()
        try:
            while True:
                while len(under_way) < 2 * self._jobs and (part := next(parts, None)) is not None:
                    under_way.add(pool.submit(several, *part))
                if not under_way:
                    return
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    for fields in future.result():
                        self._add(Verdict.from_json(fields))
                self._progress()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _parts(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self._seeds, AT_ONCE):
            if self._until_s is not None and time.monotonic() > self._until_s:
                return
            yield self._first + start, min(AT_ONCE, self._seeds - start)

    def _add(self, verdict: Verdict) -> None:
        self._played += 1
        self._sums.update(runs=verdict.runs, steps=verdict.steps, virtual_s=int(verdict.virtual_s))
        self._faults.update(verdict.faults)
        self._reached.update(verdict.reached)
        if verdict.violations:
            self._failed.append(verdict)
            print(f"\n✗ seed {verdict.seed}")
            for text in verdict.violations[:5]:
                print(f"    {text}")
            print(f"    again: make campaign SEED={verdict.seed}   (keep it in tests/simulation/seeds.txt)")

    def _progress(self) -> None:
        seconds = time.monotonic() - self._began_s
        line = (
            f"· {self._played:,} seeds in {seconds:,.0f} s, {sum(self._faults.values()):,} faults,"
            f" {len(self._failed)} failed"
        )
        if sys.stdout.isatty():
            print(f"\r{line}", end="", flush=True)
        elif self._played % 100 < AT_ONCE:
            print(line, flush=True)

    def _summary(self) -> None:
        seconds = time.monotonic() - self._began_s
        print(
            f"\n\n{self._played:,} seeds from {self._first}, each played twice, in {seconds / 60:.1f} minutes:"
            f" {self._sums['runs']:,} runs, {self._sums['steps']:,} steps,"
            f" {self._sums['virtual_s'] / 3600:,.1f} hours of virtual time"
        )
        print("\nwhat went wrong")
        for fault, count in self._faults.most_common():
            print(f"{count:>12,}  {fault}")
        print("\nhow often a rare path was reached")
        for name in rare.names():
            print(f"{self._reached[name]:>12,}  {name}")
        failed = ", ".join(str(verdict.seed) for verdict in self._failed) or "none"
        print(f"\nseeds that failed: {failed}")


if __name__ == "__main__":
    sys.exit(main())
