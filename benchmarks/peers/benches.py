"""What is measured: each bench takes a subject through a stage and yields what it found.

import   a fresh interpreter importing the library, less one that imports nothing
latency  an idle worker; then submit → result, one after the other; before it, submissions one after the other
drain    a backlog submitted as fast as the system offers, then executed from a standing start
backlog  the rate with many queued, beside the rate with few
kill     kill -9 of all workers, three times in a backlog, each time started again at once
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.remote import RemoteClient
from benchmarks.peers.stage import Place, Stage
from benchmarks.peers.subject import Sizes, Subject
from benchmarks.peers.watching import SILENCE_S_MAX, Watched, watch

WARM_UP: Final = 20
CALLS_MAX: Final = 1_000
CALLS_S_MAX: Final = 3.0
IDLE_S: Final = 3.0
SETTLE_S_MAX: Final = 5.0
IMPORTS: Final = 3
KILLED_AT: Final = (0.2, 0.4, 0.6)
"""At which share of the runs the workers are killed."""


@dataclass(frozen=True, slots=True)
class Found:
    """One value."""

    bench: str
    metric: str
    unit: str
    value: float | None
    settings: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Task:
    """One bench of one subject, to be done now."""

    place: Place
    subject: Subject
    sizes: Sizes
    backlog: int

    def found(
        self, stage: Stage, bench: str, metric: str, unit: str, value: float | None, **sizes: int
    ) -> Found:
        settings = self.subject.described(stage.settings) | sizes
        return Found(bench, metric, unit, value, settings, stage.versions)


def measure_import(task: Task) -> Iterator[Found]:
    """Milliseconds that importing adds to the start of the interpreter."""
    python = task.place.python(task.subject.environment)

    def took_ms(statement: str) -> float:
        began_s = time.perf_counter()
        subprocess.run([python, "-c", statement], check=True, capture_output=True)
        return (time.perf_counter() - began_s) * 1e3

    took_ms(task.subject.imports)  # the first one may compile, and reads from the disk
    added_ms = [took_ms(task.subject.imports) - took_ms("pass") for _ in range(IMPORTS)]
    settings = {"statement": task.subject.imports, "less": "python -c pass", "median of": IMPORTS}
    yield Found("import", "import", "ms", statistics.median(added_ms), settings, {})


def measure_latency(task: Task) -> Iterator[Found]:
    """Submissions without a worker, an idle worker, and round trips."""
    with Stage(task.place, task.subject) as stage:
        client = stage.client()
        each_s = client.submit_each(0, CALLS_MAX, CALLS_S_MAX / 2)
        with stage.workers() as workers:
            watch(stage.marks, len(each_s), workers)
            client.call_each(CALLS_MAX, WARM_UP, SILENCE_S_MAX)
            time.sleep(IDLE_S / 3)
            began_s, used_s = time.perf_counter(), workers.cpu_s()
            time.sleep(IDLE_S)
            idle_percent = (workers.cpu_s() - used_s) / (time.perf_counter() - began_s) * 100
            memory_mib = workers.memory_mib()
            calls_s = client.call_each(CALLS_MAX + WARM_UP, CALLS_MAX, CALLS_S_MAX)
        cuts_s = statistics.quantiles(calls_s, n=100, method="inclusive")
        yield task.found(stage, "submit", "one", "runs/s", len(each_s) / sum(each_s))
        yield task.found(stage, "idle", "rss", "MiB", memory_mib["rss_mib"])
        yield task.found(stage, "idle", "pss", "MiB", memory_mib["pss_mib"])
        yield task.found(stage, "idle", "cpu", "% of a core", idle_percent)
        yield task.found(stage, "latency", "p50", "ms", cuts_s[49] * 1e3)
        yield task.found(stage, "latency", "p99", "ms", cuts_s[98] * 1e3)


def measure_drain(task: Task) -> Iterator[Found]:
    """A backlog submitted, then drained."""
    count = task.sizes.drain
    with Stage(task.place, task.subject) as stage:
        client = stage.client()
        took_s = client.submit_many("noop", 0, count)
        with stage.workers() as workers:
            seen = watch(stage.marks, count, workers)
            left = left_unfinished(client)
        yield task.found(stage, "submit", "many", "runs/s", count / took_s, runs=count)
        yield task.found(stage, "drain", "rate", "runs/s", seen.rate, runs=count)
        yield task.found(stage, "drain", "lost", "runs", count - seen.done)
        yield task.found(stage, "drain", "doubled", "runs", stage.marks.doubled(count))
        yield task.found(stage, "drain", "unfinished", "runs", left)


def measure_backlog(task: Task) -> Iterator[Found]:
    """The rate of a first part of a long backlog, beside that of the same number with nothing behind them."""
    few, many = task.sizes.window, max(task.backlog, task.sizes.window)
    with Stage(task.place, task.subject) as stage:
        stage.client().submit_many("noop", 0, few)
        with stage.workers() as workers:
            with_few = watch(stage.marks, few, workers).rate
    frozen = task.place.work / f"backlog-{task.subject.name}-{many}"
    if not frozen.exists():
        _freeze(task, many, frozen)
    with Stage(task.place, task.subject, frozen=frozen) as filled, filled.workers() as workers:
        with_many = watch(filled.marks, many, workers, until=few).rate
    ratio = with_many / with_few if with_many and with_few else None
    yield task.found(stage, "backlog", "rate with few", "runs/s", with_few, runs=few)
    yield task.found(stage, "backlog", "rate with many", "runs/s", with_many, runs=many)
    yield task.found(stage, "backlog", "ratio", "", ratio, few=few, many=many)


def measure_kill(task: Task) -> Iterator[Found]:
    """What became of accepted runs whose workers were killed.

    Another run is submitted each second, since some systems look for what dead workers held only when there is
    something new. It is not counted.
    """
    count, patience_s = task.sizes.kill, SILENCE_S_MAX + task.subject.redelivery_s
    others = itertools.count(count)
    with Stage(task.place, task.subject, task.subject.with_settings(task.subject.redelivery)) as stage:
        client = stage.client()
        client.submit_many("work", 0, count)

        def look(until: int) -> Watched:
            return watch(
                stage.marks,
                count,
                workers,
                until=until,
                silence_s=patience_s,
                every_second=lambda: client.submit_many("work", next(others), 1),
            )

        with stage.workers() as workers:
            killed_s = []
            for share in KILLED_AT:
                look(round(count * share))
                killed_s.append(time.perf_counter())
                workers.kill()
                workers.start()
            restarted_s = time.perf_counter()
            seen = look(count)
            left = left_unfinished(client)
        recovery_s = restarted_s - killed_s[0] + seen.last_s
        yield task.found(stage, "kill", "accepted", "runs", count)
        yield task.found(stage, "kill", "lost", "runs", count - seen.done)
        yield task.found(stage, "kill", "doubled", "runs", stage.marks.doubled(count))
        yield task.found(stage, "kill", "unfinished", "runs", left)
        yield task.found(stage, "kill", "recovery", "s", recovery_s)


MEASURES: Final[dict[str, Callable[[Task], Iterator[Found]]]] = {
    "import": measure_import,
    "latency": measure_latency,
    "drain": measure_drain,
    "backlog": measure_backlog,
    "kill": measure_kill,
}


def left_unfinished(client: RemoteClient) -> int:
    """How many runs the system takes for unfinished, some seconds after the last one ran."""
    until_s = time.monotonic() + SETTLE_S_MAX
    while (left := client.unfinished()) and time.monotonic() < until_s:
        time.sleep(0.1)
    return left


def _freeze(task: Task, count: int, folder: Path) -> None:
    """Keep a store with so many runs queued, which each round then copies."""
    with Stage(task.place, task.subject, task.subject.with_settings(task.subject.filling)) as stage:
        stage.client().submit_many("noop", 0, count)
        stage.freeze(folder)
