"""`lineshaft runs`: list, show, why, retry, cancel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli import printing
from lineshaft.cli.acting import at_desk
from lineshaft.cli.failing import BAD_INPUT, CommandFailed
from lineshaft.cli.options import DEFAULT_STORE, AsJson, RunId, Store

if TYPE_CHECKING:
    from lineshaft.control.runs import RunDetails
    from lineshaft.core.states import State
    from lineshaft.engine.why import Why
    from lineshaft.store.values import AttemptView, RunView

app = typer.Typer(help="Look at runs, retry and cancel them.", no_args_is_help=True)
PAYLOAD_CHARS_MAX = 4_000


@app.command("list")
def listing(
    state: Annotated[
        list[str] | None, typer.Option(help="Only runs in this state; may be given again.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only runs of this task.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only runs of this tenant.")] = None,
    queue: Annotated[list[str] | None, typer.Option(help="Only runs in this queue.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to show.")] = 20,
    before: Annotated[
        str | None, typer.Option(metavar="RUN", help="Only runs submitted before this one.")
    ] = None,
    store: Store = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""
    from lineshaft.control import documents, runs
    from lineshaft.store.values import RunFilter

    wanted = RunFilter(
        states=_states(state),
        tasks=frozenset(task or ()),
        tenants=frozenset(tenant or ()),
        queues=frozenset(queue or ()),
        before_id=before,
        rows_max=limit,
    )
    found = at_desk(store, lambda desk: runs.listing(desk, wanted))
    if as_json:
        printing.print_json([documents.run(view) for view in found])
        return
    if not found:
        printing.stdout().print("No runs.", style="dim")
        return
    _print_listing(found)
    if len(found) == limit:
        printing.stderr().print(
            f"There may be more: --limit {limit * 5}, or --before {found[-1].id}.",
            style="dim",
            soft_wrap=True,
        )


def _print_listing(found: Sequence[RunView]) -> None:
    console = printing.stdout()
    wide = console.width >= 110
    columns = ["Run", "Task", *(["Queue", "Tenant"] if wide else []), "State", "Tries", "Age", "Took"]
    table = printing.table(*columns, right=("Tries", "Age", "Took"))
    table.columns[0].min_width = 36  # ids stay whole: they are there to be copied
    if not console.is_terminal:
        table.columns[1].overflow = "fold"
    now_us = _now_us()
    for view in found:
        lane = view.lane
        table.add_row(
            view.id,
            printing.plain(lane.task),
            *([printing.plain(lane.queue), printing.plain(lane.tenant)] if wide else []),
            printing.state(view.state),
            str(view.attempts),
            _short(max(0, now_us - view.submitted_us) / 1e6),
            "" if view.wall_us is None else _short(view.wall_us / 1e6),
        )
    console.print(table)


@app.command("show")
def show(run_id: RunId, store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Show a run: arguments, result or error, timings, and every attempt."""
    from lineshaft.control import documents, runs

    details = at_desk(store, lambda desk: runs.show(desk, run_id))
    if as_json:
        printing.print_json(documents.run_details(details))
    else:
        _print_details(details)


@app.command("why")
def why(run_id: RunId, store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Say why a run is not finished, or how it ended."""
    from lineshaft.control import documents, runs

    answer = at_desk(store, lambda desk: runs.why(desk, run_id))
    if as_json:
        printing.print_json(documents.why(answer))
    else:
        _print_why(answer)


@app.command("retry")
def retry(run_id: RunId, store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Make a new run of one that failed, was cancelled or has an unknown outcome.

    The old run stays as it is; the new one is linked to it, and takes over its key.
    """
    from lineshaft.control import documents, runs

    new = at_desk(store, lambda desk: runs.retry(desk, run_id))
    if as_json:
        printing.print_json(documents.run(new))
        return
    printing.stdout().print(f"Run {new.id} retries it.", soft_wrap=True)


@app.command("cancel")
def cancel(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs.", show_default=False)],
    store: Store = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Cancel runs. One that executes is asked to stop; one that has ended stays as it is."""
    from lineshaft.control import runs
    from lineshaft.control.desk import Desk

    async def all_of_them(desk: Desk) -> list[tuple[str, State]]:
        return [(run_id, await runs.cancel(desk, run_id)) for run_id in run_ids]

    states = at_desk(store, all_of_them)
    if as_json:
        printing.print_json([{"id": run_id, "state": state} for run_id, state in states])
        return
    for run_id, state in states:
        printing.stdout().print(f"{run_id}  {_after_cancel(state)}", soft_wrap=True)


# How it looks


def _print_why(answer: Why) -> None:
    console = printing.stdout()
    console.print(f"{printing.state(answer.state)}  [dim]{answer.reason}[/]")
    console.print(printing.plain(answer.sentence))


def _print_details(details: RunDetails) -> None:
    from lineshaft.engine.why import moment

    run, console = details.run, printing.stdout()
    grid = printing.facts()
    grid.add_row("run", run.id)
    version = "" if run.lane.version == "1" else f" version {run.lane.version}"
    grid.add_row("task", f"[bold]{printing.plain(run.lane.task)}[/]{printing.plain(version)}")
    grid.add_row("state", printing.state(run.state))
    grid.add_row("", printing.plain(details.why.sentence))
    grid.add_row("queue", printing.plain(run.lane.queue))
    grid.add_row("tenant", printing.plain(run.lane.tenant))
    if run.key is not None:
        grid.add_row("key", printing.plain(run.key))
    if run.priority:
        grid.add_row("priority", str(run.priority))
    grid.add_row("submitted", moment(run.submitted_us))
    if run.due_us > run.submitted_us + 1_000_000:
        grid.add_row("due", moment(run.due_us))
    started_us = run.started_us or run.claimed_us
    if started_us is not None and run.worker is not None:
        grid.add_row("started", f"{moment(started_us)} on worker {run.worker}")
    if run.finished_us is not None:
        grid.add_row("finished", moment(run.finished_us))
    if run.wall_us is not None:
        grid.add_row("took", _timings(run.wall_us, run.cpu_us))
    attempts = f"{run.attempts + 1}, the last one under way" if run.state == "running" else f"{run.attempts}"
    grid.add_row("attempts", attempts + (f"; {run.crashes} workers died with it" if run.crashes else ""))
    if run.retry_of:
        grid.add_row("retry of", run.retry_of)
    if details.retried_by:
        grid.add_row("retried by", details.retried_by)
    if details.progress is not None:
        progress = details.progress
        of = "" if progress.total is None else f" of {progress.total:g}"
        grid.add_row("progress", f"{progress.done:g}{of} {printing.plain(progress.message)}")
    console.print(grid)
    _print_payload("arguments", run.args)
    _print_payload("result", run.result)
    _print_attempts(details)
    if run.failure is not None and run.failure.traceback:
        console.print("\n[dim]traceback of the last error[/]")
        console.print(printing.lines(run.failure.traceback), soft_wrap=True)


def _print_payload(name: str, data: bytes | None) -> None:
    if not data:
        return
    from rich.json import JSON

    from lineshaft.control.documents import payload

    console = printing.stdout()
    console.print(f"\n[dim]{name}[/]")
    text = json.dumps(payload(data), ensure_ascii=False, indent=2)
    if len(text) > PAYLOAD_CHARS_MAX:
        console.print(printing.lines(text[:PAYLOAD_CHARS_MAX]))
        console.print(f"… ({len(data):,} bytes in all; --json prints everything)", style="dim")
    else:
        console.print(JSON(text) if console.is_terminal else printing.lines(text), soft_wrap=True)


def _print_attempts(details: RunDetails) -> None:
    if not details.attempts:
        return
    from lineshaft.engine.why import moment

    table = printing.table("No.", "Started", "Took", "Error", right=("No.", "Took"))
    for attempt in details.attempts:
        table.add_row(
            str(attempt.number),
            moment(attempt.started_us),
            _short(attempt.wall_us / 1e6),
            printing.plain(_one_line(attempt)),
        )
    console = printing.stdout()
    console.print("\n[dim]earlier attempts[/]")
    console.print(table)


def _one_line(attempt: AttemptView) -> str:
    if attempt.failure is None:
        return ""
    first = (attempt.failure.message.strip().splitlines() or [""])[0]
    return f"{attempt.failure.type.removeprefix('builtins.')}: {first}"


def _timings(wall_us: int, cpu_us: int | None) -> str:
    cpu = "" if cpu_us is None else f", {_short(cpu_us / 1e6)} of it on the CPU"
    return f"{_short(wall_us / 1e6)}{cpu}"


def _after_cancel(state: State) -> str:
    if state == "cancelled":
        return printing.state(state)
    if state in ("running", "compensating"):
        return f"{printing.state(state)}; its worker was asked to stop it"
    return f"{printing.state(state)} already; left as it is"


def _short(duration_s: float) -> str:
    from lineshaft.core.duration import brief

    return brief(duration_s)


def _now_us() -> int:
    from lineshaft.core.clock import SystemClock

    return SystemClock().now_us()


def _states(names: list[str] | None) -> frozenset[State]:
    from lineshaft.core.states import State

    unknown = [name for name in names or () if name not in list(State)]
    if unknown:
        raise CommandFailed(
            f"{unknown[0]!r} is no state of a run.",
            hint=f"States are {', '.join(State)}.",
            exit_code=BAD_INPUT,
        )
    return frozenset(State(name) for name in names or ())
