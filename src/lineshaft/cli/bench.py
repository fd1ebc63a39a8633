"""`lineshaft bench`: how fast a store is, here, with these disks and processors."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli import printing
from lineshaft.cli.options import DEFAULT_STORE, AsJson, Store

if TYPE_CHECKING:
    from rich.progress import Progress


class Workload(StrEnum):
    """What is measured."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"
    BACKLOG = "backlog"


RUNS = {Workload.THROUGHPUT: 50_000, Workload.LATENCY: 2_000, Workload.BACKLOG: 100_000}
_NAMES = {
    "submit_per_s": ("submitted", "{:,.0f} runs/s"),
    "drain_per_s": ("drained", "{:,.0f} runs/s"),
    "small_drain_per_s": ("with 1,000 queued", "{:,.0f} runs/s"),
    "ratio": ("ratio", "{:.3f}"),
    "p50_ms": ("median", "{:.2f} ms"),
    "p99_ms": ("99th percentile", "{:.2f} ms"),
    "seconds": ("in all", "{:.1f} s"),
}


def bench(
    store: Store = DEFAULT_STORE,
    workload: Annotated[Workload, typer.Option(help="What to measure.")] = Workload.THROUGHPUT,
    runs: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000_000, show_default=False, help="How many runs. Default: 50000, 2000 or 100000."
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure a store, with runs that do nothing.

    Each has a typed argument and result.

    [b]throughput[/b] submits all runs, then drains them with worker processes; their start is not counted.
    [b]latency[/b] submits one run after the other and waits for each result; the worker is in this process, with
    --processes 2 or more in the others. [b]backlog[/b] compares claiming with all runs queued and with 1,000.

    It uses a queue of its own, lineshaft-bench, so an existing store may be measured; a new one is made where
    there is none.
    """
    from lineshaft.cli.benchmark.workloads import Measurement, measure
    from lineshaft.cli.serve import run_loop
    from lineshaft.control.health import VOLATILE, file_system
    from lineshaft.store.address import sqlite_path

    count = runs or RUNS[workload]
    if file_system(sqlite_path(store)) in VOLATILE:
        printing.stderr().print(
            "warning: this store lies in memory (tmpfs), where a durable commit costs nothing;"
            " the figures say little about a disk.",
            style="yellow",
            soft_wrap=True,
        )
    figures: dict[str, float] = {}
    with _progress(hidden=as_json) as shown:
        bars: dict[str, object] = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in bars:
                bars[phase] = shown.add_task(phase, total=total or None)
            shown.update(bars[phase], completed=done, total=total or None)  # type: ignore[arg-type]

        async def measuring() -> None:
            figures.update(await measure(Measurement(workload, store, count, processes, show)))

        run_loop(measuring())
    document = {"workload": str(workload), "store": store, "runs": count, "processes": processes, **figures}
    if as_json:
        printing.print_json(document)
        return
    _print(document, figures)


def _print(document: dict[str, object], figures: dict[str, float]) -> None:
    console = printing.stdout()
    console.print(
        f"[bold]{document['workload']}[/]  {document['runs']:,} runs  [dim]{printing.plain(document['store'])}[/]",
        soft_wrap=True,
    )
    grid = printing.facts()
    grid.columns[1].justify = "right"
    for name, (title, pattern) in _NAMES.items():
        if name in figures:
            grid.add_row(title, pattern.format(figures[name]))
    console.print(grid)
    printing.stderr().print(
        "The finished runs stay in the store's history, in queue lineshaft-bench, until its retention is over.",
        style="dim",
        soft_wrap=True,
    )


def _progress(*, hidden: bool) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = printing.stderr()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=hidden or not console.is_terminal,
    )
