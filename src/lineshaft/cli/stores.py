"""Commands about a store as such: `doctor`, `migrate`, `backup`, `restore`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from lineshaft.cli import printing
from lineshaft.cli.acting import at_desk
from lineshaft.cli.failing import FAILED
from lineshaft.cli.options import DEFAULT_STORE, AsJson, Store

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]note[/]", "problem": "[bold red]wrong[/]"}


def doctor(
    store: Store = DEFAULT_STORE,
    max_age: Annotated[
        str, typer.Option(metavar="DURATION", help="A ready run that is older than this is wrong.")
    ] = "5m",
    as_json: AsJson = False,
) -> None:
    """Examine a store and its workers.

    Exit code 1 when something is wrong; notes alone leave it 0.
    """
    from lineshaft.control import documents, health
    from lineshaft.core.duration import seconds

    max_age_s = seconds(max_age, "--max-age")
    checks = asyncio.run(health.examine(store, oldest_ready_s_max=max_age_s))
    wrong = [check for check in checks if check.level == "problem"]
    if as_json:
        printing.print_json({"healthy": not wrong, "checks": [documents.check(check) for check in checks]})
    else:
        console = printing.stdout()
        grid = printing.facts()
        grid.columns[0].style = ""
        grid.add_column(overflow="fold")
        for check in checks:
            found = printing.plain(check.found)
            if check.advice:
                found += f"\n[dim]{printing.plain(check.advice)}[/]"
            grid.add_row(_MARKS[check.level], f"[dim]{check.name}[/]", found)
        console.print(grid)
        summary = f"[bold red]{len(wrong)} wrong.[/]" if wrong else "[green]All is well.[/]"
        console.print(f"\n{summary}")
    if wrong:
        raise typer.Exit(FAILED)


def migrate(store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Make or upgrade Lineshaft's tables.

    In a new file, or beside yours in an existing database. Stop the workers of an older version and make a backup first.
    """
    from lineshaft.control import stores

    done = stores.migrate(store)
    if as_json:
        printing.print_json({"store": done.address, "before": done.before, "after": done.after})
        return
    if not done.changed:
        text = f"It is at revision {done.after} already."
    elif done.before is None:
        text = f"Tables made, revision {done.after}."
    else:
        text = f"Brought from revision {done.before} to {done.after}."
    printing.stdout().print(f"{printing.plain(done.address)}: {text}", soft_wrap=True)


def backup(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that does not exist yet.", show_default=False)
    ],
    store: Store = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Copy a store into a file while it is in use.

    The copy is consistent as of one moment.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from lineshaft.control import backups, health

    console = printing.stderr()
    shown = Progress(
        TextColumn("Copying"),
        BarColumn(),
        TaskProgressColumn(),
        console=console,
        transient=True,
        disable=as_json or not console.is_terminal,
    )
    with shown:
        bar = shown.add_task("", total=None)
        size_bytes = at_desk(
            store,
            lambda desk: backups.backup(
                desk, file.absolute(), lambda done, total: shown.update(bar, completed=done, total=total)
            ),
        )
    if as_json:
        printing.print_json({"file": str(file), "bytes": size_bytes})
    else:
        printing.stdout().print(f"{printing.plain(file)}: {health.size(size_bytes)} written.", soft_wrap=True)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.", show_default=False)],
    store: Store = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Put a backup where a store was lost.

    Nothing may be at that address any more. What finished after the backup was taken may be executed again: the report says how much is open.
    """
    from lineshaft.control import backups

    done = backups.restore(file, store)
    if as_json:
        printing.print_json({"store": store, "unfinished": done.unfinished, "running": done.running})
        return
    console = printing.stdout()
    console.print(f"Restored to {printing.plain(store)}.", soft_wrap=True)
    if not done.unfinished:
        console.print("No run was unfinished when the backup was taken: nothing is executed twice.")
        return
    are = "run was" if done.unfinished == 1 else "runs were"
    console.print(
        f"{done.unfinished:,} {are} unfinished when the backup was taken, {done.running:,} of them executing."
        " Those that finished since are executed again once a worker starts; look at them first with"
        " `lineshaft runs list`."
    )
