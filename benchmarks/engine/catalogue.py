"""All benchmarks, in the order in which they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.engine import (
    backlog,
    beside,
    blocked,
    drains,
    idle,
    imports,
    kinds,
    latency,
    limits,
    single,
    submits,
)
from benchmarks.engine.stage import Stage


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark, and what it is about."""

    name: str
    about: str
    measure: Callable[[Stage], Awaitable[None]]


CATALOGUE = (
    Benchmark("import", "what `import lineshaft` adds to the start of Python", imports.measure),
    Benchmark("idle", "CPU and memory of a worker with nothing to do", idle.measure),
    Benchmark("drain", "draining a backlog", drains.measure),
    Benchmark("submit_many", "many runs in a call", submits.measure),
    Benchmark("submit", "one run in a call", single.measure),
    Benchmark("latency", "submit to result on an idle system", latency.measure),
    Benchmark("beside", "submitting while another process drains", beside.measure),
    Benchmark("limits", "limits and tenants on against off", limits.measure),
    Benchmark("kinds", "other kinds of tasks", kinds.measure),
    Benchmark("blocked", "a million runs that cannot run now, in front of others", blocked.measure),
    Benchmark("backlog", "deep queues against a short one", backlog.measure),
)
