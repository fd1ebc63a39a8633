"""How things look on a terminal, and how they are printed for programs."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPED_WIDTH = 200
"""Columns where the output is no terminal: nobody wants ids cut in a file."""
STATE_STYLES = {
    "scheduled": "cyan",
    "ready": "blue",
    "running": "bold blue",
    "waiting": "cyan",
    "compensating": "yellow",
    "paused": "yellow",
    "parked": "bold yellow",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "dim",
    "outcome_unknown": "bold magenta",
}


def stdout() -> Console:
    """The console of results."""
    return _console(stderr=False)


def stderr() -> Console:
    """The console of errors, progress and remarks."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def print_json(document: Any) -> None:
    """One JSON document on stdout: readable on a terminal, one line for programs."""
    console = stdout()
    if console.is_terminal:
        console.print_json(json.dumps(document, ensure_ascii=False))
    else:
        typer.echo(json.dumps(document, ensure_ascii=False, separators=(",", ":")))


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without frames: headings, and what is below them."""
    from rich.table import Table

    made = Table(box=None, show_edge=False, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", no_wrap=True, overflow="ellipsis")
    return made


def facts() -> Table:
    """Names and values, one a line."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    return made


def state(name: str) -> str:
    """A state, coloured."""
    style = STATE_STYLES.get(name)
    return f"[{style}]{name}[/]" if style else name


def plain(text: object) -> str:
    """Text of a user's, safe to print: neither markup nor control characters act."""
    from rich.markup import escape

    return escape("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text)))


def lines(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(plain(line.expandtabs()) for line in text.splitlines())
