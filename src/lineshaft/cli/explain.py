"""`lineshaft explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli import printing
from lineshaft.cli.failing import NOT_FOUND, CommandFailed
from lineshaft.cli.loading import load
from lineshaft.cli.options import AsJson, ModuleApp

if TYPE_CHECKING:
    from lineshaft.control.explain import Explained


def explain(
    target: ModuleApp,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A task of the App.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say what applies to a task, and where each setting comes from."""
    from lineshaft.control import documents
    from lineshaft.control import explain as explaining

    registry = load(target).registry
    found = explaining.explain(registry, name)
    if not found:
        known = ", ".join(explaining.known(registry)) or "none"
        raise CommandFailed(
            f"{target} declares no task {name!r}.", hint=f"Its tasks are: {known}.", exit_code=NOT_FOUND
        )
    if as_json:
        printing.print_json([documents.explained(task) for task in found])
        return
    for number, task in enumerate(found):
        if number:
            printing.stdout().print()
        _print(task)


def _print(task: Explained) -> None:
    console = printing.stdout()
    console.print(f"[bold]{printing.plain(task.task)}[/]  [dim]version[/] {printing.plain(task.version)}")
    console.print(
        f"[dim]{printing.plain(task.function)} at {printing.plain(_near(task.where))}[/]", soft_wrap=True
    )
    console.print()
    grid = printing.facts()
    for setting in task.settings:
        is_default = setting.source == "default"
        value = printing.plain(setting.value)
        if is_default:
            grid.add_row(setting.name, f"{value}  [dim](default)[/]")
        elif setting.source == task.where:
            grid.add_row(setting.name, f"[bold]{value}[/]")
        else:
            grid.add_row(setting.name, f"[bold]{value}[/]  [dim]({printing.plain(_near(setting.source))})[/]")
    console.print(grid)
    console.print(f"\n[dim]Bold: declared at {printing.plain(_near(task.where))}.[/]", soft_wrap=True)


def _near(where: str) -> str:
    """A path as seen from here."""
    from pathlib import Path

    path, colon, line = where.rpartition(":")
    try:
        return f"{Path(path).relative_to(Path.cwd())}{colon}{line}"
    except ValueError:
        return where
