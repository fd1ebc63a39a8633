"""What is measured: throughput, latency, backlog."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from lineshaft.app import App
from lineshaft.cli.benchmark.bare import CLAIM, BareWorker
from lineshaft.cli.benchmark.fleet import Fleet
from lineshaft.cli.benchmark.work import QUEUE, TASK, Order, bench_app, orders
from lineshaft.cli.failing import CommandFailed
from lineshaft.core.clock import Clock
from lineshaft.core.states import FINAL, State
from lineshaft.engine.task import Task
from lineshaft.store.port import Store
from lineshaft.store.values import RunFilter

SUBMIT_CHUNK = 10_000
WARM_UP = 20
SMALL = 1_000
"""Runs queued in the small backlog."""
CYCLES = 40
"""Claims that one side of the comparison takes, of `CLAIM` runs each."""

Show = Callable[[str, int, int], None]
"""Told of a phase, what is done of it, and how much it is in all."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What to measure."""

    workload: str
    address: str
    runs: int
    processes: int
    show: Show


async def measure(wanted: Measurement) -> dict[str, float]:
    """Measure; the figures by their names."""
    app, task = bench_app(wanted.address)
    workload = {"throughput": throughput, "latency": latency, "backlog": backlog}[wanted.workload]
    async with app:
        await _require_alone(app)
        clock = app.runtime.clock
        began_s = clock.monotonic_s()
        try:
            figures = await workload(app, task, wanted)
        except BaseException:
            await _cancel_leftovers(app.runtime.store, clock)
            raise
        return {"seconds": round(clock.monotonic_s() - began_s, 3), **figures}


async def throughput(app: App, task: Task[[Order], object], wanted: Measurement) -> dict[str, float]:
    """Submit runs, then drain them with worker processes that have all booted before they may begin."""
    submit_s = await _submit(app, task, wanted.runs, wanted.show)
    wanted.show("Starting workers", 0, wanted.processes)
    async with Fleet(wanted.address, wanted.processes, app.runtime.clock) as fleet:
        wanted.show("Starting workers", wanted.processes, wanted.processes)
        fleet.go()
        done, drain_s = await fleet.drain(
            wanted.runs, lambda count: wanted.show("Draining", count, wanted.runs)
        )
    figures = {"submit_per_s": _rate(wanted.runs, submit_s)}
    # All of a small number may be done by the time that the first is seen.
    return figures | ({"drain_per_s": _rate(done, drain_s)} if done else {})


async def latency(app: App, task: Task[[Order], object], wanted: Measurement) -> dict[str, float]:
    """Submit and wait for the result, one run after the other.

    The worker lives in this process, or, with several processes, in the other ones.
    """
    clock = app.runtime.clock
    took_s = []
    async with AsyncExitStack() as stack:
        if wanted.processes == 1:
            await stack.enter_async_context(app.worker(queues=[QUEUE]))
        else:
            others = Fleet(wanted.address, wanted.processes - 1, clock)
            (await stack.enter_async_context(others)).go()
        for number, order in enumerate(orders(wanted.runs + WARM_UP)):
            began_s = clock.monotonic_s()
            await (await task.submit(order)).result()
            if number >= WARM_UP:
                took_s.append(clock.monotonic_s() - began_s)
            if number % 50 == 0:
                wanted.show("Round trips", number, wanted.runs)
    cuts = statistics.quantiles(took_s, n=100, method="inclusive") if len(took_s) > 1 else took_s * 99
    return {"p50_ms": round(cuts[49] * 1e3, 3), "p99_ms": round(cuts[98] * 1e3, 3)}


async def backlog(app: App, task: Task[[Order], object], wanted: Measurement) -> dict[str, float]:
    """Claim and settle with many runs queued, against the same with few.

    Both sides take as many claims of the same size, straight at the store, and are filled up in between;
    the small one is measured before and after the large one. So only the depth of the queue differs.
    """
    if wanted.runs < SMALL:
        raise CommandFailed(
            f"--runs is {wanted.runs:,}; the backlog workload compares with {SMALL:,} runs queued.",
            hint="Give more.",
            exit_code=2,
        )
    worker = BareWorker(app, task)
    await worker.register()
    show = wanted.show
    try:
        await task.submit_many(orders(SMALL))
        before_s = await worker.measure(CYCLES, partial(show, "Few runs queued"))
        submit_s = await _submit(app, task, wanted.runs - SMALL, wanted.show)
        large_s = await worker.measure(CYCLES, partial(show, "Many runs queued"))
        await worker.take_down(wanted.runs, SMALL, partial(show, "Settling the rest"))
        after_s = await worker.measure(CYCLES, partial(show, "Few runs queued again"))
        await worker.take_down(SMALL, 0, partial(show, "Settling the rest"))
    finally:
        await worker.unregister()
    small_per_s = _rate(2 * CLAIM * CYCLES, before_s + after_s)
    large_per_s = _rate(CLAIM * CYCLES, large_s)
    figures = {"submit_per_s": _rate(wanted.runs - SMALL, submit_s)} if wanted.runs > SMALL else {}
    return figures | {
        "drain_per_s": large_per_s,
        "small_backlog": SMALL,
        "small_drain_per_s": small_per_s,
        "ratio": round(large_per_s / small_per_s, 3),
    }


async def _submit(app: App, task: Task[[Order], object], count: int, show: Show) -> float:
    """Seconds that it took to submit."""
    clock = app.runtime.clock
    pending = list(orders(count))
    took_s = 0.0
    for start in range(0, count, SUBMIT_CHUNK):
        show("Submitting", start, count)
        began_s = clock.monotonic_s()
        await task.submit_many(pending[start : start + SUBMIT_CHUNK])
        took_s += clock.monotonic_s() - began_s
    show("Submitting", count, count)
    return took_s


def _rate(count: int, took_s: float) -> float:
    return round(count / max(took_s, 1e-9), 1)


async def _require_alone(app: App) -> None:
    """Take away what an interrupted measurement left behind; refuse while another one is under way."""
    store = app.runtime.store
    for worker in await store.workers():
        if worker.alive and QUEUE in worker.queues:
            raise CommandFailed(
                f"Another benchmark is under way on this store (process {worker.pid} on {worker.host}).",
                hint="Wait for its end; two at once would measure each other.",
            )
    await _cancel_leftovers(store, app.runtime.clock)


async def _cancel_leftovers(store: Store, clock: Clock) -> None:
    unfinished = frozenset(State) - FINAL
    while found := await store.listing(
        RunFilter(states=unfinished, tasks=frozenset({TASK}), queues=frozenset({QUEUE}), rows_max=1_000)
    ):
        states = await asyncio.gather(*(store.cancel(view.id, clock.now_us()) for view in found))
        if State.CANCELLED not in states:
            return
