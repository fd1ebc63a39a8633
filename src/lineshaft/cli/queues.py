"""`lineshaft queues`: what lies in each, and who holds the slots of its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli import printing
from lineshaft.cli.acting import at_desk
from lineshaft.cli.failing import NOT_FOUND, CommandFailed
from lineshaft.cli.options import DEFAULT_STORE, AsJson, Store

if TYPE_CHECKING:
    from lineshaft.control.queues import LimitStanding, QueueDetails

app = typer.Typer(help="Look at queues and their limits.", invoke_without_command=True)


@app.callback()
def queues(context: typer.Context, store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List the queues that have unfinished runs, or show one."""
    if context.invoked_subcommand is None:
        listing(store, as_json)


@app.command("list")
def listing(store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List the queues that have unfinished runs."""
    from lineshaft.control import documents, queues
    from lineshaft.core.clock import SystemClock

    found = at_desk(store, queues.listing)
    now_us = SystemClock().now_us()
    if as_json:
        printing.print_json([documents.queue(view, now_us) for view in found])
        return
    if not found:
        printing.stdout().print("No queue has unfinished runs.", style="dim")
        return
    names = ("ready", "running", "scheduled", "parked")
    titles = [name.capitalize() for name in names]
    others = any(set(view.counts) - set(names) for view in found)
    table = printing.table(
        "Queue", *titles, *(["Other"] if others else []), "Oldest", right=(*titles, "Other", "Oldest")
    )
    for view in found:
        other = sum(count for state, count in view.counts.items() if state not in names)
        counts = [view.counts.get(name, 0) for name in names]  # type: ignore[call-overload]
        table.add_row(
            printing.plain(view.queue),
            *[f"{count:,}" if count else "[dim]0[/]" for count in counts],
            *([f"{other:,}"] if others else []),
            _age(view.oldest_ready_us, now_us),
        )
    printing.stdout().print(table)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A queue.", show_default=False)],
    store: Store = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Show one queue: counts, oldest age, its limits, and who holds each slot."""
    from lineshaft.control import documents, queues
    from lineshaft.core.clock import SystemClock

    details = at_desk(store, lambda desk: queues.show(desk, name))
    if details is None:
        raise CommandFailed(
            f"There is no queue {name!r}: no run was submitted to it, and no live worker declares it.",
            hint="See `lineshaft queues`.",
            exit_code=NOT_FOUND,
        )
    now_us = SystemClock().now_us()
    if as_json:
        printing.print_json(documents.queue_details(details, now_us))
    else:
        _print_details(details, now_us)


def _print_details(details: QueueDetails, now_us: int) -> None:
    console = printing.stdout()
    grid = printing.facts()
    grid.add_row("queue", f"[bold]{printing.plain(details.queue)}[/]")
    counts = ", ".join(f"{count:,} {printing.state(name)}" for name, count in sorted(details.counts.items()))
    grid.add_row("runs", counts or "none that is unfinished")
    grid.add_row("oldest ready", _age(details.oldest_ready_us, now_us) or "none is ready")
    workers = ", ".join(f"{worker.id} (process {worker.pid} on {worker.host})" for worker in details.workers)
    grid.add_row("served by", f"worker {printing.plain(workers)}" if workers else "[yellow]no live worker[/]")
    console.print(grid)
    if not details.limits:
        if details.workers:
            console.print("\n[dim]No live worker declares a limit for it.[/]")
        return
    console.print()
    table = printing.table("Limit", "Allows", "Taken", "By")
    table.columns[3].overflow = "fold"
    table.columns[3].no_wrap = False
    for limit in details.limits:
        table.add_row(printing.plain(limit.key), _allows(limit), _taken(limit), _holders(limit, now_us))
    console.print(table)


def _allows(limit: LimitStanding) -> str:
    from lineshaft.core.duration import brief

    if limit.period_us is None:
        return f"{limit.count:,} at once"
    return f"{limit.count:,} in {brief(limit.period_us / 1e6)}"


def _taken(limit: LimitStanding) -> str:
    if limit.period_us is not None:
        return ""
    text = f"{limit.held:,}"
    return f"[bold yellow]{text}[/]" if limit.held >= limit.count else text


def _holders(limit: LimitStanding, now_us: int) -> str:
    from lineshaft.core.duration import brief

    if limit.opens_us is not None:
        return f"[yellow]opens in {brief((limit.opens_us - now_us) / 1e6)}[/]"
    if limit.period_us is not None:
        return "" if limit.per_tenant else "[dim]open[/]"
    return ", ".join(
        printing.plain(f"worker {holder.worker} ({holder.pid} on {holder.host}): {holder.held}")
        for holder in limit.holders
    )


def _age(us: int | None, now_us: int) -> str:
    from lineshaft.core.duration import brief

    return "" if us is None else brief(max(0, now_us - us) / 1e6)
